"""Base class of trackers: options; hold, reset, save and restore tracks."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from rnndet.registry import check_names, convert
from rnndet.structures import Detections
from rnndet.tracking.assign import Array, Rows
from rnndet.tracking.tracks import Motion, TrackOptions, Tracks

Chosen = TypeVar("Chosen", bound=TrackOptions)

MinScore = float | Array  # of all classes, or of each class by its label, (K,)


def of_labels(score: MinScore, labels: Rows) -> MinScore:
    """The minimum score of each detection, (D,); or of all."""
    return score[labels] if isinstance(score, np.ndarray) else score


class BaseTracker(ABC, Generic[Chosen]):
    """Keep the tracks of a video; subclasses match the detections of each frame to them.

    Options are keyword arguments: the fields of `Options`, a dataclass, which has their ranges and
    defaults. min_score may be of each class, (K,); its lowest is then that of the options. Raises
    RnndetError for an option that does not exist or is out of its range.
    """

    Options: ClassVar[type[TrackOptions]]

    def __init__(self, *, min_score: MinScore = 0.3, **options: Any) -> None:
        check_names(
            options, [f.name for f in fields(self.Options) if f.name != "min_score"], what="tracker"
        )
        options["min_score"] = float(np.min(min_score))
        self.options: Chosen = convert(self.Options, options, what="tracker")
        self.min_score = min_score
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
        self._tracks = Tracks(self._new_motion(), self.options, min_score=self.min_score)

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
