"""Statistics of a labelled set."""

import json
import sys

import numpy as np
import pytest
import torch

from conftest import CLASSES
from rnndet.data.formats import read_set
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.evaluation.dataset_stats import measure, text, write_plots
from rnndet.evaluation.score import write_report
from rnndet.structures import Target


def target(*rows):
    """Rows of box, label, identity, ignore."""
    boxes, labels, ids, ignore = zip(*rows, strict=True)
    return Target(torch.tensor(boxes, dtype=torch.float32), torch.tensor(labels), torch.tensor(ids),
                 torch.tensor(ignore))  # fmt: skip


@pytest.fixture
def mixed():
    """A small still object, a large one that jumps, a medium one without identity, a region."""
    first = target(
        ((0, 0, 10, 10), 0, 1, False), ((0, 0, 100, 100), 1, 2, False),
        ((5, 5, 55, 55), 1, -1, False), ((0, 0, 9, 9), -1, -1, True),
    )  # fmt: skip
    second = target(((0, 0, 10, 10), 0, 1, False), ((200, 0, 300, 100), 1, 2, False))
    ignored = target(((0, 0, 9, 9), 0, 4, True))
    targets = (first, second, None, Target.empty(), ignored)
    frames = tuple(FrameRecord(i, t) for i, t in enumerate(targets))
    return VideoSet((*CLASSES, "unseen"), (VideoRecord("v", 400, 400, 25.0, frames),))


def test_counts_of_the_set(mixed):
    assert measure(mixed).counts == {
        "videos": 1, "frames": 5, "labelled frames": 4, "empty frames": 2, "boxes": 5,
        "ignored boxes": 2, "boxes without identity": 1, "tracks": 2,
    }  # fmt: skip


def test_numbers_of_a_class(mixed):
    numbers = measure(mixed).numbers()
    assert numbers["classes"]["bar"] == {
        "videos": 1, "boxes": 3, "tracks": 1, "median side": 100.0, "median track length": 2.0,
        "longest track": 2, "size": {"small": 0, "medium": pytest.approx(1 / 3),
        "large": pytest.approx(2 / 3)}, "motion": {"slow": 0, "medium": 0, "fast": 1},
    }  # fmt: skip
    assert numbers["all classes"]["boxes"] == 5
    assert numbers["all classes"]["motion"] == {"slow": 0.5, "medium": 0, "fast": 0.5}


@pytest.mark.parametrize(("side", "size"), [(31, "small"), (32, "medium"), (96, "large")])
def test_limits_of_the_sizes(side, size):
    frames = (FrameRecord(0, target(((0, 0, side, side), 0, 1, False))),)
    videos = VideoSet(CLASSES, (VideoRecord("v", 400, 400, None, frames),))
    assert measure(videos).numbers()["all classes"]["size"][size] == 1


def test_a_track_is_that_of_one_video(coco_vid_root):
    stats = measure(read_set("coco_vid", coco_vid_root, "train"))
    assert stats.track_lengths.tolist() == [6, 6]
    assert stats.track_labels.tolist() == [0, 1]


def test_text_has_a_row_for_each_class_with_boxes(mixed):
    lines = text(measure(mixed)).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line[:6] in ("all   ", "square")}
    assert rows["square"] == ["1", "2", "1", "10", "2", "100", "0", "0", "100", "0", "0"]
    assert "classes without boxes: unseen" in lines


def test_set_without_boxes_has_numbers():
    frames = (FrameRecord(0, Target.empty()), FrameRecord(1, None))
    videos = VideoSet(CLASSES, (VideoRecord("v", 400, 400, None, frames),))
    stats = measure(videos)
    assert stats.counts["boxes"] == 0
    assert np.isnan(stats.numbers()["all classes"]["median side"])
    assert " - " in text(stats)


def test_numbers_are_plain_json(mixed, tmp_path):
    write_report(tmp_path / "stats.json", measure(mixed).numbers())
    stats = json.loads((tmp_path / "stats.json").read_text())
    assert stats["classes"]["unseen"]["median side"] is None


def test_plots_are_images(mixed, tmp_path):
    pytest.importorskip("matplotlib")
    files = write_plots(measure(mixed), tmp_path / "plots")
    assert [file.name for file in files] == [
        "classes.png", "sizes.png", "track_lengths.png", "motion.png",
    ]  # fmt: skip
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_plots_of_a_set_without_boxes_are_images(tmp_path):
    pytest.importorskip("matplotlib")
    videos = VideoSet(CLASSES, (VideoRecord("v", 9, 9, None, (FrameRecord(0, None),)),))
    assert len(write_plots(measure(videos), tmp_path)) == 4


def test_missing_matplotlib_is_reported_with_the_install_command(
    mixed, tmp_path, monkeypatch, caplog
):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    assert write_plots(measure(mixed), tmp_path) == []
    assert [r.getMessage() for r in caplog.records] == [
        "no plots: they need matplotlib, pip install 'rnndet[plot]'"
    ]
