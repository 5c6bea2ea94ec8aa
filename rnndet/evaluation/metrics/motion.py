"""Speed groups of targets: motion IoU, and slow, medium and fast.

From Zhu et al., "Flow-Guided Feature Aggregation for Video Object Detection", ICCV 2017, section 5;
the window and the small constant as in the authors' published table of ImageNet VID.
"""

from itertools import pairwise

import numpy as np

from rnndet.boxes import iou
from rnndet.evaluation.records import EvaluatedVideo

WINDOW = 10  # frames before and after
TINY = 1e-10  # on both sides of the mean's fraction: an object seen once does not move
GROUPS = ("slow", "medium", "fast")  # above .9, .7 to .9, below .7
UNKNOWN = len(GROUPS)  # the group of a target with unknown motion


def motion_iou(video: EvaluatedVideo) -> list[np.ndarray]:
    """The motion IoU in (0, 1] of every target, one (G,) float64 array for each frame.

    The mean IoU of a box with the boxes of the same track in the frames t - 10 to t + 10 without t
    itself, by frame index; frames where the track has no box are left out of the mean. A track
    of one frame gives 1; a target without identity gives NaN.
    """
    if not video.frames:
        return []
    counts = [len(frame.target_ids) for frame in video.frames]
    ids = np.concatenate([frame.target_ids for frame in video.frames])
    index = np.repeat([frame.index for frame in video.frames], counts)
    boxes = np.concatenate([frame.target_boxes for frame in video.frames])
    known = np.flatnonzero(ids >= 0)
    order = known[np.lexsort((index[known], ids[known]))]
    motion = np.full(len(ids), np.nan)
    motion[order] = _of_sorted(ids[order], index[order], boxes[order])
    return [motion[first:end] for first, end in pairwise(np.cumsum([0, *counts]))]


def motion_groups(motion: np.ndarray) -> np.ndarray:
    """(G,) motion IoU -> (G,) int8, the position in GROUPS; UNKNOWN for NaN.

    >>> motion_groups(np.array([0.95, 0.8, 0.1, np.nan])).tolist()
    [0, 1, 2, 3]
    """
    cases = [motion > 0.9, motion >= 0.7, motion < 0.7]
    return np.select(cases, range(len(GROUPS)), UNKNOWN).astype(np.int8)


def _of_sorted(ids: np.ndarray, index: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Motion IoU of targets sorted by track, then frame: (N,), (N,), (N, 4) -> (N,)."""
    total, count = np.full(len(ids), TINY), np.full(len(ids), TINY)
    for step in range(1, WINDOW + 1):  # two boxes `step` apart are at least `step` frames apart
        near = (ids[step:] == ids[:-step]) & (index[step:] - index[:-step] <= WINDOW)
        first = np.flatnonzero(near)
        overlap = iou(boxes[first], boxes[first + step], dtype=np.float64)
        for rows in (first, first + step):
            total[rows] += overlap
            count[rows] += 1
    return total / count
