"""Augment whole clips, uint8 tensors: one random draw per clip, the same for every frame.

Works on the device of the clip. Boxes are in pixels of the current image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from rnndet import boxes as box_ops
from rnndet.structures import Target

VISIBLE = 0.35  # an object is ignored if a smaller share of it is inside the crop


@dataclass(frozen=True, slots=True)
class Clip:
    """T frames of one video and their targets."""

    frames: Tensor  # (T, 3, H, W) uint8 RGB
    targets: list[Target | None]


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of an image, in its pixels; it may reach beyond the edges."""

    x: float
    y: float
    width: float
    height: float


def uniform(low: float, high: float, generator: Generator) -> float:
    """Draw a number, uniform in [low, high)."""
    return low + (high - low) * float(torch.rand(1, generator=generator))


def happens(share: float, generator: Generator) -> bool:
    """Draw True with probability `share`."""
    return float(torch.rand(1, generator=generator)) < share


def inference_scale(size_hw: tuple[int, int], frame_hw: tuple[int, int]) -> float:
    """Return the scale at which inference fits a frame to the model's input: torchvision's rule.

    >>> inference_scale((384, 480), (512, 640))
    0.75
    """
    short, long = min(frame_hw), max(frame_hw)
    return min(min(size_hw) / short, max(size_hw) / long)


def choose_region(
    frame_hw: tuple[int, int],
    targets: Sequence[Target | None],
    *,
    out_hw: tuple[int, int],
    scale: float,
    on_object: bool,
    generator: Generator,
) -> Region:
    """Draw a region of frames of `frame_hw` that becomes an image of `out_hw` at `scale`.

    With `on_object` the centre of a random object of the targets is inside, and the region grows
    for an object that does not fit.
    """
    frame_h, frame_w = frame_hw
    shown = [t.boxes for t in targets if t is not None and len(t)]
    if not (on_object and shown):
        width, height = out_hw[1] / scale, out_hw[0] / scale
        x = _within(uniform(0, 1, generator) * (frame_w - width), width, frame_w)
        y = _within(uniform(0, 1, generator) * (frame_h - height), height, frame_h)
        return Region(x, y, width, height)
    boxes = shown[int(torch.randint(len(shown), (1,), generator=generator))]
    box = boxes[int(torch.randint(len(boxes), (1,), generator=generator))].tolist()
    fit = min(out_hw[1] / (box[2] - box[0]), out_hw[0] / (box[3] - box[1]))
    scale = min(scale, 0.8 * fit)
    width, height = out_hw[1] / scale, out_hw[0] / scale
    x = (box[0] + box[2]) / 2 - uniform(0.12, 0.88, generator) * width
    y = (box[1] + box[3]) / 2 - uniform(0.12, 0.88, generator) * height
    return Region(_within(x, width, frame_w), _within(y, height, frame_h), width, height)


def _within(start: float, extent: float, limit: int) -> float:
    """Move a span into [0, limit] if it fits; otherwise make it cover [0, limit]."""
    low, high = sorted((0.0, limit - extent))
    return min(max(start, low), high)


def crop_resize(clip: Clip, region: Region, *, out_hw: tuple[int, int]) -> Clip:
    """Crop the region from every frame and resize it; outside the frame, edge pixels are repeated.

    Objects of which less than VISIBLE is inside are ignored; boxes are clipped.
    """
    frame_h, frame_w = clip.frames.shape[-2:]
    x0, y0, x1, y1 = _corners(region)
    inside = clip.frames[..., max(y0, 0) : min(y1, frame_h), max(x0, 0) : min(x1, frame_w)]
    border = (max(-x0, 0), max(x1 - frame_w, 0), max(-y0, 0), max(y1 - frame_h, 0))
    frames = resize(inside, _inner_size(border, (y1 - y0, x1 - x0), out_hw))
    if any(border):
        frames = _pad_to(frames, border, (y1 - y0, x1 - x0), out_hw)
    return Clip(frames, [crop_target(target, region, out_hw=out_hw) for target in clip.targets])


def crop_target(target: Target | None, region: Region, *, out_hw: tuple[int, int]) -> Target | None:
    """Return the target of a frame after `crop_resize`."""
    if target is None:
        return None
    x0, y0, x1, y1 = _corners(region)
    return _move(target, x0, y0, (out_hw[1] / (x1 - x0), out_hw[0] / (y1 - y0)), out_hw)


def _corners(region: Region) -> tuple[int, int, int, int]:
    x0, y0 = round(region.x), round(region.y)
    return x0, y0, x0 + max(1, round(region.width)), y0 + max(1, round(region.height))


def moving_crop(
    clip: Clip, first: Region, last: Region, *, shares: Sequence[float], out_hw: tuple[int, int]
) -> Clip:
    """Crop frame t from the region at shares[t] of the way from `first` to `last`, and resize it.

    Gives frames of one photograph the motion of a camera. Shares are in [0, 1].
    """
    parts = []
    for t, share in enumerate(shares):
        frame = Clip(clip.frames[t : t + 1], clip.targets[t : t + 1])
        parts.append(crop_resize(frame, between(first, last, share), out_hw=out_hw))
    frames = torch.cat([part.frames for part in parts])
    return Clip(frames, [part.targets[0] for part in parts])


def between(first: Region, last: Region, share: float) -> Region:
    """Return the region at `share` of the way from one to the other."""
    x, y, width, height = (
        a + share * (b - a)
        for a, b in (
            (first.x, last.x),
            (first.y, last.y),
            (first.width, last.width),
            (first.height, last.height),
        )
    )
    return Region(x, y, width, height)


