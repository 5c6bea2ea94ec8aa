"""Shape and motion of tracked objects: measurements of grey patches and their running statistics.

The statistics are a fixed linear recurrent network: leaky averages at several time constants, with
a state of the same size for every track, however long. Nothing in it is learned; a read-out of it
is, see `rnndet.training.track_classes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnndet.tracking.assign import Array, Rows
from rnndet.video.patches import SIDE

Patches = NDArray[np.uint8]  # (D, SIDE, SIDE) grey

BORDER = 2  # pixels of a patch's edge that are taken for background
NOISE_FLOOR = 1.5  # grey levels: smallest noise of the background
FIRST, LAST = 2.5, 5.5  # in units of the noise: a pixel differs from the background from .. to ..
CLEAR = 1.5  # pixels of object in a patch from which on its centroid is used
FLAT = 3.0  # grey levels: contrast below which a patch is not amplified to 1

# Seconds. The averages cover the last LONG seconds; the bands are differences of averages that are
# an octave apart; a patch is compared with those LAGS before it (1 to 16 frames at 30 per second).
LONG = 1.5
BANDS = np.array([0.04, 0.08, 0.16, 0.32, 0.64, 1.28])
LAGS = np.array([1, 2, 4, 8, 16]) / 30
# The ring of patches reaches back RING * SPACING seconds, the longest lag, at any frame rate: of
# more than 75 frames per second only some are stored.
RING, SPACING = 42, 1 / 75

SHAPE = (
    "area", "fill", "aspect", "vertical", "contrast", "abs_contrast", "texture", "edges", "noise",
    "compactness", "skew_x", "skew_y", "background",
)  # fmt: skip
CHANGE = ("change_1", "change_2", "change_4", "change_8", "change_16")  # at LAGS
AVERAGED = (*SHAPE, *CHANGE, "speed_pixels", "speed", "side")
IN_BANDS = ("area", "fill", "aspect", "vertical", "contrast", "texture", "compactness")
SERIES = (*IN_BANDS, "velocity_x", "velocity_y")
FEATURES: tuple[str, ...] = (
    *(f"mean_{name}" for name in AVERAGED),
    *(f"band_{band}_{name}" for band in range(len(BANDS)) for name in SERIES),
    *(f"straightness_{band}" for band in range(len(BANDS))),
)

_ROW, _COLUMN = (grid.ravel().astype(np.float64) for grid in np.mgrid[:SIDE, :SIDE])
_MIDDLE = (SIDE - 1) / 2
_PLANE = np.stack([_COLUMN, _ROW, np.ones(SIDE * SIDE)], 1)  # x, y, 1 of each pixel
_IS_BORDER = np.minimum(
    np.minimum(_ROW, SIDE - 1 - _ROW), np.minimum(_COLUMN, SIDE - 1 - _COLUMN)
) < BORDER  # fmt: skip
_FIT = np.linalg.pinv(_PLANE[_IS_BORDER]).T  # grey levels of the border -> the plane through them
_DISC = (_COLUMN - _MIDDLE) ** 2 + (_ROW - _MIDDLE) ** 2 < (SIDE / 2 + 0.5) ** 2
_POWERS = np.stack([
    np.ones(SIDE * SIDE), _COLUMN - _MIDDLE, _ROW - _MIDDLE, (_COLUMN - _MIDDLE) ** 2,
    (_ROW - _MIDDLE) ** 2, (_COLUMN - _MIDDLE) * (_ROW - _MIDDLE), (_COLUMN - _MIDDLE) ** 3,
    (_ROW - _MIDDLE) ** 3,
], 1)  # fmt: skip
_COLUMNS_IN_BANDS = [SHAPE.index(name) for name in IN_BANDS]


def measure(patches: Patches, sides: Array) -> tuple[Array, Array, Array]:
    """Measure D patches: what differs from the plane of grey levels through the patch's border.

    sides: (D,) pixels of the frame that a patch covers. Returns `SHAPE` (D, 13); the offset of the
    object's centroid from the middle of its patch, (D, 2) pixels of the frame; and the patches
    less their background at unit contrast, (D, SIDE * SIDE).
    """
    grey = patches.reshape(len(patches), SIDE * SIDE).astype(np.float64)
    border = grey[:, _IS_BORDER]
    background = (border @ _FIT) @ _PLANE.T
    difference = grey - background
    size = np.abs(difference)
    noise = np.maximum(1.4826 * np.median(size[:, _IS_BORDER], 1), NOISE_FLOOR)[:, None]
    mask = np.clip((size - FIRST * noise) / ((LAST - FIRST) * noise), 0, 1) * _DISC
    total = mask.sum(1) + 1e-6

    _, x, y, xx, yy, xy, xxx, yyy = (mask @ _POWERS / total[:, None]).T  # moments about the middle
    var_x, var_y = np.maximum(xx - x * x, 0) + 0.3, np.maximum(yy - y * y, 0) + 0.3
    cov = xy - x * y
    trace, det = var_x + var_y, np.maximum(var_x * var_y - cov**2, 1e-6)
    root = np.sqrt(np.maximum(trace**2 / 4 - det, 0))
    long, short = trace / 2 + root, np.maximum(trace / 2 - root, 0.05)
    skew_x = (xxx - 3 * x * xx + 2 * x**3) / var_x**1.5
    skew_y = (yyy - 3 * y * yy + 2 * y**3) / var_y**1.5

    signed = (mask * difference).sum(1) / total
    texture = np.sqrt(np.maximum((mask * difference**2).sum(1) / total - signed**2, 0))
    plain = grey.reshape(-1, SIDE, SIDE)
    edges = np.abs(np.diff(plain, axis=2)).mean((1, 2)) + np.abs(np.diff(plain, axis=1)).mean(
        (1, 2)
    )
    scale = sides / SIDE  # frame pixels per patch pixel
    shape = np.stack([
        np.log(total * scale**2 + 1),
        total / 400,
        0.5 * np.log(long / short),
        (var_y - var_x) / trace,
        signed / 64,
        np.log((mask * size).sum(1) / total + 2),
        texture / 32,
        edges / 16,
        np.log(noise[:, 0]),
        total / (4 * np.pi * np.sqrt(det)),
        skew_x,
        np.abs(skew_y),
        background.mean(1) / 128,
    ], 1)  # fmt: skip
    is_clear = (total > CLEAR)[:, None]
    offset = np.where(is_clear, np.stack([x, y], 1) * scale[:, None], 0.0)
    contrast = np.sqrt((difference**2).mean(1, keepdims=True))
    return shape, offset, difference / np.maximum(contrast, FLAT)


@dataclass(slots=True)
class _State:
    """The state of N tracks; each field has N rows."""

    ids: Rows
    first: Array  # seconds, the time of the first patch
    last: Array  # seconds, the time of the newest patch
    count: NDArray[np.int64]  # patches so far
    ring: NDArray[np.float16]  # (N, RING, SIDE * SIDE) patches at unit contrast
    ring_time: Array  # (N, RING) seconds; -inf where nothing is stored yet
    ring_position: Array  # (N, RING, 2) centroids in the frame
    place: NDArray[np.int64]  # (N,) of the newest entry in the ring
    smooth: Array  # (N, bands, SERIES) leaky averages, the faster ones first
    smooth_weight: Array  # (N, bands) what each of them weighs so far, 1 after a long time
    energy: Array  # (N, bands, SERIES) mean squares of the bands
    mean: Array  # (N, AVERAGED)
    weight: Array  # (N,) what mean and energy weigh so far
    net: Array  # (N, bands, 2) leaky averages of the velocity
    path: Array  # (N, bands) leaky averages of the speed

    @staticmethod
    def of(ids: Rows, time: float) -> _State:
        """The state of tracks before their first patch, which has this time."""
        n, bands, series, averaged = len(ids), len(BANDS), len(SERIES), len(AVERAGED)
        return _State(
            ids.astype(np.int64), np.full(n, time), np.full(n, time), np.zeros(n, np.int64),
            np.zeros((n, RING, SIDE * SIDE), np.float16), np.full((n, RING), -np.inf),
            np.zeros((n, RING, 2)), np.zeros(n, np.int64), np.zeros((n, bands, series)),
            np.zeros((n, bands)),
            np.zeros((n, bands, series)), np.zeros((n, averaged)), np.zeros(n),
            np.zeros((n, bands, 2)), np.zeros((n, bands)),
        )  # fmt: skip


class ShapeMotion:
    """Running statistics of the shape and motion of tracks, with a fixed state for each track.

    All is in seconds, so that the frame rate and missed frames change little.

    >>> tracks, ids, sides = ShapeMotion(), np.array([7]), np.array([20.0])
    >>> patches = np.full((1, SIDE, SIDE), 90, np.uint8)
    >>> for k in range(3):
    ...     features = tracks.update(ids, patches, sides, np.array([[20.0 + k, 30]]), time=k / 30)
    >>> features.shape == (1, len(FEATURES)), tracks.ages(ids).round(3).tolist()
    (True, [0.067])
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all tracks."""
        self._state = _State.of(np.zeros(0, np.int64), 0.0)

    def state_dict(self) -> dict[str, Any]:
        """The state that the next frame depends on, as arrays."""
        return {f.name: getattr(self._state, f.name).copy() for f in fields(_State)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of `state_dict`. Raises KeyError where a key is missing."""
        self._state = _State(**{f.name: state[f.name].copy() for f in fields(_State)})

    def ages(self, ids: Rows) -> Array:
        """Seconds between the first and the newest patch of each track, (D,)."""
        rows = self._rows(ids)
        return self._state.last[rows] - self._state.first[rows]

    def keep(self, ids: Rows) -> None:
        """Forget all tracks but these."""
        is_kept = np.isin(self._state.ids, ids)
        if not is_kept.all():
            state = self._state
            self._state = _State(*(getattr(state, f.name)[is_kept] for f in fields(_State)))

    def update(
        self, ids: Rows, patches: Patches, sides: Array, centres: Array, *, time: float
    ) -> Array:
        """Add a patch of each of D tracks; returns their `FEATURES`, (D, F).

        ids (D,), each once; new ones begin a track. sides (D,): pixels of the frame that a patch
        covers; centres (D, 2): its middle in the frame. time: seconds, later than in the call
        before. Statistics begin with the second patch of a track: those of the first are 0.
        """
        self._start(ids, time)
        rows, state = self._rows(ids), self._state
        shape, offset, patches = measure(patches, sides)
        position = centres + offset
        is_new = state.count[rows] == 0
        velocity, change = self._compare(rows, patches, position, time)
        velocity[is_new], change[is_new] = 0.0, 0.0

        relative = velocity / sides[:, None]  # sides of the square per second
        speed, relative_speed = np.hypot(*velocity.T), np.hypot(*relative.T)
        series = np.concatenate(
            [shape[:, _COLUMNS_IN_BANDS], np.log1p(4 * np.abs(relative)) * np.sign(relative)], 1
        )
        averaged = np.concatenate([
            shape, change, np.log1p(speed)[:, None] / 4, np.log1p(4 * relative_speed)[:, None],
            np.log(sides)[:, None],
        ], 1)  # fmt: skip
        dt = time - state.last[rows]
        self._average(rows, dt, series, averaged)
        gain = 1 - np.exp(-dt[:, None] / BANDS)
        state.net[rows] += gain[..., None] * (relative[:, None] - state.net[rows])
        state.path[rows] += gain * (relative_speed[:, None] - state.path[rows])
        self._store(rows, patches, position, time)
        state.last[rows] = time
        state.count[rows] += 1
        return self._features(rows)

    def _start(self, ids: Rows, time: float) -> None:
        """Begin the tracks that are new."""
        new = ids[~np.isin(ids, self._state.ids)]
        if len(new):
            old, added = self._state, _State.of(new, time)
            pairs = ((getattr(old, f.name), getattr(added, f.name)) for f in fields(_State))
            self._state = _State(*(np.concatenate(pair) for pair in pairs))

    def _rows(self, ids: Rows) -> Rows:
        """The rows of tracks that exist."""
        order = np.argsort(self._state.ids, kind="stable")
        return order[np.searchsorted(self._state.ids, ids, sorter=order)]

    def _compare(
        self, rows: Rows, patches: Array, position: Array, time: float
    ) -> tuple[Array, Array]:
        """Velocity (D, 2) in pixels per second, and the change of the patch at LAGS, (D, lags).

        The patch at a lag is the stored one that is nearest to it, and never this one.
        """
        state = self._state
        past = time - state.ring_time[rows]  # (D, RING) seconds, inf where nothing is stored
        nearest = np.abs(past[:, None] - LAGS[:, None]).argmin(2)  # (D, lags)
        one = np.arange(len(rows))
        stored = state.ring[rows[:, None], nearest].astype(np.float64)
        change = np.sqrt(((patches[:, None] - stored) ** 2).mean(2))
        elapsed = np.minimum(past[one, nearest[:, 0]], 1e9)  # a new track has nothing stored
        moved = position - state.ring_position[rows, nearest[:, 0]]
        return moved / elapsed[:, None], change

    def _average(self, rows: Rows, dt: Array, series: Array, averaged: Array) -> None:
        """Add to the averages, which begin with the second patch: dt is 0 for the first.

        Each is a plain mean at first, of all that there is, and leaky in the end.
        """
        state = self._state
        share = _share(1 - np.exp(-dt[:, None] / BANDS), state.smooth_weight, rows)
        state.smooth[rows] += share[..., None] * (series[:, None] - state.smooth[rows])
        smooth = state.smooth[rows]
        faster = np.concatenate([series[:, None], smooth[:, :-1]], 1)
        share = _share(1 - np.exp(-dt / LONG), state.weight, rows)
        state.energy[rows] += share[:, None, None] * ((faster - smooth) ** 2 - state.energy[rows])
        state.mean[rows] += share[:, None] * (averaged - state.mean[rows])

    def _store(self, rows: Rows, patches: Array, position: Array, time: float) -> None:
        """Put the patches into the ring, at most one in SPACING seconds."""
        state = self._state
        newest = state.ring_time[rows, state.place[rows]]
        is_stored = time - newest > SPACING * (1 - 1e-6)
        rows = rows[is_stored]
        place = state.place[rows] = (state.place[rows] + 1) % RING
        state.ring[rows, place] = patches[is_stored]
        state.ring_time[rows, place] = time
        state.ring_position[rows, place] = position[is_stored]

    def _features(self, rows: Rows) -> Array:
        state = self._state
        straightness = np.hypot(*np.moveaxis(state.net[rows], 2, 0)) / (state.path[rows] + 1e-3)
        features = np.concatenate([
            state.mean[rows],
            0.5 * np.log(state.energy[rows] + 1e-5).reshape(len(rows), -1),
            straightness,
        ], 1)  # fmt: skip
        features[state.count[rows] < 2] = 0.0
        return features


def _share(gain: Array, weight: Array, rows: Rows) -> Array:
    """The share of a new value in averages with this gain; adds it to what they weigh."""
    weight[rows] += gain * (1 - weight[rows])
    return np.divide(gain, weight[rows], out=np.zeros_like(gain), where=gain > 0)
