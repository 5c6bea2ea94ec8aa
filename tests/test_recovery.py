"""Recovery: hand-computed values."""

import math
from collections.abc import Collection
from dataclasses import replace

import pytest
from evaluated_videos import (
    BOX,
    FAR,
    Detection,
    Target,
    evaluated,
    random_video,
    shifted,
    video,
)

from rnndet.evaluation.metrics.recovery import Recovery
from rnndet.evaluation.records import EvaluatedVideo

RUN = range(5, 10)


def score(*videos: EvaluatedVideo, indices: Collection[int] = RUN) -> dict[str, float]:
    """The numbers of the videos with the frames `indices` corrupted."""
    metric = Recovery(("a", "b"))
    return metric.combine([metric.measure(corrupted(clip, indices)) for clip in videos])


def corrupted(clip: EvaluatedVideo, indices: Collection[int]) -> EvaluatedVideo:
    return replace(
        clip, frames=tuple(replace(f, corrupted=f.index in indices) for f in clip.frames)
    )


def clip(detected: Collection[int], *, present: int = 20, length: int = 60) -> EvaluatedVideo:
    """An object in the first `present` frames, detected in the frames `detected`."""
    return video(
        *(
            evaluated(i, [Detection(BOX)] * (i in detected), [Target(BOX)] * (i < present))
            for i in range(length)
        )
    )


def test_recovery_after_two_frames_and_held_in_one_of_five() -> None:
    # Detection in 0 to 4, in 5 (in the run), and again from 12 on, the third frame after it.
    numbers = score(clip({*range(6), *range(12, 20)}))
    assert numbers == {"recovery_frames": 2, "held_share": pytest.approx(1 / 5)}


def test_detection_in_the_first_frame_after_the_run_is_zero() -> None:
    assert score(clip(range(20)))["recovery_frames"] == 0


def test_two_runs_are_averaged() -> None:
    # After frames 5, 6: back in 8 (1 frame). After 10: back in 14 (3 frames). Never held.
    numbers = score(clip({*range(5), 8, 9, *range(14, 20)}), indices=(5, 6, 10))
    assert numbers == {"recovery_frames": 2, "held_share": 0}


def test_no_recovery_counts_thirty() -> None:
    assert score(clip(range(5), present=60))["recovery_frames"] == 30


def test_later_than_thirty_counts_thirty() -> None:
    assert score(clip({*range(5), *range(45, 60)}, present=60))["recovery_frames"] == 30


def test_a_target_that_ends_before_its_recovery_counts_thirty() -> None:
    assert score(clip(range(5), present=12))["recovery_frames"] == 30


def test_a_target_that_ends_in_the_run_is_only_held() -> None:
    numbers = score(clip(range(6), present=8))
    assert math.isnan(numbers["recovery_frames"]) and numbers["held_share"] == pytest.approx(1 / 3)


def test_only_tracks_detected_before_the_run_take_part() -> None:
    frames = [evaluated(i, [Detection(BOX)], [Target(BOX, 1), Target(FAR, 2)]) for i in range(20)]
    assert score(video(*frames)) == {"recovery_frames": 0, "held_share": 1}


def test_a_run_from_the_first_frame_has_no_before() -> None:
    assert math.isnan(score(clip(range(20)), indices=range(5))["held_share"])


def test_a_run_to_the_last_frame_has_no_after() -> None:
    numbers = score(clip(range(20), length=10))
    assert math.isnan(numbers["recovery_frames"]) and numbers["held_share"] == 1


@pytest.mark.parametrize(
    "detection",
    [
        Detection(BOX, label=1),
        Detection(BOX, score=0.2),
        Detection(shifted(BOX, 14)),
    ],  # the last: IoU 26/54
)
def test_another_class_a_low_score_or_a_bad_box_is_no_detection(detection: Detection) -> None:
    frames = [
        evaluated(i, [Detection(BOX) if i < 5 else detection], [Target(BOX)]) for i in range(50)
    ]
    assert score(video(*frames)) == {"recovery_frames": 30, "held_share": 0}


@pytest.mark.parametrize("target", [Target(BOX, -1), Target(BOX, 1, ignore=True)])
def test_ignored_and_unknown_targets_are_no_tracks(target: Target) -> None:
    frames = [evaluated(i, [Detection(BOX)], [target]) for i in range(20)]
    assert math.isnan(score(video(*frames))["held_share"])


def test_frames_without_labels_are_skipped() -> None:
    frames = [evaluated(i, [Detection(BOX)], [Target(BOX)], labelled=i % 3 == 0) for i in range(20)]
    # Labelled are 3 before the run, 6 and 9 in it, and 12: the third frame after it.
    assert score(video(*frames)) == {"recovery_frames": 2, "held_share": 1}


def test_videos_without_runs_and_no_videos_give_nan() -> None:
    for numbers in (score(clip(range(20)), indices=()), score(), score(video())):
        assert len(numbers) == 2 and all(math.isnan(value) for value in numbers.values())


def test_order_of_videos_changes_nothing_and_a_part_may_count_twice() -> None:
    metric = Recovery(("a", "b"), min_score=0.6)
    a, b = (metric.measure(random_video(seed)) for seed in (1, 2))
    assert metric.combine([a, b]) == metric.combine([b, a]) == metric.headline([a, b])
    assert metric.combine([a, a]) == metric.combine([a])
    assert metric.combine([a, a, b])["held_share"] != metric.combine([a, b])["held_share"]
