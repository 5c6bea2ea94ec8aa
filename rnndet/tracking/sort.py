"""Tracking by the overlap with boxes that a Kalman filter predicts."""

from dataclasses import dataclass
from typing import ClassVar

from rnndet.registry import AtLeastOne, NotNegative
from rnndet.tracking.iou import IouOptions, IouTracker
from rnndet.tracking.kalman import ConstantVelocity, KalmanOptions
from rnndet.tracking.tracks import Motion, TrackOptions


@dataclass(frozen=True, kw_only=True)
class SortOptions(KalmanOptions, IouOptions):
    """Options of `SortTracker`."""

    min_hits: AtLeastOne = 2
    max_age: NotNegative = 1.0


class SortTracker(IouTracker):
    """Give a detection the id of the track whose predicted box has the highest IoU with it.

    Bewley et al., "Simple Online and Realtime Tracking", ICIP 2016, arXiv 1602.00763.
    Differences: the filter works in seconds on log sizes (see `ConstantVelocity`), a track needs
    two hits instead of three, and it survives `max_age` seconds instead of one frame. Classes are
    ignored. Options: see `SortOptions`.
    """

    Options: ClassVar[type[TrackOptions]] = SortOptions
    options: SortOptions

    def _new_motion(self) -> Motion:
        return ConstantVelocity(self.options)
