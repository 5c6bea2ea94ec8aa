"""Paste objects of other videos into clips, with soft masks.

Copy-paste augmentation (Ghiasi et al. 2021, arXiv 2012.07177; Dwibedi et al. 2017, arXiv
1708.01642) of whole clips. Different: masks are estimated from boxes, by the difference to a smooth
background, and an object keeps the path of its own video. Where an object is placed depends on the
records of the whole clip and on the generator, so all windows of a clip agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor

from rnndet import boxes as box_ops
from rnndet.data.clips.transforms import VISIBLE, Clip, happens, resize, uniform
from rnndet.data.records import FrameRecord
from rnndet.structures import Target

TRIES = 12  # positions
MARGIN = 0.075  # of a side of the box, on each side; background that belongs to the patch
MARGIN_PIXELS = 2.0  # added to it, in pixels of the image
LARGEST, SMALLEST = 0.8, 4.0  # sides of a pasted box: share of the image's side, pixels
SMOOTH = 4.0  # grey levels; smallest deviation of the background that is assumed
CLUTTER = (10.0, 20.0)  # grey levels; from here on the mask gives way to the box
FAINT = 0.02  # an object is ignored if its mask covers a smaller share of its box
ADAPT = 0.5  # share of the backgrounds' difference in brightness that is added to the object


@dataclass(frozen=True, slots=True)
class Track:
    """An object that is labelled in every frame of a clip."""

    label: int
    boxes: NDArray[np.float32]  # (T, 4) pixels of the frame


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the patches of an object come from and go to, for the T frames of a whole clip.

    A patch is a rectangle of one size around the object, `source_hw` pixels of the donor's frame
    and `patch_hw` pixels of the image.
    """

    label: int
    source_hw: tuple[int, int]
    patch_hw: tuple[int, int]
    sources: NDArray[np.int64]  # (T, 2) x y of the patch's corner in the frame
    corners: NDArray[np.int64]  # (T, 2) x y of its corner in the image
    boxes: NDArray[np.float32]  # (T, 4) of the object in the image
    regions: NDArray[np.float32]  # (T, 4) its box and margin, in the image: what may be changed
    mirrored: bool


@dataclass(frozen=True, slots=True)
class Mask:
    """What of a patch is the object."""

    alpha: Tensor  # (T, 1, h, w) in [0, 1]: where the image is changed; 0 at the region's edges
    opaque: Tensor  # (T, 1, h, w) in [0, 1]: where nothing of the image is seen through it
    background: Tensor  # (T, 3, h, w) estimated grey levels without the object


def complete_tracks(records: Sequence[FrameRecord], *, frame_hw: tuple[int, int]) -> list[Track]:
    """Return the objects that are labelled, not ignored and not at the frame's edge in each frame.

    Without ids only a clip of one and the same frame has tracks.
    """
    targets = [record.target for record in records]
    if any(target is None or not len(target) for target in targets):
        return []
    is_one_frame = len({record.index for record in records}) == 1
    rows_of = [_rows(target, frame_hw, by_row=is_one_frame) for target in targets if target]
    shared = [key for key in rows_of[0] if all(key in rows for rows in rows_of)]
    tracks = []
    for key in shared:
        found = [rows[key] for rows in rows_of]
        if len({label for label, _ in found}) == 1:
            tracks.append(Track(found[0][0], np.stack([box for _, box in found])))
    return tracks


def _rows(
    target: Target, frame_hw: tuple[int, int], *, by_row: bool
) -> dict[int, tuple[int, NDArray[np.float32]]]:
    """{id, or the row: (label, box)} of the objects that can be copied whole."""
    if target.ids is None and not by_row:
        return {}
    keys = range(len(target)) if by_row or target.ids is None else target.ids.tolist()
    boxes = target.boxes.numpy()
    inside = (boxes[:, :2] >= 1).all(-1) & (boxes[:, 2:] <= np.array(frame_hw[::-1]) - 1).all(-1)
    usable = inside & ~target.ignore.numpy() & (boxes[:, 2:] > boxes[:, :2]).all(-1)
    labels = target.labels.tolist()
    return {key: (labels[row], boxes[row]) for row, key in enumerate(keys) if usable[row]}


