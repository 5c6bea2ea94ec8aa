import json

import pytest

from conftest import CLASSES
from rnndet.data.formats import FORMATS, read_set, reader_options
from rnndet.errors import RnndetError


def edit(root, change):
    path = root / "annotations" / "train.json"
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def test_reads_classes_videos_frames_and_boxes(coco_vid_root):
    found = read_set("coco_vid", coco_vid_root, "train")
    assert found.classes == CLASSES
    assert [v.name for v in found.videos] == ["v0", "v1"]
    assert found.videos[0].group == "0"
    assert found.videos[0].frames[2].target.boxes.tolist() == [[14.0, 20.0, 30.0, 36.0]]


def test_frame_without_annotations_is_labelled_empty(coco_vid_root):
    edit(coco_vid_root, lambda tree: tree["annotations"].pop(0))
    target = read_set("coco_vid", coco_vid_root, "train").videos[0].frames[0].target
    assert target is not None and len(target) == 0


def test_boxes_are_clipped_to_the_image(coco_vid_root):
    edit(coco_vid_root, lambda tree: tree["annotations"][0].update(bbox=[-10, 50, 40, 40]))
    target = read_set("coco_vid", coco_vid_root, "train").videos[0].frames[0].target
    assert target.boxes.tolist() == [[0.0, 50.0, 30.0, 64.0]]


def test_crowd_is_ignored(coco_vid_root):
    edit(coco_vid_root, lambda tree: tree["annotations"][0].update(iscrowd=1))
    target = read_set("coco_vid", coco_vid_root, "train").videos[0].frames[0].target
    assert target.ignore.tolist() == [True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("categories"), "lacks the list 'categories'"),
        (lambda t: t["images"][0].update(id=2), r"images\[1\]: id 2 is used twice"),
        (lambda t: t["annotations"][0].update(image_id=999), "no image 999"),
        (lambda t: t["annotations"][0].update(category_id=9), "no category 9"),
        (lambda t: t["images"][0].update(video_id=9), "no video 9"),
        (
            lambda t: t["annotations"][0].update(bbox=[0, 0, float("nan"), 1]),
            r"annotation 1: box \(0, 0, nan, 1\)",
        ),
        (lambda t: t.update(videos="many"), "not in CocoVID form"),
        (lambda t: t.update(images=[]), "holds no videos with images"),
        (lambda t: t["annotations"][0].update(bbox=[9, 9, -5, 5]), "has a negative size"),
        (lambda t: t["annotations"][0].update(bbox=[0, 0, 1e9, 5]), "annotation 1: .* pixels"),
        (lambda t: t["annotations"][0].update(bbox=[10**400, 0, 9, 9]), "annotation 1: .*numbers"),
        (lambda t: t["annotations"][0].update(instance_id=2**63), "annotation 1: id .* range"),
        (lambda t: t["images"][0].update(file_name="../x.jpg"), "lies outside"),
        (lambda t: t["images"][0].update(frame_id="one"), r"images\[0\]: frame_id"),
        (lambda t: t["images"][0].update(frame_id=-1), r"images\[0\]: frame_id"),
        (lambda t: t["images"][0].update(frame_id=10**30), r"images\[0\]: frame_id"),
        (lambda t: t["images"][3].update(frame_id=2), "image 4: frame 2 of its video is image 3"),
        (lambda t: t["images"][0].pop("file_name"), "image 1: has no file_name"),
        (lambda t: t["images"][0].update(file_name="\0"), "image 1: .* is no path"),
        (lambda t: t["images"][0].update(file_name="\ud800"), "image 1: .* is no path"),
        (lambda t: t["annotations"][0].update(bbox="1234"), "annotation 1: bbox 1234 .*numbers"),
        (lambda t: t["annotations"][0].update(bbox={"1": 2}), "annotation 1: .*numbers"),
        (lambda t: t["categories"][0].update(name=None), r"categories\[0\]: the name is not text"),
        (lambda t: t["categories"][0].update(name="\ud800"), r"categories\[0\]: the name is not"),
        (lambda t: t["categories"][1].update(name=CLASSES[0]), "name 'square' is used twice"),
        (lambda t: t["videos"][1].update(name="v0"), r"videos\[1\]: name 'v0' is used twice"),
        (lambda t: t["videos"][0].update(name="/tmp"), r"videos\[0\]: name '/tmp' cannot be"),
        (lambda t: t["videos"][0].update(name="../v"), r"videos\[0\]: name '../v' cannot be"),
        (lambda t: t["videos"][0].update(name="."), r"videos\[0\]: name '.' cannot be"),
        (lambda t: t["videos"][0].update(height="64"), r"videos\[0\]: width or height"),
        (lambda t: t["videos"][0].update(fps="fast"), r"videos\[0\]: fps is not a number"),
        (lambda t: t["videos"][0].update(fps=float("nan")), r"videos\[0\]: fps is not a number"),
        (lambda t: t["videos"][0].update(fps=10**400), r"videos\[0\]: fps is not a number"),
        (lambda t: t["videos"][0].update(file_name=7), r"videos\[0\]: file_name 7 .* no path"),
        (lambda t: t["videos"][0].update(file_name="/v.mp4"), r"videos\[0\]: file_name /v.mp4"),
    ],
)
def test_broken_entry_is_named(coco_vid_root, change, message):
    edit(coco_vid_root, change)
    with pytest.raises(RnndetError, match=message):
        read_set("coco_vid", coco_vid_root, "train")


