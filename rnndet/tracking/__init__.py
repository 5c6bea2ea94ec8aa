"""Online trackers, which give detections the ids of their tracks frame by frame."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from rnndet.errors import RnndetError
from rnndet.registry import lookup
from rnndet.structures import Detections
from rnndet.tracking.assign import Array, Rows
from rnndet.tracking.base import MinScore
from rnndet.tracking.byte import ByteTracker
from rnndet.tracking.iou import IouTracker
from rnndet.tracking.oc_sort import OcSortTracker
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


def no_tracker(*, min_score: MinScore = 0.3, **options: Any) -> None:
    """Return None: a stream without a tracker gives detections without ids.

    Raises RnndetError for any other option.
    """
    if options:
        raise RnndetError(f"tracker.{min(options)} is unknown; without a tracker there are none")


def make_tracker(
    name: str, *, min_score: MinScore, options: Mapping[str, Any] | None = None
) -> Tracker | None:
    """Build a tracker by its name in `TRACKERS`; None for "none".

    min_score: minimum score of a displayed detection; options: fields of the tracker's `Options`.
    Raises RnndetError for an unknown name or option, and for a value out of its range.

    >>> tracker = make_tracker("oc_sort", min_score=0.3, options={"max_age": 2.0})
    >>> tracker.options.max_age
    2.0
    """
    build = lookup(name, TRACKERS, what="tracker")
    if not isinstance(options, Mapping | None):
        raise RnndetError(f"tracker_options = {options!r:.60}; expected names with their values")
    if "min_score" in (options or {}):
        raise RnndetError("tracker.min_score is not an option; it is the score threshold")
    return build(min_score=min_score, **(options or {}))


# Every tracker takes min_score, the minimum score of a displayed detection, of all classes or by
# label, and its own options.
TRACKERS: dict[str, Callable[..., Tracker | None]] = {
    "none": no_tracker,
    "iou": IouTracker,
    "sort": SortTracker,
    "byte": ByteTracker,
    "oc_sort": OcSortTracker,
}
