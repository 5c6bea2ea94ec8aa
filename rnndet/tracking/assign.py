"""Assign detections to tracks: buffered IoU as similarity, and minimum-cost matching."""

import numpy as np
from numpy.typing import NDArray

from rnndet.boxes import grow, iou, pairwise_iou

Array = NDArray[np.float64]
Rows = NDArray[np.int64]


def assign(cost: Array, *, limit: float) -> tuple[Rows, Rows]:
    """Return the matched rows and columns, pairwise, with the minimum total cost.

    cost is (A, B). A pair that costs `limit` or more is never matched, and an unmatched row costs
    `limit`, so that a good pair is not given up for two poor pairs. Solved exactly: where no row
    and no column has two pairs below `limit`, those pairs are the solution; elsewhere by
    `scipy.optimize.linear_sum_assignment`, which is imported when it is first needed (0.4 s).

    >>> rows, columns = assign(np.array([[0.1, 0.2], [0.2, 0.9]]), limit=1.0)
    >>> rows.tolist(), columns.tolist()
    ([0, 1], [1, 0])
    """
    if cost.size == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    is_good = cost < limit
    if is_good.sum(0).max() <= 1 and is_good.sum(1).max() <= 1:
        return np.nonzero(is_good)
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(np.minimum(cost, limit))
    near = cost[rows, columns] < limit
    return rows[near], columns[near]


def buffered_iou(a: Array, b: Array, *, buffer: float | Array) -> Array:
    """Return the IoU in [0, 1] of every pair of enlarged boxes, (A, 4) and (B, 4) -> (A, B).

    Each side moves out by `buffer` times the width (left, right) or the height (top, bottom), so
    that small objects that move by their own size between frames still overlap. buffer: one for
    all pairs, or (A,), for the pairs of each row of a. C-BIoU: Yang et al., "Hard to Track Objects
    with Irregular Motions and Similar Appearances? Make It Easier by Buffering the Matching Space",
    WACV 2023, arXiv 2211.14317. A buffer of 0 is the plain IoU.
    """
    if not np.any(buffer):
        return pairwise_iou(a, b)
    factor = np.reshape(1 + 2 * np.asarray(buffer), (-1, 1, 1))
    return iou(grow(a[:, None], factor), grow(b[None], factor))


def size_change(a: Array, b: Array) -> Array:
    """The larger change of log width and log height of every pair, (A, 4) and (B, 4) -> (A, B).

    >>> size_change(np.array([[0.0, 0, 10, 10]]), np.array([[0.0, 0, 10, 20]])).round(2).tolist()
    [[0.69]]
    """
    sides_a, sides_b = (np.log(np.maximum(x[:, 2:] - x[:, :2], 0.01)) for x in (a, b))
    return np.abs(sides_a[:, None] - sides_b[None]).max(2)
