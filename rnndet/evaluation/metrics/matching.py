"""Match the detections of a frame to its targets, with ignored targets."""

import numpy as np

from rnndet.boxes import pairwise_iou, pairwise_share
from rnndet.evaluation.records import EvaluatedFrame

INSIDE = 0.5  # share of a detection that must lie inside an ignored target for it not to count


def is_counted(frame: EvaluatedFrame) -> np.ndarray:
    """(G,) bool: the targets that count, which are those that are not ignored."""
    return ~frame.target_ignore & (frame.target_labels >= 0)


def iou_with_targets(frame: EvaluatedFrame, keep: np.ndarray | None = None) -> np.ndarray:
    """IoU of every detection with every target, (D, G) float64; keep (G,) bool: of these targets.

    The inclusive pixels of ILSVRC's rule need no "+ 1" here: a file's xmax is read as xmax + 1.
    """
    targets = frame.target_boxes if keep is None else frame.target_boxes[keep]
    return pairwise_iou(frame.boxes, targets, dtype=np.float64)


def on_ignored(frame: EvaluatedFrame, min_iou: np.ndarray | float) -> np.ndarray:
    """(D,) bool: the detections that lie on an ignored target of their class or of no class.

    That is: an IoU of at least `min_iou` (one value, or (G,) one for each target), or at least half
    of the detection inside, so that a region or a crowd absorbs all detections in it.
    """
    ignored = ~is_counted(frame)
    if not ignored.any():
        return np.zeros(len(frame.scores), bool)
    labels, boxes = frame.target_labels[ignored], frame.target_boxes[ignored]
    applies = (labels < 0) | (labels == frame.labels[:, None])
    min_iou = np.broadcast_to(min_iou, ignored.shape)[ignored]
    near = iou_with_targets(frame, ignored) >= min_iou
    inside = pairwise_share(frame.boxes, boxes, dtype=np.float64) >= INSIDE
    return (applies & (near | inside)).any(1)


def greedy(iou: np.ndarray) -> np.ndarray:
    """The target that each detection is matched to, (D,) int64; -1 for none.

    iou (D, G): of the pairs that may match, else 0; detections by descending score. Each
    detection takes the unmatched target with the highest IoU.

    >>> greedy(np.array([[0.6, 0.9], [0.0, 0.8]])).tolist()
    [1, -1]
    """
    taken = np.full(len(iou), -1)
    free = iou.copy()
    for row in np.flatnonzero(iou.any(1)):
        best = int(free[row].argmax())
        if free[row, best] > 0:
            taken[row] = best
            free[:, best] = 0.0
    return taken