def resize(frames: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """(T, 3, H, W) uint8 -> (T, 3, *size_hw) uint8, bilinear with antialiasing.

    CUDA has no uint8 kernel for this, so there the frames are converted to float32 and back.
    """
    if frames.device.type == "cpu":
        return F.interpolate(frames, size_hw, mode="bilinear", antialias=True)
    return resize_as_float(frames, size_hw)


def resize_as_float(frames: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize like `resize`, on any device; differs by rounding."""
    resized = F.interpolate(frames.float(), size_hw, mode="bilinear", antialias=True)
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def _inner_size(
    border: tuple[int, int, int, int], full_hw: tuple[int, int], out_hw: tuple[int, int]
) -> tuple[int, int]:
    left, right, top, bottom = border
    height = out_hw[0] * (full_hw[0] - top - bottom) / full_hw[0]
    width = out_hw[1] * (full_hw[1] - left - right) / full_hw[1]
    return max(1, round(height)), max(1, round(width))


def _pad_to(
    frames: Tensor,
    border: tuple[int, int, int, int],
    full_hw: tuple[int, int],
    out_hw: tuple[int, int],
) -> Tensor:
    left = round(border[0] * out_hw[1] / full_hw[1])
    top = round(border[2] * out_hw[0] / full_hw[0])
    rows = torch.arange(out_hw[0], device=frames.device).sub(top).clamp(0, frames.shape[-2] - 1)
    columns = torch.arange(out_hw[1], device=frames.device).sub(left)
    columns = columns.clamp(0, frames.shape[-1] - 1)
    return frames[..., rows, :][..., columns]


def _move(
    target: Target, x0: int, y0: int, factor: tuple[float, float], out_hw: tuple[int, int]
) -> Target:
    if len(target) == 0:
        return target
    boxes = target.boxes.numpy() - np.array([x0, y0, x0, y0], np.float32)
    moved = box_ops.scale(boxes, factor_xy=factor)
    clipped = box_ops.clip(moved, size_hw=out_hw)
    visible = box_ops.area(clipped) / np.maximum(box_ops.area(moved), 1e-6)
    hidden = torch.from_numpy(visible < VISIBLE)
    whole = Target(torch.from_numpy(clipped), target.labels, target.ids, target.ignore | hidden)
    size = whole.boxes[:, 2:] - whole.boxes[:, :2]
    return whole[(size >= 1).all(-1)]


def flip(clip: Clip) -> Clip:
    """Mirror left and right."""
    width = clip.frames.shape[-1]
    return Clip(clip.frames.flip(-1), [flip_target(t, width=width) for t in clip.targets])


def flip_target(target: Target | None, *, width: int) -> Target | None:
    """Return the target of a frame after `flip`."""
    if target is None:
        return None
    x1, y1, x2, y2 = target.boxes.unbind(-1)
    boxes = torch.stack([width - x2, y1, width - x1, y2], -1)
    return Target(boxes, target.labels, target.ids, target.ignore)


def colour(clip: Clip, generator: Generator) -> Clip:
    """Change brightness, contrast, saturation, channel balance and gamma; sometimes to grey.

    The change of a pixel depends on the draw alone, so it is equal in all windows of a clip.
    """
    x = clip.frames.float().div_(255)
    grey = x.mean(1, keepdim=True)
    saturation = 0.0 if happens(0.1, generator) else uniform(0.4, 1.6, generator)
    x = grey + (x - grey) * saturation
    contrast, shift = uniform(0.6, 1.5, generator), uniform(-0.2, 0.2, generator)
    balance = 1 + 0.12 * (torch.rand(3, generator=generator).to(x.device) * 2 - 1)
    x = ((x - 0.5) * contrast + 0.5 + shift) * balance.view(1, 3, 1, 1)
    gamma = math.exp(uniform(-0.4, 0.4, generator))
    x = x.clamp_(0, 1).pow_(gamma)
    return Clip(x.mul_(255).round_().to(torch.uint8), clip.targets)


def mosaic(clips: list[Clip]) -> Clip:
    """Join four clips (T, 3, h, w) to a grid (T, 3, 2h, 2w); ids stay distinct.

    Mosaic augmentation (YOLOv4, Bochkovskiy et al. 2020, arXiv 2004.10934) of whole clips.
    Different: all four parts have the same size.
    """
    assert len(clips) == 4, len(clips)
    height, width = clips[0].frames.shape[-2:]
    rows = [torch.cat([clips[i].frames, clips[i + 1].frames], -1) for i in (0, 2)]
    frames = torch.cat(rows, -2)  # (T, 3, 2h, 2w)
    corners = [(0, 0), (width, 0), (0, height), (width, height)]
    targets: list[Target | None] = []
    for t in range(frames.shape[0]):
        parts = [clip.targets[t] for clip in clips]
        known = [
            _shift(part, corner, 1_000_000 * number)
            for number, (part, corner) in enumerate(zip(parts, corners, strict=True))
            if part is not None
        ]
        targets.append(_join(known) if len(known) == 4 else None)
    return Clip(frames, targets)


def _shift(target: Target, corner: tuple[int, int], first_id: int) -> Target:
    ids = None if target.ids is None else target.ids + first_id
    boxes = target.boxes + target.boxes.new_tensor(corner * 2)
    return Target(boxes, target.labels, ids, target.ignore)


def _join(targets: list[Target]) -> Target:
    ids = None if any(t.ids is None for t in targets) else torch.cat([t.ids for t in targets])
    boxes = torch.cat([t.boxes for t in targets])
    return Target(boxes, torch.cat([t.labels for t in targets]), ids,
                 torch.cat([t.ignore for t in targets]))  # fmt: skip
