"""Tracking by the overlap with boxes that a Kalman filter predicts."""

from rnndet.tracking.base import MinScore
from rnndet.tracking.iou import IouTracker
from rnndet.tracking.kalman import ConstantVelocity
from rnndet.tracking.tracks import Motion


class SortTracker(IouTracker):
    """Give a detection the id of the track whose predicted box has the highest IoU with it.

    Bewley et al., "Simple Online and Realtime Tracking", ICIP 2016, arXiv 1602.00763.
    Differences: the filter works in seconds on log sizes (see `ConstantVelocity`), a track needs
    two hits instead of three, and it survives `max_age` seconds instead of one frame. Classes are
    ignored. Options as for `IouTracker`.
    """

    def __init__(
        self,
        *,
        min_score: MinScore = 0.3,
        min_iou: float = 0.2,
        min_hits: int = 2,
        max_age: float = 1.0,
        frame_interval: float = 0.04,
    ) -> None:
        super().__init__(
            min_score=min_score,
            min_iou=min_iou,
            min_hits=min_hits,
            max_age=max_age,
            frame_interval=frame_interval,
        )

    def _new_motion(self) -> Motion:
        return ConstantVelocity()
