"""How a box moves between frames: a constant-velocity Kalman filter for all tracks at once."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

# Standard deviations. Lengths are in units of the object's own size sqrt(width * height), so that
# a 15 px and a 150 px object are treated alike; time is in seconds. Axes: cx, cy, log w, log h.
MEASURED = np.array([0.07, 0.07, 0.15, 0.15])  # a 15 px box is off by about 1 px, its size by 15 %
FIRST_RATE = np.array([10.0, 10.0, 0.0, 0.0])  # 0.4 sizes per frame at 25 fps, before it is seen
RATE_WALK = np.array([10.0, 10.0, 0.0, 0.0])  # change of velocity in one second: drones turn fast
VALUE_WALK = np.array([0.0, 0.0, 0.5, 0.5])  # change of log size in one second
LOG_LIMIT = 12.0  # keeps exp() finite whatever is measured


class ConstantVelocity:
    """N boxes as (cx, cy, log w, log h); the centre keeps its velocity, the size its value.

    Kalman, "A New Approach to Linear Filtering and Prediction Problems", 1960, with white
    acceleration noise that is consistent in time: predicting 0.1 s once equals predicting 0.05 s
    twice, so dropped frames and odd frame rates need no retuning. The four axes are independent,
    therefore each covariance is three numbers and nothing is inverted. Different from SORT and
    ByteTrack: real time instead of frames, log sizes (never negative), and no velocity of the
    size, which a few noisy small boxes would blow up while the object is hidden.
    """

    def __init__(self) -> None:
        self._value = np.zeros((0, 4))
        self._rate = np.zeros((0, 4))  # per second
        self._covariance = np.zeros((3, 0, 4))  # value-value, value-rate, rate-rate

    @property
    def boxes(self) -> Array:
        """The present boxes, (N, 4) x1 y1 x2 y2 in pixels."""
        half = np.exp(self._value[:, 2:]) / 2
        return np.concatenate([self._value[:, :2] - half, self._value[:, :2] + half], 1)

    def add(self, boxes: Array) -> None:
        """Start filters, appended in order; boxes (D, 4)."""
        value = _to_value(boxes)
        unit = _unit(value)
        variance = np.stack([MEASURED * unit, np.zeros_like(value), FIRST_RATE * unit]) ** 2
        self._value = np.concatenate([self._value, value])
        self._rate = np.concatenate([self._rate, np.zeros_like(value)])
        self._covariance = np.concatenate([self._covariance, variance], 1)

    def keep(self, mask: NDArray[np.bool_]) -> None:
        """Forget the rows where mask (N,) is false."""
        self._value, self._rate = self._value[mask], self._rate[mask]
        self._covariance = self._covariance[:, mask]

    def predict(self, dt: float) -> None:
        """Move every box `dt` seconds ahead."""
        vv, vr, rr = self._covariance
        unit = _unit(self._value)
        walk = (RATE_WALK * unit) ** 2
        drift = (VALUE_WALK * unit) ** 2
        self._value = self._value + dt * self._rate
        self._covariance = np.stack(
            [
                vv + 2 * dt * vr + dt**2 * rr + walk * dt**3 / 3 + drift * dt,
                vr + dt * rr + walk * dt**2 / 2,
                rr + walk * dt,
            ]
        )

    def state_dict(self) -> dict[str, Array]:
        return {"value": self._value, "rate": self._rate, "covariance": self._covariance}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        self._value, self._rate = state["value"], state["rate"]
        self._covariance = state["covariance"]

    def update(self, rows: Rows, boxes: Array) -> None:
        """Correct the given rows by their measured boxes (len(rows), 4)."""
        vv, vr, rr = self._covariance[:, rows]
        error = _to_value(boxes) - self._value[rows]
        total = vv + (MEASURED * _unit(self._value[rows])) ** 2
        value_gain, rate_gain = vv / total, vr / total
        self._value[rows] += value_gain * error
        self._rate[rows] += rate_gain * error
        self._covariance[:, rows] = np.stack(
            [vv * (1 - value_gain), vr * (1 - value_gain), rr - rate_gain * vr]
        )


def _to_value(boxes: Array) -> Array:
    """x1 y1 x2 y2 -> cx, cy, log w, log h; a side under a hundredth of a pixel counts as that."""
    low, high = boxes[:, :2], boxes[:, 2:]
    sides = np.log(np.maximum(high - low, 0.01))
    return np.concatenate([(low + high) / 2, np.minimum(sides, LOG_LIMIT)], 1)


def _unit(value: Array) -> Array:
    """What one unit of noise is on each axis, (N, 4): pixels for the centre, 1 for log sizes."""
    size = np.exp(value[:, 2:].mean(1, keepdims=True)).repeat(2, 1)
    return np.concatenate([size, np.ones_like(size)], 1)
