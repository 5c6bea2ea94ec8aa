"""Camera of a synthetic clip: motion, and runs of degraded frames."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True, slots=True)
class Burst:
    """A run of frames that are blurred, out of focus or strongly compressed."""

    first: int
    length: int
    kind: str  # motion, defocus or compression
    strength: float
    angle: float

    def amount(self, index: int) -> float:
        """Strength at a frame, which rises and falls over the run; 0 outside it."""
        progress = (index - self.first + 1) / (self.length + 1)
        return self.strength * float(np.sin(np.pi * progress)) ** 0.5 if 0 < progress < 1 else 0.0


def make_camera_path(
    rng: np.random.Generator,
    position: np.ndarray,
    *,
    length: int,
    fps: float,
    size_hw: tuple[int, int],
    limit: int,
) -> np.ndarray:
    """(T, 2) offset of the camera in pixels, within +-limit.

    The camera stands still, pans or follows the object at `position` (T, 2), and always shakes.
    """
    time = np.arange(length) / fps
    mode = rng.choice(["still", "pan", "follow"], p=[0.45, 0.35, 0.2])
    path = np.zeros((length, 2))
    if mode == "pan":
        rate = rng.uniform(-12, 12, 2) * (1, 0.4)
        path = (time - time.mean())[:, None] * rate
    elif mode == "follow":
        height, width = size_hw
        path = smooth(position - (width / 2, height / 2), 0.5 * fps) * 0.8
    shake = wander(rng, length, 1 / fps, memory=0.15, spread=rng.uniform(0.1, 1.2), columns=2)
    return np.clip(path + shake, -limit, limit)


def make_bursts(rng: np.random.Generator, length: int) -> list[Burst]:
    """About one degraded run per 40 frames, each of 4 to 12 frames, inside the clip if it fits."""
    bursts = []
    for _ in range(max(1, round(length / 40))):
        run = int(rng.integers(4, 13))
        first = int(rng.integers(0, max(1, length - run + 1)))
        kind = str(rng.choice(["motion", "defocus", "compression"], p=[0.45, 0.4, 0.15]))
        strength, angle = float(rng.uniform(0.45, 1)), float(rng.uniform(0, np.pi))
        bursts.append(Burst(first, min(run, length), kind, strength, angle))
    return bursts


def motion_blur_kernel(length_px: float, angle: float) -> np.ndarray:
    """A blur kernel along a line, of odd size and sum 1."""
    half = int(np.ceil(length_px / 2))
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    tip = np.array([np.cos(angle), np.sin(angle)]) * length_px / 2
    ends = [tuple(np.round((half + s * tip) * 16).astype(int).tolist()) for s in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_8, 4)
    return cv2.GaussianBlur(kernel, (3, 3), 0.6) / kernel.sum()


def wander(
    rng: np.random.Generator,
    length: int,
    dt: float,
    memory: float,
    spread: float,
    columns: int | None = None,
) -> np.ndarray:
    """An Ornstein-Uhlenbeck process: standard deviation `spread`, time constant `memory` in s."""
    kicks = rng.standard_normal((length, columns or 1))
    keep = float(np.exp(-dt / memory))
    values = np.empty_like(kicks)
    value = kicks[0]
    for k, kick in enumerate(kicks):
        value = keep * value + np.sqrt(1 - keep * keep) * kick
        values[k] = value
    return values * spread if columns else values[:, 0] * spread


def smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian smoothing along the first axis with repeated ends; (T,) or (T, 2)."""
    flat = values.reshape(len(values), -1)
    smoothed = cv2.GaussianBlur(
        flat, (1, 0), 1e-6, sigmaY=max(sigma, 0.1), borderType=cv2.BORDER_REPLICATE
    )
    return smoothed.reshape(values.shape)