def place(
    track: Track,
    *,
    frame_hw: tuple[int, int],
    scale: float,
    out_hw: tuple[int, int],
    taken: Sequence[NDArray[np.float32]],
    flip: float,
    generator: Generator,
) -> Placement | None:
    """Draw where a track of frames of `frame_hw` goes at `scale`; None if there is no free place.

    In the middle frame of the clip the object is inside the image, and in no frame t it touches the
    boxes taken[t]. An object that does not fit is made smaller. flip: share that is mirrored.
    """
    mirrored = happens(flip, generator)
    draws = torch.rand(TRIES, 2, generator=generator).double().numpy()
    sides = track.boxes[:, 2:] - track.boxes[:, :2]  # (T, 2) width, height
    largest = sides.max(0)
    image = np.array(out_hw[::-1], np.float64)  # width, height
    scale = min(scale, float((LARGEST * image / largest).min()))
    if sides.min() * scale < SMALLEST:
        return None
    margin = MARGIN * sides + MARGIN_PIXELS / scale
    source = np.ceil(largest + 2 * margin.max(0)).astype(int) + 1
    patch = np.maximum(1, np.round(source * scale)).astype(int)
    factor = patch / source
    centres = (track.boxes[:, :2] + track.boxes[:, 2:]).astype(np.float64) / 2
    sources = np.round(centres - source / 2).astype(np.int64)
    frame = box_ops.clip(
        np.concatenate([track.boxes[:, :2] - margin, track.boxes[:, 2:] + margin], -1),
        size_hw=frame_hw,
    )
    local = [_in_patch(boxes, sources, factor, patch, mirrored) for boxes in (track.boxes, frame)]
    middle = len(centres) // 2
    steps = (centres - centres[middle]) * factor * np.array([-1 if mirrored else 1, 1])
    half = sides[middle] * factor / 2
    inner = (local[0][:, :2] + local[0][:, 2:]) / 2  # of the object in its patch
    for draw in draws:
        start = half + draw * (image - 2 * half)
        corners = np.round(start + steps - inner).astype(np.int64)
        boxes, regions = (np.float32(part + np.tile(corners, 2)) for part in local)
        if not any(
            (box_ops.pairwise_share(region[None], others) > 0).any()
            for region, others in zip(regions, taken, strict=True)
        ):
            source_hw, patch_hw = (int(source[1]), int(source[0])), (int(patch[1]), int(patch[0]))
            return Placement(track.label, source_hw, patch_hw, sources, corners, boxes, regions,
                             mirrored)  # fmt: skip
    return None


def _in_patch(
    boxes: NDArray[np.floating],
    sources: NDArray[np.int64],
    factor: NDArray[np.float64],
    patch: NDArray[np.int64],
    mirrored: bool,
) -> NDArray[np.float64]:
    x1, y1, x2, y2 = ((boxes - np.tile(sources, 2)) * np.tile(factor, 2)).T
    if mirrored:
        x1, x2 = patch[0] - x2, patch[0] - x1
    return np.stack([x1, y1, x2, y2], -1)


def paste(
    clip: Clip, donor: Tensor, placement: Placement, *, shown: Sequence[int], number: int
) -> Clip:
    """Paste an object into the labelled frames of a clip; its id becomes `number`.

    donor: (T, 3, H, W) uint8, frames of the other video. Frame t of the clip and of the donor is
    frame shown[t] of the whole clip that `placement` was made for.
    """
    at = list(shown)
    patches = _cut(donor, placement, placement.sources[at])
    local = torch.from_numpy(placement.boxes[at] - np.tile(placement.corners[at], 2))
    regions = torch.from_numpy(placement.regions[at] - np.tile(placement.corners[at], 2))
    regions, local = regions.to(patches), local.to(patches)
    mask = soft_mask(patches, local, regions)
    alpha = mask.alpha
    covered = (alpha * _inside(local, patches.shape[-2:])).sum((1, 2, 3))
    area = ((local[:, 2] - local[:, 0]) * (local[:, 3] - local[:, 1])).clamp(min=1)
    faint = (covered / area < FAINT).tolist()
    ring = _inside(regions, patches.shape[-2:]) * (1 - alpha)
    frames, targets = clip.frames.clone(), list(clip.targets)
    height, width = frames.shape[-2:]
    patch_h, patch_w = placement.patch_hw
    for t, target in enumerate(clip.targets):
        if target is None:
            continue
        x, y = placement.corners[at[t]].tolist()
        left, top = max(0, -x), max(0, -y)
        right, bottom = min(patch_w, width - x), min(patch_h, height - y)
        if left < right and top < bottom:
            image = frames[t, :, y + top : y + bottom, x + left : x + right]
            part = (slice(top, bottom), slice(left, right))
            layers = (patches, alpha, mask.opaque, mask.background, ring)
            mixed = _mix(image.float(), *(layer[t][:, *part] for layer in layers))
            image.copy_(mixed.round_().clamp_(0, 255).to(torch.uint8))
        box = placement.boxes[at[t]]
        targets[t] = _with_object(target, box, placement.label, number, faint[t], (height, width))
    return Clip(frames, targets)


