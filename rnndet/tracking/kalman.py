"""Constant-velocity Kalman filter for the boxes of all tracks at once."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rnndet.registry import NotNegative, Positive
from rnndet.tracking.assign import Array, Rows

LOG_LIMIT = 12.0  # keeps exp() finite for any measurement


@dataclass(frozen=True, kw_only=True)
class KalmanOptions:
    """Settings of the filter: standard deviations.

    Lengths are in units of the size of the object, sqrt(width * height), so that 15 px and 150 px
    objects are treated alike; times are in seconds.
    """

    position_noise: Positive = 0.07  # of a measured centre: 1 px of a 15 px box
    shape_noise: Positive = 0.15  # of a measured log width or height: 15 %
    initial_speed: NotNegative = 10.0  # of a new track, sizes per second
    acceleration: NotNegative = 1.0  # change of the speed in a second
    turning: NotNegative = 1.0  # further change of the speed in a second, in shares of the speed
    growth: NotNegative = 0.5  # change of the log width or height in a second


class ConstantVelocity:
    """N boxes as (cx, cy, log w, log h) with constant velocity of the centre and constant size.

    Kalman, "A New Approach to Linear Filtering and Prediction Problems", 1960, with white
    acceleration noise that is consistent in time: predicting 0.1 s equals predicting 0.05 s twice,
    so that dropped frames and unusual frame rates need no tuning. The four axes are independent,
    so that each covariance is three numbers and no matrix is inverted. Differences from SORT and
    ByteTrack: seconds instead of frames, log sizes (never negative), and no velocity of the size,
    which would diverge after a few noisy small boxes while the object is occluded.

    >>> motion = ConstantVelocity()
    >>> motion.add(np.array([[0.0, 0.0, 20.0, 20.0]]))
    >>> for k in range(1, 8):
    ...     motion.predict(0.04)
    ...     motion.update(np.array([0]), np.array([[12.0 * k, 0, 12 * k + 20, 20]]))
    >>> motion.predict(0.04)
    >>> motion.boxes.round().tolist()
    [[96.0, 0.0, 116.0, 20.0]]
    """

    def __init__(self, options: KalmanOptions | None = None) -> None:
        self._set_noise(options or KalmanOptions())
        self._state = np.zeros((0, 4))
        self._velocity = np.zeros((0, 4))  # per second
        self._covariance = np.zeros((3, 0, 4))  # of state, state-velocity, velocity

    def _set_noise(self, options: KalmanOptions) -> None:
        """Standard deviations by axis: cx, cy, log w, log h."""
        place, shape = options.position_noise, options.shape_noise
        self._measurement = np.array([place, place, shape, shape])
        self._first = np.array([options.initial_speed] * 2 + [0.0] * 2)
        self._acceleration, self._turning = options.acceleration, options.turning
        self._growth = np.array([0.0] * 2 + [options.growth] * 2)

    @property
    def boxes(self) -> Array:
        """The current boxes, (N, 4) x1 y1 x2 y2 in pixels."""
        half = np.exp(self._state[:, 2:]) / 2
        return np.concatenate([self._state[:, :2] - half, self._state[:, :2] + half], 1)

    @property
    def spread(self) -> Array:
        """Standard deviation of the predicted centres, (N,), in sizes of the objects."""
        return np.sqrt(self._covariance[0, :, :2].mean(1)) / _unit(self._state)[:, 0]

    def add(self, boxes: Array) -> None:
        """Append filters for new boxes (D, 4)."""
        state = _to_state(boxes)
        unit = _unit(state)
        zero = np.zeros_like(state)
        deviation = np.stack([self._measurement * unit, zero, self._first * unit])
        self._state = np.concatenate([self._state, state])
        self._velocity = np.concatenate([self._velocity, zero])
        self._covariance = np.concatenate([self._covariance, deviation**2], 1)

    def keep(self, mask: NDArray[np.bool_]) -> None:
        """Remove the rows where mask (N,) is false."""
        self._state, self._velocity = self._state[mask], self._velocity[mask]
        self._covariance = self._covariance[:, mask]

    def predict(self, dt: float) -> None:
        """Predict every box `dt` seconds ahead."""
        self._predict(np.arange(len(self._state)), dt)

    def _predict(self, rows: Rows, dt: float | Array) -> None:
        """Predict the given rows; dt: one for all, or (len(rows), 1)."""
        ss, sv, vv = self._covariance[:, rows]
        unit = _unit(self._state[rows])
        speed = np.linalg.norm(self._velocity[rows, :2], axis=1, keepdims=True)
        change = self._acceleration * unit[:, :2] + self._turning * speed  # pixels / s^1.5
        acceleration = np.concatenate([change**2, np.zeros_like(change)], 1)
        growth = (self._growth * unit) ** 2
        self._state[rows] = self._state[rows] + dt * self._velocity[rows]
        self._covariance[:, rows] = np.stack(
            [
                ss + 2 * dt * sv + dt**2 * vv + acceleration * dt**3 / 3 + growth * dt,
                sv + dt * vv + acceleration * dt**2 / 2,
                vv + acceleration * dt,
            ]
        )

    def state_dict(self) -> dict[str, Array]:
        return {"value": self._state, "rate": self._velocity, "covariance": self._covariance}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        self._state, self._velocity = state["value"], state["rate"]
        self._covariance = state["covariance"]

    def update(self, rows: Rows, boxes: Array) -> None:
        """Correct the given rows by their measured boxes (len(rows), 4)."""
        ss, sv, vv = self._covariance[:, rows]
        residual = _to_state(boxes) - self._state[rows]
        total = ss + (self._measurement * _unit(self._state[rows])) ** 2
        gain, velocity_gain = ss / total, sv / total
        self._state[rows] += gain * residual
        self._velocity[rows] += velocity_gain * residual
        self._covariance[:, rows] = np.stack(
            [ss * (1 - gain), sv * (1 - gain), vv - velocity_gain * sv]
        )


def _to_state(boxes: Array) -> Array:
    """x1 y1 x2 y2 -> cx, cy, log w, log h; sides are at least a hundredth of a pixel."""
    low, high = boxes[:, :2], boxes[:, 2:]
    sides = np.log(np.maximum(high - low, 0.01))
    return np.concatenate([(low + high) / 2, np.minimum(sides, LOG_LIMIT)], 1)


def _unit(state: Array) -> Array:
    """Unit of noise on each axis, (N, 4): the size in pixels for the centre, 1 for log sizes."""
    size = np.exp(state[:, 2:].mean(1, keepdims=True)).repeat(2, 1)
    return np.concatenate([size, np.ones_like(size)], 1)
