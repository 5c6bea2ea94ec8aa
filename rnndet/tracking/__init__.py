"""Trackers turn detections into detections with ids, one frame at a time."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from rnndet.structures import Detections
from rnndet.tracking.assign import Array, Rows
from rnndet.tracking.byte import ByteTracker
from rnndet.tracking.iou import IouTracker
from rnndet.tracking.smoothing import TrackSmoother
from rnndet.tracking.sort import SortTracker


class Tracker(Protocol):
    """Keeps the identity of objects through one video; reset before another."""

    def update(self, detections: Detections, *, time: float | None = None) -> Detections:
        """Return the detections with ids (0 = no track yet); once per frame, also with none."""
        ...

    def expected(self) -> tuple[Array, Rows]:
        """Where each track with an id is, or is expected to be, now: boxes (N, 4) and ids (N,)."""
        ...

    def end_tracks(self) -> None:
        """End every track, as another scene begins; ids go on."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What the next frame depends on, as plain data and arrays."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        ...

    def reset(self) -> None:
        """Forget everything; ids start at 1 again."""
        ...


def no_tracker(*, min_score: float = 0.3) -> None:
    """No tracker: a stream without one reports detections without ids."""


# Every entry takes min_score, the score from which a detection is shown, and its own options.
TRACKERS: dict[str, Callable[..., Tracker | None]] = {
    "none": no_tracker,
    "iou": IouTracker,
    "sort": SortTracker,
    "byte": ByteTracker,
}

__all__ = ["TRACKERS", "ByteTracker", "IouTracker", "SortTracker", "TrackSmoother", "Tracker"]
