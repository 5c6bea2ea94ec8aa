"""Base class of trackers: hold, reset, save and restore tracks."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnndet.structures import Detections
from rnndet.tracking.assign import Array, Rows
from rnndet.tracking.tracks import Motion, Tracks

MinScore = float | Array  # of all classes, or of each class by its label, (K,)


def of_labels(score: MinScore, labels: Rows) -> MinScore:
    """The minimum score of each detection, (D,); or of all."""
    return score[labels] if isinstance(score, np.ndarray) else score


class BaseTracker(ABC):
    """Keep the tracks of a video; subclasses match the detections of each frame to them.

    min_hits, max_age, frame_interval: see `Tracks`.
    """

    def __init__(self, *, min_hits: int, max_age: float, frame_interval: float) -> None:
        self._limits = {"min_hits": min_hits, "max_age": max_age, "frame_interval": frame_interval}
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
        self._tracks = Tracks(self._new_motion(), **self._limits)

    def end_tracks(self) -> None:
        """End all tracks, at a scene cut; ids continue."""
        self._tracks.clear()

    def state_dict(self) -> dict[str, Any]:
        """The tracks as plain data and arrays, without the options."""
        return self._tracks.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of `state_dict`."""
        self._tracks.load_state_dict(state)
