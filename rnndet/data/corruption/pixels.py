"""Compute the pixels of a corrupted frame; kind, severity and seed determine all of them."""

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rnndet.data.targets import Box

STEP_BITS = 16  # the low bits of a seed count the frames of a run
REFERENCE_WIDTH = 640  # blur sizes are given in pixels of an image this wide, and scale with it


@dataclass(frozen=True, slots=True)
class Corruption:
    """The corruption of one frame."""

    kind: str  # one of IMAGE_KINDS, or "freeze" or "occluder"
    severity: float  # 0 (mild) to 1 (worst), constant within a run
    # High bits: the run, which has one blur angle or occluder. Low 16 bits: the frame in the run.
    seed: int

    @property
    def step(self) -> int:
        """0-based position of the frame in its run."""
        return self.seed & ((1 << STEP_BITS) - 1)

    def run_generator(self) -> torch.Generator:
        """Return a generator of draws that are the same for every frame of the run."""
        return seeded(f"run {self.seed - self.step}")

    def frame_generator(self) -> torch.Generator:
        """Return a generator of the draws of this frame."""
        return seeded(f"frame {self.seed}")


def seeded(text: str) -> torch.Generator:
    """Return a CPU generator seeded by a text.

    sha256, because Python's hash() differs between processes; 32 bits, because torch's CPU
    generator uses no more of its seed, so numbers that share their low bits would collide.
    """
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """Draw a float64 number, uniform in [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def integer(generator: torch.Generator, low: int, high: int) -> int:
    """Draw a whole number, uniform in low..high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _between(severity: float, mild: float, worst: float) -> float:
    return mild + (worst - mild) * severity


# Images below are (3, H, W) uint8. Sums are integers: exact, and the same on every device.


