"""Restoration: the features of a corrupted frame are to be those of the frame before corruption."""

from collections.abc import Mapping

import torch
from torch import Tensor

from rnndet.models.temporal.state import Features


def distillation_loss(
    features: Features, clean: Features, objects: Features, *, spread: Mapping[str, Tensor]
) -> Tensor:
    """How far `features` are from `clean`, in units of the squared `spread`; a scalar.

    The clean frame is the teacher and the corrupted one the student (FitNets, Romero et al. 2015,
    arXiv 1412.6550, eq. 3, with the teacher's features as they are and no regressor between). It
    names no class, so it teaches a memory to keep what the frame detector saw and nothing else.
    In an image with objects their cells count half and the others half; images and levels count
    alike. features, clean: level -> (N, C, H, W), of the same levels; clean gets no gradient.
    objects: level -> (N, H, W) bool, see `object_cells`; spread: level -> standard deviation.
    """
    terms = []
    for level, wanted in clean.items():
        error = (features[level].float() - wanted.detach().float()).square().mean(1)  # (N, H, W)
        mask = objects[level].float()
        inside = (error * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)  # (N,)
        outside = (error * (1 - mask)).sum((1, 2)) / (1 - mask).sum((1, 2)).clamp(min=1)
        some = mask.amax((1, 2))
        terms.append(((inside + outside) / (1 + some)).mean() / spread[level].square())
    return torch.stack(terms).mean()


def object_cells(boxes: list[Tensor], features: Features, *, size_hw: tuple[int, int]) -> Features:
    """The cells of each level that show an object or lie beside one: level -> (N, H, W) bool.

    boxes: one (D, 4) an image, pixels of images of `size_hw`; a box reaches one cell further.
    """
    cells = {}
    for level, feature in features.items():
        count, _, height, width = feature.shape
        step = size_hw[1] / width, size_hw[0] / height
        x = (torch.arange(width, device=feature.device) + 0.5) * step[0]
        y = (torch.arange(height, device=feature.device) + 0.5) * step[1]
        mask = torch.zeros(count, height, width, dtype=torch.bool, device=feature.device)
        for row, found in zip(mask, boxes, strict=True):
            x1, y1, x2, y2 = found.unbind(-1)  # (D,)
            across = (x > x1[:, None] - step[0]) & (x < x2[:, None] + step[0])  # (D, W)
            down = (y > y1[:, None] - step[1]) & (y < y2[:, None] + step[1])  # (D, H)
            row |= (down[:, :, None] & across[:, None, :]).any(0)
        cells[level] = mask
    return cells
