"""The only box arithmetic. Boxes are (D, 4) float, x1 y1 x2 y2; x2 and y2 are exclusive edges."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

BLOCK = 128  # boxes that are compared all with all at once


def xyxy_to_xywh(boxes: Array) -> Array:
    """Left, top, right, bottom -> left, top, width, height; (D, 4) -> (D, 4)."""
    low = boxes[..., :2]
    return np.concatenate([low, boxes[..., 2:] - low], -1)


def area(boxes: Array) -> Array:
    """Square pixels, (D, 4) -> (D,); an inverted box has area 0."""
    size = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return size[..., 0] * size[..., 1]


def pairwise_iou(a: Array, b: Array) -> Array:
    """Intersection over union in [0, 1] of every pair, (A, 4) and (B, 4) -> (A, B)."""
    x1, y1, x2, y2 = a.T[:, :, None]
    u1, v1, u2, v2 = b.T[:, None, :]
    wide = np.maximum(np.minimum(x2, u2) - np.maximum(x1, u1), 0)
    overlap = wide * np.maximum(np.minimum(y2, v2) - np.maximum(y1, v1), 0)
    union = area(a)[:, None] + area(b)[None, :] - overlap
    return np.divide(overlap, union, out=np.zeros_like(union), where=union > 0)


def grow(boxes: Array, factor: float) -> Array:
    """The same centres with `factor` times the sides; (D, 4) -> (D, 4)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    centre, half = (low + high) / 2, (high - low) * (factor / 2)
    return np.concatenate([centre - half, centre + half], -1)


def clip(boxes: Array, *, size_hw: tuple[int, int]) -> Array:
    """Move edges into the image, 0 <= x <= width and 0 <= y <= height; (D, 4) -> (D, 4)."""
    height, width = size_hw
    limit = np.array([width, height, width, height], boxes.dtype)
    return np.minimum(np.maximum(boxes, 0), limit)


def scale(boxes: Array, *, factor_xy: tuple[float, float]) -> Array:
    """Multiply x by factor_xy[0] and y by factor_xy[1]; (D, 4) -> (D, 4)."""
    x, y = factor_xy
    return boxes * np.array([x, y, x, y], boxes.dtype)


def nms(boxes: Array, groups: NDArray[np.integer], *, limit: float, most: int) -> NDArray[np.int64]:
    """Greedy non-maximum suppression: the rows that stay, in order, at most `most` of them.

    boxes (D, 4) come best first; a box goes if it overlaps one that stays, of the same group (D,),
    by an IoU above `limit`. Works block by block and ends as soon as `most` boxes stay.
    """
    left = np.arange(len(boxes))
    kept = np.zeros(0, np.int64)
    while len(left) and len(kept) < most:
        block, left = left[:BLOCK], left[BLOCK:]
        over = _overlaps(boxes, groups, block, block, limit)
        stays = np.ones(len(block), bool)
        for row in range(len(block)):
            if stays[row]:
                stays[row + 1 :] &= ~over[row, row + 1 :]
        block = block[stays]
        left = left[~_overlaps(boxes, groups, block, left, limit).any(0)]
        kept = np.concatenate([kept, block])
    return kept[:most]


def _overlaps(
    boxes: Array,
    groups: NDArray[np.integer],
    some: NDArray[np.int64],
    others: NDArray[np.int64],
    limit: float,
) -> NDArray[np.bool_]:
    """Which rows of two lists are of one group and overlap by an IoU above `limit`, (A, B)."""
    same = groups[some][:, None] == groups[others][None, :]
    return same & (pairwise_iou(boxes[some], boxes[others]) > limit)
