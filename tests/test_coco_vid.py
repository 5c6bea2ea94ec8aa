"""Reader of CocoVID."""

import json

import pytest

from conftest import CLASSES
from rnndet.data.formats import read_set
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


@pytest.mark.parametrize(
    ("keys", "identity"),
    [
        ({"track_id": 5}, 5),  # of TAO and ByteTrack
        ({"track_id": 5, "instance_id": 3}, 3),
        ({"track_id": 5, "instance_id": None}, 5),
        ({"track_id": None}, -1),
    ],
)
def test_identity_may_be_called_track_id(coco_vid_root, keys, identity):
    def change(tree):
        del tree["annotations"][0]["instance_id"]
        tree["annotations"][0].update(keys)

    edit(coco_vid_root, change)
    target = read_set("coco_vid", coco_vid_root, "train").videos[0].frames[0].target
    assert target.ids.tolist() == [identity]


def test_coco_of_single_images_is_named_and_the_message_says_what_to_do(coco_vid_root):
    edit(coco_vid_root, lambda tree: tree.pop("videos"))
    with pytest.raises(RnndetError, match=r"lacks the list 'videos', .* export YOLO or Pascal VOC"):
        read_set("coco_vid", coco_vid_root, "train")


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
        (lambda t: t.update(videos="many"), "not in CocoVID form"),
        (lambda t: t.update(images=[]), "holds no videos with images"),
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
def test_invalid_entry_is_reported(coco_vid_root, change, message):
    edit(coco_vid_root, change)
    with pytest.raises(RnndetError, match=message):
        read_set("coco_vid", coco_vid_root, "train")


def test_files_outside_the_folder_are_read_with_allow_outside(coco_vid_root, tmp_path):
    def move(tree):
        tree["images"][0]["file_name"] = str(tmp_path / "elsewhere.jpg")
        tree["videos"][1]["file_name"] = "../v.mp4"

    edit(coco_vid_root, move)
    first, second = read_set("coco_vid", coco_vid_root, "train", allow_outside=True).videos
    assert first.frames[0].image == tmp_path / "elsewhere.jpg"
    assert second.path == coco_vid_root / "../v.mp4"


def test_name_that_is_not_a_path_is_refused_with_allow_outside_too(coco_vid_root):
    edit(coco_vid_root, lambda tree: tree["images"][0].update(file_name="\0"))
    with pytest.raises(RnndetError, match="is no path"):
        read_set("coco_vid", coco_vid_root, "train", allow_outside=True)


def test_all_invalid_entries_are_reported_at_once(coco_vid_root):
    def change(tree):
        for annotation in tree["annotations"][:3]:
            annotation.update(bbox=[9, 9, -5, 5])

    edit(coco_vid_root, change)
    with pytest.raises(RnndetError, match=r"(?s)3 entries.*annotation 1:.*annotation 3:"):
        read_set("coco_vid", coco_vid_root, "train")


def test_null_is_the_same_as_a_missing_key(coco_vid_root):
    keys = ("width", "height", "fps", "file_name", "scene")
    edit(coco_vid_root, lambda tree: tree["videos"][0].update(dict.fromkeys(keys)))
    edit(coco_vid_root, lambda tree: tree["annotations"][0].update(instance_id=None))
    video = read_set("coco_vid", coco_vid_root, "train").videos[0]
    assert (video.fps, video.path, video.group) == (None, None, None)
    assert video.frames[0].target.ids.tolist() == [-1]


def test_image_without_name_is_left_out_on_request(coco_vid_root):
    edit(coco_vid_root, lambda tree: tree["images"][0].pop("file_name"))
    video = read_set("coco_vid", coco_vid_root, "train", skip_bad=True).videos[0]
    assert [frame.index for frame in video.frames] == [1, 2, 3, 4, 5]


def test_set_without_a_usable_video_names_the_reason(coco_vid_root):
    edit(coco_vid_root, lambda tree: [video.pop("name") for video in tree["videos"]])
    with pytest.raises(RnndetError, match=r"videos\[0\]: lacks the key 'name'"):
        read_set("coco_vid", coco_vid_root, "train", skip_bad=True)


@pytest.mark.parametrize("name", ["{", "{year}.json", "x" * 5000])
def test_missing_annotation_file_is_one_line_for_any_name(coco_vid_root, name):
    with pytest.raises(RnndetError, match=r"no such annotation file|cannot be read"):
        read_set("coco_vid", coco_vid_root, "train", annotations=name)
