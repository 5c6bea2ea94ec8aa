"""What became of every detection and truth of a run at IoU .5, for the figures of a report."""

from dataclasses import dataclass

import numpy as np

from rnndet.evaluation.metrics.coco_ap import RECALLS, best_f1
from rnndet.evaluation.metrics.overlap import greedy, is_counted, on_ignored, pairwise_iou
from rnndet.evaluation.metrics.record import EvaluatedFrame, Predictions

IOU = 0.5
FALSE, IGNORED = -1, -2  # a detection that takes no truth

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class JudgedFrame:
    """A labelled frame of D detections and G truths, and what became of its detections.

    COCO's rule: the best detection first, each takes the free truth of its class with the highest
    IoU, of at least .5. One that takes none, and lies on an ignored truth, does not count.
    """

    frame: EvaluatedFrame
    taken: np.ndarray  # (D,) the truth that each detection takes, or FALSE, or IGNORED

    @staticmethod
    def of(frame: EvaluatedFrame) -> "JudgedFrame":
        iou = pairwise_iou(frame.boxes, frame.target_boxes)
        same = frame.labels[:, None] == frame.target_labels
        taken = greedy(np.where(same & is_counted(frame) & (iou >= IOU), iou, 0.0))
        none = np.where(on_ignored(frame, IOU), IGNORED, FALSE)
        return JudgedFrame(frame, np.where(taken >= 0, taken, none))

    def found(self, threshold: float) -> np.ndarray:
        """(G,) bool: the truths that are taken by detections of at least this score."""
        found = np.zeros(len(self.frame.target_labels), bool)
        found[self.taken[(self.taken >= 0) & (self.frame.scores >= threshold)]] = True
        return found

    def missed(self, threshold: float) -> np.ndarray:
        """(G,) bool: the truths that count and are not found."""
        return is_counted(self.frame) & ~self.found(threshold)

    def false(self, threshold: float) -> np.ndarray:
        """(D,) bool: the false alarms of at least this score."""
        return (self.taken == FALSE) & (self.frame.scores >= threshold)


class JudgedRun:
    """The labelled frames of a run, judged; and its working point of best F1."""

    def __init__(self, run: Predictions) -> None:
        self.videos = {
            video.name: [JudgedFrame.of(frame) for frame in video.labelled().frames]
            for video in run.videos
        }
        frames = [supervised for video in self.videos.values() for supervised in video]
        taken = np.concatenate([np.zeros(0, np.int64), *(j.taken for j in frames)])
        counts = taken != IGNORED
        none, no_label = np.zeros(0, np.float32), np.zeros(0, np.int32)
        self._hits = taken[counts] >= 0
        self._scores = np.concatenate([none, *(j.frame.scores for j in frames)])[counts]
        self._labels = np.concatenate([no_label, *(j.frame.labels for j in frames)])[counts]
        targets = [j.frame.target_labels[is_counted(j.frame)] for j in frames]
        targets = np.concatenate([no_label, *targets])
        self.targets = np.bincount(targets, minlength=len(run.classes))  # (K,)
        self.best = best_f1(self._scores, self._hits, len(targets))

    @property
    def threshold(self) -> float:
        """The score of best F1; NaN, which no score reaches, if nothing was found."""
        return self.best["threshold"]

    def curve(self, label: int | None = None) -> list[Point]:
        """Recall and interpolated precision at IoU .5 of a class, or of all as if they were one.

        At COCO's 101 recalls, as far as the run gets: the sum of a class's precisions / 101 is its
        AP50, where no frame has more detections of the class than COCO counts (100). Empty without
        truths or detections.
        """
        own = slice(None) if label is None else self._labels == label
        positives = self.targets.sum() if label is None else self.targets[label]
        scores, hits = self._scores[own], self._hits[own]
        if positives == 0 or len(scores) == 0:
            return []
        right = np.cumsum(hits[np.argsort(-scores, kind="stable")])
        precision = right / np.arange(1, len(right) + 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        places = np.searchsorted(right / positives, RECALLS, side="left")
        reached = places < len(right)
        heights = precision[places[reached]]
        return list(zip(RECALLS[reached].tolist(), heights.tolist(), strict=True))
