"""State of the tracks of a video: boxes, ages, numbers of hits, class votes and ids."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rnndet.registry import AtLeastOne, NotNegative, Positive, Share
from rnndet.structures import Detections
from rnndet.tracking.assign import Array, Rows

MOST_DETECTIONS = 5  # at the score threshold, after which min_evidence asks for no more


@dataclass(frozen=True, kw_only=True)
class TrackOptions:
    """Options of every tracker: when a track begins and ends."""

    min_score: Share = 0.3  # of a detection that may begin a track
    min_hits: AtLeastOne = 2  # detections that a track needs before it gets an id
    # sum of scores that it needs for that, too, if min_hits is above 1; never more than
    # MOST_DETECTIONS at the min_score of its class have
    min_evidence: NotNegative = 0.0
    max_age: NotNegative = 1.0  # seconds without a detection after which a track is removed
    tentative_share: Share = 0.25  # of max_age, after which a track without an id is removed
    frame_interval: Positive = 0.04  # seconds, used only where `update` gets no time


class Motion(Protocol):
    """Motion model of boxes; N rows, one per track."""

    @property
    def boxes(self) -> Array: ...  # (N, 4) x1 y1 x2 y2, predicted for now
    def add(self, boxes: Array) -> None: ...
    def keep(self, mask: NDArray[np.bool_]) -> None: ...
    def predict(self, dt: float) -> None: ...
    def update(self, rows: Rows, boxes: Array) -> None: ...
    def state_dict(self) -> dict[str, Array]: ...
    def load_state_dict(self, state: Mapping[str, Array]) -> None: ...


class LastBox:
    """A motion model that predicts the last box of every track."""

    def __init__(self) -> None:
        self.boxes = np.zeros((0, 4))

    def add(self, boxes: Array) -> None:
        self.boxes = np.concatenate([self.boxes, boxes])

    def keep(self, mask: NDArray[np.bool_]) -> None:
        self.boxes = self.boxes[mask]

    def predict(self, dt: float) -> None:
        """Keep the boxes."""

    def update(self, rows: Rows, boxes: Array) -> None:
        self.boxes[rows] = boxes

    def state_dict(self) -> dict[str, Array]:
        return {"boxes": self.boxes}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        self.boxes = state["boxes"]


class Tracks:
    """N tracks as parallel arrays, in the order in which they started.

    A track is tentative, with id 0, until it has `min_hits` detections; then it is confirmed and
    gets the next id (1, 2, 3, ... without gaps). A track is removed after `max_age` seconds without
    a detection, a tentative track after `tentative_share` of that. Any track can be matched in the
    frame directly after its last detection, however low the frame rate is. min_score, where it is
    not that of the options: of all classes, or of each class by its label, (K,).
    """

    def __init__(
        self,
        motion: Motion,
        options: TrackOptions | None = None,
        *,
        min_score: float | Array | None = None,
    ) -> None:
        self.motion = motion
        self._options = options or TrackOptions()
        threshold = np.asarray(self._options.min_score if min_score is None else min_score)
        self._evidence = np.minimum(self._options.min_evidence, MOST_DETECTIONS * threshold)
        self.ids = np.zeros(0, np.int64)
        self._hits = np.zeros(0, np.int64)
        self._last_update = np.zeros(0)  # seconds, on the clock of `_now`
        self._votes = np.zeros((0, 0))  # (N, K) sum of scores by class; K grows as labels appear
        self._now = 0.0
        self._step = 0.0  # seconds between the last two frames
        self._last_time: float | None = None
        self._last_id = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def is_confirmed(self) -> NDArray[np.bool_]:
        """(N,) whether a track has an id."""
        return self.ids > 0

    def expected(self) -> tuple[Array, Rows]:
        """Current or predicted boxes (N, 4) and ids (N,) of the confirmed tracks."""
        confirmed = self.is_confirmed
        return self.motion.boxes[confirmed], self.ids[confirmed]

    def time_since_update(self) -> Array:
        """Seconds since each track's last detection, (N,)."""
        return self._now - self._last_update

    def time_missed(self) -> Array:
        """Seconds for which each track had been missed before this frame, (N,); 0 = it was not."""
        return self.time_since_update() - self._step

    def was_missed(self) -> NDArray[np.bool_]:
        """(N,) whether a track had no detection in the frame before this one."""
        return self.time_missed() > self._step / 2

    def class_share(self, labels: Rows) -> Array:
        """The share in [0, 1] of each label in the votes of each track, (D,) labels -> (N, D)."""
        self._widen_votes(labels)
        total = np.maximum(self._votes.sum(1, keepdims=True), 1e-12)
        return (self._votes / total)[:, labels]

    def advance(self, time: float | None) -> None:
        """Advance to the next frame, at `time` in seconds, and predict the boxes.

        Without a time, or where it does not increase (some raw streams), the step is
        `frame_interval`.
        """
        dt = self._options.frame_interval
        if time is not None:
            if self._last_time is not None and time > self._last_time:
                dt = time - self._last_time
            self._last_time = time
        self._now, self._step = self._now + dt, dt
        self.motion.predict(dt)

    def update(self, rows: Rows, boxes: Array, scores: Array, labels: Rows) -> Rows:
        """Add the detections of this frame to their tracks; returns the ids, (len(rows),)."""
        self._widen_votes(labels)
        self.motion.update(rows, boxes)
        self._last_update[rows] = self._now
        self._hits[rows] += 1
        self._votes[rows, labels] += scores
        self._assign_ids(rows)
        return self.ids[rows]

    def start(self, boxes: Array, scores: Array, labels: Rows) -> Rows:
        """Start a track from each detection; returns the ids, (D,)."""
        self._widen_votes(labels)
        count = len(boxes)
        rows = np.arange(len(self), len(self) + count)
        self.motion.add(boxes)
        self.ids = np.concatenate([self.ids, np.zeros(count, np.int64)])
        self._hits = np.concatenate([self._hits, np.ones(count, np.int64)])
        self._last_update = np.concatenate([self._last_update, np.full(count, self._now)])
        votes = np.zeros((count, self._votes.shape[1]))
        votes[np.arange(count), labels] = scores
        self._votes = np.concatenate([self._votes, votes])
        self._assign_ids(rows)
        return self.ids[rows]

    def clear(self) -> None:
        """Remove all tracks; their ids are not used again."""
        self._keep(np.zeros(len(self), bool))

    def remove_expired(self) -> None:
        """Remove the tracks that have had no detection for too long."""
        options = self._options
        limit = options.max_age * np.where(self.is_confirmed, 1.0, options.tentative_share)
        age = self.time_since_update()
        self._keep((age == 0) | (age < limit))

    def state_dict(self) -> dict[str, Any]:
        """The state that the next frame depends on, as plain data and arrays; not the options."""
        arrays = {
            "ids": self.ids,
            "hits": self._hits,
            "seen": self._last_update,
            "votes": self._votes,
        }
        return {
            **{name: array.copy() for name, array in arrays.items()},
            "motion": {name: array.copy() for name, array in self.motion.state_dict().items()},
            "now": self._now,
            "last_time": self._last_time,
            "given": self._last_id,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of `state_dict`. Raises KeyError where a key is missing."""
        self.ids, self._hits = state["ids"].copy(), state["hits"].copy()
        self._last_update, self._votes = state["seen"].copy(), state["votes"].copy()
        self.motion.load_state_dict({name: a.copy() for name, a in state["motion"].items()})
        self._now, self._last_time = state["now"], state["last_time"]
        self._last_id = state["given"]

    def _keep(self, keep: NDArray[np.bool_]) -> None:
        self.motion.keep(keep)
        self.ids, self._hits = self.ids[keep], self._hits[keep]
        self._last_update, self._votes = self._last_update[keep], self._votes[keep]

    def _assign_ids(self, rows: Rows) -> None:
        """Give ids to those rows that have just become confirmed."""
        least = self._options.min_hits
        is_new = (self.ids[rows] == 0) & (self._hits[rows] >= least)
        if least > 1 and is_new.any():
            votes = self._votes[rows]
            needed = self._evidence[votes.argmax(1)] if self._evidence.ndim else self._evidence
            is_new &= votes.sum(1) >= needed
        new = np.sort(rows[is_new])
        self.ids[new] = self._last_id + 1 + np.arange(len(new))
        self._last_id += len(new)

    def _widen_votes(self, labels: Rows) -> None:
        missing = labels.max(initial=-1) + 1 - self._votes.shape[1]
        if missing > 0:
            self._votes = np.pad(self._votes, ((0, 0), (0, missing)))


def to_arrays(detections: Detections) -> tuple[Array, Array, Rows]:
    """Boxes (D, 4) float64, scores (D,) float64 and labels (D,) int64."""
    boxes, scores = detections.boxes.astype(np.float64), detections.scores.astype(np.float64)
    return boxes, scores, detections.labels.astype(np.int64)
