"""Displayed tracks: classes do not flicker, and missed tracks are predicted for a while."""

import json
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import rnndet
from conftest import StubModel, detections
from rnndet.errors import RnndetError
from rnndet.inference.run import RunOptions, run_source
from rnndet.inference.stream import Stream
from rnndet.structures import Detections, Frame, VideoInfo
from rnndet.tracking import TRACKERS, ByteTracker
from rnndet.tracking.smoothing import TrackSmoother
from rnndet.tracking.tracks import LastBox
from rnndet.video.draw import Annotator
from rnndet.video.sink import describe_result
from rnndet.video.sources.base import Source

SIZE_HW = (80, 96)
NOTHING = (np.zeros((0, 4)), np.zeros(0, np.int64))


def one(label: int, score: float = 0.6, track: int = 1) -> Detections:
    return detections([[10, 10, 30, 30]], [score], [label], [track])


def expected(x: float = 10.0, track: int = 1) -> tuple[np.ndarray, np.ndarray]:
    return np.array([[x, 10, x + 20, 30]]), np.array([track])


def shown_labels(
    labels: list[int], scores: list[float] | None = None, fps: float = 25
) -> list[int]:
    smoothed, found = TrackSmoother(), []
    for k, label in enumerate(labels):
        score = 0.6 if scores is None else scores[k]
        seen, _ = smoothed.update(one(label, score), expected(), time=k / fps, size_hw=SIZE_HW)
        found.append(int(seen.labels[0]))
    return found


def test_single_misclassified_frames_do_not_change_the_class():
    assert shown_labels([0, 0, 1, 0, 0, 1, 1, 0, 0]) == [0] * 9


@pytest.mark.parametrize("fps", [5, 25, 60])
def test_two_classes_in_turn_do_not_flicker(fps):
    assert len(set(shown_labels([0, 1] * 40, fps=fps))) == 1


def test_class_follows_a_lasting_change():
    labels = shown_labels([0] * 50 + [1] * 75)
    assert labels[50] == 0
    assert labels[-1] == 1
    assert sum(a != b for a, b in pairwise(labels)) == 1


def test_class_has_the_largest_sum_of_scores():
    assert shown_labels([0, 0, 0, 1], [0.1, 0.1, 0.1, 0.9]) == [0, 0, 0, 1]
    assert shown_labels([0, 1, 1, 1], [0.9, 0.1, 0.1, 0.1]) == [0] * 4


def test_score_of_a_track_moves_less_than_that_of_its_detections():
    smoothed, scores = TrackSmoother(), []
    for k in range(40):
        found = one(0, 0.9 if k % 2 else 0.5)
        seen, _ = smoothed.update(found, expected(), time=k / 25, size_hw=SIZE_HW)
        scores.append(float(seen.scores[0]))
    settled = scores[20:]
    assert 0.6 < min(settled) < max(settled) < 0.8
    assert max(settled) - min(settled) < 0.08


def test_detections_without_a_track_are_unchanged():
    smoothed = TrackSmoother()
    for label, score in ((0, 0.9), (1, 0.4)):
        found = one(label, score, track=0)
        seen, _ = smoothed.update(found, NOTHING, time=0.0, size_hw=SIZE_HW)
        assert (int(seen.labels[0]), seen.scores) == (label, found.scores)


def missed_for(frames: int, *, coast: float) -> list[int]:
    """How many predicted boxes there are in each frame after one with a detection."""
    smoothed = TrackSmoother(coast=coast)
    smoothed.update(one(1), expected(), time=0.0, size_hw=SIZE_HW)
    empty = one(0)[np.zeros(1, bool)]
    return [
        len(smoothed.update(empty, expected(), time=k / 10, size_hw=SIZE_HW)[1])
        for k in range(1, frames + 1)
    ]


def test_missed_track_is_predicted_for_as_long_as_allowed():
    assert missed_for(5, coast=0.3) == [1, 1, 1, 0, 0]
    assert missed_for(2, coast=0.0) == [0, 0]


