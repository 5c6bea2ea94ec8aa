"""Box arithmetic in numpy. Boxes are (D, 4) float, x1 y1 x2 y2; x2 and y2 are exclusive edges."""

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[np.floating]

BLOCK = 128  # boxes whose mutual IoU is computed at once in `nms`


def xyxy_to_xywh(boxes: Array) -> Array:
    """Left, top, right, bottom -> left, top, width, height; (D, 4) -> (D, 4)."""
    low = boxes[..., :2]
    return np.concatenate([low, boxes[..., 2:] - low], -1)


def area(boxes: Array, *, dtype: DTypeLike | None = None) -> Array:
    """Square pixels, (..., 4) -> (...); an inverted box has area 0. dtype: as in `iou`."""
    size = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return size[..., 0].astype(dtype or size.dtype, copy=False) * size[..., 1]


def iou(a: Array, b: Array, *, dtype: DTypeLike | None = None) -> Array:
    """Intersection over union in [0, 1], (..., 4) and (..., 4) broadcast -> (...).

    dtype: of the areas and the result, for example float64 for boxes in float32; by default that of
    the boxes. Sides are always computed in the dtype of the boxes.
    """
    shared = _intersection(a, b, dtype)
    union = area(a, dtype=dtype) + area(b, dtype=dtype) - shared
    return np.divide(shared, union, out=np.zeros_like(union), where=union > 0)


def pairwise_iou(a: Array, b: Array, *, dtype: DTypeLike | None = None) -> Array:
    """`iou` of every pair, (A, 4) and (B, 4) -> (A, B).

    >>> import numpy as np
    >>> boxes = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10]])
    >>> pairwise_iou(boxes, boxes).round(2).tolist()
    [[1.0, 0.33], [0.33, 1.0]]
    """
    return iou(a[:, None], b[None], dtype=dtype)


def pairwise_share(a: Array, b: Array, *, dtype: DTypeLike | None = None) -> Array:
    """Share in [0, 1] of each box of a that lies inside each of b, (A, 4) and (B, 4) -> (A, B)."""
    shared = _intersection(a[:, None], b[None], dtype)
    whole = np.broadcast_to(area(a, dtype=dtype)[:, None], shared.shape)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def _intersection(a: Array, b: Array, dtype: DTypeLike | None) -> Array:
    width = np.maximum(np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0]), 0)
    width = width.astype(dtype or width.dtype, copy=False)
    # The height has no name, so that numpy writes the product into its memory.
    return width * np.maximum(
        np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1]), 0
    )


def grow(boxes: Array, factor: float | Array) -> Array:
    """The same centres with `factor` times the sides; (..., 4) -> (..., 4)."""
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
    """Greedy non-maximum suppression: rows of the remaining boxes, in order, at most `most`.

    boxes (D, 4) are sorted by descending score. A box is removed if its IoU with a kept box of the
    same group (D,) is above `limit`. Works in blocks and ends as soon as `most` boxes are kept.
    """
    columns, areas = np.ascontiguousarray(boxes.T), area(boxes)
    remaining = np.arange(len(boxes))
    kept = np.zeros(0, np.int64)
    while len(remaining) and len(kept) < most:
        block, remaining = remaining[:BLOCK], remaining[BLOCK:]
        over = _overlaps(columns, areas, groups, block, block, limit)
        keep = np.ones(len(block), bool)
        for row in np.flatnonzero(over.sum(1) > 1).tolist():  # one: the box itself
            if keep[row]:
                keep[row + 1 :] &= ~over[row, row + 1 :]
        block = block[keep]
        if len(remaining):
            over = _overlaps(columns, areas, groups, block, remaining, limit)
            remaining = remaining[~over.any(0)]
        kept = np.concatenate([kept, block])
    return kept[:most]


def _overlaps(
    columns: Array,
    areas: Array,
    groups: NDArray[np.integer],
    rows: NDArray[np.int64],
    others: NDArray[np.int64],
    limit: float,
) -> NDArray[np.bool_]:
    """(A, B): which pairs of rows have the same group and an `iou` above `limit`.

    columns (4, D): x1, y1, x2, y2, which takes half the time of boxes (D, 4).
    """
    a, b = columns[:, rows, None], columns[:, None, others]
    width, height = (
        np.maximum(np.minimum(a[k + 2], b[k + 2]) - np.maximum(a[k], b[k]), 0) for k in (0, 1)
    )
    shared = width * height
    union = areas[rows, None] + areas[others] - shared
    with np.errstate(invalid="ignore"):  # two empty boxes: not above any limit
        return (shared / union > limit) & (groups[rows, None] == groups[others])
