"""Minimum scores by class, and the threshold of non-maximum suppression, of a stream."""

import numpy as np
import pytest
from test_shared_model import noise, one_stage, two_stage
from test_stream import Counter, frames

import rnndet
from conftest import detections
from rnndet.boxes import pairwise_iou
from rnndet.errors import RnndetError
from rnndet.inference.stream import Stream, score_limits, track
from rnndet.tracking import TRACKERS, ByteTracker

SCORES = (0.9, 0.4, 0.2, 0.12)  # cube, ball, cube, ball; less 0.001 and a little


def reported(min_score, **options) -> list[tuple[str, float]]:
    stream = Stream(Counter(SCORES), min_score=min_score, **options)
    (found,) = [stream.step(frame).detections for frame in frames(1)]
    names = [stream.runtime.classes[label] for label in found.labels]
    return list(zip(names, np.round(found.scores.astype(float), 1).tolist(), strict=True))


def test_each_class_has_its_own_minimum_score():
    assert reported({"cube": 0.5, "ball": 0.1}) == [("cube", 0.9), ("ball", 0.4), ("ball", 0.1)]


def test_classes_without_a_name_have_that_of_the_star_or_the_default():
    assert reported({"cube": 0.95}) == [("ball", 0.4)]
    assert reported({"cube": 0.1, "*": 0.5}) == [("cube", 0.9), ("cube", 0.2)]
    assert reported({"*": 0.5}) == reported(0.5)


def test_the_model_is_asked_for_the_lowest_score_of_the_chosen_classes():
    low = {"cube": 0.6, "ball": 0.05}
    assert Stream(Counter(), min_score=low).limits.min_score == 0.05
    assert Stream(Counter(), min_score=low, classes=["cube"]).limits.min_score == 0.6


@pytest.mark.parametrize("name", TRACKERS)
def test_equal_scores_of_all_classes_are_a_single_score(name):
    random = np.random.default_rng(0)
    trackers = [TRACKERS[name](min_score=score) for score in (0.4, np.array([0.4, 0.4]))]
    for step in range(30):
        boxes = np.array([[10, 10, 40, 40], [60, 10, 90, 50], [20, 60, 50, 90]]) + step
        found = detections(boxes, np.sort(random.random(3))[::-1], random.integers(0, 2, 3))
        a, b = (
            found if tracker is None
            else track(found, tracker, min_score=score, time=step / 25)
            for tracker, score in zip(trackers, (0.4, np.array([0.4, 0.4])), strict=True)
        )  # fmt: skip
        assert np.array_equal(a.boxes, b.boxes) and np.array_equal(a.scores, b.scores)
        assert a.ids is b.ids is None or np.array_equal(a.ids, b.ids)


@pytest.mark.parametrize("name", [name for name in TRACKERS if name != "none"])
def test_a_track_starts_from_the_score_of_its_class_on(name):
    limits = score_limits({"car": 0.7, "bird": 0.2}, ["car", "bird"])
    tracker = TRACKERS[name](min_score=limits)
    for step in range(4):
        found = detections([[10, 10, 40, 40], [60, 10, 90, 50]], [0.6, 0.4], [0, 1])
        shown = track(found, tracker, min_score=limits, time=step / 25)
    assert shown.labels.tolist() == [1]
    assert shown.ids.tolist() == [1]


@pytest.mark.parametrize(
    ("min_score", "what"),
    [
        ({"cubes": 0.5}, "did you mean 'cube'"),
        ({"cube": 1.5}, r"`min_score` of 'cube' = 1\.5; expected a number from 0 to 1"),
        ({"cube": "0.5"}, "expected a number"),
        ({"*": float("nan")}, "expected a number"),
        (1.5, r"`min_score` = 1\.5; expected a number"),
        (float("nan"), "expected a number"),
        (None, "expected a number"),
    ],
)
def test_impossible_scores_are_refused(min_score, what):
    with pytest.raises(RnndetError, match=what):
        Stream(Counter(), min_score=min_score)


@pytest.mark.parametrize("nms", [-0.1, 1.1, float("nan")])
def test_impossible_threshold_of_nms_is_refused(nms):
    with pytest.raises(RnndetError, match=r"nms = .*an IoU from 0 to 1"):
        Stream(Counter(), nms=nms)


@pytest.mark.parametrize("build", [one_stage, two_stage])
def test_boxes_of_a_class_overlap_by_at_most_the_threshold_of_nms(build):
    model = build()
    most = {}
    for nms in (0.2, 0.5, 0.9):
        (result,) = rnndet.track(model, noise()[:1], tracker="none", min_score=0.0, nms=nms)
        found = result.detections
        overlap = pairwise_iou(found.boxes, found.boxes)
        same = found.labels[:, None] == found.labels[None]
        most[nms] = (overlap * same - np.eye(len(found))).max()
        assert most[nms] <= nms + 1e-3
    assert most[0.2] < most[0.5] < most[0.9]
    (plain,) = rnndet.track(model, noise()[:1], tracker="none", min_score=0.0)
    (half,) = rnndet.track(model, noise()[:1], tracker="none", min_score=0.0, nms=0.5)
    assert np.array_equal(plain.detections.boxes, half.detections.boxes)  # 0.5 is that of the model


def test_the_margin_of_byte_is_above_the_score_of_each_class():
    limits = score_limits({"car": 0.7, "bird": 0.2}, ["car", "bird"])
    tracker = ByteTracker(min_score=limits, start_margin=0.1)
    for step in range(4):
        found = detections([[10, 10, 40, 40], [60, 10, 90, 50]], [0.75, 0.31], [0, 1])
        shown = track(found, tracker, min_score=limits, time=step / 25)
    assert (shown.labels.tolist(), shown.ids.tolist()) == ([0, 1], [0, 1])
