"""Restoration: the features of a corrupted frame are to be those of the frame before corruption."""

import torch
from torch import Tensor

from rnndet.temporal.state import Features


def restoration_loss(features: Features, clean: Features, objects: Features) -> Tensor:
    """How far `features` are from `clean`, as a share of the variance of `clean`; a scalar.

    The clean frame is the teacher and the corrupted one the student (FitNets, Romero et al. 2015,
    arXiv 1412.6550, eq. 3, with the teacher's features as they are and no regressor between). It
    names no class, so it teaches a memory to keep what the frame detector saw and nothing else.
    Cells with objects and cells without count half each, whatever their numbers are; levels count
    alike. features, clean: level -> (N, C, H, W), of the same levels; clean gets no gradient.
    objects: level -> (N, H, W) bool, see `object_cells`.
    """
    terms = []
    for level, wanted in clean.items():
        wanted = wanted.detach().float()
        error = (features[level].float() - wanted).square().mean(1)  # (N, H, W)
        error = error / wanted.var().clamp(min=1e-12)
        parts = [error[mask] for mask in (objects[level], ~objects[level])]
        terms.append(torch.stack([part.mean() for part in parts if part.numel()]).mean())
    return torch.stack(terms).mean()


def object_cells(boxes: list[Tensor], features: Features, *, size_hw: tuple[int, int]) -> Features:
    """The cells of each level that show an object or lie beside one: level -> (N, H, W) bool.

    boxes: one (D, 4) a picture, pixels of pictures of `size_hw`; a box reaches one cell further.
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
