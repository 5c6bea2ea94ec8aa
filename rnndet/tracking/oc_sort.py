"""Tracking by observations: directions, re-update after gaps, and recovery at the last box."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from rnndet.registry import NotNegative, Share
from rnndet.structures import Detections
from rnndet.tracking.assign import Array, Rows, assign, buffered_iou
from rnndet.tracking.base import BaseTracker, of_labels
from rnndet.tracking.kalman import KalmanOptions
from rnndet.tracking.observed import ObservedMotion, direction_agreement
from rnndet.tracking.tracks import Motion, TrackOptions, to_arrays


@dataclass(frozen=True, kw_only=True)
class OcSortOptions(KalmanOptions, TrackOptions):
    """Options of `OcSortTracker`."""

    min_iou: Share = 0.2  # a pair with a lower IoU is never matched
    momentum: NotNegative = 0.2  # weight of the directions beside the IoU; 0 = off
    momentum_time: NotNegative = 0.1  # seconds between the observations that give a direction
    re_update: bool = True  # whether a gap is passed again when the track is found
    recovery_iou: Share = 0.3  # with the last observed box, for the second stage; 1 = off


class OcSortTracker(BaseTracker[OcSortOptions]):
    """Match detections to predicted boxes and directions, then to the last observed boxes.

    Cao et al., "Observation-Centric SORT: Rethinking SORT for Robust Multi-Object Tracking", CVPR
    2023, arXiv 2203.14360: momentum (a pair costs less where its direction continues that of the
    track), re-update (see `ObservedMotion`) and recovery (unmatched detections are matched to the
    last boxes of unmatched tracks). Differences: the filter and all times are in seconds (see
    `ConstantVelocity`), a track needs two hits instead of three and keeps its id in the frame in
    which it is found again. Classes are ignored.

    Options: see `OcSortOptions`. Detections below min_score get id 0 (no track) and neither extend
    nor start a track.

    >>> tracker = OcSortTracker(min_hits=1)
    >>> for x in (10, 12):
    ...     box = np.array([[x, 10, x + 20, 30]], np.float32)
    ...     print(tracker.update(Detections(box, np.array([0.9]), np.array([0]))).ids)
    [1]
    [1]
    """

    Options: ClassVar[type[TrackOptions]] = OcSortOptions

    def update(self, detections: Detections, *, time: float | None = None) -> Detections:
        """Return the same detections with ids; call once per frame, also without detections.

        time is in seconds. Id 0 means that the detection has no track yet.
        """
        boxes, scores, labels = to_arrays(detections)
        ids = np.zeros(len(detections), np.int64)
        self._tracks.advance(time)
        candidates = np.flatnonzero(scores >= of_labels(self.min_score, labels))
        rows, columns = self._match(boxes[candidates], scores[candidates])
        matched = candidates[columns]
        ids[matched] = self._tracks.update(rows, boxes[matched], scores[matched], labels[matched])
        new = np.setdiff1d(candidates, matched)
        ids[new] = self._tracks.start(boxes[new], scores[new], labels[new])
        self._tracks.remove_expired()
        return replace(detections, ids=ids)

    def _match(self, boxes: Array, scores: Array) -> tuple[Rows, Rows]:
        """Rows of tracks and of boxes, pairwise."""
        options = self.options
        overlap = buffered_iou(self._motion.boxes, boxes, buffer=0.0)
        gain = options.momentum * direction_agreement(self._motion, boxes) * scores
        rows, columns = best_pairs(overlap, overlap + gain, least=options.min_iou)
        free = np.setdiff1d(np.arange(len(overlap)), rows)
        left = np.setdiff1d(np.arange(len(boxes)), columns)
        overlap = buffered_iou(self._motion.last[free], boxes[left], buffer=0.0)
        a, b = best_pairs(overlap, overlap, least=options.recovery_iou)
        return np.concatenate([rows, free[a]]), np.concatenate([columns, left[b]])

    def _new_motion(self) -> Motion:
        self._motion = ObservedMotion(
            self.options,
            momentum_time=self.options.momentum_time,
            re_update=self.options.re_update,
        )
        return self._motion


def best_pairs(overlap: Array, similarity: Array, *, least: float) -> tuple[Rows, Rows]:
    """The pairs with the largest total similarity, among those with an overlap above `least`.

    overlap and similarity are (A, B).
    """
    worst = similarity.min(initial=0.0) - 1.0
    return assign(np.where(overlap > least, -similarity, -worst), limit=-worst)
