"""Streaming AP: hand-computed schedules."""

import math
from dataclasses import replace

import numpy as np
import pytest
from evaluated_videos import BOX, Detection, Target, evaluated, random_video, shifted, video

from rnndet.errors import RnndetError
from rnndet.evaluation.metrics.streaming import StreamingAP, delayed, schedule, timing
from rnndet.evaluation.records import EvaluatedVideo


def moving(count: int, *, step: int = 1, fps: float | None = 30.0) -> EvaluatedVideo:
    """One object, 5 px to the right a frame, detected in every frame."""
    boxes = [shifted(BOX, 5 * i) for i in range(count)]
    frames = (evaluated(step * i, [Detection(b, id=3)], [Target(b)]) for i, b in enumerate(boxes))
    return video(*frames, fps=fps)


def test_fifty_milliseconds_at_thirty_frames_a_second() -> None:
    # 1.5 frames each, in units of frames: frame 0 is ready at 1.5, the newest then is 1, ready at
    # 3.0, the newest then is 3, ready at 4.5, then 4 (6.0), 6 (7.5), 7 (9.0), 9.
    plan = schedule(moving(10), [0.05])
    assert plan.processed.tolist() == [0, 1, 3, 4, 6, 7, 9]
    assert (plan.ready * 30).tolist() == pytest.approx([1.5, 3, 4.5, 6, 7.5, 9, 10.5])
    assert plan.shown.tolist() == [-1, -1, 0, 1, 1, 3, 4, 4, 6, 7]


def test_timing_of_fifty_milliseconds() -> None:
    # Of 6 frames 2 are missed; the others are behind by 2, 2, 3, 2.
    numbers = timing([schedule(moving(6), [0.05])])
    assert numbers == {"missed": 2, "mismatch": 9 / 4, "in_time": 0}


def test_faster_than_the_frames_is_one_frame_behind() -> None:
    plan = schedule(moving(5), [0.02])
    assert plan.processed.tolist() == [0, 1, 2, 3, 4]
    assert plan.shown.tolist() == [-1, 0, 1, 2, 3]
    assert timing([plan]) == {"missed": 1, "mismatch": 1, "in_time": 4 / 5}


def test_latencies_are_repeated() -> None:
    # In frames: 0 (ready 0.5), 1 (ready 1 + 2.5 = 3.5), 3 (ready 4.0), 4 (ready 6.5).
    plan = schedule(moving(7, fps=10.0), [0.05, 0.25])
    assert plan.processed.tolist() == [0, 1, 3, 4, 6]
    assert plan.shown.tolist() == [-1, 0, 0, 0, 3, 3, 3]


def test_arrival_times_follow_the_frame_numbers() -> None:
    # Every third frame of 30 a second is 10 a second.
    sparse, rate = schedule(moving(8, step=3), [0.12]), schedule(moving(8, fps=10.0), [0.12])
    assert sparse.shown.tolist() == rate.shown.tolist()


def test_a_given_rate_replaces_the_rate_of_the_video() -> None:
    assert schedule(moving(8), [0.12], fps=10).shown.tolist() == (
        schedule(moving(8, fps=None), [0.12], fps=10).shown.tolist()
    )


def test_metric_uses_the_rate_of_the_video() -> None:
    metric = StreamingAP(("thing",), latencies=[0.12], fps=30.0)
    _, plan = metric.measure(moving(8, fps=10.0))
    assert plan.shown.tolist() == schedule(moving(8, fps=10.0), [0.12]).shown.tolist()


def test_rounding_costs_no_frame_in_a_long_video() -> None:
    plan = schedule(moving(3000), [1 / 30])
    assert plan.shown.tolist() == list(range(-1, 2999))


def test_zero_latency_changes_nothing() -> None:
    clip = random_video(1)
    for before, after in zip(clip.frames, delayed(clip, schedule(clip, [0.0])).frames, strict=True):
        assert np.array_equal(before.boxes, after.boxes)


def test_delayed_shows_old_detections_with_new_targets() -> None:
    clip = moving(5)
    late = delayed(clip, schedule(clip, [0.05]))
    assert [len(frame.boxes) for frame in late.frames] == [0, 0, 1, 1, 1]
    frame = late.frames[4]  # shows frame 1
    assert frame.boxes.tolist() == [list(shifted(BOX, 5))] and frame.ids.tolist() == [3]
    assert frame.index == 4 and frame.target_boxes.tolist() == [list(shifted(BOX, 20))]


def test_an_empty_video_has_an_empty_schedule() -> None:
    assert delayed(video(), schedule(video(), [0.05])) == video()
    numbers = timing([schedule(video(), [0.05])])
    assert numbers["missed"] == 0 and math.isnan(numbers["mismatch"])
    assert math.isnan(numbers["in_time"]) and math.isnan(timing([])["in_time"])


def test_measured_times_are_those_of_the_processed_frames() -> None:
    # 10 fps. Frame 0 takes 0.25 s, so frame 2 comes next (it arrived at 0.2) and takes 0.05 s,
    # until 0.3; then frame 3, which just arrived. What frame 1 took plays no part.
    clip = moving(5, fps=10.0)
    times = [0.25, 9.0, 0.05, 0.1, 0.1]
    frames = [replace(f, seconds=s) for f, s in zip(clip.frames, times, strict=True)]
    plan = schedule(replace(clip, frames=tuple(frames)))
    assert plan.processed.tolist() == [0, 2, 3, 4]
    assert plan.shown.tolist() == [-1, -1, -1, 2, 3]


def test_frames_that_were_not_timed_need_a_latency() -> None:
    with pytest.raises(RnndetError, match="give `latencies`"):
        schedule(moving(3))


def test_a_video_without_a_rate_needs_one() -> None:
    with pytest.raises(RnndetError, match="clip: its frame rate is None"):
        schedule(moving(3, fps=None), [0.05])


@pytest.mark.parametrize("latencies", [[], [-0.1], [float("nan")], [float("inf")]])
def test_impossible_latencies_are_refused(latencies: list[float]) -> None:
    with pytest.raises(RnndetError, match="latencies"):
        schedule(moving(3), latencies)
