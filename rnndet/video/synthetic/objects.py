"""Solid models of flying objects, and their rendering as antialiased sprites.

A model is a list of parts in the axes of the object, x forward, y left, z up, with a length of
about 1 along its longest side. `draw_sprite` rotates it, projects it as seen from below, and fills
the parts at four times the resolution, so that edges are smooth after downscaling.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np

OVERSAMPLE = 4
FIXED_POINT_BITS = 4  # sub-pixel positions for filling polygons with OpenCV


class Plate(NamedTuple):
    """A flat polygon such as a wing; `thickness` keeps it visible edge-on."""

    points: np.ndarray  # (P, 3)
    tone: float  # brightness relative to the object's colour
    opacity: float = 1.0
    thickness: float = 0.012


class Tube(NamedTuple):
    """A chain of spheres joined by cones: a body, a boom, an arm."""

    points: np.ndarray  # (P, 3)
    radii: tuple[float, ...]  # P
    tone: float
    opacity: float = 1.0


Part = Plate | Tube


@dataclass(frozen=True, slots=True)
class Pose:
    """Orientation of an object and elevation of the view, in radians."""

    yaw: float
    pitch: float  # nose up is positive
    roll: float
    elevation: float  # 0 = seen from the side, pi / 2 = from straight below


@dataclass(frozen=True, slots=True)
class Sprite:
    """A rendered object: top left corner in pixels, tone times alpha, and alpha in [0, 1]."""

    x: int
    y: int
    tone: np.ndarray  # (h, w) float32, premultiplied by alpha
    alpha: np.ndarray  # (h, w) float32


def airplane(style: np.ndarray, phase: float) -> list[Part]:
    """An airliner or, where style[0] > 0.7, a light aircraft; style is (4,) in [0, 1]."""
    light = style[0] > 0.7
    span, thick = 0.42 + 0.12 * style[1], 1.0 + 0.35 * style[2]
    sweep = 0.02 if light else 0.18 + 0.14 * style[3]
    root, tip = (0.13, 0.1) if light else (0.2, 0.06)
    radii = (0.014, 0.045, 0.052, 0.022)
    parts: list[Part] = [
        _tube([(-0.5, 0, 0.01), (-0.26, 0, 0), (0.36, 0, 0), (0.5, 0, -0.008)], radii, 1.0, thick)
    ]
    for side in (-1, 1):
        high = 0.05 if light else -0.02
        parts.append(_wing(0.14, root, side, 0.03, span, sweep, tip, high, 0.85))
        parts.append(_wing(-0.38, 0.1, side, 0.01, 0.17, sweep * 0.4, 0.05, 0.025, 0.85))
        if not light:
            engine = [(0.1, side * 0.16, -0.06), (-0.02, side * 0.16, -0.06)]
            parts.append(_tube(engine, (0.028, 0.022), 0.7))
    fin = [(-0.36, 0, 0.04), (-0.49, 0, 0.03), (-0.54, 0, 0.19), (-0.47, 0, 0.19)]
    parts.append(Plate(np.array(fin), 0.9, 1.0, 0.016))
    if light:
        parts += _rotor((0.52, 0, 0), 0.12, "x", phase, 2, 0.15)
    return parts


def bird(style: np.ndarray, phase: float) -> list[Part]:
    """A bird with its wings at `phase` of the beat (radians); style is (4,) in [0, 1]."""
    chord, reach = 0.1 + 0.08 * style[0], 0.46 + 0.08 * style[1]
    beat = 0.25 + 0.65 * style[2]
    inner = beat * np.sin(phase) + 0.15
    outer = inner * 0.4 + beat * 0.9 * np.sin(phase - 0.9) - 0.1
    parts: list[Part] = [
        _tube(
            [(-0.2, 0, 0), (-0.06, 0, -0.01), (0.08, 0, 0), (0.19, 0, 0.015), (0.26, 0, 0.01)],
            (0.02, 0.06, 0.062, 0.036, 0.008),
            1.0,
        ),
        Plate(
            np.array([(-0.15, 0.02, 0), (-0.33, 0.07, 0), (-0.33, -0.07, 0), (-0.15, -0.02, 0)]),
            0.9,
        ),
    ]
    for side in (-1, 1):
        elbow = np.array([0.05, 0.45 * reach * np.cos(inner), 0.45 * reach * np.sin(inner)])
        tip = elbow + np.array([-0.1, 0.55 * reach * np.cos(outer), 0.55 * reach * np.sin(outer)])
        front, back = np.array([0.09, 0.03, 0.02]), np.array([0.09 - chord * 1.1, 0.03, 0.0])
        elbow_back = elbow - [chord, 0, 0]
        flip = np.array([1, side, 1])
        parts.append(Plate(np.array([front, elbow, elbow_back, back]) * flip, 0.85))
        parts.append(Plate(np.array([elbow, tip, tip - [0.05, 0, 0], elbow_back]) * flip, 0.78))
    return parts


def drone(style: np.ndarray, phase: float) -> list[Part]:
    """A quad-copter with arms in an X and blurred rotors; style is (4,) in [0, 1]."""
    arm, radius = 0.24 + 0.05 * style[0], 0.13 + 0.05 * style[1]
    body = 0.06 + 0.03 * style[2]
    parts: list[Part] = [
        _tube([(-0.13, 0, 0), (0, 0, 0.01), (0.13, 0, 0)], (body * 0.8, body, body * 0.7), 1.0),
        _tube([(0.08, 0, -0.08), (0.09, 0, -0.1)], (0.035, 0.03), 0.7),
    ]
    for k, (x, y) in enumerate(((1, 1), (1, -1), (-1, 1), (-1, -1))):
        end = (x * arm, y * arm, 0.02)
        parts.append(_tube([(0.05 * x, 0.04 * y, 0), end], (0.026, 0.022), 0.9))
        parts.append(_tube([(end[0], end[1], -0.015), (end[0], end[1], 0.05)], (0.03, 0.026), 0.85))
        parts += _rotor((end[0], end[1], 0.065), radius, "z", phase + k, 2, 0.22)
        if style[3] > 0.4:
            foot = (x * 0.12, y * 0.14, -0.17)
            parts.append(_tube([(x * 0.07, y * 0.06, -0.02), foot], (0.014, 0.014), 0.9))
    if style[3] > 0.7:
        for y in (-0.14, 0.14):
            parts.append(_tube([(-0.16, y, -0.17), (0.16, y, -0.17)], (0.013, 0.013), 0.9))
    return parts


def helicopter(style: np.ndarray, phase: float) -> list[Part]:
    """Cabin, tail boom, blurred main and tail rotor, skids; style is (4,) in [0, 1]."""
    fat = 0.9 + 0.3 * style[0]
    parts: list[Part] = [
        _tube(
            [(0.3, 0, -0.05), (0.2, 0, -0.02), (0.02, 0, 0), (-0.14, 0, 0.02)],
            (0.045, 0.095, 0.115, 0.06),
            1.0,
            fat,
        ),
        _tube([(-0.1, 0, 0.03), (-0.54, 0, 0.06)], (0.055, 0.018), 0.95),
        _tube([(0, 0, 0.06), (0, 0, 0.2)], (0.05, 0.02), 0.85),
        Plate(
            np.array([(-0.47, 0, 0.05), (-0.55, 0, 0.05), (-0.62, 0, 0.2), (-0.56, 0, 0.2)]), 0.9
        ),
        Plate(
            np.array(
                [(-0.4, -0.1, 0.05), (-0.46, -0.1, 0.05), (-0.46, 0.1, 0.05), (-0.4, 0.1, 0.05)]
            ),
            0.9,
        ),
    ]
    parts += _rotor((0, 0, 0.2), 0.46 + 0.06 * style[1], "z", phase, 2 + int(style[2] * 3), 0.13)
    parts += _rotor((-0.57, 0.03, 0.12), 0.085, "y", phase * 2.3, 2, 0.2)
    if style[3] > 0.25:
        for y in (-0.11, 0.11):
            skid = [(0.26, y, -0.16), (0.22, y, -0.19), (-0.16, y, -0.19)]
            parts.append(_tube(skid, (0.011, 0.013, 0.013), 0.9))
            for x in (0.12, -0.08):
                parts.append(_tube([(x, y * 0.5, -0.08), (x, y, -0.19)], (0.012, 0.012), 0.9))
    return parts


MODELS = {"airplane": airplane, "bird": bird, "drone": drone, "helicopter": helicopter}


def view_matrix(pose: Pose) -> np.ndarray:
    """(3, 3) rotation from object axes to view axes: right, down, away from the viewer."""
    cy, sy = np.cos(pose.yaw), np.sin(pose.yaw)
    cp, sp = np.cos(pose.pitch), np.sin(pose.pitch)
    cr, sr = np.cos(pose.roll), np.sin(pose.roll)
    ce, se = np.cos(pose.elevation), np.sin(pose.elevation)
    yaw = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    pitch = np.array([[cp, 0, -sp], [0, 1, 0], [sp, 0, cp]])
    roll = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    camera = np.array([[1, 0, 0], [0, se, -ce], [0, ce, se]])
    return camera @ yaw @ pitch @ roll


def draw_sprite(
    parts: list[Part], pose: Pose, *, size_px: float, centre_xy: tuple[float, float]
) -> Sprite:
    """Render a model at `size_px` pixels per unit with its origin at `centre_xy`.

    >>> pose = Pose(yaw=0.0, pitch=0.0, roll=0.0, elevation=0.5)
    >>> parts = MODELS["bird"](np.full(4, 0.5), 0.0)
    >>> sprite = draw_sprite(parts, pose, size_px=20.0, centre_xy=(30.0, 30.0))
    >>> sprite.alpha.shape == sprite.tone.shape
    True
    """
    view = view_matrix(pose)
    seen = [part.points @ view.T for part in parts]
    flat = np.concatenate(seen)[:, :2] * size_px
    reach = 0.14 * size_px + 3  # the largest radius of a tube, and room for blur
    low = np.floor(flat.min(0) + centre_xy - reach).astype(int)
    high = np.ceil(flat.max(0) + centre_xy + reach).astype(int)
    width, height = (high - low).tolist()
    canvas = np.zeros((height * OVERSAMPLE, width * OVERSAMPLE, 2), np.float32)
    origin = np.asarray(centre_xy) - low
    for k in sorted(range(len(parts)), key=lambda k: -seen[k][:, 2].mean()):  # far parts first
        _fill(canvas, parts[k], seen[k][:, :2], size_px, origin)
    small = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return Sprite(int(low[0]), int(low[1]), small[..., 0], small[..., 1])


def _fill(
    canvas: np.ndarray, part: Part, flat: np.ndarray, size_px: float, origin: np.ndarray
) -> None:
    """Draw a projected part, flat (P, 2) in model units, on a (h, w, 2) tone and alpha canvas."""
    factor = OVERSAMPLE << FIXED_POINT_BITS
    spots = (flat * size_px + origin) * factor
    colour = (part.tone * part.opacity, part.opacity)
    target = canvas if part.opacity == 1 else np.zeros_like(canvas)
    if isinstance(part, Plate):
        polygon = [np.round(spots).astype(np.int32)]
        line = max(1, round(part.thickness * size_px * OVERSAMPLE))
        cv2.fillPoly(target, polygon, colour, cv2.LINE_8, FIXED_POINT_BITS)
        cv2.polylines(target, polygon, True, colour, line, cv2.LINE_8, FIXED_POINT_BITS)
    else:
        thinnest = 0.3  # pixels; thinner parts would vanish
        radii = np.maximum(np.array(part.radii) * size_px, thinnest) * factor
        turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        ring = np.stack([np.cos(turn), np.sin(turn)], 1)
        circles = spots[:, None] + radii[:, None, None] * ring  # (P, 20, 2)
        for a, b in pairwise(circles):
            hull = cv2.convexHull(np.concatenate([a, b]).astype(np.float32))
            cv2.fillConvexPoly(
                target, np.round(hull).astype(np.int32), colour, cv2.LINE_8, FIXED_POINT_BITS
            )
    if target is not canvas:
        canvas *= 1 - target[..., 1:]
        canvas += target


def _tube(
    points: list[tuple[float, float, float]],
    radii: tuple[float, ...],
    tone: float,
    thick: float = 1.0,
) -> Tube:
    return Tube(np.array(points, float), tuple(r * thick for r in radii), tone)


def _wing(
    front: float,
    root: float,
    side: int,
    start: float,
    span: float,
    sweep: float,
    tip: float,
    height: float,
    tone: float,
) -> Plate:
    """A tapered wing from y = start to y = span; `front` is x of the leading edge at the root."""
    corners = [
        (front, side * start, height),
        (front - root, side * start, height),
        (front - sweep - tip, side * span, height + 0.04 * span),
        (front - sweep, side * span, height + 0.04 * span),
    ]
    return Plate(np.array(corners), tone)


def _rotor(
    hub: tuple[float, float, float],
    radius: float,
    axis: str,
    phase: float,
    blades: int,
    opacity: float,
) -> list[Part]:
    """A faint disc across `axis` with `blades` blurred blades, the first at `phase`."""
    first, second = {"x": (1, 2), "y": (0, 2), "z": (0, 1)}[axis]

    def circle(angles: np.ndarray, r: float) -> np.ndarray:
        points = np.tile(np.array(hub, float), (len(angles), 1))
        points[:, first] += r * np.cos(angles)
        points[:, second] += r * np.sin(angles)
        return points

    parts: list[Part] = [
        Plate(circle(np.linspace(0, 2 * np.pi, 28, endpoint=False), radius), 0.9, opacity, 0.008)
    ]
    for k in range(blades):
        angle = phase + 2 * np.pi * k / blades
        blade = np.concatenate(
            [
                circle(np.array([angle]), 0),
                circle(np.linspace(angle - 0.16, angle + 0.16, 5), radius),
            ]
        )
        parts.append(Plate(blade, 0.85, 0.55, 0.006))
    return parts
