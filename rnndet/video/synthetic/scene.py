"""Backgrounds of synthetic clips: sky, clouds and ground."""

from dataclasses import dataclass

import cv2
import numpy as np

# name -> (RGB at the top, RGB at the bottom, RGB of clouds, range of cloud cover in [0, 1])
SKIES = {
    "blue": ((62, 112, 186), (168, 200, 228), (236, 239, 243), (0.1, 0.6)),
    "pale": ((142, 172, 208), (205, 218, 230), (240, 241, 243), (0.1, 0.7)),
    "grey": ((140, 146, 153), (186, 189, 192), (214, 216, 219), (0.5, 0.95)),
    "overcast": ((172, 174, 177), (206, 207, 208), (226, 226, 227), (0.7, 1.0)),
    "dusk": ((58, 68, 112), (226, 158, 108), (196, 132, 122), (0.15, 0.6)),
}
GROUNDS = ("none", "none", "trees", "trees", "roofs", "hills")


@dataclass(frozen=True, slots=True)
class Scene:
    """Static textures, larger than the frame by `margin` pixels on every side.

    Every array is float32: sky (h, w, 3) in 0..255, cloud alpha and ground alpha in [0, 1].
    """

    margin: int
    sky: np.ndarray
    cloud: np.ndarray  # (h, w + drift, 4): RGB and alpha
    ground: np.ndarray | None  # (h, w, 4): RGB and alpha

    @property
    def brightness(self) -> float:
        """Mean grey value of the sky with its clouds, 0..255."""
        width = self.sky.shape[1]
        alpha = self.cloud[:, :width, 3:]
        return float((self.sky * (1 - alpha) + self.cloud[:, :width, :3] * alpha).mean())


def make_scene(rng: np.random.Generator, *, size_hw: tuple[int, int], drift_px: int) -> Scene:
    """Draw a random scene for frames of `size_hw`; clouds move at most `drift_px` pixels."""
    height, width = size_hw
    margin = max(8, width // 5)
    full = (height + 2 * margin, width + 2 * margin)
    name = str(rng.choice(list(SKIES)))
    top, bottom, white, cover = SKIES[name]
    sky = _gradient(rng, np.array(top, np.float32), np.array(bottom, np.float32), full)
    cloud = _clouds(rng, np.array(white, np.float32), (full[0], full[1] + drift_px), cover)
    ground = _ground(rng, full, margin, dark=0.5 if name == "dusk" else 1.0)
    return Scene(margin, sky, cloud, ground)


def fractal_noise(
    rng: np.random.Generator,
    size_hw: tuple[int, int],
    *,
    cells: float,
    octaves: int,
    stretch: float,
    roughness: float = 0.55,
) -> np.ndarray:
    """(H, W) float32 noise in [0, 1]; the coarsest octave has `cells` cells down the image."""
    height, width = size_hw
    total = np.zeros(size_hw, np.float32)
    for octave in range(octaves):
        rows = max(2, round(cells * 2**octave))
        columns = max(2, round(rows * width / height / stretch))
        grid = rng.random((rows + 3, columns + 3), dtype=np.float32)
        total += (
            cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * roughness**octave
        )
    low, high = total.min(), total.max()
    return (total - low) / max(float(high - low), 1e-6)


def _gradient(
    rng: np.random.Generator, top: np.ndarray, bottom: np.ndarray, size_hw: tuple[int, int]
) -> np.ndarray:
    height, width = size_hw
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None] ** rng.uniform(0.7, 1.6)
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    glow = 1 + rng.uniform(-0.1, 0.1) * across
    gain = rng.uniform(0.8, 1.08)
    sky = (top * (1 - down) + bottom * down) * glow * gain
    return np.clip(sky, 0, 255).astype(np.float32)


def _clouds(
    rng: np.random.Generator,
    white: np.ndarray,
    size_hw: tuple[int, int],
    cover: tuple[float, float],
) -> np.ndarray:
    octaves = int(rng.integers(4, 7))
    noise = fractal_noise(
        rng,
        size_hw,
        cells=rng.uniform(1.5, 4.5),
        octaves=octaves,
        stretch=rng.uniform(1.2, 3),
        roughness=rng.uniform(0.45, 0.68),
    )
    threshold = np.quantile(noise, 1 - rng.uniform(*cover))
    softness = rng.uniform(0.05, 0.35)
    alpha = np.clip((noise - threshold) / softness + 0.15, 0, 1)
    alpha = alpha * alpha * (3 - 2 * alpha) * rng.uniform(0.5, 1.0)
    relief = noise - cv2.GaussianBlur(np.roll(noise, 6, axis=0), (0, 0), 9)
    shade = np.clip(0.93 + rng.uniform(0.2, 0.8) * relief, 0.6, 1.08)
    colour = np.clip(white * shade[..., None], 0, 255)
    return np.concatenate([colour, alpha[..., None]], -1).astype(np.float32)


