"""Flicker: hand-computed values."""

import math
from collections.abc import Sequence

import pytest
from evaluated_videos import BOX, FAR, Detection, evaluated, random_video, shifted, video

from rnndet.evaluation.metrics.flicker import Flicker
from rnndet.evaluation.records import EvaluatedVideo


def score(*videos: EvaluatedVideo, **options: float) -> dict[str, float]:
    metric = Flicker(("a", "b"), **options)
    return metric.combine([metric.measure(video) for video in videos])


def clip(*rows: Sequence[Detection], name: str = "clip") -> EvaluatedVideo:
    return video(*(evaluated(i, row) for i, row in enumerate(rows)), name=name)


def test_one_gap_in_ten_frames() -> None:
    # One gap in one track of 10 frames (9 seen, 1 gap): 100 per 1000. All other numbers are 0.
    numbers = score(clip(*([] if i == 5 else [Detection(BOX)] for i in range(10))))
    assert numbers == {
        "flicker": 100,
        "class_flips": 0,
        "jitter": 0,
        "jitter_width": 0,
        "jitter_height": 0,
        "score_wobble": 0,
        "short_tracks": 0,
    }


def test_a_gap_of_three_frames_is_bridged_and_of_four_is_not() -> None:
    three = score(clip(*[[Detection(BOX)]] * 5, *[[]] * 3, *[[Detection(BOX)]] * 5))
    four = score(clip(*[[Detection(BOX)]] * 5, *[[]] * 4, *[[Detection(BOX)]] * 5))
    assert three["flicker"] == pytest.approx(1000 / 13)
    assert four["flicker"] == 0


def test_boxes_that_overlap_too_little_are_not_linked() -> None:
    # A shift by 14 of 40 leaves IoU 26/54 < .5; every box is a track of its own.
    numbers = score(clip(*([Detection(shifted(BOX, 14 * i))] for i in range(5))))
    assert numbers["short_tracks"] == 1 and math.isnan(numbers["score_wobble"])


def test_every_box_is_linked_once() -> None:
    # Two boxes on one object: two tracks without flicker.
    numbers = score(
        clip(*([Detection(BOX, 0.9), Detection(shifted(BOX, 3), 0.8)] for _ in range(6)))
    )
    assert numbers["flicker"] == numbers["short_tracks"] == numbers["jitter"] == 0


def test_constant_velocity_is_no_jitter_and_shaking_is() -> None:
    smoothed = score(clip(*([Detection(shifted(BOX, 4 * i))] for i in range(8))))
    shaking = score(clip(*([Detection(shifted(BOX, 4 * (i % 2)))] for i in range(8))))
    assert smoothed["jitter"] == 0
    assert shaking["jitter"] == pytest.approx(8 / 40)  # 0 4 0: |0 - 2 * 4 + 0| = 8, size 40


def test_changing_width_is_jitter_of_the_width() -> None:
    wide = (8.0, 10.0, 52.0, 50.0)
    numbers = score(clip(*([Detection(wide if i % 2 else BOX)] for i in range(8))))
    assert numbers["jitter_width"] == pytest.approx(2 * math.log(1.1), rel=1e-5)
    assert numbers["jitter"] == numbers["jitter_height"] == 0


def test_jitter_needs_three_frames_in_a_row() -> None:
    assert math.isnan(score(clip(*([Detection(BOX)] * (i % 3 != 2) for i in range(9))))["jitter"])


def test_jitter_is_the_median_over_all_videos() -> None:
    # Five values of 0, two of .2: the median of seven is 0.
    still = clip(*([Detection(BOX)] for _ in range(7)), name="still")
    shaking = clip(*([Detection(shifted(BOX, 4 * (i % 2)))] for i in range(4)), name="shaking")
    assert score(still, shaking)["jitter"] == 0
    assert score(shaking, still, shaking, shaking)["jitter"] == pytest.approx(0.2)  # 5 and 6 of 11


def test_score_wobble_is_the_mean_change() -> None:
    numbers = score(clip(*([Detection(BOX, value)] for value in (0.5, 0.7, 0.7, 0.4))))
    assert numbers["score_wobble"] == pytest.approx(0.5 / 3)


def test_a_class_that_changes_once_in_nine_links() -> None:
    numbers = score(clip(*([Detection(BOX, label=int(i >= 6))] for i in range(10))))
    assert numbers["class_flips"] == pytest.approx(1 / 9)
    assert numbers["flicker"] == 0 and numbers["short_tracks"] == 0.5  # tracks of 6 and 4 frames


def test_of_overlapping_boxes_of_two_classes_only_the_higher_score_counts() -> None:
    both = [Detection(BOX, 0.9, 0), Detection(BOX, 0.5, 1)]
    turned = [Detection(BOX, 0.5, 0), Detection(BOX, 0.9, 1)]
    assert score(clip(both, both, both))["class_flips"] == 0
    assert score(clip(both, turned, turned))["class_flips"] == 0.5


def test_a_gap_breaks_the_links_of_classes() -> None:
    assert math.isnan(score(clip([Detection(BOX)], [], [Detection(BOX, label=1)]))["class_flips"])


def test_boxes_below_the_score_do_not_count() -> None:
    rows = [[Detection(BOX, 0.35 if i % 2 else 0.9), Detection(FAR, 0.1)] for i in range(10)]
    assert score(clip(*rows))["flicker"] == 0
    assert score(clip(*rows), min_score=0.5)["flicker"] == pytest.approx(4000 / 9)


def test_nothing_is_linked_over_frames_that_were_left_out() -> None:
    frames = [evaluated(i, [Detection(BOX)]) for i in range(16) if i not in (7, 8)]
    numbers = score(video(*frames))
    assert numbers["flicker"] == 0 and numbers["short_tracks"] == 0  # tracks of 7 and 7 frames
    assert numbers == score(clip(*[[Detection(BOX)]] * 14))


def test_every_third_frame_is_no_gap() -> None:
    numbers = score(video(*(evaluated(3 * i, [Detection(BOX)] * (i != 5)) for i in range(10))))
    assert numbers["flicker"] == 100


def test_frames_without_labels_count() -> None:
    frames = [evaluated(i, [Detection(BOX)] * (i != 5), labelled=False) for i in range(10)]
    assert score(video(*frames))["flicker"] == 100


@pytest.mark.parametrize("clips", [[], [video()], [clip([], [])]])
def test_no_boxes_give_nan(clips: list[EvaluatedVideo]) -> None:
    numbers = score(*clips)
    assert len(numbers) == 7 and all(math.isnan(value) for value in numbers.values())


def test_order_of_videos_changes_nothing_and_a_part_may_count_twice() -> None:
    metric = Flicker(("a", "b"))
    a, b = (metric.measure(random_video(seed)) for seed in (1, 2))
    assert metric.combine([a, b]) == pytest.approx(metric.combine([b, a]))
    assert metric.combine([a, a]) == pytest.approx(metric.combine([a]))
    assert metric.combine([a, a, b])["flicker"] != metric.combine([a, b])["flicker"]


def test_headline_is_taken_from_the_combined_numbers() -> None:
    metric = Flicker(("a", "b"))
    parts = [metric.measure(random_video(1))]
    assert metric.headline(parts).items() <= metric.combine(parts).items()
