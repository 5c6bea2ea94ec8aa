"""Frames made hard on purpose: runs of blur, noise, darkness, black or frozen frames, occluders.

Training shows them so that memory is needed; evaluation uses one fixed plan per video
(`standard_plan`). A plan is drawn first and applied later, and every pixel follows from the plan:
the same plan gives the same bytes for a clip at once and for its frames one by one.
Memory is worth most where single frames fail: runs, not single bad frames, are therefore the unit.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rnndet.errors import RnndetError
from rnndet.structures import Truth

KINDS = ("motion_blur", "defocus", "noise", "dark", "drop", "freeze", "occluder")

STEP_BITS = 16  # the low bits of a seed count the frames of a run
REFERENCE_WIDTH = 640  # blur sizes are given in pixels of a picture this wide, and scale with it

Plan = list["Corruption | None"]  # one entry per frame; None = shown as it is


@dataclass(frozen=True, slots=True)
class Corruption:
    """What happens to one frame."""

    kind: str  # one of KINDS
    severity: float  # 0 (mild) to 1 (worst), constant within a run
    seed: (
        int  # high bits: the run, whose blur angle or occluder stays; low 16 bits: frame in the run
    )

    @property
    def step(self) -> int:
        """0-based position of the frame in its run."""
        return self.seed & ((1 << STEP_BITS) - 1)

    def run_generator(self) -> torch.Generator:
        """Draws that are the same for every frame of the run."""
        return _generator(f"run {self.seed - self.step}")

    def frame_generator(self) -> torch.Generator:
        """Draws of this frame alone."""
        return _generator(f"frame {self.seed}")


def plan(
    length: int,
    generator: torch.Generator,
    *,
    share: float = 1 / 3,
    run: tuple[int, int] = (3, 12),
    kinds: Sequence[str] = KINDS,
) -> Plan:
    """Draw which of `length` frames are corrupted, and how.

    Runs are `run[0]` to `run[1]` frames long (uniform), each of one kind and severity, with at
    least one clean frame between two runs. The process is in its steady state from frame 0 on (a
    run may have begun before it), so every frame is corrupted with probability `share`, also in
    short clips. Frame 0 is never frozen: there is nothing to repeat. Raises RnndetError for
    impossible values.
    """
    _check_plan(share, run, kinds)
    frames: Plan = [None] * length
    if share == 0:
        return frames
    mean_gap = (run[0] + run[1]) / 2 * (1 - share) / share
    at = 0
    steps = 0  # frames of the run under way that lie before frame 0
    if _uniform(generator, 0, 1) < share:
        steps, size = _run_under_way(generator, run)
    else:
        at, size = _gap(generator, mean_gap), _integer(generator, *run)
    while at < length:
        kind = kinds[_integer(generator, 0, len(kinds) - 1)]
        severity = _uniform(generator, 0, 1)
        seed = _integer(generator, 0, (1 << 44) - 1) << STEP_BITS
        for step in range(steps, size):
            if at < length and not (at == 0 and kind == "freeze"):
                frames[at] = Corruption(kind, severity, seed + step)
            at += 1
        at += _gap(generator, mean_gap)
        steps, size = 0, _integer(generator, *run)
    return frames


def standard_plan(video_name: str, length: int, *, seed: int = 0) -> Plan:
    """The plan used for published numbers: share 1/3, runs of 3 to 12, fixed by name and seed."""
    return plan(length, _generator(f"{seed}:{video_name}"))


def corrupt(
    frames: Tensor,
    plan: Sequence[Corruption | None],
    *,
    boxes: Sequence[Tensor | None] | None = None,
    previous: Tensor | None = None,
) -> Tensor:
    """Apply a plan to consecutive frames (T, 3, H, W) uint8; returns a new tensor alike.

    `boxes[t]` (D, 4), pixels of these frames, are the objects that an occluder covers to at least
    80 % (and decoys of their size, so that it does not give them away); without them it covers
    random places. `previous` (3, H, W) uint8 is the frame shown before the first of these; a freeze
    at t = 0 repeats it, and without it shows the frame as it is.
    """
    assert frames.dtype == torch.uint8 and frames.dim() == 4, (frames.dtype, frames.shape)
    assert len(plan) == frames.shape[0], (len(plan), frames.shape)
    shown = frames.clone()
    for t, corruption in enumerate(plan):
        if corruption is None:
            continue
        if corruption.kind == "freeze":
            last = shown[t - 1] if t > 0 else previous
            if last is not None:
                shown[t] = last
        elif corruption.kind == "occluder":
            shown[t] = _occluder(frames[t], corruption, None if boxes is None else boxes[t])
        else:
            shown[t] = _PICTURE_KINDS[corruption.kind](frames[t], corruption)
    return shown


class Degrader:
    """Apply a plan to a stream of frames; remembers the last frame shown, for freezes.

    `plan[i]`, and `truths[i]` if there is one, belong to the i-th frame of the video.
    """

    def __init__(
        self,
        plan: Sequence[Corruption | None],
        truths: Mapping[int, Truth | None] | None = None,
    ):
        self._plan = plan
        self._truths = truths or {}
        self._shown: Tensor | None = None  # (3, H, W)

    def apply(self, index: int, image: np.ndarray) -> np.ndarray:
        """The frame as it is shown, (H, W, 3) uint8 like `image`; call in the order of time."""
        pixels = torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))  # (3, H, W)
        truth = self._truths.get(index)
        boxes = [None if truth is None else truth.boxes]
        self._shown = corrupt(pixels[None], [self._plan[index]], boxes=boxes, previous=self._shown)[
            0
        ]
        return np.ascontiguousarray(self._shown.numpy().transpose(1, 2, 0))


def _generator(text: str) -> torch.Generator:
    """A CPU generator seeded by a text.

    sha256, because Python's hash() differs between processes; 32 bits, because torch's CPU
    generator looks at no more of its seed, so numbers that share their low bits would collide.
    """
    digest = hashlib.sha256(text.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))


def _check_plan(share: float, run: tuple[int, int], kinds: Sequence[str]) -> None:
    if not 1 <= run[0] <= run[1] < 1 << STEP_BITS:
        raise RnndetError(f"degradation run = {run} must be two lengths, 1 <= shortest <= longest")
    mean_run = (run[0] + run[1]) / 2
    most = mean_run / (mean_run + 1)  # at least one clean frame between two runs
    if not 0 <= share <= most:
        raise RnndetError(
            f"degradation share = {share} must lie in 0..{most:.3f} for runs of {run}"
        )
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown or not kinds:
        raise RnndetError(f"degradation kinds = {list(kinds)}; choose from: {', '.join(KINDS)}")


def _run_under_way(generator: torch.Generator, run: tuple[int, int]) -> tuple[int, int]:
    """Frames already past, and the length, of a run seen at a random moment (longer ones more)."""
    lengths = torch.arange(run[0], run[1] + 1)
    weights = lengths.double()
    size = int(lengths[torch.multinomial(weights, 1, generator=generator)])
    return _integer(generator, 0, size - 1), size


def _gap(generator: torch.Generator, mean: float) -> int:
    """Clean frames until the next run: geometric from 1, the memoryless choice."""
    if mean <= 1:
        return 1
    return 1 + int(math.log(1 - _uniform(generator, 0, 1)) / math.log(1 - 1 / mean))


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def _integer(generator: torch.Generator, low: int, high: int) -> int:
    """Uniform in low..high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _between(severity: float, mild: float, worst: float) -> float:
    return mild + (worst - mild) * severity


