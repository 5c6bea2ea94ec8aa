"""Match targets to anchors for all images of a batch at once.

torchvision matches image by image, so its operations per training step grow with the batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

NONE, BETWEEN = -1, -2  # background; overlap between the thresholds, ignored in the loss


def padded_targets(targets: Sequence[dict[str, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (N, M, 4), labels (N, M), and a mask without the padding, (N, M) bool.

    M is the largest number of boxes in an image.
    """
    boxes = torch.cat([target["boxes"] for target in targets])
    labels = torch.cat([target["labels"] for target in targets])
    counts = [len(target["boxes"]) for target in targets]
    indices = [(n, m) for n, count in enumerate(counts) for m in range(count)]
    at = torch.tensor(indices, dtype=torch.int64).view(-1, 2).to(boxes.device).unbind(1)
    shape = len(targets), max(counts)
    real = torch.zeros(shape, dtype=torch.bool, device=boxes.device)
    real[at] = True
    padded = boxes.new_zeros(*shape, 4), labels.new_zeros(shape)
    padded[0][at], padded[1][at] = boxes, labels
    return *padded, real


def match_anchors(
    boxes: Tensor,
    real: Tensor,
    anchors: Tensor,
    *,
    low: float,
    high: float,
    keep_ties: bool = False,
    keep_best: bool = False,
) -> Tensor:
    """The index of the box that each anchor is matched to, (N, A) int64, or NONE or BETWEEN.

    boxes: (N, M, 4); real: (N, M) bool, False for padding; anchors: (A, 4), the same in every
    image. An anchor is matched to the box with the highest IoU, if that is at least `high`; below
    `low` it is background. keep_ties: anchors that reach the highest IoU of some box are matched
    to their own best box even below `high` (torchvision's Matcher with allow_low_quality_matches,
    as in RetinaNet). keep_best: each box is matched to the first of its best anchors; later boxes
    have priority (torchvision's SSDMatcher).
    """
    count, width = real.shape
    if width == 0:
        return torch.full((count, len(anchors)), NONE, device=anchors.device)
    overlap = box_iou(boxes.flatten(0, 1), anchors).view(count, width, -1)  # (N, M, A)
    overlap = torch.where(real[..., None], overlap, -1.0)
    value, index = overlap.max(1)  # (N, A)
    matched = torch.where(value < high, BETWEEN, index)
    matched = torch.where(value < low, NONE, matched)
    if keep_ties:
        best = overlap.amax(2, keepdim=True)  # (N, M, 1)
        tied = ((overlap == best) & real[..., None]).any(1)
        matched = torch.where(tied, index, matched)
    if keep_best:
        number = torch.where(real, torch.arange(width, device=real.device), NONE)  # (N, M)
        taken = torch.full_like(matched, NONE)
        taken = taken.scatter_reduce(1, overlap.argmax(2), number, "amax")
        matched = torch.where(taken >= 0, taken, matched)
    return matched


def matched_boxes(boxes: Tensor, matched: Tensor) -> Tensor:
    """The box of each matched anchor in the order of `(matched >= 0).nonzero()`, (P, 4)."""
    row, anchor = (matched >= 0).nonzero(as_tuple=True)
    return boxes[row, matched[row, anchor]]


def matched_labels(labels: Tensor, matched: Tensor) -> Tensor:
    """The label of each anchor's box, (N, A) int64; 0 (background) for anchors without a box."""
    if labels.shape[1] == 0:
        return torch.zeros_like(matched)
    return torch.where(matched >= 0, labels.gather(1, matched.clamp(min=0)), 0)
