"""Two-stage tracking: match high-score detections first, then low-score detections."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rnndet.boxes import nms
from rnndet.registry import NotNegative, Positive, Share
from rnndet.structures import Detections
from rnndet.tracking.assign import Array, Rows, assign, buffered_iou, size_change
from rnndet.tracking.base import BaseTracker, MinScore, of_labels
from rnndet.tracking.kalman import KalmanOptions
from rnndet.tracking.observed import ObservedMotion
from rnndet.tracking.tracks import Motion, TrackOptions, to_arrays

Mask = NDArray[np.bool_]
PLAIN = 0.8  # sizes that two equal boxes may be apart to have an IoU above 0.1


@dataclass(frozen=True, kw_only=True)
class ByteOptions(KalmanOptions, TrackOptions):
    """Options of `ByteTracker`. Buffers are shares of the width and height, for each side."""

    min_evidence: NotNegative = 1.5  # three detections of 0.5, or two of 0.75, give an id
    tentative_share: Share = 0.05  # so that a miss ends it below 20 frames a second
    start_margin: Share = 0.1  # a track starts from min_score + start_margin on
    low_score: Share = 0.1  # detections below it are not matched
    low_score_age: NotNegative = 0.35  # seconds; after them a missed track needs a high score
    # a pair with less IoU, times the score factor and the class factor, is never matched
    min_similarity: Share = 0.125
    low_similarity: Share = 0.3  # the same for low scores, without the score factor
    late_iou: Share = 0.2  # nor is one with less IoU for tracks missed longer than widening_age
    # reduction of the similarity at min_score, less above it; 0 = none; not of the wide pairs of
    # tracks without an id, whose first steps are the longest
    score_weight: Share = 0.7
    class_weight: Share = 0.5  # and by a different class
    duplicate_iou: Share = 0.7  # of two boxes with a higher IoU, one is removed; 1 = off
    buffer: NotNegative = 0.0  # of boxes in the first stage and for low scores
    widening: NotNegative = 3.0  # standard deviations of the predicted centre to reach; 0 = off
    min_widening: NotNegative = 0.0  # least and largest buffer of the wide stages
    max_widening: NotNegative = 0.5
    widening_age: NotNegative = 0.35  # seconds; tracks missed for longer are not widened
    lone_widening: NotNegative = 1.0  # buffer of tracks that have no other box within this buffer
    confirmed_first: bool = False  # whether tracks with an id choose before the others
    re_update: bool = True  # whether a gap is passed again when the track is found
    size_change: Positive = 0.6  # of log width or height, from which on no wide pair is matched


class ByteTracker(BaseTracker[ByteOptions]):
    """Match high-score detections to tracks, then low-score detections to the unmatched tracks.

    Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", ECCV
    2022, arXiv 2110.06864, algorithm 1. Differences:

    - the filter works in seconds, and its noise grows with the speed (see `ConstantVelocity`);
    - pairs that do not overlap are matched in wide stages, by the buffered IoU of C-BIoU (arXiv
      2211.14317), because objects of 15-40 px may move by their own size between frames. The buffer
      is not fixed as there: it is what the predicted centre may be off, which grows with the time
      since the last detection and with the speed. Boxes must have similar sizes;
    - a track gets its id when the scores of its detections sum to `min_evidence`, so that faint
      detections need to be seen more often;
    - the similarity of detections with high scores is less the lower the score, as in the code of
      the paper, here from `score_weight` at min_score to nothing at 1, whatever min_score is; and
      tracks missed for long need more overlap (`late_iou`);
    - several classes: a detection of a class that the track has not had matches at a higher cost,
      so that an object misclassified in a frame keeps its id. Labels are not changed;
    - of two boxes for the same object, of any classes, the lower score is removed first
      (`duplicate_iou`).

    Options: see `ByteOptions`. Detections from min_score on have a high score.

    >>> tracker = ByteTracker(min_hits=1)
    >>> for x, score in ((10, 0.9), (14, 0.2)):  # the second time at a low score
    ...     box = np.array([[x, 10, x + 20, 30]], np.float32)
    ...     print(tracker.update(Detections(box, np.array([score]), np.array([0]))).ids)
    [1]
    [1]
    """

    Options: ClassVar[type[TrackOptions]] = ByteOptions

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
        new = np.flatnonzero(is_free & (scores >= of_labels(self._start_score(), labels)))
        ids[new] = self._tracks.start(boxes[new], scores[new], labels[new])
        self._tracks.remove_expired()
        return replace(detections, ids=ids)

    def _match(self, boxes: Array, scores: Array, labels: Rows) -> tuple[Rows, Rows, Mask]:
        """Rows of tracks and of detections, pairwise, and which detections (D,) are unmatched."""
        options = self.options
        confirmed, age = self._tracks.is_confirmed, self._tracks.time_since_update()
        is_late = self._tracks.time_missed() > options.widening_age
        min_score = of_labels(self.min_score, labels)
        is_high = scores >= min_score
        low_score = np.minimum(options.low_score, self.min_score)
        is_low = ~is_high & (scores >= of_labels(low_score, labels))
        predicted = self._tracks.motion.boxes
        share = self._tracks.class_share(labels)
        class_factor = 1 - options.class_weight * (1 - share)  # (N, D)
        sureness = (scores - min_score) / np.maximum(1 - min_score, 1e-6)  # of the high scores
        score_factor = 1 - options.score_weight * (1 - sureness)
        unweighed = np.ones(len(boxes))
        narrow = np.full(len(age), options.buffer)
        is_free_track = np.ones(len(self._tracks), bool)
        is_free = np.ones(len(boxes), bool)
        none = np.zeros(0, np.int64)
        matches: list[tuple[Rows, Rows]] = [(none, none)]

        def match(
            tracks: Mask,
            candidates: Mask,
            buffer: Array,
            factor: Array,
            *,
            least: float = options.min_similarity,
            wide: bool = False,
        ) -> None:
            rows = np.flatnonzero(tracks & is_free_track)
            columns = np.flatnonzero(candidates & is_free)
            if not len(rows) or not len(columns):
                return
            overlap = buffered_iou(predicted[rows], boxes[columns], buffer=buffer[rows])
            if wide:
                overlap[size_change(predicted[rows], boxes[columns]) >= options.size_change] = 0
            else:
                overlap[is_late[rows, None] & (overlap < options.late_iou)] = 0
            similarity = overlap * class_factor[np.ix_(rows, columns)] * factor[columns]
            a, b = assign(1 - similarity, limit=1 - least)
            matches.append((rows[a], columns[b]))
            is_free_track[rows[a]], is_free[columns[b]] = False, False

        first = confirmed | (not options.confirmed_first)
        match(first, is_high, narrow, score_factor)
        if is_free_track.any() and is_free.any():  # usually all tracks are matched already
            is_lone = self._is_lone(predicted, boxes)
            enlarged = self._wide_buffers()
            enlarged = np.where(is_lone, np.maximum(enlarged, options.lone_widening), enlarged)
            is_widened = is_lone | ~is_late
            match(confirmed & is_widened, is_high, enlarged, score_factor, wide=True)
            is_recent = (age < options.low_score_age) | ~self._tracks.was_missed()
            match(first & is_recent, is_low, narrow, unweighed, least=options.low_similarity)
            match(~confirmed, is_high, enlarged, unweighed, wide=True)

        rows, columns = (np.concatenate(part) for part in zip(*matches, strict=True))
        return rows, columns, is_free

    def _wide_buffers(self) -> Array:
        """Buffers of the wide stages, (N,): what the predicted centre may be off, beyond PLAIN.

        Each of the two boxes reaches half of the rest.
        """
        options = self.options
        reach = options.widening * self._motion.spread
        return np.clip((reach - PLAIN) / 2, options.min_widening, options.max_widening)

    def _is_lone(self, predicted: Array, boxes: Array) -> Mask:
        """(N,) which tracks have at most one detection and no other track near, so no rival."""
        buffer = self.options.lone_widening
        if buffer == 0:
            return np.zeros(len(predicted), bool)
        tracks = buffered_iou(predicted, predicted, buffer=buffer) > 0
        near = buffered_iou(predicted, boxes, buffer=buffer) > 0
        return (tracks.sum(1) <= 1) & (near.sum(1) <= 1)

    def _start_score(self) -> MinScore:
        """The score from which on a detection starts a track."""
        start = np.minimum(self.min_score + self.options.start_margin, 0.95)
        return np.maximum(start, self.min_score)

    def _without_duplicates(self, detections: Detections) -> Detections:
        limit = self.options.duplicate_iou
        if limit >= 1 or len(detections) < 2:
            return detections
        order = np.argsort(-detections.scores, kind="stable")  # usually sorted already
        any_class = np.zeros(len(order), np.int64)
        keep = nms(detections.boxes[order], any_class, limit=limit, most=len(order))
        return detections[np.sort(order[keep])]

    def _new_motion(self) -> Motion:
        self._motion = ObservedMotion(self.options, re_update=self.options.re_update)
        return self._motion
