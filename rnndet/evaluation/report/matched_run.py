"""Match the detections of a run to the targets at IoU .5, for the figures of a report."""

from dataclasses import dataclass

import numpy as np

from rnndet.evaluation.metrics.coco_ap import RECALLS, best_f1, precision_at_recalls
from rnndet.evaluation.metrics.matching import greedy, iou_with_targets, is_counted, on_ignored
from rnndet.evaluation.records import EvaluatedFrame, Predictions

MIN_IOU = 0.5
FALSE, IGNORED = -1, -2  # an unmatched detection: false positive, or on an ignored target

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class MatchedFrame:
    """A labelled frame of D detections and G targets, with the match of each detection.

    COCO's rule: by descending score each detection takes the unmatched target of its class with the
    highest IoU, of at least .5. An unmatched detection on an ignored target does not count.
    """

    frame: EvaluatedFrame
    match: np.ndarray  # (D,) the target of each detection, or FALSE, or IGNORED

    @staticmethod
    def of(frame: EvaluatedFrame) -> "MatchedFrame":
        iou = iou_with_targets(frame)
        same = frame.labels[:, None] == frame.target_labels
        match = greedy(np.where(same & is_counted(frame) & (iou >= MIN_IOU), iou, 0.0))
        unmatched = np.where(on_ignored(frame, MIN_IOU), IGNORED, FALSE)
        return MatchedFrame(frame, np.where(match >= 0, match, unmatched))

    def found(self, threshold: float) -> np.ndarray:
        """(G,) bool: the targets that match detections with at least this score."""
        found = np.zeros(len(self.frame.target_labels), bool)
        found[self.match[self.true(threshold)]] = True
        return found

    def missed(self, threshold: float) -> np.ndarray:
        """(G,) bool: the counted targets that are not detected."""
        return is_counted(self.frame) & ~self.found(threshold)

    def true(self, threshold: float) -> np.ndarray:
        """(D,) bool: the true positives with at least this score."""
        return (self.match >= 0) & (self.frame.scores >= threshold)

    def false(self, threshold: float) -> np.ndarray:
        """(D,) bool: the false positives with at least this score."""
        return (self.match == FALSE) & (self.frame.scores >= threshold)


class MatchedRun:
    """The matched labelled frames of a run, and its operating point of best F1.

    - videos: the matched frames, by video name.
    - targets: (K,) number of counted targets of each class.
    - best: the operating point, see `best_f1`.
    """

    def __init__(self, run: Predictions) -> None:
        self.videos = {
            video.name: [MatchedFrame.of(frame) for frame in video.labelled().frames]
            for video in run.videos
        }
        matched = [frame for video in self.videos.values() for frame in video]
        match = np.concatenate([np.zeros(0, np.int64), *(m.match for m in matched)])
        counts = match != IGNORED
        no_scores, no_labels = np.zeros(0, np.float32), np.zeros(0, np.int32)
        self._hits = match[counts] >= 0
        self._scores = np.concatenate([no_scores, *(m.frame.scores for m in matched)])[counts]
        self._labels = np.concatenate([no_labels, *(m.frame.labels for m in matched)])[counts]
        targets = [m.frame.target_labels[is_counted(m.frame)] for m in matched]
        targets = np.concatenate([no_labels, *targets])
        self.targets = np.bincount(targets, minlength=len(run.classes))
        self.best = best_f1(self._scores, self._hits, len(targets))

    @property
    def threshold(self) -> float:
        """The score of best F1; NaN, which no score reaches, if there are no true positives."""
        return self.best["threshold"]

    def curve(self, label: int | None = None) -> list[Point]:
        """Recall and interpolated precision at IoU .5 of a class; None: of all classes pooled.

        At COCO's 101 recalls, up to the highest recall of the run: the sum of a class's precisions
        / 101 is its AP50, if no frame has more detections of the class than COCO counts (100).
        Empty without targets or detections.
        """
        selected = slice(None) if label is None else self._labels == label
        positives = self.targets.sum() if label is None else self.targets[label]
        scores, hits = self._scores[selected], self._hits[selected]
        if positives == 0 or len(scores) == 0:
            return []
        order = np.argsort(-scores, kind="stable")
        precision = precision_at_recalls(hits[order], positives)
        return list(zip(RECALLS[: len(precision)].tolist(), precision.tolist(), strict=True))
