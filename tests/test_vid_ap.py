"""ILSVRC AP: hand-computed values."""

import math
from dataclasses import replace

import numpy as np
import pytest
from evaluated_videos import evaluated_rows as frame

from rnndet.evaluation.metrics.vid_ap import VidAP, continuous_ap
from rnndet.evaluation.records import EvaluatedFrame, EvaluatedVideo

BOX = (0.0, 0.0, 100.0, 100.0)
FAR = (300.0, 0.0, 400.0, 100.0)
AWAY = (600.0, 0.0, 700.0, 100.0)
Box = tuple[float, float, float, float]


def video(*frames: EvaluatedFrame) -> EvaluatedVideo:
    return EvaluatedVideo("clip", None, (400, 700), frames)


def score(
    *frames: EvaluatedFrame, classes: tuple[str, ...] = ("a",), compat: bool = False
) -> dict[str, float]:
    metric = VidAP(classes, fgfa_compat=compat)
    return metric.combine([metric.measure(video(*frames))])


def ap(*frames: EvaluatedFrame) -> float:
    return score(*frames)["AP50_ilsvrc"]


def random_video(seed: int) -> EvaluatedVideo:
    """A slow, a medium and a fast track, detections near most of their boxes and some elsewhere."""
    random = np.random.default_rng(seed)
    frames = []
    for i in range(6):
        targets, detections = [], []
        for t, reach in enumerate((5, 25, 80)):
            x = 200.0 * t + reach * random.random()
            targets.append(((x, 0.0, x + 80, 80.0), t % 2, t))
            for _ in range(2):
                x1 = x + random.normal() * 15
                detections.append(((x1, 0.0, x1 + 80, 80.0), random.integers(20) / 20, t % 2))
        detections.append((AWAY, random.random(), 0))
        frames.append(frame(i, detections, targets))
    return video(*frames)


def test_perfect_predictions_give_one() -> None:
    numbers = score(frame(0, [(BOX, 0.9, 0)], [(BOX, 0, 1)]))
    assert numbers["AP50_ilsvrc"] == numbers["AP50_ilsvrc/a"] == numbers["AP50_ilsvrc_slow"] == 1.0
    assert math.isnan(numbers["AP50_ilsvrc_medium"]) and math.isnan(numbers["AP50_ilsvrc_fast"])


@pytest.mark.parametrize(("height", "expected"), [(9.0, 1.0), (8.8, 0.0)])
def test_threshold_of_a_20_pixel_box_is_444(height: float, expected: float) -> None:
    # 20 * 20 / (30 * 30) = .4444; a detection of its 9 rows has IoU 9 / 20 = .45, of 8.8 has .44.
    assert ap(frame(0, [((0, 0, 20, height), 0.9, 0)], [((0, 0, 20, 20), 0, 1)])) == expected


@pytest.mark.parametrize(("height", "expected"), [(50.0, 1.0), (49.0, 0.0)])
def test_threshold_of_a_large_box_is_one_half(height: float, expected: float) -> None:
    assert ap(frame(0, [((0, 0, 100, height), 0.9, 0)], [(BOX, 0, 1)])) == expected


def test_a_duplicate_is_a_false_alarm() -> None:
    # hit, false, hit: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1. AP = 1/2 * 1 + 1/2 * 2/3 = 5/6.
    detections = [(BOX, 0.9, 0), (BOX, 0.8, 0), (FAR, 0.7, 0)]
    assert ap(frame(0, detections, [(BOX, 0, 1), (FAR, 0, 2)])) == pytest.approx(5 / 6)


def test_a_detection_takes_the_best_target_that_is_left() -> None:
    # The first is nearer to BOX (95 / 105) than to the other (85 / 115); the second fits BOX, which
    # is taken, and reaches the other with 80 / 120.
    other = (20.0, 0.0, 120.0, 100.0)
    detections = [((5.0, 0.0, 105.0, 100.0), 0.9, 0), (BOX, 0.8, 0)]
    assert ap(frame(0, detections, [(BOX, 0, 1), (other, 0, 2)])) == 1.0


def test_a_detection_of_another_class_is_a_false_alarm() -> None:
    true = [(BOX, 0, 1), (FAR, 1, 2)]
    numbers = score(frame(0, [(BOX, 0.9, 1), (FAR, 0.8, 1)], true), classes=("a", "b"))
    assert numbers["AP50_ilsvrc/a"] == 0.0 and numbers["AP50_ilsvrc/b"] == 0.5
    assert numbers["AP50_ilsvrc"] == 0.25


