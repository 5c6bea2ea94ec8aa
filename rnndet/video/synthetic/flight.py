"""Random trajectories of synthetic objects over a whole clip."""

from dataclasses import dataclass

import numpy as np

from rnndet.video.synthetic.camera import smooth, wander
from rnndet.video.synthetic.objects import Pose, view_matrix

SMALLEST_PX, LARGEST_PX = 16.0, 90.0


@dataclass(frozen=True, slots=True)
class Flyer:
    """An object over the clip. Arrays have a row per frame."""

    kind: str
    position: np.ndarray  # (T, 2) x, y in pixels of a fixed camera
    size: np.ndarray  # (T,) pixels per unit of the model, about the length of its longest side
    angles: np.ndarray  # (T, 3) yaw, pitch, roll in radians
    phase: np.ndarray  # (T,) radians of the wing beat or rotor
    elevation: float  # radians
    style: np.ndarray  # (4,) in [0, 1], parameters of the shape
    colour: np.ndarray  # (3,) RGB float32
    contrast: float  # 1 = near, less = seen through haze
    contrail: float  # length in sizes, 0 = none
    behind_clouds: bool


def make_flyer(
    rng: np.random.Generator,
    kind: str,
    *,
    length: int,
    size_hw: tuple[int, int],
    fps: float,
    sky: float,
) -> Flyer:
    """A random object of a kind, inside the frame at some time of the clip.

    `sky` is the mean grey value of the background, from which the colour must differ.
    """
    dt = 1 / fps
    time = np.arange(length) * dt
    largest = min(LARGEST_PX, 0.4 * min(size_hw))
    size0 = float(np.exp(rng.uniform(np.log(20), np.log(max(largest, 21)))))
    angles, speed, climb = _MOTIONS[kind](rng, length, dt)
    growth = rng.uniform(-0.12, 0.12)
    size = np.clip(size0 * np.exp(growth * (time - time.mean())), SMALLEST_PX, largest)
    elevation = float(np.radians(rng.uniform(*_ELEVATIONS[kind])))
    heading = angles[:, 0]
    forward = np.stack([np.cos(heading), np.sin(heading), np.zeros(length)], 1) * speed[:, None]
    forward[:, 2] = climb
    camera = view_matrix(Pose(0, 0, 0, elevation))
    velocity = (forward @ camera.T)[:, :2] * size[:, None] * dt  # pixels per frame
    position = np.cumsum(velocity, 0)
    inside = int(rng.integers(int(0.1 * length), max(1, int(0.9 * length))))
    height, width = size_hw
    place = np.array([rng.uniform(0.1, 0.9) * width, rng.uniform(0.08, 0.8) * height])
    position += place - position[inside]
    rate = {"bird": rng.uniform(2.2, 6), "airplane": 9.3, "drone": 11.7, "helicopter": 5.3}[kind]
    phase = rng.uniform(0, 6.28) + 2 * np.pi * rate * time
    if kind == "bird":
        phase = _with_gliding(rng, phase, length, fps)
    return Flyer(
        kind=kind,
        position=position,
        size=size,
        angles=angles,
        phase=phase,
        elevation=elevation,
        style=rng.random(4),
        colour=_colour(rng, kind, sky),
        contrast=float(rng.uniform(0.75, 1.0)),
        contrail=float(rng.uniform(3, 9)) if kind == "airplane" and rng.random() < 0.2 else 0.0,
        behind_clouds=bool(rng.random() < 0.35),
    )


