"""Two-stage tracking: match high-score detections first, then low-score detections."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rnndet.boxes import nms
from rnndet.errors import RnndetError
from rnndet.structures import Detections
from rnndet.tracking.assign import Array, Rows, assign, buffered_iou
from rnndet.tracking.base import BaseTracker, MinScore, of_labels
from rnndet.tracking.kalman import ConstantVelocity
from rnndet.tracking.tracks import Motion, to_arrays

Mask = NDArray[np.bool_]

# Buffers of the matching stages: boxes of 1.6 and 3 times their size. The wide buffer, larger than
# in C-BIoU, reaches twice the size of an object; for detections unmatched by the narrow buffer.
NARROW, WIDE = 0.3, 1.0
RECENT = 0.35  # seconds: a track missed for longer is not matched to detections of low score


class ByteTracker(BaseTracker):
    """Match high-score detections to tracks, then low-score detections to the unmatched tracks.

    Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", ECCV
    2022, arXiv 2110.06864, algorithm 1. Differences:

    - overlap is the buffered IoU of C-BIoU (arXiv 2211.14317), narrow then wide, because objects
      of 15-40 px may move by their own size between frames and then have a plain IoU of 0;
    - the filter works in seconds (see `ConstantVelocity`);
    - several classes: a detection of a class that the track has not had matches at a higher cost,
      so that an object misclassified in a frame keeps its id. Labels are not changed;
    - of two boxes for the same object, of any classes, the lower score is removed first
      (`duplicate_iou`).

    min_score: detections from this score on have a high score.
    start_margin: a track starts from min_score + start_margin on (0.1 in ByteTrack).
    low_score: detections below it are not matched.
    min_similarity: a pair with less buffered IoU, times the class factor, is never matched.
    class_weight: in [0, 1]; relative reduction of the similarity for a different class (0 = none).
    duplicate_iou: of two boxes with a higher IoU, whatever their classes, the lower score is
        removed; 1 = off.
    min_hits, max_age, frame_interval: as in `IouTracker`.

    >>> tracker = ByteTracker(min_hits=1)
    >>> for x, score in ((10, 0.9), (25, 0.2)):  # moves by most of its size, at a low score
    ...     box = np.array([[x, 10, x + 20, 30]], np.float32)
    ...     print(tracker.update(Detections(box, np.array([score]), np.array([0]))).ids)
    [1]
    [1]
    """

    def __init__(
        self,
        *,
        min_score: MinScore = 0.3,
        start_margin: float = 0.1,
        low_score: float = 0.1,
        min_similarity: float = 0.1,
        class_weight: float = 0.5,
        duplicate_iou: float = 0.7,
        min_hits: int = 2,
        max_age: float = 1.0,
        frame_interval: float = 0.04,
    ) -> None:
        if not 0 <= class_weight <= 1:
            raise RnndetError(f"ByteTracker: class_weight = {class_weight}; expected 0 to 1")
        self._min_score, self._low_score = min_score, np.minimum(low_score, min_score)
        self._start_score = np.minimum(min_score + start_margin, 0.95)
        self._max_cost, self._class_weight = 1 - min_similarity, class_weight
        self._duplicate_iou = duplicate_iou
        super().__init__(min_hits=min_hits, max_age=max_age, frame_interval=frame_interval)

    def update(self, detections: Detections, *, time: float | None = None) -> Detections:
        """Return the detections without duplicates, with ids; call once per frame, also if empty.

        time is in seconds. Boxes, scores, labels and order are unchanged. Id 0 means
        that the detection has no track yet: its track is tentative, or its score is too low to
        start a track.
        """
        detections = self._without_duplicates(detections)
        self._tracks.advance(time)
        boxes, scores, labels = to_arrays(detections)
        rows, matched, is_free = self._match(boxes, scores, labels)
        ids = np.zeros(len(boxes), np.int64)
        ids[matched] = self._tracks.update(rows, boxes[matched], scores[matched], labels[matched])
        new = np.flatnonzero(is_free & (scores >= of_labels(self._start_score, labels)))
        ids[new] = self._tracks.start(boxes[new], scores[new], labels[new])
        self._tracks.remove_expired()
        return replace(detections, ids=ids)

    def _match(self, boxes: Array, scores: Array, labels: Rows) -> tuple[Rows, Rows, Mask]:
        """Rows of tracks and of detections, pairwise, and which detections (D,) are unmatched."""
        confirmed = self._tracks.is_confirmed
        recent = confirmed & (self._tracks.time_since_update() < RECENT)
        is_high = scores >= of_labels(self._min_score, labels)
        is_low = ~is_high & (scores >= of_labels(self._low_score, labels))
        predicted = self._tracks.motion.boxes
        share = self._tracks.class_share(labels)
        class_factor = 1 - self._class_weight * (1 - share)  # (N, D)

        is_free_track = np.ones(len(self._tracks), bool)
        is_free = np.ones(len(boxes), bool)
        none = np.zeros(0, np.int64)
        matches: list[tuple[Rows, Rows]] = [(none, none)]
        stages = [
            (confirmed, is_high, NARROW),
            (confirmed, is_high, WIDE),
            (recent, is_low, NARROW),
            (~confirmed, is_high, WIDE),
        ]
        for tracks, candidates, buffer in stages:
            rows = np.flatnonzero(tracks & is_free_track)
            columns = np.flatnonzero(candidates & is_free)
            if not len(rows) or not len(columns):
                continue
            overlap = buffered_iou(predicted[rows], boxes[columns], buffer=buffer)
            cost = 1 - overlap * class_factor[np.ix_(rows, columns)]
            a, b = assign(cost, limit=self._max_cost)
            matches.append((rows[a], columns[b]))
            is_free_track[rows[a]], is_free[columns[b]] = False, False

        rows, columns = (np.concatenate(part) for part in zip(*matches, strict=True))
        return rows, columns, is_free

    def _without_duplicates(self, detections: Detections) -> Detections:
        if self._duplicate_iou >= 1 or len(detections) < 2:
            return detections
        order = np.argsort(-detections.scores, kind="stable")  # usually sorted already
        any_class = np.zeros(len(order), np.int64)
        keep = nms(detections.boxes[order], any_class, limit=self._duplicate_iou, most=len(order))
        return detections[np.sort(order[keep])]

    def _new_motion(self) -> Motion:
        return ConstantVelocity()
