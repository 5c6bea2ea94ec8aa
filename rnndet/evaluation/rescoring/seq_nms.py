"""Seq-NMS: link the boxes of a class through the whole video and share the score. Offline."""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from rnndet.boxes import pairwise_iou
from rnndet.evaluation.metrics.record import EvaluatedFrame, EvaluatedVideo

LINK_IOU = 0.5  # boxes of adjacent frames that overlap by this much are one object
SUPPRESS_IOU = 0.3  # boxes that overlap a chosen one by more are removed


def seq_nms(
    video: EvaluatedVideo, *, min_score: float = 0.05, rescore: str = "mean"
) -> EvaluatedVideo:
    """Han et al. 2016, "Seq-NMS for video object detection", arXiv 1602.08465, section 3.

    For each class, again and again until no box is left: the chain of linked boxes with the
    largest sum of scores is found by dynamic programming, gets its "mean" (or "max") score, and in
    each of its frames the boxes that overlap its box are removed. Different: boxes below
    `min_score` are left as they are, for there are many and they link to anything.
    """
    labels = [frame.labels for frame in video.frames]
    kinds = np.unique(np.concatenate(labels)) if labels else []
    scores = [frame.scores.copy() for frame in video.frames]
    keep = [np.ones(len(frame.scores), bool) for frame in video.frames]
    for kind in kinds:
        rows = [
            np.flatnonzero((frame.labels == kind) & (frame.scores >= min_score))
            for frame in video.frames
        ]
        _one_class(video.frames, rows, scores, keep, rescore)
    frames = [_changed(*each) for each in zip(video.frames, scores, keep, strict=True)]
    return replace(video, frames=tuple(frames))


def _one_class(frames, rows, scores, keep, rescore: str) -> None:
    """Change `scores` and `keep` of the boxes of `rows`, which are of one class."""
    boxes = [f.boxes[r].astype(np.float64) for f, r in zip(frames, rows, strict=True)]
    first = [f.scores[r].astype(np.float64) for f, r in zip(frames, rows, strict=True)]
    links = [pairwise_iou(a, b) >= LINK_IOU for a, b in pairwise(boxes)]
    free = [np.ones(len(r), bool) for r in rows]
    sums: list[np.ndarray] = [np.zeros(0)] * len(rows)
    back: list[np.ndarray] = [np.zeros(0, int)] * len(rows)
    start, end = 0, len(rows) - 1  # the frames in which boxes were taken since the last sums
    while any(each.any() for each in free):
        _chain_sums(first, links, free, sums, back, start, end)
        ends = [each.max(initial=-np.inf) for each in sums]
        end = int(np.argmax(ends))
        chain = [int(np.argmax(sums[end]))]
        for at in range(end, 0, -1):
            before = back[at][chain[-1]]
            if before < 0:
                break
            chain.append(int(before))
        chain.reverse()
        start = end - len(chain) + 1
        values = [first[start + n][box] for n, box in enumerate(chain)]
        score = max(values) if rescore == "max" else float(np.mean(values))
        for at, box in enumerate(chain, start):
            overlap = pairwise_iou(boxes[at][box : box + 1], boxes[at])[0]
            gone = free[at] & (overlap > SUPPRESS_IOU)
            gone[box] = False
            keep[at][rows[at][gone]] = False
            free[at] &= ~gone
            free[at][box] = False
            scores[at][rows[at][box]] = score


def _chain_sums(first, links, free, sums, back, start: int, end: int) -> None:
    """The largest sum of a chain that ends in each free box, and the box before it (-1: none).

    From frame `start` on, until nothing changes any more after `end`.
    """
    for at in range(start, len(first)):
        best = np.zeros(len(first[at]))
        back[at] = np.full(len(first[at]), -1)
        if at and len(sums[at - 1]) and len(best):
            reached = np.where(links[at - 1], sums[at - 1][:, None], -np.inf)
            before = reached.argmax(0)
            best = np.maximum(reached.max(0), 0)
            back[at] = np.where(best > 0, before, -1)
        before_sums, sums[at] = sums[at], np.where(free[at], first[at] + best, -np.inf)
        if at > end and np.array_equal(before_sums, sums[at]):
            return


def _changed(frame: EvaluatedFrame, scores: np.ndarray, keep: np.ndarray) -> EvaluatedFrame:
    order = np.argsort(-scores, kind="stable")
    order = order[keep[order]]
    return replace(
        frame,
        boxes=frame.boxes[order],
        scores=scores[order],
        labels=frame.labels[order],
        ids=frame.ids[order],
    )
