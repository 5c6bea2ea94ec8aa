"""Stability: hand-computed values, and invariants."""

import math
from dataclasses import replace

import numpy as np
import pytest
from evaluated_videos import evaluated_rows as frame
from scipy.optimize import linear_sum_assignment

from rnndet.boxes import pairwise_iou
from rnndet.evaluation.metrics.stability import GRID, Stability
from rnndet.evaluation.records import EvaluatedFrame, EvaluatedVideo

BOX = (0.0, 0.0, 100.0, 100.0)
FAR = (300.0, 0.0, 400.0, 100.0)
Box = tuple[float, float, float, float]


def video(*frames: EvaluatedFrame) -> EvaluatedVideo:
    return EvaluatedVideo("clip", None, (400, 400), frames)


def score(*frames: EvaluatedFrame) -> dict[str, float]:
    metric = Stability(("a", "b"))
    return metric.combine([metric.measure(video(*frames))])


def following(*boxes: Box | None) -> list[EvaluatedFrame]:
    """One object that stays at BOX, and the detected box in each frame."""
    return [
        frame(i, [] if box is None else [(box, 0.9, 0)], [(BOX, 0, 1)])
        for i, box in enumerate(boxes)
    ]


def random_video(seed: int, *, crowded: bool = False) -> EvaluatedVideo:
    """Tracks with noisy detections; crowded: so near that detections fit several."""
    random = np.random.default_rng(seed)
    step = 15.0 if crowded else 150.0
    frames = []
    for i in range(8):
        targets = [((step * t, 0.0, step * t + 100, 100.0), t // 4, t) for t in range(6)]
        detections = []
        for (x, _, _, _), label, _ in targets * 2:
            x1 = x + random.normal() * 15
            detections.append(((x1, 0.0, x1 + 100, 100.0), random.random(), label))
        frames.append(frame(i, detections, targets))
    return video(*frames)


def test_perfect_boxes_have_no_error() -> None:
    numbers = score(*following(BOX, BOX, BOX))
    for name in ("fragment", "centre", "scale_ratio", "stability", "stability@R50"):
        assert numbers[name] == 0.0
    assert numbers["stability_recall"] == numbers["stability_recall@R50"] == 1.0
    assert numbers["stability_threshold"] == 0.9  # the highest of those that keep all
    assert numbers["stability_tracks"] == 1 and numbers["stability_never_found"] == 0


def test_a_constant_offset_is_no_error() -> None:
    detections = (10.0, 5.0, 120.0, 105.0)
    assert score(*following(detections, detections, detections))["stability"] == pytest.approx(
        0.0, abs=1e-9
    )


def test_every_second_frame_missed_gives_fragment_error_one() -> None:
    numbers = score(*following(BOX, None, BOX, None, BOX))  # 4 changes of 4
    assert numbers["fragment"] == numbers["stability"] == 1.0
    assert numbers["stability_recall"] == pytest.approx(3 / 5)


def test_one_gap_of_two_frames_is_two_changes() -> None:
    assert score(*following(BOX, None, None, BOX, BOX))["fragment"] == pytest.approx(2 / 4)


def test_centre_error_is_the_spread_in_box_sizes() -> None:
    # Offsets 0 and 20 of 100 pixels in x: std .1. 0 and 10 in y: std .05.
    numbers = score(*following(BOX, (20.0, 10.0, 120.0, 110.0)))
    assert numbers["centre"] == numbers["stability"] == pytest.approx(0.15)


def test_scale_that_alternates_with_a_fifth_more_gives_a_tenth() -> None:
    larger = (-10.0, -10.0, 110.0, 110.0)  # about the same centre; std of 1 and 1.2
    numbers = score(*following(BOX, larger, BOX, larger))
    assert numbers["scale_ratio"] == numbers["stability"] == pytest.approx(0.1)


def test_ratio_error_adds_to_scale_error() -> None:
    # Width 100 and 120: r is 1 and 1.2, std .1; s is 1 and sqrt(1.2) = 1.0954, std .0477.
    numbers = score(*following(BOX, (-10.0, 0.0, 110.0, 100.0)))
    assert numbers["scale_ratio"] == pytest.approx(0.1 + (math.sqrt(1.2) - 1) / 2)


def test_errors_are_means_over_tracks() -> None:
    frames = [frame(i, [(BOX, 0.9, 0)], [(BOX, 0, 1), (FAR, 0, 2)]) for i in range(3)]
    frames[1] = frame(1, [(BOX, 0.9, 0), (FAR, 0.9, 0)], [(BOX, 0, 1), (FAR, 0, 2)])
    assert score(*frames)["fragment"] == pytest.approx((0 + 2 / 2) / 2)


def test_a_track_never_matched_is_counted_but_in_no_mean() -> None:
    frames = [frame(i, [(BOX, 0.9, 0)] * (i != 1), [(BOX, 0, 1), (FAR, 0, 2)]) for i in range(3)]
    numbers = score(*frames)
    assert numbers["fragment"] == 1.0
    assert numbers["stability_tracks"] == 2 and numbers["stability_never_found"] == 1


def test_a_track_of_one_frame_has_no_error() -> None:
    assert score(*following((20.0, 0.0, 120.0, 100.0)))["stability"] == 0.0


def test_the_same_identity_in_two_videos_is_two_tracks() -> None:
    metric = Stability(("a",))
    parts = [metric.measure(video(*following(BOX))), metric.measure(video(*following(None)))]
    numbers = metric.combine(parts)
    assert numbers["stability_tracks"] == 2 and numbers["fragment"] == 0.0


def test_a_box_of_another_class_is_no_match() -> None:
    assert score(frame(0, [(BOX, 0.9, 1)], [(BOX, 0, 1)]))["stability_recall"] == 0.0


def test_iou_below_one_half_is_no_match() -> None:
    assert score(*following((0.0, 0.0, 100.0, 49.0)))["stability_recall"] == 0.0


def test_matching_maximises_the_total_iou() -> None:
    # The first fits BOX best (95 / 105) and the other with 85 / 115; the second fits BOX alone
    # (80 / 120). Together .739 + .667 is more than .905.
    other = (20.0, 0.0, 120.0, 100.0)
    detections = [((5.0, 0.0, 105.0, 100.0), 0.9, 0), ((-20.0, 0.0, 80.0, 100.0), 0.9, 0)]
    assert score(frame(0, detections, [(BOX, 0, 1), (other, 0, 2)]))["stability_recall"] == 1.0


def test_one_detection_is_not_matched_twice() -> None:
    detections = [((5.0, 0.0, 105.0, 100.0), 0.9, 0)]
    targets = [(BOX, 0, 1), ((20.0, 0.0, 120.0, 100.0), 0, 2)]
    assert score(frame(0, detections, targets))["stability_recall"] == 0.5


def test_matches_equal_the_assignment_at_every_threshold() -> None:
    own = random_video(4, crowded=True)
    part = Stability(("a", "b")).measure(own)
    for place, threshold in enumerate(GRID):
        hits = kept = 0
        for f in own.frames:
            on = f.scores >= threshold
            kept += on.sum()
            iou = pairwise_iou(f.boxes[on], f.target_boxes)
            iou[(iou < 0.5) | (f.labels[on][:, None] != f.target_labels)] = 0
            hits += (iou[linear_sum_assignment(iou, maximize=True)] > 0).sum()
        assert (part["hits"][place], part["false"][place]) == (hits, kept - hits)


def test_errors_at_a_threshold_are_those_without_the_detections_below_it() -> None:
    own = random_video(5, crowded=True)
    part = Stability(("a", "b")).measure(own)
    for place in (10, 25, 40):
        on = [f.scores >= GRID[place] for f in own.frames]
        frames = [
            replace(f, boxes=f.boxes[k], scores=f.scores[k], labels=f.labels[k])
            for f, k in zip(own.frames, on, strict=True)
        ]
        alone = Stability(("a", "b")).measure(video(*frames))
        assert {n: v[place] for n, v in part.items()} == {n: v[0] for n, v in alone.items()}


def test_threshold_is_that_of_the_best_f1() -> None:
    # Down to .6: 2 hits of 2, nothing false. Below .1 the box that jumps about would be false.
    frames = [frame(i, [(BOX, 0.6, 0), (FAR, 0.1, 0)], [(BOX, 0, 1)]) for i in range(2)]
    assert score(*frames)["stability_threshold"] == 0.6


def test_equal_recall_takes_the_highest_threshold_that_reaches_it() -> None:
    # Half of the targets are found at .9, steadily; the others at .3, every second time.
    targets = [(BOX, 0, 1), (FAR, 0, 2)]
    frames = [frame(i, [(BOX, 0.9, 0)], targets) for i in range(3)]
    frames[1] = frame(1, [(BOX, 0.9, 0), (FAR, 0.3, 0)], targets)
    metric = Stability(("a",), recalls=(0.5, 0.6, 0.75))
    numbers = metric.combine([metric.measure(video(*frames))])
    assert numbers["stability_threshold@R50"] == 0.9 and numbers["fragment@R50"] == 0.0
    assert numbers["stability_recall@R50"] == 0.5 and numbers["stability_never_found@R50"] == 1
    assert numbers["stability_threshold@R60"] == 0.3 and numbers["fragment@R60"] == 0.5
    assert math.isnan(numbers["stability@R75"]) and math.isnan(numbers["stability_recall@R75"])


def test_detection_on_an_ignored_region_is_no_false_alarm() -> None:
    # As false positives the ten at .4 would make .9 (F1 2/3) better than .3 (F1 4/14).
    region = ((300.0, 0.0, 600.0, 300.0), -1, -1)
    first = frame(0, [(BOX, 0.9, 0)], [(BOX, 0, 1)])
    detections = [(BOX, 0.3, 0), *[(FAR, 0.4, 0)] * 10]
    second = frame(1, detections, [(BOX, 0, 1), region], [False, True])
    assert score(first, second)["stability_threshold"] == 0.3
    assert score(first, frame(1, detections, [(BOX, 0, 1)]))["stability_threshold"] == 0.9


def test_frames_in_which_a_target_is_ignored_are_no_part_of_its_track() -> None:
    frames = following(BOX, None, None, BOX)
    for i in (1, 2):
        frames[i] = replace(frames[i], target_ignore=np.array([True]))
    numbers = score(*frames)
    assert numbers["fragment"] == 0.0 and numbers["stability_recall"] == 1.0


def test_targets_without_identity_count_for_recall_alone() -> None:
    targets = [(BOX, 0, 1), (FAR, 0, -1)]
    numbers = score(*(frame(i, [(BOX, 0.9, 0), (FAR, 0.9, 0)][: 2 - i], targets) for i in range(2)))
    assert numbers["stability_recall"] == 0.75 and numbers["fragment"] == 0.0
    assert numbers["stability_tracks"] == 1
    unknown = score(frame(0, [(FAR, 0.9, 0)], [(FAR, 0, -1)]))
    assert unknown["stability_recall"] == 1.0 and math.isnan(unknown["stability"])


def test_unlabelled_frames_are_skipped() -> None:
    frames = following(BOX, BOX, BOX)
    frames[1] = replace(frame(1, [(FAR, 0.9, 0)], []), labelled=False)
    numbers = score(*frames)
    assert numbers["fragment"] == 0.0 and numbers["stability_recall"] == 1.0


def test_order_of_videos_changes_nothing() -> None:
    metric = Stability(("a", "b"))
    parts = [metric.measure(random_video(seed)) for seed in range(3)]
    numbers = metric.combine(parts)
    assert numbers["fragment"] > 0 and numbers["centre"] > 0
    assert metric.combine(parts[::-1]) == pytest.approx(numbers)


def test_part_given_twice_counts_as_two_videos() -> None:
    metric = Stability(("a", "b"))
    one, two = (metric.measure(random_video(seed)) for seed in range(2))
    again = metric.measure(replace(random_video(1), name="copy"))
    numbers = metric.combine([one, two, two])
    assert numbers == metric.combine([one, two, again])
    assert numbers["stability_tracks"] == 18


def test_headline_equals_the_full_numbers() -> None:
    metric = Stability(("a", "b"))
    parts = [metric.measure(random_video(6))]
    headline, numbers = metric.headline(parts), metric.combine(parts)
    assert headline == {name: numbers[name] for name in headline}
    assert {"stability", "stability@R50", "stability_recall"} <= set(headline)


@pytest.mark.parametrize("frames", [[], [frame(0, [], [])], [frame(0, [(BOX, 0.9, 0)], [])]])
def test_no_target_at_all_gives_nan(frames: list[EvaluatedFrame]) -> None:
    numbers = score(*frames)
    assert numbers.pop("stability_tracks") == 0
    assert all(math.isnan(value) for value in numbers.values())


def test_no_video_at_all_gives_nan() -> None:
    numbers = Stability(("a",)).combine([])
    assert numbers["stability_tracks"] == 0 and math.isnan(numbers["stability"])


def test_no_detections_give_recall_zero_and_no_errors() -> None:
    numbers = score(*following(None, None))
    assert numbers["stability_recall"] == 0.0 and numbers["stability_never_found"] == 1
    assert math.isnan(numbers["stability"]) and math.isnan(numbers["stability_threshold"])
    assert math.isnan(numbers["stability@R50"])