def _cut(donor: Tensor, placement: Placement, sources: NDArray[np.int64]) -> Tensor:
    """The patches, (T, 3, h, w) float32; outside the frame, edge pixels are repeated."""
    height, width = placement.source_hw
    corner = torch.from_numpy(sources).to(donor.device)
    rows = corner[:, 1:] + torch.arange(height, device=donor.device)
    columns = corner[:, :1] + torch.arange(width, device=donor.device)
    rows = rows.clamp(0, donor.shape[-2] - 1)[:, :, None]
    columns = columns.clamp(0, donor.shape[-1] - 1)[:, None, :]
    frame = torch.arange(len(donor), device=donor.device)[:, None, None]
    cut = donor.permute(0, 2, 3, 1)[frame, rows, columns].permute(0, 3, 1, 2).contiguous()
    patches = resize(cut, placement.patch_hw).float()
    return patches.flip(-1) if placement.mirrored else patches


def _mix(
    image: Tensor, patch: Tensor, alpha: Tensor, opaque: Tensor, background: Tensor, ring: Tensor
) -> Tensor:
    """Blend, (3, h, w) each, or (1, h, w).

    Opaque pixels are moved towards the brightness of the image around the object. Of the others,
    which are the object's rim, only the difference to their background is added to the image:
    their own colour would be a halo.
    """
    weight = ring.double().sum().clamp(min=1e-3) * len(image)
    difference = ((image - patch).double() * ring).sum() / weight
    solid = (patch + ADAPT * difference.to(patch)).clamp(0, 255)
    return image + alpha * (opaque * (solid - image) + (1 - opaque) * (patch - background))


def _with_object(
    target: Target,
    box: NDArray[np.float32],
    label: int,
    number: int,
    faint: bool,
    size_hw: tuple[int, int],
) -> Target:
    clipped = box_ops.clip(box, size_hw=size_hw)
    if (clipped[2:] - clipped[:2] < 1).any():
        return target
    hidden = bool(box_ops.area(clipped) < VISIBLE * box_ops.area(box))
    ids = None
    if target.ids is not None:
        ids = torch.cat([target.ids, target.ids.new_tensor([number])])
    return Target(
        torch.cat([target.boxes, torch.from_numpy(clipped)[None]]),
        torch.cat([target.labels, target.labels.new_tensor([label])]),
        ids,
        torch.cat([target.ignore, target.ignore.new_tensor([hidden or faint])]),
    )


def soft_mask(patches: Tensor, boxes: Tensor, regions: Tensor) -> Mask:
    """Estimate the masks of patches (T, 3, h, w), grey levels.

    boxes (T, 4) contain the objects; regions (T, 4) are larger. The background is a plane fitted to
    the pixels between them. What differs from it is the object, and where the background itself is
    not smooth, an ellipse in the region is. Alpha is 0 on the edges of the region.
    """
    size_hw = patches.shape[-2:]
    inside = _inside(regions, size_hw)
    ring = inside * (1 - _inside(boxes, size_hw))
    background, distance, deviation = _fit_background(patches, ring)
    level = deviation.clamp(min=SMOOTH)
    reach = max(1, round(min(size_hw) / 24))
    solid = _closed(_smoothstep(distance, 2 * level, 5 * level) * inside, reach)
    relative = distance / _grown(distance, 2).clamp(min=1)  # on the object's rim below 1
    opaque = _smoothstep(relative, 0.3, 0.9) * _smoothstep(distance, 2 * level, 6 * level)
    opaque = _closed(opaque * inside, reach)
    solid = F.avg_pool2d(_grown(solid, 1), 3, 1, 1, count_include_pad=False)
    across, along = _edge_distances(regions, size_hw)  # (T, 1, h, w) each, 1 in the middle
    sides = (regions[:, 2:] - regions[:, :2])[:, :, None, None, None]
    feather = _smoothstep(across, 0, 2 * (MARGIN + 2 / sides[:, 0]))
    feather = feather * _smoothstep(along, 0, 2 * (MARGIN + 2 / sides[:, 1]))
    radius = ((1 - across) ** 2 + (1 - along) ** 2).sqrt()
    ellipse = 1 - _smoothstep(radius, 0.55, 1.0)
    clutter = _smoothstep(deviation, *CLUTTER)
    alpha = feather * solid * (1 - clutter) + ellipse * clutter
    return Mask(alpha, opaque * (1 - clutter) + clutter, background)


