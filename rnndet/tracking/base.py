"""Base class of trackers: options; hold, reset, save and restore tracks."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Generic, TypeVar

from rnndet.registry import convert
from rnndet.structures import Detections
from rnndet.tracking.assign import Array, Rows
from rnndet.tracking.tracks import Motion, TrackOptions, Tracks

Chosen = TypeVar("Chosen", bound=TrackOptions)


class BaseTracker(ABC, Generic[Chosen]):
    """Keep the tracks of a video; subclasses match the detections of each frame to them.

    Options are keyword arguments: the fields of `Options`, a dataclass, which has their ranges and
    defaults. Raises RnndetError for an option that does not exist or is out of its range.
    """

    Options: ClassVar[type[TrackOptions]]

    def __init__(self, **options: Any) -> None:
        self.options: Chosen = convert(self.Options, options, what="tracker")
        self.reset()

    @abstractmethod
    def update(self, detections: Detections, *, time: float | None = None) -> Detections:
        """Return the detections with ids; call once per frame, also without detections."""

    @abstractmethod
    def _new_motion(self) -> Motion: ...

    def expected(self) -> tuple[Array, Rows]:
        """Current or predicted boxes (N, 4) and ids (N,) of the tracks that have an id."""
        return self._tracks.expected()

    def reset(self) -> None:
        """Remove all tracks, before another video; ids start at 1 again."""
        self._tracks = Tracks(self._new_motion(), self.options)

    def end_tracks(self) -> None:
        """End all tracks, at a scene cut; ids continue."""
        self._tracks.clear()

    def state_dict(self) -> dict[str, Any]:
        """The tracks as plain data and arrays, without the options."""
        return self._tracks.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of `state_dict`."""
        self._tracks.load_state_dict(state)


def changed_options(tracker: object) -> dict[str, Any]:
    """The options of a tracker that are not the defaults, without min_score.

    >>> from rnndet.tracking.iou import IouTracker
    >>> changed_options(IouTracker(max_age=2.0))
    {'max_age': 2.0}
    """
    if not isinstance(tracker, BaseTracker):
        return {}
    defaults = asdict(tracker.Options())
    given = asdict(tracker.options)
    return {k: v for k, v in given.items() if k != "min_score" and v != defaults[k]}
