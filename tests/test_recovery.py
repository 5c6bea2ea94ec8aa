"""rnndet/evaluation/metrics/recovery.py: values by hand."""

import math
from collections.abc import Collection
from dataclasses import replace

import pytest
from evaluated_videos import BOX, FAR, Found, There, random_video, scored, shifted, video

from rnndet.evaluation.metrics.recovery import Recovery
from rnndet.evaluation.records import EvaluatedVideo

RUN = range(5, 10)


def score(*videos: EvaluatedVideo, hard: Collection[int] = RUN) -> dict[str, float]:
    """With the frames `hard` corrupted."""
    metric = Recovery(("a", "b"))
    return metric.combine([metric.measure(corrupted(clip, hard)) for clip in videos])


def corrupted(clip: EvaluatedVideo, hard: Collection[int]) -> EvaluatedVideo:
    return replace(clip, frames=tuple(replace(f, corrupted=f.index in hard) for f in clip.frames))


def clip(found: Collection[int], *, there: int = 20, length: int = 60) -> EvaluatedVideo:
    """An object in the first `there` frames, found in the frames `found`."""
    return video(
        *(scored(i, [Found(BOX)] * (i in found), [There(BOX)] * (i < there)) for i in range(length))
    )


def test_back_two_frames_after_the_run_and_held_in_one_of_five() -> None:
    # Found in 0 to 4, in 5 (in the run), and again from 12 on, the third frame after it.
    numbers = score(clip({*range(6), *range(12, 20)}))
    assert numbers == {"recovery_frames": 2, "held_share": pytest.approx(1 / 5)}


def test_found_in_the_first_frame_after_the_run_is_zero() -> None:
    assert score(clip(range(20)))["recovery_frames"] == 0


def test_two_runs_are_averaged() -> None:
    # After frames 5, 6: back in 8 (1 frame). After 10: back in 14 (3 frames). Never held.
    numbers = score(clip({*range(5), 8, 9, *range(14, 20)}), hard=(5, 6, 10))
    assert numbers == {"recovery_frames": 2, "held_share": 0}


def test_never_back_counts_thirty() -> None:
    assert score(clip(range(5), there=60))["recovery_frames"] == 30


def test_later_than_thirty_counts_thirty() -> None:
    assert score(clip({*range(5), *range(45, 60)}, there=60))["recovery_frames"] == 30


def test_a_target_that_ends_before_it_is_found_counts_thirty() -> None:
    assert score(clip(range(5), there=12))["recovery_frames"] == 30


def test_a_target_that_ends_in_the_run_is_only_held() -> None:
    numbers = score(clip(range(6), there=8))
    assert math.isnan(numbers["recovery_frames"]) and numbers["held_share"] == pytest.approx(1 / 3)


def test_only_tracks_found_before_the_run_take_part() -> None:
    frames = [scored(i, [Found(BOX)], [There(BOX, 1), There(FAR, 2)]) for i in range(20)]
    assert score(video(*frames)) == {"recovery_frames": 0, "held_share": 1}


def test_a_run_from_the_first_frame_has_no_before() -> None:
    assert math.isnan(score(clip(range(20)), hard=range(5))["held_share"])


def test_a_run_to_the_last_frame_has_no_after() -> None:
    numbers = score(clip(range(20), length=10))
    assert math.isnan(numbers["recovery_frames"]) and numbers["held_share"] == 1


@pytest.mark.parametrize(
    "found",
    [Found(BOX, label=1), Found(BOX, score=0.2), Found(shifted(BOX, 14))],  # the last: IoU 26/54
)
def test_another_class_a_low_score_or_a_bad_box_finds_nothing(found: Found) -> None:
    frames = [scored(i, [Found(BOX) if i < 5 else found], [There(BOX)]) for i in range(50)]
    assert score(video(*frames)) == {"recovery_frames": 30, "held_share": 0}


@pytest.mark.parametrize("there", [There(BOX, -1), There(BOX, 1, ignore=True)])
def test_ignored_and_unknown_targets_are_no_tracks(there: There) -> None:
    frames = [scored(i, [Found(BOX)], [there]) for i in range(20)]
    assert math.isnan(score(video(*frames))["held_share"])


def test_frames_without_labels_are_left_out() -> None:
    frames = [scored(i, [Found(BOX)], [There(BOX)], labelled=i % 3 == 0) for i in range(20)]
    # Labelled are 3 before the run, 6 and 9 in it, and 12: the third frame after it.
    assert score(video(*frames)) == {"recovery_frames": 2, "held_share": 1}


def test_videos_without_runs_and_no_videos_give_nan() -> None:
    for numbers in (score(clip(range(20)), hard=()), score(), score(video())):
        assert len(numbers) == 2 and all(math.isnan(value) for value in numbers.values())


def test_order_of_videos_changes_nothing_and_a_part_may_count_twice() -> None:
    metric = Recovery(("a", "b"), min_score=0.6)
    a, b = (metric.measure(random_video(seed)) for seed in (1, 2))
    assert metric.combine([a, b]) == metric.combine([b, a]) == metric.headline([a, b])
    assert metric.combine([a, a]) == metric.combine([a])
    assert metric.combine([a, a, b])["held_share"] != metric.combine([a, b])["held_share"]