# Pictures below are (3, H, W) uint8. Sums are integers: exact, and the same on every device.


def _padded(picture: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Repeat the border pixels outwards; -> (3, top + H + bottom, left + W + right)."""
    _, height, width = picture.shape
    rows = torch.arange(-top, height + bottom, device=picture.device).clamp(0, height - 1)
    columns = torch.arange(-left, width + right, device=picture.device).clamp(0, width - 1)
    return picture.index_select(1, rows).index_select(2, columns)


def _motion_blur(picture: Tensor, corruption: Corruption) -> Tensor:
    """Mean along a line of 5 to 25 pixels at the run's random angle."""
    angle = _uniform(corruption.run_generator(), 0, math.pi)
    length = _between(corruption.severity, 5, 25) * picture.shape[2] / REFERENCE_WIDTH
    length = max(length, 2.0)
    # Doubling: adding a copy shifted by 1, 2, 4, ... spacings sums 2**doublings points of the line.
    doublings = min(math.ceil(math.log2(length)), 7)  # 128 * 255 still fits int16
    spacing = length / 2**doublings
    shifts = [
        (round(math.sin(angle) * spacing * 2**i), round(math.cos(angle) * spacing * 2**i))
        for i in range(doublings)
    ]
    high, wide = sum(dy for dy, _ in shifts), sum(abs(dx) for _, dx in shifts)
    padded = _padded(picture, high // 2, high - high // 2, wide // 2, wide - wide // 2)
    total = padded.to(torch.int16)
    for dy, dx in shifts:
        height, width = total.shape[1] - dy, total.shape[2] - abs(dx)
        first, second = (0, dx) if dx >= 0 else (-dx, 0)
        total = total[:, :height, first : first + width] + total[:, dy:, second : second + width]
    return ((total + (1 << (doublings - 1))) >> doublings).to(torch.uint8)


def _defocus(picture: Tensor, corruption: Corruption) -> Tensor:
    """Mean over a disc of radius 2 to 6 pixels."""
    radius = _between(corruption.severity, 2, 6) * picture.shape[2] / REFERENCE_WIDTH
    radius = max(radius, 1.0)
    reach = int(radius)
    half_widths = {dy: int(math.sqrt(radius**2 - dy**2)) for dy in range(-reach, reach + 1)}
    count = sum(2 * half + 1 for half in half_widths.values())
    _, height, width = picture.shape
    padded = _padded(picture, reach, reach, reach, reach)
    padded = padded.to(torch.int16 if count <= 128 else torch.int32)  # 128 * 255 fits int16
    total = torch.zeros_like(padded[:, :height, :width])
    row_sum = padded[:, :, reach : reach + width].clone()  # (3, H + 2 reach, W), one column wide
    for half in range(reach + 1):  # widen the row sum step by step; each disc row uses one width
        if half > 0:
            row_sum += padded[:, :, reach - half : reach - half + width]
            row_sum += padded[:, :, reach + half : reach + half + width]
        for dy, wanted in half_widths.items():
            if wanted == half:
                total += row_sum[:, reach + dy : reach + dy + height]
    return total.to(torch.float32).add_(count // 2).div_(count).to(torch.uint8)


def _noise(picture: Tensor, corruption: Corruption) -> Tensor:
    """Sensor noise, sigma 20 to 60 of 255 in each channel, and 0.5 to 3 % white pixels."""
    generator = corruption.frame_generator()
    sigma = _between(corruption.severity, 20, 60)
    noisy = _add_noise(picture.to(torch.float32), sigma, generator)
    _, height, width = picture.shape
    count = int(_between(corruption.severity, 0.005, 0.03) * height * width)
    salt = torch.randint(0, height * width, (count,), generator=generator).to(picture.device)
    noisy.flatten(1)[:, salt] = 255
    return noisy


def _dark(picture: Tensor, corruption: Corruption) -> Tensor:
    """Gain 0.25 to 0.06 with crushed shadows, rounded to whole levels, then sensor noise 2 to 4."""
    gain = _between(corruption.severity, 0.25, 0.06)
    light = picture.to(torch.float32)
    curve = light.mul(0.5 / 255).add_(0.5)  # shadows lose up to half: gamma between 1 and 2
    dark = light.mul_(curve).mul_(gain).floor_()
    sigma = _between(corruption.severity, 2, 4)
    return _add_noise(dark, sigma, corruption.frame_generator())


def _add_noise(values: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Normal noise on float values 0..255, in place; -> uint8."""
    noise = torch.randn(values.shape, generator=generator).to(values.device)
    return values.add_(noise, alpha=sigma).add_(0.5).clamp_(0, 255).to(torch.uint8)


def _drop(picture: Tensor, corruption: Corruption) -> Tensor:
    """Black."""
    return torch.zeros_like(picture)


_PICTURE_KINDS = {
    "motion_blur": _motion_blur,
    "defocus": _defocus,
    "noise": _noise,
    "dark": _dark,
    "drop": _drop,
}


def _occluder(picture: Tensor, corruption: Corruption, boxes: Tensor | None) -> Tensor:
    """Opaque moving rectangles over the objects, or over random places where none are known."""
    _, height, width = picture.shape
    generator = corruption.run_generator()
    is_grey = _uniform(generator, 0, 1) < 0.3
    grey = _integer(generator, 40, 200)
    from_y = int(_uniform(generator, 0, 1) * (height - 1))
    from_x = int(_uniform(generator, 0, 1) * (width - 1))
    colour = torch.full_like(picture[:, 0, 0], grey) if is_grey else picture[:, from_y, from_x]
    texture = torch.randint(-24, 25, (1, 8, 8), generator=generator).to(picture.device)
    tile = (colour.view(3, 1, 1).to(torch.int64) + texture).clamp(0, 255).to(torch.uint8)
    if boxes is None or len(boxes) == 0:
        places = _wandering(corruption, generator, (height, width))
    else:
        places = _decoys(boxes.tolist(), corruption, generator, (height, width))
        places += [_over(box, corruption, generator) for box in boxes.tolist()]
    shown = picture.clone()
    for place in places:
        _paint(shown, tile, place)
    return shown


def _paint(picture: Tensor, tile: Tensor, place: tuple[float, float, float, float]) -> None:
    """Fill the rectangle x1 y1 x2 y2, grown to whole pixels, with the stretched tile; in place."""
    _, height, width = picture.shape
    left, top = math.floor(place[0]), math.floor(place[1])
    right, bottom = math.ceil(place[2]), math.ceil(place[3])
    if bottom <= max(top, 0) or right <= max(left, 0) or top >= height or left >= width:
        return
    rows = torch.arange(max(top, 0), min(bottom, height), device=picture.device)
    columns = torch.arange(max(left, 0), min(right, width), device=picture.device)
    from_rows = (rows - top) * tile.shape[1] // (bottom - top)
    from_columns = (columns - left) * tile.shape[2] // (right - left)
    patch = tile.index_select(1, from_rows).index_select(2, from_columns)
    picture[:, max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)] = patch


def _over(
    box: list[float], corruption: Corruption, generator: torch.Generator
) -> tuple[float, float, float, float]:
    """A rectangle that sways over one object and always hides at least 80 % of it."""
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
) -> list[tuple[float, float, float, float]]:
    """One to three rectangles as large as the objects but elsewhere.

    Without them an occluder would give away where the object is.
    """
    height, width = size_hw
    places = []
    for i in range(_integer(generator, 1, 3)):
        x1, y1, x2, y2 = boxes[i % len(boxes)]
        x = width * (_uniform(generator, 0, 1) + 0.1 * _sway(generator, corruption.step))
        y = height * (_uniform(generator, 0, 1) + 0.1 * _sway(generator, corruption.step))
        half_width, half_height = 0.6 * (x2 - x1), 0.6 * (y2 - y1)
        places.append((x - half_width, y - half_height, x + half_width, y + half_height))
    return places


def _wandering(
    corruption: Corruption, generator: torch.Generator, size_hw: tuple[int, int]
) -> list[tuple[float, float, float, float]]:
    """One to three rectangles, 10 to 35 % of each side, that move through the picture."""
    height, width = size_hw
    places = []
    for _ in range(_integer(generator, 1, 3)):
        share = _between(corruption.severity, 0.1, 0.35)
        half_width = share / 2 * width * _uniform(generator, 0.7, 1.3)
        half_height = share / 2 * height * _uniform(generator, 0.7, 1.3)
        x = width * (0.5 + 0.5 * _sway(generator, corruption.step))
        y = height * (0.5 + 0.5 * _sway(generator, corruption.step))
        places.append((x - half_width, y - half_height, x + half_width, y + half_height))
    return places


def _sway(generator: torch.Generator, step: int) -> float:
    """A position in -1..1 that swings with a random phase, one period in 8 to 30 frames."""
    phase = _uniform(generator, 0, 2 * math.pi)
    return math.sin(phase + 2 * math.pi * step / _uniform(generator, 8, 30))