def _padded(image: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Repeat the border pixels outwards -> (3, top + H + bottom, left + W + right)."""
    _, height, width = image.shape
    rows = torch.arange(-top, height + bottom, device=image.device).clamp(0, height - 1)
    columns = torch.arange(-left, width + right, device=image.device).clamp(0, width - 1)
    return image.index_select(1, rows).index_select(2, columns)


def _motion_blur(image: Tensor, corruption: Corruption) -> Tensor:
    """Mean along a line of 5 to 25 pixels at the run's random angle."""
    angle = uniform(corruption.run_generator(), 0, math.pi)
    length = _between(corruption.severity, 5, 25) * image.shape[2] / REFERENCE_WIDTH
    length = max(length, 2.0)
    # Doubling: adding a copy shifted by 1, 2, 4, ... spacings sums 2**doublings points of the line.
    doublings = min(math.ceil(math.log2(length)), 7)  # 128 * 255 still fits int16
    spacing = length / 2**doublings
    shifts = [
        (round(math.sin(angle) * spacing * 2**i), round(math.cos(angle) * spacing * 2**i))
        for i in range(doublings)
    ]
    high, wide = sum(dy for dy, _ in shifts), sum(abs(dx) for _, dx in shifts)
    padded = _padded(image, high // 2, high - high // 2, wide // 2, wide - wide // 2)
    total = padded.to(torch.int16)
    for dy, dx in shifts:
        height, width = total.shape[1] - dy, total.shape[2] - abs(dx)
        first, second = (0, dx) if dx >= 0 else (-dx, 0)
        total = total[:, :height, first : first + width] + total[:, dy:, second : second + width]
    return ((total + (1 << (doublings - 1))) >> doublings).to(torch.uint8)


def _defocus(image: Tensor, corruption: Corruption) -> Tensor:
    """Mean over a disc of radius 2 to 6 pixels."""
    radius = _between(corruption.severity, 2, 6) * image.shape[2] / REFERENCE_WIDTH
    radius = max(radius, 1.0)
    reach = int(radius)
    half_widths = {dy: int(math.sqrt(radius**2 - dy**2)) for dy in range(-reach, reach + 1)}
    count = sum(2 * half + 1 for half in half_widths.values())
    _, height, width = image.shape
    padded = _padded(image, reach, reach, reach, reach)
    padded = padded.to(torch.int16 if count <= 128 else torch.int32)  # 128 * 255 fits int16
    total = torch.zeros_like(padded[:, :height, :width])
    row_sum = padded[:, :, reach : reach + width].clone()  # (3, H + 2 reach, W), one column wide
    for half in range(reach + 1):  # widen the row sum step by step; each disc row uses one width
        if half > 0:
            row_sum += padded[:, :, reach - half : reach - half + width]
            row_sum += padded[:, :, reach + half : reach + half + width]
        for dy, half_width in half_widths.items():
            if half_width == half:
                total += row_sum[:, reach + dy : reach + dy + height]
    return total.to(torch.float32).add_(count // 2).div_(count).to(torch.uint8)


def _noise(image: Tensor, corruption: Corruption) -> Tensor:
    """Sensor noise, sigma 20 to 60 of 255 in each channel, and 0.5 to 3 % white pixels."""
    generator = corruption.frame_generator()
    sigma = _between(corruption.severity, 20, 60)
    noisy = _add_noise(image.to(torch.float32), sigma, generator)
    _, height, width = image.shape
    count = int(_between(corruption.severity, 0.005, 0.03) * height * width)
    salt = torch.randint(0, height * width, (count,), generator=generator).to(image.device)
    noisy.flatten(1)[:, salt] = 255
    return noisy


def _dark(image: Tensor, corruption: Corruption) -> Tensor:
    """Gain 0.25 to 0.06 with crushed shadows, rounded to whole levels, then sensor noise 2 to 4."""
    gain = _between(corruption.severity, 0.25, 0.06)
    light = image.to(torch.float32)
    curve = light.mul(0.5 / 255).add_(0.5)  # shadows lose up to half: gamma between 1 and 2
    dark = light.mul_(curve).mul_(gain).floor_()
    sigma = _between(corruption.severity, 2, 4)
    return _add_noise(dark, sigma, corruption.frame_generator())


def _add_noise(values: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Normal noise on float values 0..255, in place; -> uint8."""
    noise = torch.randn(values.shape, generator=generator).to(values.device)
    return values.add_(noise, alpha=sigma).add_(0.5).clamp_(0, 255).to(torch.uint8)


def _exposure(image: Tensor, corruption: Corruption) -> Tensor:
    """Gain of 1.5 to 3.5, or as often its inverse, for the whole run; highlights are clipped."""
    gain = _between(corruption.severity, 1.5, 3.5)
    if uniform(corruption.run_generator(), 0, 1) < 0.5:
        gain = 1 / gain
    return image.to(torch.float32).mul_(gain).add_(0.5).clamp_(0, 255).to(torch.uint8)


def _drop(image: Tensor, corruption: Corruption) -> Tensor:
    """Black."""
    return torch.zeros_like(image)


IMAGE_KINDS = {
    "motion_blur": _motion_blur,
    "defocus": _defocus,
    "noise": _noise,
    "dark": _dark,
    "drop": _drop,
    "exposure": _exposure,
}


def occluder(image: Tensor, corruption: Corruption, boxes: Tensor | None) -> Tensor:
    """Cover the objects with opaque moving rectangles, or random places without boxes."""
    _, height, width = image.shape
    generator = corruption.run_generator()
    is_grey = uniform(generator, 0, 1) < 0.3
    grey = integer(generator, 40, 200)
    from_y = int(uniform(generator, 0, 1) * (height - 1))
    from_x = int(uniform(generator, 0, 1) * (width - 1))
    colour = torch.full_like(image[:, 0, 0], grey) if is_grey else image[:, from_y, from_x]
    texture = torch.randint(-24, 25, (1, 8, 8), generator=generator).to(image.device)
    tile = (colour.view(3, 1, 1).to(torch.int64) + texture).clamp(0, 255).to(torch.uint8)
    if boxes is None or len(boxes) == 0:
        places = _wandering(corruption, generator, (height, width))
    else:
        places = _decoys(boxes.tolist(), corruption, generator, (height, width))
        places += [_over(box, corruption, generator) for box in boxes.tolist()]
    shown = image.clone()
    for place in places:
        _paint(shown, tile, place)
    return shown


def _paint(image: Tensor, tile: Tensor, place: Box) -> None:
    """Fill the rectangle x1 y1 x2 y2, grown to whole pixels, with the stretched tile; in place."""
    _, height, width = image.shape
    left, top = math.floor(place[0]), math.floor(place[1])
    right, bottom = math.ceil(place[2]), math.ceil(place[3])
    if bottom <= max(top, 0) or right <= max(left, 0) or top >= height or left >= width:
        return
    rows = torch.arange(max(top, 0), min(bottom, height), device=image.device)
    columns = torch.arange(max(left, 0), min(right, width), device=image.device)
    from_rows = (rows - top) * tile.shape[1] // (bottom - top)
    from_columns = (columns - left) * tile.shape[2] // (right - left)
    patch = tile.index_select(1, from_rows).index_select(2, from_columns)
    image[:, max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)] = patch


def _over(box: list[float], corruption: Corruption, generator: torch.Generator) -> Box:
    """Return a rectangle that sways over one object and always hides at least 80 % of it."""
    growth = _between(corruption.severity, 0.0, 0.4)
    # Off centre by half the growth hides all; 0.1 more leaves at least 0.9 * 0.9 of the object.
    reach = growth / 2 + 0.1
    x1, y1, x2, y2 = box
    dx = reach * _sway(generator, corruption.step) * (x2 - x1)
    dy = reach * _sway(generator, corruption.step) * (y2 - y1)
    grow_x, grow_y = growth / 2 * (x2 - x1), growth / 2 * (y2 - y1)
    return x1 - grow_x + dx, y1 - grow_y + dy, x2 + grow_x + dx, y2 + grow_y + dy


def _decoys(
    boxes: list[list[float]],
    corruption: Corruption,
    generator: torch.Generator,
    size_hw: tuple[int, int],
) -> list[Box]:
    """Return one to three rectangles of the size of the objects at random places.

    Without decoys an occluder would reveal the position of the object.
    """
    height, width = size_hw
    places = []
    for i in range(integer(generator, 1, 3)):
        x1, y1, x2, y2 = boxes[i % len(boxes)]
        x = width * (uniform(generator, 0, 1) + 0.1 * _sway(generator, corruption.step))
        y = height * (uniform(generator, 0, 1) + 0.1 * _sway(generator, corruption.step))
        half_width, half_height = 0.6 * (x2 - x1), 0.6 * (y2 - y1)
        places.append((x - half_width, y - half_height, x + half_width, y + half_height))
    return places


def _wandering(
    corruption: Corruption, generator: torch.Generator, size_hw: tuple[int, int]
) -> list[Box]:
    """Return one to three rectangles, 10 to 35 % of each side, that move through the image."""
    height, width = size_hw
    places = []
    for _ in range(integer(generator, 1, 3)):
        share = _between(corruption.severity, 0.1, 0.35)
        half_width = share / 2 * width * uniform(generator, 0.7, 1.3)
        half_height = share / 2 * height * uniform(generator, 0.7, 1.3)
        x = width * (0.5 + 0.5 * _sway(generator, corruption.step))
        y = height * (0.5 + 0.5 * _sway(generator, corruption.step))
        places.append((x - half_width, y - half_height, x + half_width, y + half_height))
    return places


def _sway(generator: torch.Generator, step: int) -> float:
    """Return a position in -1..1 that oscillates with a random phase, period 8 to 30 frames."""
    phase = uniform(generator, 0, 2 * math.pi)
    return math.sin(phase + 2 * math.pi * step / uniform(generator, 8, 30))