def _fit_background(patches: Tensor, ring: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(background, each pixel's distance from it, the usual distance in the ring)."""
    count, _, height, width = patches.shape
    y = torch.linspace(-1, 1, height, device=patches.device, dtype=torch.float64)
    x = torch.linspace(-1, 1, width, device=patches.device, dtype=torch.float64)
    one = torch.ones(height, width, device=patches.device, dtype=torch.float64)
    basis = torch.stack([one, one * x, one * y[:, None]], -1).flatten(0, 1)  # (P, 3)
    values = patches.double().flatten(2).transpose(1, 2)  # (T, P, 3)
    weights = ring.double().flatten(1)  # (T, P)
    outside = weights == 0
    ridge = 1e-3 * torch.eye(3, device=patches.device, dtype=torch.float64)
    for step in range(3):  # pixels far from the plane are left out of the next fit
        weighted = basis * weights[..., None]
        matrices = weighted.transpose(1, 2) @ basis + ridge  # (T, 3, 3)
        right = weighted.transpose(1, 2) @ values
        # on the CPU: torch's solver for CUDA fails if several threads are the first to call it
        plane = torch.linalg.solve(matrices.cpu(), right.cpu()).to(patches.device)
        background = basis @ plane
        distance = (values - background).abs().amax(-1)  # (T, P)
        usual = distance.masked_fill(outside, torch.nan).nanmedian(-1, keepdim=True).values
        usual = usual.nan_to_num(0.0)
        if step < 2:
            weights = ring.double().flatten(1) * (distance <= 3 * usual + 1)
    shape = (count, 1, height, width)
    background = background.transpose(1, 2).reshape(patches.shape).float()
    deviation = (1.2 * usual).reshape(count, 1, 1, 1).float()
    return background, distance.reshape(shape).float(), deviation


def _edge_distances(boxes: Tensor, size_hw: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Distance from the left or right edge and from the top or bottom edge, in half sides."""
    x = torch.arange(size_hw[1], device=boxes.device) + 0.5
    y = torch.arange(size_hw[0], device=boxes.device) + 0.5
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)  # (T, 1) each
    across = torch.minimum(x - x1, x2 - x) * 2 / (x2 - x1).clamp(min=1e-3)  # (T, w)
    along = torch.minimum(y - y1, y2 - y) * 2 / (y2 - y1).clamp(min=1e-3)
    shape = (len(boxes), 1, size_hw[0], size_hw[1])
    return across[:, None, None, :].expand(shape), along[:, None, :, None].expand(shape)


def _inside(boxes: Tensor, size_hw: Sequence[int]) -> Tensor:
    """(T, 1, h, w): 1 inside the box, else 0."""
    across, along = _edge_distances(boxes, size_hw)
    return ((across > 0) & (along > 0)).float()


def _smoothstep(x: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    share = ((x - low) / (high - low)).clamp(0, 1)
    return share * share * (3 - 2 * share)


def _grown(mask: Tensor, reach: int) -> Tensor:
    return F.max_pool2d(mask, 2 * reach + 1, 1, reach)


def _closed(mask: Tensor, reach: int) -> Tensor:
    """The mask with small holes filled."""
    return -_grown(-_grown(mask, reach), reach)


def draw_zoom(low: float, high: float, generator: Generator) -> float:
    """Draw a zoom, log-uniform in [low, high)."""
    return float(np.exp(uniform(float(np.log(low)), float(np.log(high)), generator)))
