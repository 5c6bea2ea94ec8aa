"""What every tracker remembers of its objects: box, age, number of hits, class votes, id."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rnndet.errors import RnndetError
from rnndet.structures import Detections

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

PROVISIONAL_SHARE = 0.25  # an unconfirmed track is forgotten after this share of max_age


class Motion(Protocol):
    """How boxes move; N rows, one per track."""

    @property
    def boxes(self) -> Array: ...  # (N, 4) x1 y1 x2 y2, where the objects are expected now
    def add(self, boxes: Array) -> None: ...
    def keep(self, mask: NDArray[np.bool_]) -> None: ...
    def predict(self, dt: float) -> None: ...
    def update(self, rows: Rows, boxes: Array) -> None: ...
    def state_dict(self) -> dict[str, Array]: ...
    def load_state_dict(self, state: Mapping[str, Array]) -> None: ...


class LastBox:
    """A motion that expects every object where it was last seen."""

    def __init__(self) -> None:
        self.boxes = np.zeros((0, 4))

    def add(self, boxes: Array) -> None:
        self.boxes = np.concatenate([self.boxes, boxes])

    def keep(self, mask: NDArray[np.bool_]) -> None:
        self.boxes = self.boxes[mask]

    def predict(self, dt: float) -> None:
        """Stay."""

    def update(self, rows: Rows, boxes: Array) -> None:
        self.boxes[rows] = boxes

    def state_dict(self) -> dict[str, Array]:
        return {"boxes": self.boxes}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        self.boxes = state["boxes"]


class Tracks:
    """N tracks as parallel arrays, in the order in which they began.

    An id is given when a track has its `min_hits`-th detection (1, 2, 3, ... without gaps); until
    then the track is provisional and its id is 0. A track without a detection for `max_age`
    seconds is forgotten, a provisional one after a quarter of that; a frame that follows a track's
    last detection directly is always compared with it, however slow the video is.
    """

    def __init__(
        self, motion: Motion, *, min_hits: int, max_age: float, frame_interval: float
    ) -> None:
        if min_hits < 1 or max_age < 0 or frame_interval <= 0:
            raise RnndetError(
                "a tracker needs min_hits >= 1, max_age >= 0 and frame_interval > 0; got "
                f"min_hits = {min_hits}, max_age = {max_age}, frame_interval = {frame_interval}"
            )
        self.motion = motion
        self.ids = np.zeros(0, np.int64)
        self._min_hits, self._max_age, self._frame_interval = min_hits, max_age, frame_interval
        self._hits = np.zeros(0, np.int64)
        self._seen = np.zeros(0)  # seconds, on the clock of `_now`
        self._votes = np.zeros((0, 0))  # (N, K) sum of scores by class; K grows as labels appear
        self._now = 0.0
        self._last_time: float | None = None
        self._given = 0  # ids handed out so far

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def is_confirmed(self) -> NDArray[np.bool_]:
        """(N,) which tracks have an id."""
        return self.ids > 0

    def expected(self) -> tuple[Array, Rows]:
        """Boxes (N, 4) and ids (N,) of the tracks with an id, now."""
        confirmed = self.is_confirmed
        return self.motion.boxes[confirmed], self.ids[confirmed]

    def unseen(self) -> Array:
        """Seconds since each track's last detection, (N,)."""
        return self._now - self._seen

    def class_share(self, labels: Rows) -> Array:
        """The share in [0, 1] of each label in each track's votes, (D,) labels -> (N, D)."""
        self._make_room(labels)
        total = np.maximum(self._votes.sum(1, keepdims=True), 1e-12)
        return (self._votes / total)[:, labels]

    def advance(self, time: float | None) -> None:
        """Move to the next frame at `time` in seconds.

        Without a time, or where the clock stands still or runs backwards (some raw streams), the
        step is `frame_interval`.
        """
        dt = self._frame_interval
        if time is not None:
            if self._last_time is not None and time > self._last_time:
                dt = time - self._last_time
            self._last_time = time
        self._now += dt
        self.motion.predict(dt)

    def extend(self, rows: Rows, boxes: Array, scores: Array, labels: Rows) -> Rows:
        """Give each row its detection of this frame and return the rows' ids, (len(rows),)."""
        self._make_room(labels)
        self.motion.update(rows, boxes)
        self._seen[rows] = self._now
        self._hits[rows] += 1
        self._votes[rows, labels] += scores
        self._number(rows)
        return self.ids[rows]

    def begin(self, boxes: Array, scores: Array, labels: Rows) -> Rows:
        """Start a track from each detection and return the ids, (D,)."""
        self._make_room(labels)
        count = len(boxes)
        rows = np.arange(len(self), len(self) + count)
        self.motion.add(boxes)
        self.ids = np.concatenate([self.ids, np.zeros(count, np.int64)])
        self._hits = np.concatenate([self._hits, np.ones(count, np.int64)])
        self._seen = np.concatenate([self._seen, np.full(count, self._now)])
        votes = np.zeros((count, self._votes.shape[1]))
        votes[np.arange(count), labels] = scores
        self._votes = np.concatenate([self._votes, votes])
        self._number(rows)
        return self.ids[rows]

    def forget_all(self) -> None:
        """Drop every track; ids that were given are not given again."""
        self._keep(np.zeros(len(self), bool))

    def forget_old(self) -> None:
        """Drop the tracks that have been without a detection for too long."""
        limit = np.where(self.is_confirmed, self._max_age, self._max_age * PROVISIONAL_SHARE)
        unseen = self.unseen()
        self._keep((unseen == 0) | (unseen < limit))

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next frame depends on, as plain data and arrays; not the rules."""
        arrays = {"ids": self.ids, "hits": self._hits, "seen": self._seen, "votes": self._votes}
        return {
            **{name: array.copy() for name, array in arrays.items()},
            "motion": {name: array.copy() for name, array in self.motion.state_dict().items()},
            "now": self._now,
            "last_time": self._last_time,
            "given": self._given,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave. Raises KeyError where something is missing."""
        self.ids, self._hits = state["ids"].copy(), state["hits"].copy()
        self._seen, self._votes = state["seen"].copy(), state["votes"].copy()
        self.motion.load_state_dict({name: a.copy() for name, a in state["motion"].items()})
        self._now, self._last_time = state["now"], state["last_time"]
        self._given = state["given"]

    def _keep(self, keep: NDArray[np.bool_]) -> None:
        self.motion.keep(keep)
        self.ids, self._hits = self.ids[keep], self._hits[keep]
        self._seen, self._votes = self._seen[keep], self._votes[keep]

    def _number(self, rows: Rows) -> None:
        """Hand out ids to the rows that have just become confirmed."""
        new = np.sort(rows[(self.ids[rows] == 0) & (self._hits[rows] >= self._min_hits)])
        self.ids[new] = self._given + 1 + np.arange(len(new))
        self._given += len(new)

    def _make_room(self, labels: Rows) -> None:
        missing = labels.max(initial=-1) + 1 - self._votes.shape[1]
        if missing > 0:
            self._votes = np.pad(self._votes, ((0, 0), (0, missing)))


def to_arrays(detections: Detections) -> tuple[Array, Array, Rows]:
    """Boxes (D, 4) float64, scores (D,) float64 and labels (D,) int64."""
    boxes, scores = detections.boxes.astype(np.float64), detections.scores.astype(np.float64)
    return boxes, scores, detections.labels.astype(np.int64)
