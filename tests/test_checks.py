"""Checks of data sets."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import CLASSES, write_coco_vid
from rnndet.data.checks.images import fingerprint
from rnndet.data.checks.labels import check_labels
from rnndet.data.checks.run import check_dataset
from rnndet.data.problems import Problems
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.data.targets import TargetBuilder
from rnndet.errors import InputError, RnndetError
from rnndet.structures import Target
from rnndet.video.image import write_image


def edit(root, change, split="train"):
    path = root / "annotations" / f"{split}.json"
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def found(root, *splits, **options):
    report = check_dataset("coco_vid", root, splits or ("train",), **options)
    return [str(finding) for finding in report.findings]


def copy_split(root, *, images=True):
    """The training set once more as "val", with other names of videos and files."""
    text = (root / "annotations" / "train.json").read_text()
    for name in ("v0", "v1"):
        text = text.replace(name, f"w{name}")
        if images:
            shutil.copytree(root / name, root / f"w{name}")
    (root / "annotations" / "val.json").write_text(text)


def test_good_set_has_no_findings(coco_vid_root):
    report = check_dataset("coco_vid", coco_vid_root, ["train"], decode="all")
    assert report.findings == ()
    assert report.summary() == "0 errors, 0 notes, 2 videos, 12 frames"


def test_good_video_files_have_no_findings(tmp_path):
    write_coco_vid(tmp_path, as_files=True)
    assert found(tmp_path) == []


# files


def test_missing_and_empty_images_are_one_finding_per_video(coco_vid_root):
    missing = coco_vid_root / "v1" / "000001.png"
    missing.unlink()
    (coco_vid_root / "v1" / "000004.png").write_bytes(b"")
    assert found(coco_vid_root) == [
        f"error: train: v1: image is missing or empty: {missing}, and 1 more such"
    ]


@pytest.mark.parametrize(
    ("decode", "number", "count"), [("all", 1, 1), ("sample", 5, 1), ("none", 5, 0)]
)
def test_unreadable_image_is_an_error_if_it_is_decoded(coco_vid_root, decode, number, count):
    (coco_vid_root / "v0" / f"{number:06d}.png").write_text("text")
    lines = found(coco_vid_root, decode=decode)
    assert len(lines) == count
    assert all("error: train: v0: " in line and "not an image" in line for line in lines)


def test_image_of_another_size_is_an_error(coco_vid_root):
    write_image(coco_vid_root / "v0" / "000000.png", np.zeros((10, 20, 3), np.uint8))
    (line,) = found(coco_vid_root)
    assert line == "error: train: v0: frame 0 has 20x10 pixels; the labels are for 96x64"


def test_video_file_that_ends_before_its_last_frame_is_an_error(tmp_path):
    write_coco_vid(tmp_path, videos=1, as_files=True)
    edit(tmp_path, lambda tree: tree["images"][5].update(frame_id=60))
    assert any("v0.avi: ends before frame 60" in line for line in found(tmp_path))


@pytest.mark.parametrize("content", [None, b"", b"no video"])
def test_video_file_that_cannot_be_read_is_an_error(tmp_path, content):
    write_coco_vid(tmp_path, videos=1, as_files=True)
    (tmp_path / "v0.avi").unlink()
    if content is not None:
        (tmp_path / "v0.avi").write_bytes(content)
    (line,) = found(tmp_path)
    assert line.startswith("error: train: v0: ") and "v0.avi" in line


def test_check_of_images_ends_if_too_many_cannot_be_read(tmp_path):
    write_coco_vid(tmp_path, videos=2, length=11)
    for file in (tmp_path / "v0").iterdir():
        file.unlink()
    (tmp_path / "v1" / "000000.png").write_text("text")
    lines = found(tmp_path)
    assert lines[-1].startswith("error: train: 11 of 22 frames cannot be read, more than 0.1 %")
    assert not any("not an image" in line for line in lines)


def test_unknown_decode_lists_the_choices(coco_vid_root):
    with pytest.raises(RnndetError, match="choose one of: all, none, sample"):
        found(coco_vid_root, decode="some")


# labels


def as_another_class(tree):
    tree["annotations"][2].update(category_id=2)


def as_a_twin(tree):
    tree["annotations"].append(tree["annotations"][0] | {"id": 99})


def without_objects(tree):
    tree["annotations"] = tree["annotations"][6:]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (as_another_class,
         "error: train: v0: object 1 is 'square' in frame 0 and 'bar' in frame 2"),
        (lambda tree: tree["images"][5].update(frame_id=9),
         "note: train: v0: frame 4 is followed by frame 9"),
        (without_objects, "note: train: v0: holds no object"),
    ],
)  # fmt: skip
def test_impossible_labels_are_found(coco_vid_root, change, line):
    edit(coco_vid_root, change)
    assert line in found(coco_vid_root)


def test_identity_that_a_frame_has_twice_is_an_error(coco_vid_root):
    """Of files, the reader says so; of sets in memory, the check."""
    edit(coco_vid_root, as_a_twin)
    (line,) = found(coco_vid_root)
    assert line.endswith("train.json: annotation 99: the id 1 comes twice in its frame")
    twins = Target(torch.tensor([[1.0, 1, 9, 9]] * 2), torch.tensor([0, 0]), torch.tensor([7, 7]),
                   torch.tensor([False, False]))  # fmt: skip
    videos = VideoSet(CLASSES, (VideoRecord("v", 10, 10, None, (FrameRecord(3, twins),)),))
    assert [str(f) for f in check_labels(videos, "s")] == [
        "error: s: v: object 7 is in frame 3 twice"
    ]


@pytest.mark.parametrize("track", [0, 7])
def test_box_of_an_identity_that_the_frame_has_is_a_problem_unless_it_is_ignored(track):
    problems = Problems()
    builder = TargetBuilder(width=64, height=48, file=Path("a.txt"), problems=problems)
    for entry, ignore in enumerate((False, False, True, True)):
        builder.add((1, 1, 9, 9), 0, entry=entry, track=track, ignore=ignore)
    for entry in (4, 5):
        builder.add((1, 1, 9, 9), 0, entry=entry)  # unknown identities are no identity
    (problem,) = problems.found
    assert problem.reason == f"the id {track} comes twice in its frame"
    assert builder.build().ids.tolist() == [track] * 3 + [-1] * 2


def test_identity_may_come_twice_in_a_frame_where_an_object_is_ignored():
    """As in training."""
    for ignore, count in (([True, True], 0), ([True, False], 0), ([False, False], 1)):
        twins = Target(torch.tensor([[1.0, 1, 9, 9]] * 2), torch.tensor([0, 0]),
                       torch.tensor([7, 7]), torch.tensor(ignore))  # fmt: skip
        videos = VideoSet(CLASSES, (VideoRecord("v", 10, 10, None, (FrameRecord(3, twins),)),))
        assert len(check_labels(videos, "s")) == count


def test_repeated_names_and_frames_are_errors():
    frames = (FrameRecord(2, Target.empty()), FrameRecord(2, Target.empty()))
    videos = VideoSet(CLASSES, (VideoRecord("v", 10, 10, None, frames),) * 2)
    lines = [str(finding) for finding in check_labels(videos, "s")]
    assert lines[0] == "error: s: 2 videos have the name 'v'"
    assert lines[1] == "error: s: v: frame 2 is listed 2 times"


def test_frames_at_an_even_distance_have_no_gaps(coco_vid_root):
    def spread(tree):
        for image in tree["images"]:
            image["frame_id"] *= 5

    edit(coco_vid_root, spread)
    assert found(coco_vid_root) == []


@pytest.mark.parametrize(("absent", "count"), [(30, 0), (31, 1)])
def test_object_that_returns_after_a_long_absence_is_a_note(absent, count):
    box = Target(torch.tensor([[1.0, 1, 9, 9]]), torch.tensor([0]), torch.tensor([7]),
                torch.tensor([False]))  # fmt: skip
    targets = [box, *[Target.empty()] * absent, box]
    frames = tuple(FrameRecord(i, target) for i, target in enumerate(targets))
    videos = VideoSet(CLASSES, (VideoRecord("v", 10, 10, None, frames),))
    lines = [str(finding) for finding in check_labels(videos, "s")]
    assert lines == [f"note: s: v: object 7 is absent from frame 0 to {absent + 1}"] * count


def test_videos_without_frames_or_labels_are_found():
    unlabelled = VideoRecord("a", 10, 10, None, (FrameRecord(0, None),))
    videos = VideoSet(CLASSES, (unlabelled, VideoRecord("b", 10, 10, None, ())))
    assert [str(finding) for finding in check_labels(videos, "s")] == [
        "note: s: a: no frame is labelled", "error: s: b: has no frames",
    ]  # fmt: skip


def test_boxes_that_are_shares_are_an_error(coco_vid_root):
    def divide(tree):
        for annotation in tree["annotations"]:
            annotation["bbox"] = [value / 100 for value in annotation["bbox"]]

    edit(coco_vid_root, divide)
    (line,) = [line for line in found(coco_vid_root) if line.startswith("error")]
    assert "12 boxes within 0..1" in line


def test_one_tiny_box_is_a_note(coco_vid_root):
    edit(coco_vid_root, lambda tree: tree["annotations"][0].update(bbox=[0, 0, 0.5, 0.5]))
    assert all(line.startswith("note: train: 1 box ") for line in found(coco_vid_root))


@pytest.mark.parametrize(("skip_bad", "word"), [(False, "error"), (True, "note")])
def test_entries_left_out_by_the_reader_are_errors_or_notes(coco_vid_root, skip_bad, word):
    edit(coco_vid_root, lambda tree: tree["annotations"][0].update(bbox=[9, 9, -5, 5]))
    (line,) = found(coco_vid_root, skip_bad=skip_bad)
    assert line.startswith(f"{word}: train: ") and "annotation 1: box" in line


# splits


def test_video_in_two_splits_is_an_error(coco_vid_root):
    annotations = coco_vid_root / "annotations"
    shutil.copy(annotations / "train.json", annotations / "val.json")
    lines = found(coco_vid_root, "train", "val", decode="none")
    assert "error: train and val: video 'v0' is in both, and 1 more such" in lines
    assert "note: train and val: scene group '0' is in both, and 1 more such" in lines


def test_file_in_two_splits_is_an_error_under_any_name(tmp_path):
    write_coco_vid(tmp_path, as_files=True)
    copy_split(tmp_path)
    edit(tmp_path, lambda tree: tree["videos"][0].update(file_name="v0.avi"), "val")
    shutil.copy(tmp_path / "v1.avi", tmp_path / "wv1.avi")
    lines = found(tmp_path, "train", "val", decode="none")
    assert f"error: train and val: {tmp_path / 'v0.avi'} is in both" in lines


def test_copied_images_are_found_in_another_split(coco_vid_root):
    copy_split(coco_vid_root)
    lines = found(coco_vid_root, "train", "val")
    assert (
        "error: train and val: frame 0 of 'v0' is the same image as frame 0 of 'wv0', "
        "and 1 more such"
    ) in lines


def test_different_images_of_another_split_are_not_copies(coco_vid_root):
    copy_split(coco_vid_root)
    for seed, file in enumerate(coco_vid_root.glob("wv?/*.png")):
        noise = np.random.default_rng(seed).integers(0, 255, (64, 96, 3), np.uint8)
        write_image(file, noise)
    assert not any("same image" in line for line in found(coco_vid_root, "train", "val"))


def test_classes_that_differ_are_an_error(coco_vid_root):
    copy_split(coco_vid_root)
    edit(coco_vid_root, lambda tree: tree["categories"][1].update(name="rod"), "val")
    lines = found(coco_vid_root, "train", "val", decode="none")
    assert "error: train and val: classes differ: square, bar; square, rod" in lines


def test_split_given_twice_is_checked_once(coco_vid_root):
    assert found(coco_vid_root, "train", "train") == []


def test_missing_split_is_one_line(coco_vid_root):
    with pytest.raises(InputError, match=r"test\.json: no such annotation file"):
        found(coco_vid_root, "train", "test")


def test_fingerprint_is_equal_for_copies_only():
    noise = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    assert fingerprint(noise) == fingerprint(noise.copy()) != fingerprint(noise[::-1])
    assert fingerprint(noise[:3, :5]) is not None
    assert fingerprint(np.zeros((50, 70, 3), np.uint8)) is None
