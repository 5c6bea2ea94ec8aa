"""Reader of YouTube-VIS."""

import json

import numpy as np
import pytest

from rnndet.data.formats import read_set
from rnndet.data.problems import Problems
from rnndet.errors import InputError
from rnndet.video.image import write_image


def make_tree():
    names = [[f"{folder}/{n:05d}.jpg" for n in (0, 5, 10)] for folder in ("v_a", "v_b")]
    size = {"width": 48, "height": 32, "length": 3}
    return {
        "categories": [{"id": 9, "name": "sheep"}, {"id": 4, "name": "bus"}],
        "videos": [{"id": i + 1, "file_names": names[i]} | size for i in range(2)],
        "annotations": [
            {"id": 21, "video_id": 1, "category_id": 9, "iscrowd": 0}
            | {"bboxes": [[4, 5, 10, 12], None, [6, 5, 10, 12]]},
            {"id": 22, "video_id": 1, "category_id": 4, "iscrowd": 1}
            | {"bboxes": [None, None, [0.5, 1, 20, 20]]},
        ],
    }


@pytest.fixture
def root(tmp_path):
    tree = make_tree()
    for video in tree["videos"]:
        for name in video["file_names"]:
            path = tmp_path / "train/JPEGImages" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, np.zeros((32, 48, 3), np.uint8))
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/train.json").write_text(json.dumps(tree))
    return tmp_path


def edit(root, change):
    path = root / "annotations/train.json"
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def load(root, **options):
    return read_set("youtube_vis", root, "train", **options)


def test_reads_classes_videos_and_frames(root):
    found = load(root)
    assert found.classes == ("bus", "sheep")
    assert [(v.name, v.height, v.width, v.fps) for v in found.videos] == [
        ("v_a", 32, 48, None), ("v_b", 32, 48, None),
    ]  # fmt: skip
    assert [frame.index for frame in found.videos[0].frames] == [0, 1, 2]
    assert found.videos[0].frames[1].image == root / "train/JPEGImages/v_a/00005.jpg"


def test_track_has_a_box_in_each_frame_where_it_is_visible(root):
    targets = [frame.target for frame in load(root).videos[0].frames]
    assert [len(target) for target in targets] == [1, 0, 2]
    assert targets[0].boxes.tolist() == [[4, 5, 14, 17]]
    assert targets[2].boxes.tolist() == [[6, 5, 16, 17], [0.5, 1, 20.5, 21]]
    assert targets[2].labels.tolist() == [1, 0]
    assert targets[2].ids.tolist() == [21, 22]


def test_crowds_are_ignored(root):
    assert load(root).videos[0].frames[2].target.ignore.tolist() == [False, True]


def test_video_without_tracks_is_labelled_empty(root):
    assert [len(frame.target) for frame in load(root).videos[1].frames] == [0, 0, 0]


@pytest.mark.parametrize("value", [None, "absent"])
def test_file_without_annotations_is_unlabelled(root, value):
    edit(root, lambda tree: tree.pop("annotations"))
    if value is None:
        edit(root, lambda tree: tree.update(annotations=None))
    assert {frame.target for video in load(root).videos for frame in video.frames} == {None}


def test_places_of_file_and_images_can_be_given(root):
    (root / "annotations").rename(root / "lists")
    (root / "train/JPEGImages").rename(root / "images")
    found = load(root, annotations="lists/{split}.json", images_dir="images")
    assert len(found.videos) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("videos"), "lacks the list 'videos'"),
        (lambda t: t["categories"][0].update(name="bus"), "name 'bus' is used twice"),
        (lambda t: t["annotations"][0]["bboxes"].__setitem__(2, "1234"), "1234 is not made of"),
        (lambda t: t.update(annotations={}), "'annotations' is not a list"),
        (lambda t: t.update(videos=[], annotations=[]), "holds no videos"),
        (lambda t: t["videos"][0].update(id="one"), r"videos\[0\]: not an object with an id"),
        (lambda t: t["videos"][0].update(id=2), r"videos\[1\]: id 2 is used twice"),
        (lambda t: t["videos"][1].pop("width"), r"videos\[1\]: lacks the key 'width'"),
        (lambda t: t["videos"][1].update(width="48"), r"videos\[1\]: width or height"),
        (lambda t: t["videos"][1].update(file_names=3), r"videos\[1\]: file_names is not"),
        (lambda t: t["videos"][1].update(file_names=[]), r"videos\[1\]: file_names is empty"),
        (lambda t: t["videos"][1].update(file_names=["../x.jpg"]), "lies outside"),
        (
            lambda t: t["videos"][1].update(file_names=["v_a/00000.jpg"]),
            "video 2: another video is named 'v_a', too",
        ),
        (
            lambda t: t["videos"][1].update(file_names=["v_b/x.jpg"]),
            r"video 2, file_names\[0\]: there is no image .*x\.jpg",
        ),
        (lambda t: t["annotations"][0].update(video_id=7), "annotation 21: there is no video 7"),
        (lambda t: t["annotations"][0].update(video_id=[]), "annotation 21: there is no video"),
        (lambda t: t["annotations"][0].update(category_id=1), "annotation 21: .*category 1"),
        (lambda t: t["annotations"][0].update(id=10**400), r"annotations\[0\]: not an object"),
        (
            lambda t: t["annotations"][0].update(bboxes=[None]),
            "annotation 21: 1 bbox for 3 frames",
        ),
        (lambda t: t["annotations"][0].pop("bboxes"), "annotation 21: lacks the list 'bboxes'"),
        (
            lambda t: t["annotations"][0].update(bboxes=None, segmentations=[]),
            "annotation 21: has masks but no bboxes",
        ),
        (
            lambda t: t["annotations"][0]["bboxes"].__setitem__(2, [10**400, 0, 9]),
            r"annotation 21, bboxes\[2\]: .*not made of four numbers",
        ),
    ],
)
def test_invalid_entry_is_reported(root, change, message):
    edit(root, change)
    with pytest.raises(InputError, match=message):
        load(root)


def test_missing_file_is_named(root):
    (root / "annotations/train.json").unlink()
    with pytest.raises(InputError, match=r"train\.json: no such annotation file; .* annotations$"):
        load(root)


def test_frame_without_image_is_left_out(root):
    (root / "train/JPEGImages/v_a/00005.jpg").unlink()
    problems = Problems()
    videos = load(root, skip_bad=True, problems=problems).videos
    assert [frame.index for frame in videos[0].frames] == [0, 2] and len(problems) == 1
