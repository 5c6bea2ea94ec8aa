"""Kalman filter with the last observations of each track, for OC-SORT: re-update and directions."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rnndet.tracking.assign import Array, Rows
from rnndet.tracking.kalman import ConstantVelocity, KalmanOptions

MOST_STEPS = 30  # of a re-update; a longer gap is divided into as many longer steps


class ObservedMotion(ConstantVelocity):
    """A `ConstantVelocity` that keeps a few observations of each track.

    `last`: the last observed box. `earlier`: the observed box from which directions are measured;
    at least `momentum_time` seconds old, and less than twice that plus a frame, once the track is
    old enough, and before that its first one. With re_update, a track that was missed returns to
    its state at its last observation when it is found again, and passes through the gap once more
    with boxes interpolated between the two observations, so that the error of the velocity that
    built up without observations has no effect. Each track has a fixed number of values.
    """

    def __init__(
        self,
        options: KalmanOptions | None = None,
        *,
        momentum_time: float = 0.0,
        re_update: bool = True,
    ) -> None:
        super().__init__(options)
        self._momentum_time, self._re_update = momentum_time, re_update
        self._missed = np.zeros(0, np.int64)  # predictions since the last observation
        self._age = np.zeros((0, 3))  # seconds since the observations in `_seen`
        self._seen = np.zeros((0, 3, 4))  # last, the next of `earlier`, and `earlier` itself
        self._frozen = np.zeros((0, 5, 4))  # state, velocity, covariance at the last observation

    @property
    def last(self) -> Array:
        """The last observed boxes, (N, 4)."""
        return self._seen[:, 0]

    @property
    def earlier(self) -> Array:
        """The observed boxes from which directions are measured, (N, 4)."""
        return self._seen[:, 2]

    def add(self, boxes: Array) -> None:
        super().add(boxes)
        count = len(boxes)
        self._missed = np.concatenate([self._missed, np.zeros(count, np.int64)])
        self._age = np.concatenate([self._age, np.zeros((count, 3))])
        self._seen = np.concatenate([self._seen, boxes[:, None].repeat(3, 1)])
        self._frozen = np.concatenate([self._frozen, np.zeros((count, 5, 4))])
        self._freeze(np.arange(len(self._missed) - count, len(self._missed)))

    def keep(self, mask: NDArray[np.bool_]) -> None:
        super().keep(mask)
        self._missed, self._age = self._missed[mask], self._age[mask]
        self._seen, self._frozen = self._seen[mask], self._frozen[mask]

    def predict(self, dt: float) -> None:
        super().predict(dt)
        self._missed += 1
        self._age += dt

    def update(self, rows: Rows, boxes: Array) -> None:
        if self._re_update:
            self._pass_again(rows, boxes)
        super().update(rows, boxes)
        self._observe(rows, boxes)
        self._freeze(rows)

    def _pass_again(self, rows: Rows, boxes: Array) -> None:
        """Redo the predictions of the rows that were missed, with interpolated observations."""
        again = self._missed[rows] > 1
        rows, boxes = rows[again], boxes[again]
        if not len(rows):
            return
        start, gap = self.last[rows], self._age[rows, 0]
        steps = np.minimum(self._missed[rows], MOST_STEPS)
        self._thaw(rows)
        for step in range(1, int(steps.max()) + 1):
            here = step <= steps
            self._predict(rows[here], (gap / steps)[here, None])
            inner = step < steps  # the last one is the real observation, of the caller
            share = (step / steps)[inner, None]
            between = start[inner] + share * (boxes[inner] - start[inner])
            super().update(rows[inner], between)

    def _observe(self, rows: Rows, boxes: Array) -> None:
        self._missed[rows] = 0
        self._seen[rows, 0], self._age[rows, 0] = boxes, 0.0
        due = rows[self._age[rows, 1] >= self._momentum_time]
        self._seen[due, 2], self._age[due, 2] = self._seen[due, 1], self._age[due, 1]
        self._seen[due, 1], self._age[due, 1] = self._seen[due, 0], 0.0

    def _freeze(self, rows: Rows) -> None:
        parts = [self._state[None, rows], self._velocity[None, rows], self._covariance[:, rows]]
        self._frozen[rows] = np.concatenate(parts).swapaxes(0, 1)

    def _thaw(self, rows: Rows) -> None:
        parts = self._frozen[rows].swapaxes(0, 1)
        self._state[rows], self._velocity[rows] = parts[0], parts[1]
        self._covariance[:, rows] = parts[2:]

    def state_dict(self) -> dict[str, Array]:
        own = {"age": self._age, "seen": self._seen, "frozen": self._frozen}
        return super().state_dict() | own | {"missed": self._missed.astype(np.float64)}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        super().load_state_dict(state)
        if "seen" not in state:  # of an older version: the current boxes count as observed
            boxes, count = self.boxes, len(self._state)
            self._missed, self._age = np.zeros(count, np.int64), np.zeros((count, 3))
            self._seen, self._frozen = boxes[:, None].repeat(3, 1), np.zeros((count, 5, 4))
            self._freeze(np.arange(count))
            return
        self._age, self._seen, self._frozen = state["age"], state["seen"], state["frozen"]
        self._missed = state["missed"].astype(np.int64)


def direction_agreement(motion: ObservedMotion, boxes: Array) -> Array:
    """How well the step to each box continues the direction of each track, (N, D) in [-.5, .5].

    0.5: exactly, 0: at a right angle, -0.5: backwards. Directions are from `earlier` to `last` and
    from `earlier` to the box (eq. 4 of OC-SORT). 0 for tracks with one observation.
    """
    before, last, now = (_centres(rows) for rows in (motion.earlier, motion.last, boxes))
    moved = last - before  # (N, 2)
    step = now[None] - before[:, None]  # (N, D, 2)
    lengths = np.linalg.norm(moved, axis=1)[:, None] * np.linalg.norm(step, axis=2)
    dot = (moved[:, None] * step).sum(2)
    cosine = np.divide(dot, lengths, out=np.zeros_like(dot), where=lengths > 1e-9)
    return 0.5 - np.arccos(np.clip(cosine, -1, 1)) / np.pi


def _centres(boxes: Array) -> Array:
    return (boxes[:, :2] + boxes[:, 2:]) / 2