def _ground(
    rng: np.random.Generator, size_hw: tuple[int, int], margin: int, *, dark: float
) -> np.ndarray | None:
    kind = str(rng.choice(GROUNDS))
    pole = rng.random() < 0.2
    if kind == "none" and not pole:
        return None
    height, width = size_hw
    layer = np.zeros((height, width, 4), np.float32)
    visible = height - 2 * margin
    line = margin + visible * (1 - rng.uniform(0.05, 0.22))  # row where the ground begins
    if pole:
        _pole(rng, layer, margin, visible)
    if kind == "trees":
        _skyline(
            rng,
            layer,
            line,
            visible * 0.09,
            (52, 66, 44),
            bumps=int(rng.integers(8, 22)),
            texture=0.9,
        )
    elif kind == "hills":
        _skyline(rng, layer, line, visible * 0.12, (92, 104, 112), bumps=3, texture=0.15)
    elif kind == "roofs":
        _roofs(rng, layer, line, visible)
    layer[..., :3] *= dark * rng.uniform(0.7, 1.2)
    np.clip(layer[..., :3], 0, 235, out=layer[..., :3])
    return cv2.GaussianBlur(layer, (0, 0), 0.6)


def _skyline(
    rng: np.random.Generator,
    layer: np.ndarray,
    line: float,
    rise: float,
    colour: tuple[int, int, int],
    *,
    bumps: int,
    texture: float,
) -> None:
    """Fill the layer below a ragged line with a mottled colour, in place."""
    height, width = layer.shape[:2]
    top = line - rise * (_profile(rng, width, bumps) - 0.5) * 2
    rows = np.arange(height, dtype=np.float32)[:, None]
    alpha = np.clip(rows - top[None], 0, 1)
    mottle = fractal_noise(rng, (height, width), cells=30, octaves=3, stretch=1)
    fill = np.array(colour, np.float32) * (1 + texture * (mottle[..., None] - 0.5))
    layer[..., :3] = np.where(alpha[..., None] > 0, fill, layer[..., :3])
    layer[..., 3] = np.maximum(layer[..., 3], alpha)


def _profile(rng: np.random.Generator, width: int, bumps: int) -> np.ndarray:
    """(width,) heights in [0, 1]: rounded tree tops for many bumps, smooth hills for few."""
    total = np.zeros(width, np.float32)
    for octave in range(4 if bumps > 5 else 2):
        grid = rng.random((1, bumps * 3**octave + 3), dtype=np.float32)
        wave = cv2.resize(grid, (width, 1), interpolation=cv2.INTER_CUBIC)[0]
        total += (wave if octave == 0 else 1 - np.abs(2 * wave - 1)) * 0.4**octave
    low, high = total.min(), total.max()
    return (total - low) / max(float(high - low), 1e-6)


def _roofs(rng: np.random.Generator, layer: np.ndarray, line: float, visible: float) -> None:
    height, width = layer.shape[:2]
    x = -int(rng.integers(0, 40))
    while x < width:
        wide = int(visible * rng.uniform(0.08, 0.3))
        top = int(line - visible * rng.uniform(-0.08, 0.05))
        wall = float(rng.uniform(60, 170))
        tint = (np.array([1, 0.97, 0.93]) * wall).tolist()
        cv2.rectangle(layer, (x, top), (x + wide, height), (*tint, 1.0), -1)
        if rng.random() < 0.6:  # a pitched roof
            peak = (x + wide // 2, top - int(wide * rng.uniform(0.12, 0.35)))
            roof = np.array([(x - 3, top), peak, (x + wide + 3, top)], np.int32)
            cv2.fillPoly(layer, [roof], (wall * 0.8, wall * 0.55, wall * 0.5, 1.0))
        step = int(visible * 0.05) + 2
        for wx in range(x + step // 2, x + wide - step // 2, step):
            for wy in range(top + step // 2, height, step + step // 2):
                cv2.rectangle(
                    layer, (wx, wy), (wx + step // 3, wy + step // 2), (48, 54, 62, 1.0), -1
                )
        x += wide + int(rng.integers(0, max(2, int(visible * 0.12))))


def _pole(rng: np.random.Generator, layer: np.ndarray, margin: int, visible: float) -> None:
    """Draw a lamp post or mast, sometimes with wires, in place."""
    height, width = layer.shape[:2]
    x = int(rng.integers(margin, max(margin + 1, width - margin)))
    top = int(margin + visible * rng.uniform(0.05, 0.6))
    grey = float(rng.uniform(30, 90))
    colour = (grey, grey, grey, 1.0)
    cv2.line(layer, (x, top), (x, height), colour, int(rng.integers(3, 11)))
    if rng.random() < 0.5:
        cv2.line(layer, (x - 14, top + 6), (x + 14, top + 6), colour, 3)
        for k in range(int(rng.integers(1, 4))):
            slope = int(rng.integers(-40, 40))
            y = top + 6 + 8 * k
            cv2.line(layer, (0, y - slope), (width, y + slope), colour, 1, cv2.LINE_AA)