def test_predicted_box_is_clipped_and_removed_outside_the_image():
    smoothed = TrackSmoother(coast=1.0)
    smoothed.update(one(1), expected(), time=0.0, size_hw=SIZE_HW)
    empty = one(0)[np.zeros(1, bool)]
    _, missed = smoothed.update(empty, expected(90), time=0.1, size_hw=SIZE_HW)
    assert missed.boxes.tolist() == [[90, 10, 96, 30]]
    assert (missed.labels.tolist(), missed.ids.tolist()) == ([1], [1])
    _, missed = smoothed.update(empty, expected(95.5), time=0.2, size_hw=SIZE_HW)
    assert len(missed) == 0


def test_missed_track_is_not_shown_over_a_detection():
    smoothed = TrackSmoother(coast=1.0)
    smoothed.update(one(1), expected(), time=0.0, size_hw=SIZE_HW)
    _, missed = smoothed.update(one(0, track=2), expected(), time=0.1, size_hw=SIZE_HW)
    assert len(missed) == 0


def test_removed_tracks_take_no_memory():
    smoothed = TrackSmoother(coast=1.0)
    for k in range(100):
        smoothed.update(one(0, track=k + 1), expected(track=k + 1), time=k / 25, size_hw=SIZE_HW)
    assert len(smoothed._tracks) == 1


def test_restored_smoother_continues():
    first, second = TrackSmoother(coast=1.0), TrackSmoother(coast=1.0)
    for k, label in enumerate([0, 0, 1]):
        first.update(one(label), expected(), time=k / 25, size_hw=SIZE_HW)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for found, time in ((one(1), 0.2), (one(0)[np.zeros(1, bool)], 0.3)):
        a, b = (s.update(found, expected(), time=time, size_hw=SIZE_HW) for s in (first, second))
        for left, right in zip(a, b, strict=True):
            assert np.array_equal(left.scores, right.scores)
            assert np.array_equal(left.labels, right.labels)


# in a stream


class Blinking(StubModel):
    """One box that moves 2 px a frame, missing in frames 5 to 9, of class 1 in frame 3."""

    classes = ("cube", "ball")

    def __init__(self) -> None:
        super().__init__()
        self.eval()

    def step(self, frames, state, *, original_sizes, limits, timer):
        count = 0 if state is None else int(state["0"][0])
        found = Detections.empty()
        if not 5 <= count < 10:
            found = detections([[10 + 2 * count, 10, 30 + 2 * count, 30]], [0.8], [count == 3])
        next_state = {"0": (torch.full((1, 1, 1, 1), count + 1),)}
        return SimpleNamespace(state=next_state, detections=[[found]], losses=None)


def frames(count: int = 14) -> list[Frame]:
    return [Frame(np.zeros((*SIZE_HW, 3), np.uint8), k, k / 25) for k in range(count)]


@pytest.mark.parametrize("tracker", [name for name in TRACKERS if name != "none"])
def test_stream_predicts_between_detections_and_marks_it(tracker):
    stream = Stream(Blinking(), TRACKERS[tracker](min_score=0.3), min_score=0.3, coast=0.12)
    results = [stream.step(frame) for frame in frames()]
    objects = [describe_result(result, Blinking.classes) for result in results]
    assert [len(result.detections) for result in results] == [1] * 5 + [0] * 5 + [1] * 4
    assert [k for k, found in enumerate(objects) if any("predicted" in o for o in found)] == [
        5,
        6,
        7,
    ]
    assert {o["id"] for found in objects[5:8] for o in found} == {1}
    assert objects[3][0]["label"] == "ball"
    assert objects[3][0]["track_label"] == "cube"
    assert "track_label" not in objects[4][0]
    motion = TRACKERS[tracker](min_score=0.3)._new_motion()
    if not isinstance(motion, LastBox):  # which expects objects where they were
        assert objects[6][0]["box"][0] == pytest.approx(22, abs=1.5)