def _airplane_motion(
    rng: np.random.Generator, length: int, dt: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    turn = rng.uniform(-0.06, 0.06)  # radians per second
    yaw = rng.uniform(0, 2 * np.pi) + turn * np.arange(length) * dt
    climb = rng.uniform(-0.15, 0.15)
    speed = np.full(length, rng.uniform(0.7, 2.6))  # sizes per second
    roll = np.full(length, -turn * 3) + wander(rng, length, dt, 1.0, 0.02)
    pitch = np.full(length, np.arctan(climb) + 0.03)
    return np.stack([yaw, pitch, roll], 1), speed, speed * climb


def _bird_motion(
    rng: np.random.Generator, length: int, dt: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    turning = wander(rng, length, dt, 0.7, rng.uniform(0.2, 1.4))
    yaw = rng.uniform(0, 2 * np.pi) + np.cumsum(turning) * dt
    speed = np.maximum(0.3, rng.uniform(1, 3.2) + wander(rng, length, dt, 0.8, 0.5))
    climb = wander(rng, length, dt, 0.6, rng.uniform(0.15, 0.7))
    pitch = np.arctan(climb / speed) * 0.7
    return np.stack([yaw, pitch, np.clip(-turning * 0.5, -0.9, 0.9)], 1), speed, climb


def _drone_motion(
    rng: np.random.Generator, length: int, dt: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    speed, climb = np.zeros(length), np.zeros(length)
    turn = np.zeros(length)
    start = 0
    while start < length:  # hover, dart, hover, ...
        stop = start + max(2, int(rng.uniform(0.4, 1.8) / dt))
        if rng.random() < 0.6:
            speed[start:stop] = rng.uniform(-2.4, 2.4)
            climb[start:stop] = rng.uniform(-0.9, 0.9)
        turn[start:stop] = rng.uniform(-0.9, 0.9)
        start = stop
    speed, climb, turn = (smooth(a, 0.18 / dt) for a in (speed, climb, turn))
    yaw = rng.uniform(0, 2 * np.pi) + np.cumsum(turn) * dt
    pitch = -0.13 * speed + wander(rng, length, dt, 0.3, 0.03)
    roll = 0.1 * turn + wander(rng, length, dt, 0.3, 0.04)
    drift = wander(rng, length, dt, 0.4, 0.12)
    return np.stack([yaw, pitch, roll], 1), speed + drift, climb + drift[::-1]


def _helicopter_motion(
    rng: np.random.Generator, length: int, dt: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    turn = wander(rng, length, dt, 1.5, 0.15)
    yaw = rng.choice([0.0, np.pi]) + rng.normal(0, 0.7) + np.cumsum(turn) * dt
    speed = np.maximum(0, rng.uniform(0, 1.6) + wander(rng, length, dt, 1.2, 0.3))
    climb = wander(rng, length, dt, 1.2, 0.15)
    pitch = -0.1 * speed + 0.02
    return np.stack([yaw, pitch, -0.4 * turn], 1), speed, climb


_MOTIONS = {
    "airplane": _airplane_motion,
    "bird": _bird_motion,
    "drone": _drone_motion,
    "helicopter": _helicopter_motion,
}
_ELEVATIONS = {  # degrees of the viewpoint below the object
    "airplane": (8, 60),
    "bird": (5, 55),
    "drone": (5, 50),
    "helicopter": (0, 35),
}


def _with_gliding(
    rng: np.random.Generator, phase: np.ndarray, length: int, fps: float
) -> np.ndarray:
    """Stop the wing beat for random intervals."""
    beating = np.ones(length)
    for _ in range(int(rng.integers(0, 4))):
        first = int(rng.integers(0, length))
        beating[first : first + int(rng.uniform(0.3, 1.2) * fps)] = 0
    steps = np.diff(phase, prepend=phase[0]) * beating
    return phase[0] + np.cumsum(steps)


def _colour(rng: np.random.Generator, kind: str, sky: float) -> np.ndarray:
    """RGB: mostly a dark silhouette, sometimes light, and never as bright as the sky."""
    light = rng.random() < {"airplane": 0.4, "bird": 0.15, "drone": 0.2, "helicopter": 0.12}[kind]
    grey = rng.uniform(170, 245) if light else rng.uniform(18, 85)
    if abs(grey - sky) < 38:
        grey = sky - 60 if sky > 120 else sky + 60
    tint = 1 + rng.uniform(-0.05, 0.05, 3)
    return np.clip(grey * tint, 5, 250).astype(np.float32)
