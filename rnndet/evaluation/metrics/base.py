"""The interface of the metrics.

A metric works in two steps: `measure` looks at one video, `combine` computes the numbers of any
number of measured videos. `measure` is the expensive step and runs once per video; `combine` is
repeated for samples of the videos (intervals.py).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from rnndet.evaluation.records import EvaluatedVideo, Predictions

Numbers = dict[str, float]


class Metric(ABC):
    """One family of numbers, for a fixed list of classes."""

    rule: str  # the protocol in one line: IoU, interpolation, detections per frame
    columns: ClassVar[tuple[str, ...]]  # the numbers that tables show
    # Units of the numbers that are not shares of 1, by the part of their names before "/" or "@".
    units: ClassVar[Mapping[str, str]] = MappingProxyType({})
    works_on_single_frames: ClassVar[bool] = False  # defined for some frames of a video
    whole_video_numbers: ClassVar[tuple[str, ...]] = ()  # if so: not these numbers
    needs_tracks: ClassVar[bool] = False  # measures the output of a tracker
    needs_times: ClassVar[bool] = False  # needs the time of every frame, or `latencies`
    needs_labels: ClassVar[bool] = True  # compares with the ground truth

    @abstractmethod
    def measure(self, video: EvaluatedVideo) -> Any:
        """The contribution of one video. Unlabelled frames have no ground truth."""

    @abstractmethod
    def combine(self, parts: Sequence[Any]) -> Numbers:
        """All numbers of the videos with these contributions; NaN where targets do not define one.

        A part may occur several times: the video then counts that often.
        """

    def headline(self, parts: Sequence[Any]) -> Numbers:
        """The few numbers of `combine` that get a confidence interval, at less cost if possible."""
        return self.combine(parts)


def compute(metric: Metric, predictions: Predictions) -> Numbers:
    """All numbers of a run."""
    return metric.combine([metric.measure(video) for video in predictions.videos])