def test_class_without_target_is_absent_and_not_in_the_mean() -> None:
    detections = [(BOX, 0.9, 0), (BOX, 0.95, 1)]
    numbers = score(frame(0, detections, [(BOX, 0, 1)]), classes=("a", "b", "c"))
    assert numbers["AP50_ilsvrc"] == 1.0
    assert "AP50_ilsvrc/b" not in numbers and "AP50_ilsvrc/c" not in numbers


def moving(*detections: tuple[Box, float, int]) -> tuple[EvaluatedFrame, EvaluatedFrame]:
    """A slow object at BOX, a fast one at FAR and then AWAY; detections: of the first frame."""
    first = frame(0, [*detections], [(BOX, 0, 1), (FAR, 0, 2)])
    return first, frame(1, [(BOX, 0.5, 0)], [(BOX, 0, 1), (AWAY, 0, 2)])


def test_a_target_out_of_the_group_is_neither_missed_nor_counted() -> None:
    numbers = score(*moving((FAR, 0.9, 0), (BOX, 0.8, 0)))
    assert numbers["AP50_ilsvrc_slow"] == 1.0
    assert numbers["AP50_ilsvrc_fast"] == 0.5  # one of two, and the slow object's do not matter
    assert numbers["AP50_ilsvrc"] == 0.75


def test_a_false_alarm_counts_in_every_group() -> None:
    # Slow: false, hit (.8), hit (.5): precision at the two hits 1/2, 2/3 -> 2/3. Fast: 1/2 * 1/2.
    numbers = score(*moving((AWAY, 0.95, 0), (FAR, 0.9, 0), (BOX, 0.8, 0)))
    assert numbers["AP50_ilsvrc_slow"] == pytest.approx(2 / 3)
    assert numbers["AP50_ilsvrc_fast"] == pytest.approx(1 / 4)


def test_compat_gives_a_false_alarm_to_the_group_it_is_nearest_to() -> None:
    # 30 of 100 columns of BOX: IoU .3 with the slow object, 0 with the fast one.
    near = ((0.0, 0.0, 30.0, 100.0), 0.95, 0)
    numbers = score(*moving(near, (FAR, 0.9, 0), (BOX, 0.8, 0)), compat=True)
    assert numbers["AP50_ilsvrc_slow"] == pytest.approx(2 / 3)
    assert numbers["AP50_ilsvrc_fast"] == pytest.approx(1 / 2)


def test_compat_shares_out_a_false_alarm_that_is_near_nothing() -> None:
    # One of the frame's two targets is out of either group: weight 1/2. Slow: precision at the hits
    # 1 / 1.5, 2 / 2.5 = .8 -> .8. Fast: 1 / 1.5 for half of the recall.
    numbers = score(*moving((AWAY, 0.95, 0), (FAR, 0.9, 0), (BOX, 0.8, 0)), compat=True)
    assert numbers["AP50_ilsvrc_slow"] == pytest.approx(0.8)
    assert numbers["AP50_ilsvrc_fast"] == pytest.approx(1 / 3)
    assert numbers["AP50_ilsvrc"] == pytest.approx(9 / 16)  # false, 3 hits of 4: 3/4 * 3/4


def test_compat_weighs_a_frame_without_targets_by_the_share_of_the_group() -> None:
    # Three of four targets are slow: weight 3/4. AP slow: 3 hits, 3 / 3.75 = .8 at the last.
    frames = [frame(i, [(BOX, 0.8, 0)], [(BOX, 0, 1)]) for i in range(3)]
    blank = frame(3, [(BOX, 0.9, 0)])
    fast = frame(4, [], [(FAR, 0, -1)])  # of no group
    assert score(*frames, blank, fast, compat=True)["AP50_ilsvrc_slow"] == pytest.approx(0.8)


def test_detection_on_an_ignored_target_of_its_class_does_not_count() -> None:
    true = [(BOX, 0, 1), (FAR, 0, 2)]
    detections = [(FAR, 0.9, 0), (FAR, 0.8, 0), (BOX, 0.7, 0)]
    assert ap(frame(0, detections, true, [False, True])) == 1.0
    assert ap(frame(0, detections[2:], true, [False, True])) == 1.0  # and it is not missed