def test_files_elsewhere_are_read_where_that_is_allowed(coco_vid_root, tmp_path):
    def move(tree):
        tree["images"][0]["file_name"] = str(tmp_path / "elsewhere.jpg")
        tree["videos"][1]["file_name"] = "../v.mp4"

    edit(coco_vid_root, move)
    first, second = read_set("coco_vid", coco_vid_root, "train", allow_outside=True).videos
    assert first.frames[0].image == tmp_path / "elsewhere.jpg"
    assert second.path == coco_vid_root / "../v.mp4"


def test_what_is_no_path_is_refused_everywhere(coco_vid_root):
    edit(coco_vid_root, lambda tree: tree["images"][0].update(file_name="\0"))
    with pytest.raises(RnndetError, match="is no path"):
        read_set("coco_vid", coco_vid_root, "train", allow_outside=True)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000])
def test_broken_json_is_one_clear_line(coco_vid_root, text):
    (coco_vid_root / "annotations" / "train.json").write_text(text)
    with pytest.raises(RnndetError, match=r"train\.json: not (valid|in CocoVID)"):
        read_set("coco_vid", coco_vid_root, "train")


def test_unknown_format_lists_the_choices(tmp_path):
    with pytest.raises(RnndetError, match="choose one of: bdd100k_mot, coco_vid"):
        read_set("voc", tmp_path, "train")


def test_unknown_option_names_the_nearest(tmp_path):
    with pytest.raises(RnndetError, match="did you mean 'annotations'"):
        read_set("coco_vid", tmp_path, "train", annotation="x.json")


def test_bad_entries_are_left_out_on_request(coco_vid_root):
    edit(coco_vid_root, lambda tree: tree["annotations"][0].update(bbox=[9, 9, -5, 5]))
    found = read_set("coco_vid", coco_vid_root, "train", skip_bad=True)
    assert [len(frame.target) for frame in found.videos[0].frames] == [0, 1, 1, 1, 1, 1]


def test_every_bad_entry_is_found_in_one_go(coco_vid_root):
    def change(tree):
        for annotation in tree["annotations"][:3]:
            annotation.update(bbox=[9, 9, -5, 5])

    edit(coco_vid_root, change)
    with pytest.raises(RnndetError, match=r"(?s)3 entries.*annotation 1:.*annotation 3:"):
        read_set("coco_vid", coco_vid_root, "train")


def test_keys_that_are_null_are_as_if_they_were_not_there(coco_vid_root):
    keys = ("width", "height", "fps", "file_name", "scene")
    edit(coco_vid_root, lambda tree: tree["videos"][0].update(dict.fromkeys(keys)))
    edit(coco_vid_root, lambda tree: tree["annotations"][0].update(instance_id=None))
    video = read_set("coco_vid", coco_vid_root, "train").videos[0]
    assert (video.fps, video.path, video.group) == (None, None, None)
    assert video.frames[0].target.ids.tolist() == [-1]


def test_a_image_without_name_is_left_out_on_request(coco_vid_root):
    edit(coco_vid_root, lambda tree: tree["images"][0].pop("file_name"))
    video = read_set("coco_vid", coco_vid_root, "train", skip_bad=True).videos[0]
    assert [frame.index for frame in video.frames] == [1, 2, 3, 4, 5]


def test_where_no_video_is_left_the_reasons_are_named(coco_vid_root):
    edit(coco_vid_root, lambda tree: [video.pop("name") for video in tree["videos"]])
    with pytest.raises(RnndetError, match=r"videos\[0\]: lacks the key 'name'"):
        read_set("coco_vid", coco_vid_root, "train", skip_bad=True)


@pytest.mark.parametrize(
    ("format", "options", "message"),
    [
        ("mot", {"classes": "bird"}, "classes must be a list, found 'bird'"),
        ("mot", {"classes": [1]}, "classes.0 must be str"),
        ("imagenet_vid", {"index": 5}, "index must be str, found 5"),
        ("imagenet_vid", {"unlabelled": "yes"}, "unlabelled must be bool"),
    ],
)
def test_option_of_another_kind_is_refused(tmp_path, format, options, message):
    with pytest.raises(RnndetError, match=message):
        read_set(format, tmp_path, "train", **options)


def test_option_that_is_an_argument_of_its_own_is_refused():
    with pytest.raises(RnndetError, match="--option split"):
        reader_options(["split=val"])


@pytest.mark.parametrize("name", ["{", "{year}.json", "x" * 5000])
def test_any_name_of_the_file_gives_one_clear_line(coco_vid_root, name):
    with pytest.raises(RnndetError, match=r"no such annotation file|cannot be read"):
        read_set("coco_vid", coco_vid_root, "train", annotations=name)


def test_a_folder_that_cannot_be_read_is_one_clear_line(coco_vid_root, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", "data/gt")

    monkeypatch.setitem(FORMATS, "coco_vid", refuse)
    with pytest.raises(RnndetError, match="data/gt: cannot be read: Permission denied"):
        read_set("coco_vid", coco_vid_root, "train")
