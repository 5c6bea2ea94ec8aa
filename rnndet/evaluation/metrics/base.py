"""What every metric offers.

A metric works in two steps: `measure` looks at one video, `combine` puts what it found in any
number of videos together. The first is the expensive one and is done once per video; the second is
repeated for samples of the videos (intervals.py), and for what several processes
measured.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from rnndet.evaluation.metrics.record import EvaluatedVideo, Predictions

Numbers = dict[str, float]

# Numbers that are no shares of 1, by the part of their names before "/" or "@", and their units.
UNITS = {
    "AD": "frames",
    "delay": "frames",
    "recovery_frames": "frames",
    "mismatch": "frames",
    "missed": "frames",
    "flicker": "per 1000 frames",
    "IDSW": "times",
    "stability_tracks": "tracks",
    "stability_never_found": "tracks",
}


class Metric(Protocol):
    """One family of numbers, for a fixed list of classes."""

    rule: str  # how it counts, in one line: IoU, interpolation, detections per frame

    def measure(self, video: EvaluatedVideo) -> Any:
        """What one video contributes. Frames that are not labelled have no truth to compare to."""
        ...

    def combine(self, parts: Sequence[Any]) -> Numbers:
        """All numbers of the videos whose parts are given; NaN where truths do not define one.

        A part may be given more than once: the video then counts as often.
        """
        ...

    def headline(self, parts: Sequence[Any]) -> Numbers:
        """The few numbers of `combine` that get a confidence interval, without the others' cost."""
        ...


def unit(name: str) -> str | None:
    """What a number counts; None for a share, which is shown in per cent."""
    return UNITS.get(name.split("/")[0].split("@")[0])


def compute(metric: Metric, predictions: Predictions) -> Numbers:
    """All numbers of a run."""
    return metric.combine([metric.measure(video) for video in predictions.videos])
