"""Reader of BDD100K MOT."""

import json
from functools import partial

import labelled_sets
import pytest

from rnndet.data.formats import bdd100k_mot
from rnndet.data.targets import ANY_CLASS
from rnndet.errors import RnndetError

read = partial(labelled_sets.read, "bdd100k_mot")


def label(name="00091078", category="car", **more):
    return {
        "id": name,
        "category": category,
        "attributes": {"occluded": False, "truncated": False, "crowd": False},
        "box2d": {"x1": 10.5, "y1": 8, "x2": 30, "y2": 20},
    } | more


LABELS = ([], [label()], None)


def frames():
    """Three frames of one video; the second has a car, the third no list of labels."""
    names = [{"name": f"{i:06d}.jpg", "videoName": "v", "frameIndex": i} for i in range(3)]
    return [entry | {"labels": labels} for entry, labels in zip(names, LABELS, strict=True)]


def write(root, tree):
    (file,) = labelled_sets.write_set("bdd100k_mot", root)
    file.write_text(json.dumps(tree))


def targets(root, *labels):
    tree = frames()
    tree[1]["labels"] = list(labels)
    write(root, tree)
    return read(root).videos[0].frames[1].target


def test_id_keeps_its_number_through_the_video(tmp_path):
    tree = frames()
    tree[0]["labels"] = [label("b"), label("a")]
    tree[1]["labels"] = [label("c"), label("a")]
    write(tmp_path, tree[::-1])
    first, second, _ = read(tmp_path).videos[0].frames
    assert first.target.ids.tolist() == [1, 2]
    assert second.target.ids.tolist() == [3, 2]


def test_frames_may_be_numbered_by_index(tmp_path):
    tree = [{"name": f["name"], "index": f["frameIndex"], "labels": f["labels"]} for f in frames()]
    write(tmp_path, tree)
    assert [frame.index for frame in read(tmp_path).videos[0].frames] == [0, 1, 2]


@pytest.mark.parametrize("category", ["other person", "trailer", "other vehicle"])
def test_distractors_are_ignore_regions_of_no_class(tmp_path, category):
    target = targets(tmp_path, label(category=category))
    assert (target.labels.tolist(), target.ignore.tolist()) == ([ANY_CLASS], [True])


@pytest.mark.parametrize("key", ["Crowd", "crowd", "ignored"])
def test_crowds_and_ignored_labels_are_ignore_regions_of_no_class(tmp_path, key):
    target = targets(tmp_path, label(attributes={key: True}), label("b", attributes={key: False}))
    assert target.labels.tolist() == [ANY_CLASS, 2]
    assert target.ignore.tolist() == [True, False]


@pytest.mark.parametrize(
    ("other", "name"),
    [
        ("bike", "bicycle"),
        ("caravan", "car"),
        ("motor", "motorcycle"),
        ("person", "pedestrian"),
        ("van", "car"),
    ],
)
def test_other_names_of_the_classes_are_read(tmp_path, other, name):
    target = targets(tmp_path, label(category=other))
    assert target.labels.tolist() == [bdd100k_mot.CLASSES.index(name)]
    assert target.ignore.tolist() == [False]


def test_images_without_labels_are_left_out_and_counted(tmp_path):
    write(tmp_path, frames()[:2])
    videos, notes = labelled_sets.read_notes("bdd100k_mot", tmp_path, "train")
    assert len(videos.videos[0].frames) == 2
    assert notes == ["1 image without labels left out"]


def test_folders_can_be_given(tmp_path):
    write(tmp_path, frames())
    (tmp_path / "labels" / "box_track_20").rename(tmp_path / "labels" / "mine")
    (tmp_path / "images").rename(tmp_path / "frames")
    assert len(read(tmp_path, annotations="labels/mine", images="frames/track").videos) == 1


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (label(box2d={"x1": 10**400, "y1": 0, "x2": 9, "y2": 9}), "label 0: .* numbers"),
        (label(box2d={"x1": 9, "y1": 0}), "frame 1 label 0: lacks .* box2d"),
        (label(box2d=None), "frame 1 label 0: lacks .* box2d"),
        (label(category="tram"), "frame 1 label 0: category 'tram' is unknown"),
        (label(category=["car"]), "frame 1 label 0: category .* is unknown"),
        (label(attributes=[1]), "frame 1 label 0: lacks"),
        ({"category": "car"}, "frame 1 label 0: lacks an id"),
        ("car", "frame 1 label 0: lacks an id"),
    ],
)
def test_invalid_label_is_reported(tmp_path, entry, message):
    with pytest.raises(RnndetError, match=message):
        targets(tmp_path, entry)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": None}, r"v\.json: \[1\]: not an object with a name"),
        ({"name": "../../x.jpg"}, "lies outside"),
        ({"name": "000009.jpg"}, r"\[1\]: there is no image .*000009"),
        ({"frameIndex": 0}, r"\[1\]: frame 0 is there twice"),
        ({"frameIndex": -1}, r"\[1\]: the frame index is not"),
        ({"frameIndex": 10**400}, r"\[1\]: the frame index is not"),
        ({"frameIndex": "1"}, r"\[1\]: the frame index is not"),
        ({"labels": {"id": 1}}, r"\[1\]: labels is not a list"),
    ],
)
def test_invalid_frame_is_reported(tmp_path, change, message):
    tree = frames()
    tree[1].update(change)
    write(tmp_path, tree)
    with pytest.raises(RnndetError, match=message):
        read(tmp_path)