def test_detection_on_an_ignored_target_of_another_class_is_a_false_alarm() -> None:
    true = [(BOX, 0, 1), (FAR, 1, 2)]
    numbers = score(
        frame(0, [(FAR, 0.9, 0), (BOX, 0.7, 0)], true, [False, True]), classes=("a", "b")
    )
    assert numbers["AP50_ilsvrc"] == 0.5


@pytest.mark.parametrize(("left", "expected"), [(350.0, 1.0), (352.0, 0.5)])
def test_region_of_no_class_absorbs_detections_that_lie_half_in_it(
    left: float, expected: float
) -> None:
    # The region ends at x = 400: of 100 columns from 350 on it covers 50, from 352 on 48.
    true, ignore = [(BOX, 0, 1), ((200.0, 0.0, 400.0, 300.0), -1, -1)], [False, True]
    detections = [((left, 0.0, left + 100, 100.0), 0.9, 0), (BOX, 0.7, 0)]
    assert ap(frame(0, detections, true, ignore)) == expected


def test_a_match_goes_before_an_ignored_region_around_it() -> None:
    region = ((0.0, 0.0, 500.0, 500.0), -1, -1)
    assert ap(frame(0, [(BOX, 0.9, 0)], [(BOX, 0, 1), region], [False, True])) == 1.0


def test_unlabelled_frames_are_not_scored() -> None:
    blind = replace(frame(0, [(FAR, 0.9, 0)]), labelled=False)
    assert ap(blind, frame(1, [(BOX, 0.8, 0)], [(BOX, 0, 1)])) == 1.0


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("frames", [[], [frame()], [frame(0, [(BOX, 0.9, 0)])]])
def test_no_target_at_all_gives_nan(frames: list[EvaluatedFrame], compat: bool) -> None:
    assert all(math.isnan(value) for value in score(*frames, compat=compat).values())


def test_no_video_at_all_gives_nan() -> None:
    assert all(math.isnan(value) for value in VidAP(("a",)).combine([]).values())


def test_no_detections_give_zero() -> None:
    assert ap(frame(0, [], [(BOX, 0, 1)])) == 0.0


@pytest.mark.parametrize("compat", [False, True])
def test_order_of_videos_changes_nothing(compat: bool) -> None:
    metric = VidAP(("a", "b"), fgfa_compat=compat)
    parts = [metric.measure(random_video(seed)) for seed in range(3)]
    numbers = metric.combine(parts)
    assert all(0.05 < value < 0.95 for value in numbers.values()), numbers
    assert metric.combine(parts[::-1]) == pytest.approx(numbers)


@pytest.mark.parametrize("compat", [False, True])
def test_part_given_twice_counts_as_two_videos(compat: bool) -> None:
    metric = VidAP(("a", "b"), fgfa_compat=compat)
    one, two = random_video(1), random_video(2)
    later = tuple(replace(f, index=f.index + 100) for f in two.frames)
    parts = [metric.measure(video(*one.frames)), metric.measure(video(*two.frames, *later))]
    part = metric.measure(two)
    assert metric.combine([parts[0], part, part]) == pytest.approx(metric.combine(parts))


def test_headline_equals_the_full_numbers() -> None:
    metric = VidAP(("a", "b"))
    parts = [metric.measure(random_video(3))]
    headline, numbers = metric.headline(parts), metric.combine(parts)
    assert list(headline) == [f"AP50_ilsvrc{g}" for g in ("", "_slow", "_medium", "_fast")]
    assert headline == {name: numbers[name] for name in headline}


def test_continuous_ap_is_the_area_under_the_envelope() -> None:
    # false, hit, hit, false, hit: precision 1/2, 2/3, 3/5 at the hits; the envelope lifts 1/2 to
    # 2/3. Of 4 targets: (2/3 + 2/3 + 3/5) / 4.
    scores, hits = np.array([0.5, 0.4, 0.9, 0.8, 0.7]), np.array([False, True, False, True, True])
    assert continuous_ap(scores, hits, 4) == pytest.approx((4 / 3 + 3 / 5) / 4)


def test_continuous_ap_lets_equal_scores_enter_together() -> None:
    for hits in ([True, False], [False, True]):
        assert continuous_ap(np.array([0.5, 0.5]), np.array(hits), 1) == 0.5


def test_continuous_ap_weighs_false_alarms() -> None:
    scores, hits = np.array([0.9, 0.8]), np.array([False, True])
    assert continuous_ap(scores, hits, 1, np.array([0.25, 9.0])) == pytest.approx(0.8)
    assert continuous_ap(scores, hits, 1, np.array([0.0, 9.0])) == 1.0
