"""Overlap of boxes in numpy, which detections lie on ignored truths, and all-point AP.

Boxes are x1 y1 x2 y2 in pixels, x2 and y2 exclusive.
"""

import numpy as np

from rnndet.evaluation.metrics.record import EvaluatedFrame

INSIDE = 0.5  # share of a detection that must lie in an ignored truth for it not to count


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union in [0, 1], (..., 4) and (..., 4) broadcast -> (...) float64.

    The inclusive pixels of ILSVRC's rule need no "+ 1" here: a file's xmax is read as xmax + 1.
    """
    shared = _intersection(a, b)
    union = _area(a) + _area(b) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def pairwise_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`iou` of every pair, (A, 4) and (B, 4) -> (A, B)."""
    return iou(a[:, None], b[None])


def pairwise_share(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Share in [0, 1] of each box of a that lies in each of b, (A, 4) and (B, 4) -> (A, B)."""
    shared = _intersection(a[:, None], b[None])
    whole = np.broadcast_to(_area(a)[:, None], shared.shape)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def is_counted(frame: EvaluatedFrame) -> np.ndarray:
    """(G,) bool: the truths that are to be found, which are those that are not ignored."""
    return ~frame.target_ignore & (frame.target_labels >= 0)


def on_ignored(frame: EvaluatedFrame, least_iou: np.ndarray | float) -> np.ndarray:
    """(D,) bool: the detections that lie on an ignored truth of their class or of no class.

    That is: IoU of at least `least_iou` (one value, or (G,) one for each truth), or at least half
    of the detection inside, so that a region or a crowd takes all that it holds.
    """
    ignored = ~is_counted(frame)
    if not ignored.any():
        return np.zeros(len(frame.scores), bool)
    labels, boxes = frame.target_labels[ignored], frame.target_boxes[ignored]
    applies = (labels < 0) | (labels == frame.labels[:, None])
    least_iou = np.broadcast_to(least_iou, ignored.shape)[ignored]
    near = pairwise_iou(frame.boxes, boxes) >= least_iou
    inside = pairwise_share(frame.boxes, boxes) >= INSIDE
    return (applies & (near | inside)).any(1)


def greedy(iou: np.ndarray) -> np.ndarray:
    """The truth that each detection takes, (D,) int64; -1 for none.

    iou (D, G): of the pairs that may match, 0 for the others; the best detection first. Each takes
    the free truth with the highest.
    """
    taken = np.full(len(iou), -1)
    free = iou.copy()
    for row in np.flatnonzero(iou.any(1)):
        best = int(free[row].argmax())
        if free[row, best] > 0:
            taken[row] = best
            free[:, best] = 0.0
    return taken


def continuous_ap(
    scores: np.ndarray, hits: np.ndarray, positives: int, weights: np.ndarray | None = None
) -> float:
    """Average precision with all-point interpolation, in [0, 1].

    The area under the precision that is the best at this recall or beyond, over all steps of
    recall. scores (D,) in any order; hits (D,) bool; positives: number of truths; weights (D,): how
    much of a false alarm each miss is, 1 without it. Detections of one score enter together, so
    their order changes nothing. NaN if there are no truths.
    """
    if positives == 0:
        return float("nan")
    if not hits.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")  # callers give runs that are sorted: nearly linear
    right = np.cumsum(hits[order])
    wrong = np.cumsum((~hits if weights is None else np.where(hits, 0.0, weights))[order])
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    right, wrong = right[last], wrong[last]
    seen = right + wrong
    precision = np.divide(right, seen, out=np.zeros(len(seen)), where=seen > 0)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(right, prepend=0) * precision).sum() / positives)


def _intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    return np.maximum(width, 0).astype(np.float64) * np.maximum(height, 0)


def _area(boxes: np.ndarray) -> np.ndarray:
    width = np.maximum(boxes[..., 2] - boxes[..., 0], 0)
    height = np.maximum(boxes[..., 3] - boxes[..., 1], 0)
    return width.astype(np.float64) * height
