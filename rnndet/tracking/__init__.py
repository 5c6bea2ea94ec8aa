"""Online trackers, which give detections the ids of their tracks frame by frame."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from rnndet.structures import Detections
from rnndet.tracking.assign import Array, Rows
from rnndet.tracking.base import MinScore
from rnndet.tracking.byte import ByteTracker
from rnndet.tracking.iou import IouTracker
from rnndet.tracking.sort import SortTracker


class Tracker(Protocol):
    """Assign ids to the detections of a video; reset before another video."""

    def update(self, detections: Detections, *, time: float | None = None) -> Detections:
        """Return the detections with ids (0 = no track yet); once per frame, also if empty."""
        ...

    def expected(self) -> tuple[Array, Rows]:
        """Current or predicted boxes (N, 4) and ids (N,) of the tracks that have an id."""
        ...

    def end_tracks(self) -> None:
        """End all tracks, at a scene cut; ids continue."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The state that the next frame depends on, as plain data and arrays."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of `state_dict`."""
        ...

    def reset(self) -> None:
        """Remove all tracks; ids start at 1 again."""
        ...


def no_tracker(*, min_score: MinScore = 0.3) -> None:
    """Return None: a stream without a tracker gives detections without ids."""


# Every tracker takes min_score, the minimum score of a displayed detection, of all classes or by
# label, and its own options.
TRACKERS: dict[str, Callable[..., Tracker | None]] = {
    "none": no_tracker,
    "iou": IouTracker,
    "sort": SortTracker,
    "byte": ByteTracker,
}
