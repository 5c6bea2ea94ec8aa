"""Losses on the features that a temporal module returns: feature distillation and stability."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

from rnndet.models.temporal.state import Features


def distillation_loss(
    features: Features, clean: Features, objects: Features, *, spread: Mapping[str, Tensor]
) -> Tensor:
    """Squared distance between `features` and `clean`, in units of the squared `spread`; a scalar.

    The clean frame is the teacher and the corrupted one the student (FitNets, Romero et al. 2015,
    arXiv 1412.6550, eq. 3, with the teacher's features as they are and no regressor between).
    No class is involved, so the temporal module learns to preserve the frame detector's features
    and nothing else. In an image with objects, object cells weigh half and the other cells half;
    images and levels have equal weight.

    features, clean: level -> (N, C, H, W), of the same levels; clean gets no gradient.
    objects: level -> (N, H, W) bool, see `object_cells`. spread: level -> standard deviation.

    >>> clean, student = {"0": torch.zeros(1, 8, 4, 4)}, {"0": torch.ones(1, 8, 4, 4)}
    >>> objects = object_cells([torch.zeros(0, 4)], clean, size_hw=(32, 32))
    >>> distillation_loss(student, clean, objects, spread={"0": torch.tensor(2.0)})
    tensor(0.2500)
    """
    terms = []
    for level, teacher in clean.items():
        error = (features[level].float() - teacher.detach().float()).square().mean(1)  # (N, H, W)
        mask = objects[level].float()
        inside = (error * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)  # (N,)
        outside = (error * (1 - mask)).sum((1, 2)) / (1 - mask).sum((1, 2)).clamp(min=1)
        has_objects = mask.amax((1, 2))
        terms.append(((inside + outside) / (1 + has_objects)).mean() / spread[level].square())
    return torch.stack(terms).mean()


def object_cells(boxes: list[Tensor], features: Features, *, size_hw: tuple[int, int]) -> Features:
    """Mask of the cells in or next to an object, level -> (N, H, W) bool.

    boxes: (D, 4) per image, in pixels of images of `size_hw`. Each box is extended by one cell on
    every side; a cell belongs to it if its centre does.
    """
    cells = {}
    for level, feature in features.items():
        count, _, height, width = feature.shape
        step = size_hw[1] / width, size_hw[0] / height
        x = (torch.arange(width, device=feature.device) + 0.5) * step[0]
        y = (torch.arange(height, device=feature.device) + 0.5) * step[1]
        mask = torch.zeros(count, height, width, dtype=torch.bool, device=feature.device)
        for image_mask, image_boxes in zip(mask, boxes, strict=True):
            x1, y1, x2, y2 = image_boxes.unbind(-1)  # (D,)
            across = (x > x1[:, None] - step[0]) & (x < x2[:, None] + step[0])  # (D, W)
            down = (y > y1[:, None] - step[1]) & (y < y2[:, None] + step[1])  # (D, H)
            image_mask |= (down[:, :, None] & across[:, None, :]).any(0)
        cells[level] = mask
    return cells


def stability_loss(
    features: Features,
    boxes: Sequence[Tensor],
    ids: Sequence[Tensor],
    *,
    length: int,
    size_hw: tuple[int, int],
    spread: Mapping[str, Tensor],
) -> Tensor:
    """Change of an object's features between consecutive frames; a scalar.

    The squared difference of the mean features inside an object's box at t and at t - 1, in units
    of the squared `spread`; objects and levels have equal weight. 0 where no object is in two
    consecutive frames. Temporal coherence (Mobahi, Collobert & Weston 2009, "Deep learning from
    temporal coherence in video", eq. 2, with the squared distance), without their term that pushes
    other objects apart. Use it together with a loss that determines the features: alone it makes
    all of them equal.

    features: level -> (T*B, C, H, W), time-major, of images of `size_hw` (padding included).
    boxes: (D, 4) per image, in its pixels. ids: (D,) int64, below 0 for unknown. length: T.
    spread: level -> standard deviation.
    """
    pairs = same_objects(ids, length=length)
    if not len(pairs):
        return sum(level.sum() * 0 for level in features.values())
    image = torch.repeat_interleave(torch.tensor([len(image_boxes) for image_boxes in boxes]))
    all_boxes = torch.cat(list(boxes))  # (sum D, 4)
    regions = torch.cat([image.to(all_boxes)[:, None], all_boxes], dim=1)
    pairs = pairs.to(all_boxes.device)
    terms = []
    for level, feature in features.items():
        scale = feature.shape[-1] / size_hw[1]
        means = roi_align(feature.float(), regions, 1, scale, 2, aligned=True).flatten(1)
        change = means[pairs[:, 1]] - means[pairs[:, 0]]  # (P, C)
        terms.append(change.square().mean() / spread[level].square())
    return torch.stack(terms).mean()


def same_objects(ids: Sequence[Tensor], *, length: int) -> Tensor:
    """Pairs of boxes that show the same object in consecutive frames, (P, 2) int64, earlier first.

    ids: (D,) of each of the T*B images, time-major. A pair indexes all boxes, image after image.

    >>> same_objects([torch.tensor([7, 8]), torch.tensor([8])], length=2)
    tensor([[1, 2]])
    """
    batch = len(ids) // length
    offsets = [0]
    for image_ids in ids:
        offsets.append(offsets[-1] + len(image_ids))
    pairs = []
    for image in range(batch, len(ids)):
        previous = {track: i for i, track in enumerate(ids[image - batch].tolist()) if track >= 0}
        pairs += [
            (offsets[image - batch] + previous[track], offsets[image] + i)
            for i, track in enumerate(ids[image].tolist())
            if track in previous
        ]
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
