"""Seq-NMS: link the boxes of a class through the whole video and share the score. Offline."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from rnndet.boxes import pairwise_iou
from rnndet.evaluation.records import EvaluatedFrame, EvaluatedVideo

LINK_IOU = 0.5  # boxes of adjacent frames with at least this IoU are linked
SUPPRESS_IOU = 0.3  # boxes with a higher IoU with a box of a chain are removed


def seq_nms(
    video: EvaluatedVideo, *, min_score: float = 0.05, rescore: str = "mean"
) -> EvaluatedVideo:
    """Han et al. 2016, "Seq-NMS for video object detection", arXiv 1602.08465, section 3.

    For each class, repeated until no box is left: dynamic programming finds the chain of linked
    boxes with the largest sum of scores; its boxes get the chain's "mean" (or "max") score; in
    each of its frames the boxes that overlap its box are removed. Difference: boxes below
    `min_score` are not changed, since there are many of them and they link to any object.
    """
    labels = [frame.labels for frame in video.frames]
    scores = [frame.scores.copy() for frame in video.frames]
    keep = [np.ones(len(frame.scores), bool) for frame in video.frames]
    for label in np.unique(np.concatenate(labels)) if labels else []:
        rows = [
            np.flatnonzero((frame.labels == label) & (frame.scores >= min_score))
            for frame in video.frames
        ]
        _rescore_class(video.frames, rows, scores, keep, rescore)
    frames = [_selected(*each) for each in zip(video.frames, scores, keep, strict=True)]
    return replace(video, frames=tuple(frames))


def _rescore_class(
    frames: Sequence[EvaluatedFrame],
    rows: Sequence[np.ndarray],
    scores: Sequence[np.ndarray],
    keep: Sequence[np.ndarray],
    rescore: str,
) -> None:
    """Change `scores` and `keep` at `rows`, the boxes of one class, all by frame."""
    chains = _Chains(frames, rows)
    while chains.any_left():
        start, chain = chains.best()
        values = [chains.scores[t][box] for t, box in enumerate(chain, start)]
        score = max(values) if rescore == "max" else float(np.mean(values))
        for t, box in enumerate(chain, start):
            scores[t][rows[t][box]] = score
            keep[t][rows[t][chains.remove(t, box)]] = False


class _Chains:
    """The boxes of one class that are not used yet, by frame, and the chains of linked boxes."""

    def __init__(self, frames: Sequence[EvaluatedFrame], rows: Sequence[np.ndarray]) -> None:
        pairs = list(zip(frames, rows, strict=True))
        self.scores = [frame.scores[row].astype(np.float64) for frame, row in pairs]
        self._boxes = [frame.boxes[row].astype(np.float64) for frame, row in pairs]
        self._links = [pairwise_iou(a, b) >= LINK_IOU for a, b in pairwise(self._boxes)]
        self._free = [np.ones(len(row), bool) for row in rows]
        # Largest sum of a chain that ends in each box, and the box before it; -1: none.
        self._sums: list[np.ndarray] = [np.zeros(0)] * len(rows)
        self._previous: list[np.ndarray] = [np.zeros(0, int)] * len(rows)
        # The frames in which boxes were removed since the sums were computed.
        self._start, self._end = 0, len(rows) - 1

    def any_left(self) -> bool:
        return any(free.any() for free in self._free)

    def best(self) -> tuple[int, list[int]]:
        """The first frame of the chain with the largest sum, and its box in each frame."""
        self._update_sums()
        end = int(np.argmax([sums.max(initial=-np.inf) for sums in self._sums]))
        chain = [int(np.argmax(self._sums[end]))]
        for t in range(end, 0, -1):
            previous = self._previous[t][chain[-1]]
            if previous < 0:
                break
            chain.append(int(previous))
        chain.reverse()
        self._start, self._end = end - len(chain) + 1, end
        return self._start, chain

    def remove(self, t: int, box: int) -> np.ndarray:
        """Remove a box of frame t and the boxes that overlap it; (N,) bool, the latter."""
        overlap = pairwise_iou(self._boxes[t][box : box + 1], self._boxes[t])[0]
        suppressed = self._free[t] & (overlap > SUPPRESS_IOU)
        suppressed[box] = False
        self._free[t] &= ~suppressed
        self._free[t][box] = False
        return suppressed

    def _update_sums(self) -> None:
        """Compute the sums from `_start` on, until they no longer change after `_end`."""
        for t in range(self._start, len(self.scores)):
            best = np.zeros(len(self.scores[t]))
            self._previous[t] = np.full(len(self.scores[t]), -1)
            if t and len(self._sums[t - 1]) and len(best):
                reached = np.where(self._links[t - 1], self._sums[t - 1][:, None], -np.inf)
                best = np.maximum(reached.max(0), 0)
                self._previous[t] = np.where(best > 0, reached.argmax(0), -1)
            old = self._sums[t]
            self._sums[t] = np.where(self._free[t], self.scores[t] + best, -np.inf)
            if t > self._end and np.array_equal(old, self._sums[t]):
                return


def _selected(frame: EvaluatedFrame, scores: np.ndarray, keep: np.ndarray) -> EvaluatedFrame:
    """The frame with new scores and only the boxes of `keep`, sorted by descending score."""
    order = np.argsort(-scores, kind="stable")
    order = order[keep[order]]
    return replace(
        frame,
        boxes=frame.boxes[order],
        scores=scores[order],
        labels=frame.labels[order],
        ids=frame.ids[order],
    )
