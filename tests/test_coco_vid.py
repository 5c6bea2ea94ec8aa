import json

import pytest

from conftest import CLASSES
from rnndet.data import read_set
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
    assert found.videos[0].frames[2].truth.boxes.tolist() == [[14.0, 20.0, 30.0, 36.0]]


def test_frame_without_annotations_is_labelled_empty(coco_vid_root):
    edit(coco_vid_root, lambda tree: tree["annotations"].pop(0))
    truth = read_set("coco_vid", coco_vid_root, "train").videos[0].frames[0].truth
    assert truth is not None and len(truth) == 0


def test_boxes_are_clipped_to_the_picture(coco_vid_root):
    edit(coco_vid_root, lambda tree: tree["annotations"][0].update(bbox=[-10, 50, 40, 40]))
    truth = read_set("coco_vid", coco_vid_root, "train").videos[0].frames[0].truth
    assert truth.boxes.tolist() == [[0.0, 50.0, 30.0, 64.0]]


def test_crowd_is_ignored(coco_vid_root):
    edit(coco_vid_root, lambda tree: tree["annotations"][0].update(iscrowd=1))
    truth = read_set("coco_vid", coco_vid_root, "train").videos[0].frames[0].truth
    assert truth.ignore.tolist() == [True]


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
    ],
)
def test_broken_entry_is_named(coco_vid_root, change, message):
    edit(coco_vid_root, change)
    with pytest.raises(RnndetError, match=message):
        read_set("coco_vid", coco_vid_root, "train")


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
    assert [len(frame.truth) for frame in found.videos[0].frames] == [0, 1, 1, 1, 1, 1]


def test_every_bad_entry_is_found_in_one_go(coco_vid_root):
    def change(tree):
        for annotation in tree["annotations"][:3]:
            annotation.update(bbox=[9, 9, -5, 5])

    edit(coco_vid_root, change)
    with pytest.raises(RnndetError, match=r"(?s)3 entries.*annotation 1:.*annotation 3:"):
        read_set("coco_vid", coco_vid_root, "train")
