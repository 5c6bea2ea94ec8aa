"""Evaluation records: the data of a run, in memory and in a file."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from conftest import detections
from rnndet.errors import InputError, OutputError
from rnndet.evaluation.records import (
    EvaluatedFrame,
    EvaluatedVideo,
    Predictions,
    evaluated_frame,
    load_predictions,
    save_predictions,
)
from rnndet.structures import Target, TrackingTarget


def frame(index: int, count: int = 2, *, labelled: bool = True) -> EvaluatedFrame:
    boxes = torch.arange(4.0 * count).reshape(count, 4) + index
    labels = torch.arange(count)
    found = detections(boxes, torch.linspace(1, 0.5, count), labels, labels + 1)
    target = Target(boxes + 1, labels, labels + 7, labels > 0)
    known = target if labelled else None
    return evaluated_frame(index, found, known, corrupted=index == 3, seconds=0.1 * index)


def run() -> Predictions:
    predictions = Predictions(("a", "b"), about={"weights": "w.pt"})
    predictions.add(EvaluatedVideo("two", None, (48, 64), (frame(3), frame(4, labelled=False))))
    predictions.add(EvaluatedVideo("one", 29.97, (32, 48), (frame(0, 0), frame(1, 3))))
    predictions.add(EvaluatedVideo("none", 25.0, (32, 48), ()))
    return predictions


def same(a: EvaluatedFrame, b: EvaluatedFrame) -> bool:
    values = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(EvaluatedFrame)]
    return all(np.array_equal(x, y) and np.asarray(x).dtype == np.asarray(y).dtype
               for x, y in values)  # fmt: skip


def test_file_gives_back_every_number(tmp_path) -> None:
    save_predictions(tmp_path / "new" / "p.npz", run())
    loaded = load_predictions(tmp_path / "new" / "p.npz")
    assert (loaded.classes, loaded.about) == (("a", "b"), {"weights": "w.pt"})
    for got, expected in zip(loaded.videos, run().videos, strict=True):
        assert (got.name, got.fps, got.size_hw) == (expected.name, expected.fps, expected.size_hw)
        assert all(same(*pair) for pair in zip(got.frames, expected.frames, strict=True))


def test_arrays_of_a_file_keep_their_names(tmp_path) -> None:
    """Files of version 2 that users have are read, and read by older releases."""
    save_predictions(tmp_path / "p.npz", run())
    with np.load(tmp_path / "p.npz") as file:
        assert set(file.files) == {
            "head", "index", "labelled", "corrupted", "seconds", "found", "known",
            "boxes", "scores", "labels", "ids",
            "truth_boxes", "truth_labels", "truth_ids", "truth_ignore",
        }  # fmt: skip
        assert json.loads(str(file["head"]))["version"] == 2
        assert file["truth_labels"].dtype == np.int32


def test_saving_leaves_no_part_behind(tmp_path) -> None:
    save_predictions(tmp_path / "p.npz", run())
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.npz"]


def test_file_that_cannot_be_written_is_a_user_error(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        save_predictions(tmp_path / "file" / "p.npz", run())


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 and no more"])
def test_other_files_are_refused_in_one_line(tmp_path, content) -> None:
    (tmp_path / "p.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"p\.npz: not a file of predictions"):
        load_predictions(tmp_path / "p.npz")


def test_a_folder_of_predictions_names_the_file_to_give(tmp_path) -> None:
    save_predictions(tmp_path / "predictions.npz", run())
    with pytest.raises(InputError, match=r"not a file of predictions; .*predictions\.npz"):
        load_predictions(tmp_path)


def test_a_truncated_file_is_refused(tmp_path) -> None:
    save_predictions(tmp_path / "p.npz", run())
    data = (tmp_path / "p.npz").read_bytes()
    (tmp_path / "p.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="damaged"):
        load_predictions(tmp_path / "p.npz")


def test_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match="no such file of predictions"):
        load_predictions(tmp_path / "p.npz")


def test_videos_come_in_the_order_of_their_names() -> None:
    assert [video.name for video in run().videos] == ["none", "one", "two"]


def test_a_video_counts_once() -> None:
    with pytest.raises(AssertionError, match="added already"):
        run().merge(run())


def test_only_keeps_the_selected_frames() -> None:
    part = run().map(lambda video: video.only(lambda frame: frame.index == 1))
    assert part.frame_count == 1 and len(part) == 3


def test_labelled_drops_the_unlabelled_frames() -> None:
    two = run().videos[2]
    assert [f.labelled for f in two.frames] == [True, False]
    assert [f.index for f in two.labelled().frames] == [3]


def test_file_without_targets_of_tracking_has_no_arrays_for_them_and_loads(tmp_path):
    run = Predictions(("a",))
    run.add(EvaluatedVideo("v", None, (8, 8), (frame(0), frame(1))))
    save_predictions(tmp_path / "run.npz", run)
    with np.load(tmp_path / "run.npz") as file:
        assert not [name for name in file.files if name.startswith("tracking")]
    (video,) = load_predictions(tmp_path / "run.npz").videos
    assert [f.tracking for f in video.frames] == [None, None]


def test_targets_of_tracking_are_stored_for_the_frames_that_have_them(tmp_path):
    target = TrackingTarget(
        np.array([[-5.3, 1, 4, 6]]), np.array([0]), np.array([7]), np.array([1], np.int8),
        np.array([-1]), 25.0,
    )  # fmt: skip
    frames = (frame(0), replace(frame(1), tracking=target), frame(2))
    run = Predictions(("a",))
    run.add(EvaluatedVideo("v", None, (8, 8), frames))
    save_predictions(tmp_path / "run.npz", run)
    first, second, third = load_predictions(tmp_path / "run.npz").videos[0].frames
    assert first.tracking is None and third.tracking is None
    for field in fields(TrackingTarget):
        stored, known = (getattr(t, field.name) for t in (second.tracking, target))
        assert np.array_equal(stored, known), field.name