def test_coasting_is_off_by_default_and_needs_a_tracker():
    stream = Stream(Blinking(), ByteTracker())
    assert all(len(stream.step(frame).predicted) == 0 for frame in frames())
    with pytest.raises(RnndetError, match="tracker"):
        Stream(Blinking(), coast=0.5)
    with pytest.raises(RnndetError, match="coast"):
        TrackSmoother(coast=-1)


def test_track_predicts_for_the_given_seconds():
    results = list(rnndet.track(Blinking(), frames(), coast=0.12))
    assert [k for k, result in enumerate(results) if len(result.predicted)] == [5, 6, 7]


def test_cut_ends_coasting():
    cuts = SimpleNamespace(update=lambda image: image[0, 0, 0] > 0, reset=lambda: None)
    stream = Stream(Blinking(), ByteTracker(), coast=1.0, cuts=cuts)
    for frame in frames(6):
        before = stream.step(frame)
    assert len(before.predicted) == 1
    bright = np.full((*SIZE_HW, 3), 9, np.uint8)
    stream.runtime.model.step = lambda *_, **__: SimpleNamespace(
        state={}, detections=[[Detections.empty()]], losses=None
    )
    assert len(stream.step(Frame(bright, 6, 6 / 25)).predicted) == 0


class FrameList(list, Source):
    """Frames as a source for `run_source`."""

    info = VideoInfo("clip", "clip", SIZE_HW[1], SIZE_HW[0], None, None)


class Unsure(Blinking):
    """One box that stays: class 0 at 0.35 in three frames, then class 1 at 0.9 in two."""

    def step(self, frames, state, *, original_sizes, limits, timer):
        count = 0 if state is None else int(state["0"][0])
        score, label = (0.35, 0) if count < 3 else (0.9, 1)
        found = detections([[10, 10, 30, 30]], [score], [label])
        next_state = {"0": (torch.full((1, 1, 1, 1), count + 1),)}
        return SimpleNamespace(state=next_state, detections=[[found]], losses=None)


def test_track_counts_for_the_class_with_the_largest_sum_of_scores(tmp_path):
    stream = Stream(Unsure(), ByteTracker(min_hits=1, start_margin=0), min_score=0.3)
    summary = run_source(stream, FrameList(frames(5)), tmp_path, RunOptions(save=()))
    assert summary.objects == {"cube": 3, "ball": 2}
    assert summary.tracks == {"ball": 1}


def test_predicted_boxes_count_as_no_objects(tmp_path):
    stream = Stream(Blinking(), ByteTracker(), coast=1.0)
    summary = run_source(stream, FrameList(frames()), tmp_path, RunOptions(save=("csv",)))
    assert summary.objects == {"cube": 8, "ball": 1}
    lines = [json.loads(line) for line in (tmp_path / "clip" / "detections.jsonl").open()]
    assert sum(o.get("predicted", False) for line in lines[1:-1] for o in line["objects"]) == 5


# drawn


def test_missed_track_is_drawn_in_dashes():
    stream = Stream(Blinking(), ByteTracker(), coast=1.0)
    drawn = [Annotator(Blinking.classes).draw(stream.step(frame)) for frame in frames(7)]
    seen, missed = ((image > 0).any(-1) for image in (drawn[4], drawn[5]))
    assert 0 < missed.sum() < seen.sum()
    bottom = missed[30:34].any(0)
    assert bottom.any()
    assert not bottom[20:40].all()


def test_trail_follows_a_track_and_ends_at_a_cut():
    annotator = Annotator(Blinking.classes, trails=4)
    stream = Stream(Blinking(), ByteTracker())
    results = [stream.step(frame) for frame in frames(5)]
    for result in results:
        annotator.draw(result)
    assert [round(x) for x, _ in annotator._trails[1]] == [22, 24, 26, 28]
    with_trail = Annotator(Blinking.classes, trails=4)
    images = [with_trail.draw(result) for result in results]
    plain = Annotator(Blinking.classes).draw(results[-1])
    assert (images[-1] != plain).any()
    cut = Frame(np.zeros((*SIZE_HW, 3), np.uint8), 5, 0.2)
    annotator.draw(type(results[0])(cut, Detections.empty(), cut=True))
    assert annotator._trails == {}
