"""The only box arithmetic. Boxes are (D, 4) float, x1 y1 x2 y2; x2 and y2 are exclusive edges."""

import torch
from torch import Tensor


def xywh_to_xyxy(boxes_xywh: Tensor) -> Tensor:
    """Left, top, width, height -> left, top, right, bottom; (D, 4) -> (D, 4)."""
    x, y, w, h = boxes_xywh.unbind(-1)
    return torch.stack([x, y, x + w, y + h], -1)


def xyxy_to_xywh(boxes: Tensor) -> Tensor:
    """Left, top, right, bottom -> left, top, width, height; (D, 4) -> (D, 4)."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([x1, y1, x2 - x1, y2 - y1], -1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Left, top, right, bottom -> centre x, centre y, width, height; (D, 4) -> (D, 4)."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], -1)


def cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """Centre x, centre y, width, height -> left, top, right, bottom; (D, 4) -> (D, 4)."""
    x, y, w, h = boxes_cxcywh.unbind(-1)
    return torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1)


def area(boxes: Tensor) -> Tensor:
    """Square pixels, (D, 4) -> (D,); an inverted box has area 0."""
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return size[..., 0] * size[..., 1]


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union in [0, 1] of every pair, (A, 4) and (B, 4) -> (A, B)."""
    top_left = torch.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    size = (bottom_right - top_left).clamp(min=0)
    overlap = size[..., 0] * size[..., 1]
    union = area(a)[:, None] + area(b)[None, :] - overlap
    return torch.where(union > 0, overlap / union.clamp(min=1e-12), torch.zeros_like(union))


def clip(boxes: Tensor, *, size_hw: tuple[int, int]) -> Tensor:
    """Move edges into the picture, 0 <= x <= width and 0 <= y <= height; (D, 4) -> (D, 4)."""
    height, width = size_hw
    limit = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limit)


def scale(boxes: Tensor, *, factor_xy: tuple[float, float]) -> Tensor:
    """Multiply x by factor_xy[0] and y by factor_xy[1]; (D, 4) -> (D, 4)."""
    x, y = factor_xy
    return boxes * boxes.new_tensor([x, y, x, y])
