"""Streaming accuracy: at every frame the newest finished output of the model is evaluated.

Li, Wang, Ramanan, "Towards Streaming Perception", ECCV 2020, arXiv 2005.10420; official kit
github.com/mtli/sAP. sAP is any AP of the `delayed` videos. Here eta = 0: when a frame arrives only
outputs that are finished by then count, so the output for a frame is never evaluated on the same
frame. Whenever the model finishes a frame, it processes the newest frame next.

Simulated from the outputs of a run over all frames and a trace of latencies, given or measured in
that run; the same trace gives the same numbers. One difference from a real stream: a model with
memory has seen every frame, while a stream that is too slow skips some.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any, ClassVar, NamedTuple

import numpy as np

from rnndet.errors import RnndetError
from rnndet.evaluation.metrics.base import Metric, Numbers
from rnndet.evaluation.metrics.coco_ap import CocoAP
from rnndet.evaluation.records import EvaluatedVideo, Predictions

TOLERANCE = 1e-6  # seconds; rounding must not delay an output that is just in time by a frame


class StreamingAP(Metric):
    """COCO AP of the newest finished output: "sAP", "sAP50", and the numbers of `timing`.

    latencies: seconds for each processed frame; repeated from the start when it ends. None: the
    times measured in the run, `EvaluatedFrame.seconds`.
    fps: frames per second, for videos without a frame rate.
    Raises RnndetError for impossible latencies.
    """

    columns = ("sAP50", "sAP", "mismatch", "in_time")
    units: ClassVar = {"mismatch": "frames", "missed": "frames"}
    needs_times = True

    def __init__(
        self, classes: Sequence[str], *, latencies: Sequence[float] | None = None, fps: float = 30.0
    ) -> None:
        self._ap = CocoAP(classes)
        self._latencies, self._fps = latencies, fps
        source = "as measured in the run"
        if latencies is not None:
            mean = 1000 * sum(_checked(latencies)) / len(latencies)
            source = f"{mean:.1f} ms a frame on average"
        self.rule = f"sAP, {source}, eta 0, {fps:g} fps if unknown"

    def measure(self, video: EvaluatedVideo) -> Any:
        """The matches of the delayed video, and its schedule."""
        plan = schedule(video, self._latencies, fps=video.fps or self._fps)
        return self._ap.measure(delayed(video, plan)), plan

    def combine(self, parts: Sequence[Any]) -> Numbers:
        """The numbers of `headline` and of `timing`."""
        return self.headline(parts) | timing([part[1] for part in parts])

    def headline(self, parts: Sequence[Any]) -> Numbers:
        """ "sAP50" and "sAP"."""
        return {f"s{k}": v for k, v in self._ap.headline([part[0] for part in parts]).items()}


class Schedule(NamedTuple):
    """When the N frames of one video are processed and shown; frames by position, from 0."""

    processed: np.ndarray  # (P,) int64, the processed frames, ascending
    ready: np.ndarray  # (P,) seconds from the first frame until each output is finished
    shown: np.ndarray  # (N,) int64, the frame whose output is the newest at each frame; -1 = none


def schedule(
    video: EvaluatedVideo, latencies: Sequence[float] | None = None, *, fps: float | None = None
) -> Schedule:
    """Simulate a stream of the video.

    latencies: seconds for each processed frame; repeated from the start when it ends. None: the
    measured times of the frames.
    fps: frames per second, in place of the video's frame rate.
    Frame i arrives (index of i - first index) / fps seconds after the first. Raises RnndetError for
    a video without a frame rate, for impossible latencies, and for frames without a measured time.
    """
    fps = video.fps if fps is None else fps
    if fps is None or not fps > 0:
        raise RnndetError(f"{video.name}: its frame rate is {fps}; set frames per second")
    if latencies is None:
        seconds = [frame.seconds for frame in video.frames]
        if not all(map(math.isfinite, seconds)):
            raise RnndetError(f"{video.name}: its frame times were not measured; give `latencies`")
        cost: Callable[[int], float] = seconds.__getitem__
    else:
        trace = cycle(_checked(latencies))
        cost = lambda _: next(trace)  # noqa: E731
    index = np.array([frame.index for frame in video.frames], np.int64)
    times = (index - index[:1]) / fps
    processed, ready = _simulate(times, cost)
    newest = np.searchsorted(ready, times + TOLERANCE, side="right") - 1  # (N,) -1 = none
    shown = np.full(len(times), -1)
    shown[newest >= 0] = processed[newest[newest >= 0]]
    return Schedule(processed, ready, shown)


def is_timed(run: Predictions) -> bool:
    """Whether all frames have a measured time."""
    return all(math.isfinite(f.seconds) for video in run.videos for f in video.frames)


def _checked(latencies: Sequence[float]) -> tuple[float, ...]:
    if len(latencies) == 0 or not all(0 <= value < float("inf") for value in latencies):
        raise RnndetError("latencies: expected at least one, each in seconds and not negative")
    return tuple(latencies)


def _simulate(times: np.ndarray, cost: Callable[[int], float]) -> tuple[np.ndarray, np.ndarray]:
    """The processed frames and the time at which each is finished; times (N,) of arrival.

    cost(i): the seconds that frame i takes; called in the order of processing.
    """
    processed, ready = [], []
    frame, now = 0, 0.0
    while frame < len(times):
        now = max(now, times[frame]) + cost(frame)
        processed.append(frame)
        ready.append(now)
        newest = int(np.searchsorted(times, now + TOLERANCE, side="right")) - 1
        frame = max(newest, frame + 1)
    return np.array(processed, np.int64), np.array(ready)


def delayed(video: EvaluatedVideo, plan: Schedule) -> EvaluatedVideo:
    """The video with the shown detections at each frame instead of the frame's own detections.

    There are no detections before the first output.
    """
    frames = []
    for frame, position in zip(video.frames, plan.shown, strict=True):
        source, keep = (frame, slice(0)) if position < 0 else (video.frames[position], slice(None))
        frames.append(
            replace(
                frame,
                boxes=source.boxes[keep],
                scores=source.scores[keep],
                labels=source.labels[keep],
                ids=source.ids[keep],
            )
        )
    return replace(video, frames=tuple(frames))


def timing(schedules: Sequence[Schedule]) -> Numbers:
    """Delay statistics of several schedules; NaN where nothing was shown.

    "missed": frames without any output yet; "mismatch": mean number of frames from the frame whose
    output is shown to the current one; "in_time": share of all frames with a mismatch of at most 1,
    the best that a real latency allows. (The official kit counts a mismatch of 0.)
    """
    behind = [np.arange(len(s.shown))[s.shown >= 0] - s.shown[s.shown >= 0] for s in schedules]
    frames, mismatch = sum(len(s.shown) for s in schedules), np.concatenate([[], *behind])
    return {
        "missed": float(frames - len(mismatch)),
        "mismatch": float(mismatch.mean()) if len(mismatch) else float("nan"),
        "in_time": float((mismatch <= 1).sum() / frames) if frames else float("nan"),
    }
