"""Which detection belongs to which track: box overlap as a similarity, minimum-cost matching."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from rnndet.boxes import grow, pairwise_iou

Array = NDArray[np.float64]
Rows = NDArray[np.int64]


def assign(cost: Array, *, limit: float) -> tuple[Rows, Rows]:
    """Return the rows and the columns, pairwise, that are matched at the least total cost.

    cost is (A, B). A pair that costs `limit` or more is never matched, and not matching costs
    `limit`, so one good pair is not given up for two poor ones. Solved exactly by
    `scipy.optimize.linear_sum_assignment`.
    """
    if cost.size == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    rows, columns = linear_sum_assignment(np.minimum(cost, limit))
    near = cost[rows, columns] < limit
    return rows[near], columns[near]


def buffered_iou(a: Array, b: Array, *, buffer: float) -> Array:
    """Return the IoU in [0, 1] of every pair after both boxes grow, (A, 4) and (B, 4) -> (A, B).

    Each side moves out by `buffer` times the width (left, right) or the height (top, bottom), so
    small objects that jump by their own size from frame to frame still overlap. C-BIoU: Yang et
    al., "Hard to Track Objects with Irregular Motions and Similar Appearances? Make It Easier by
    Buffering the Matching Space", WACV 2023, arXiv 2211.14317. A buffer of 0 is the
    plain IoU.
    """
    return pairwise_iou(grow(a, 1 + 2 * buffer), grow(b, 1 + 2 * buffer))
