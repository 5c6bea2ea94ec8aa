"""Correct the classes of detections by the shape and motion of their tracks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnndet.boxes import pairwise_iou
from rnndet.errors import WeightsError
from rnndet.specs import FIT_AGAIN, TrackClassSpec
from rnndet.structures import Detections
from rnndet.tracking.assign import Array, Rows
from rnndet.tracking.byte import ByteTracker
from rnndet.tracking.shape_motion import FEATURES, ShapeMotion
from rnndet.video.patches import grey_patches

# Detections from this score on are tracked and are evidence: the floor of the trackers. On val of
# the aerial data 0.02 gives the same AP, and costs 2 ms a frame more, for suppressing faint boxes.
LOW_SCORE = 0.1
MIN_SCORE = 0.2  # from which on they start a track
DUPLICATE_IOU = 0.5  # of two boxes with a higher IoU, whatever their classes, one is tracked
MAX_AGE = 1.0  # seconds for which a missed track is kept
FRAME_INTERVAL = 0.04  # seconds between frames whose times do not increase
# Every other option of the tracker: those with which the shipped read-outs were fitted, of small
# objects that fly. None is left to the defaults, which may change.
ASSOCIATION = {
    "min_hits": 2, "min_evidence": 0.0, "tentative_share": 0.25, "confirmed_first": True,
    "position_noise": 0.07, "shape_noise": 0.15, "initial_speed": 10.0, "acceleration": 10.0,
    "turning": 0.0, "growth": 0.5, "re_update": False, "low_score_age": 0.35,
    "min_similarity": 0.1, "low_similarity": 0.1, "late_iou": 0.0, "score_weight": 0.0,
    "class_weight": 0.5, "buffer": 0.3, "widening": 3.0, "min_widening": 1.0, "max_widening": 1.0,
    "widening_age": 1e9, "lone_widening": 0.0, "size_change": 100.0,
}  # fmt: skip
SAME = 0.55  # IoU with the box of a tracked object above which a detection is of this object
LIMIT = 4.0  # standard deviations: features further from the mean count as this far


class TrackClasses:
    """Corrects the classes of the detections of a video, frame by frame.

    Objects are tracked whatever their classes. From `spec.wait` seconds of a track on, the
    probabilities that the read-out gives it (see `probabilities`) are mixed with the scores of its
    detections, see `mixed_scores`. Detections of younger tracks and of none stay as they are, as do
    those with a score below LOW_SCORE.

    Raises WeightsError for a read-out of other features than `FEATURES`.
    """

    def __init__(self, spec: TrackClassSpec) -> None:
        if spec.features != FEATURES:
            raise WeightsError(
                f"track_classes: a read-out of {len(spec.features)} features which are not the "
                f"{len(FEATURES)} of this version; {FIT_AGAIN}"
            )
        self.spec = spec
        self._read_out = ReadOut(spec)
        self._shapes = ShapeMotion()
        self._tracker = ByteTracker(
            min_score=MIN_SCORE, low_score=LOW_SCORE, start_margin=0.0,
            duplicate_iou=DUPLICATE_IOU, max_age=MAX_AGE, frame_interval=FRAME_INTERVAL,
            **ASSOCIATION,
        )  # fmt: skip
        self.reset()

    @property
    def score_floor(self) -> float:
        """The lowest score that counts as evidence: a model should return it."""
        return LOW_SCORE

    def reset(self) -> None:
        """Forget all tracks, before another video or scene."""
        self._tracker.reset()
        self._shapes.reset()
        self._now = 0.0
        self._last_time: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """The state that the next frame depends on, as plain data and arrays."""
        return {
            "tracker": self._tracker.state_dict(),
            "shapes": self._shapes.state_dict(),
            "now": self._now,
            "last_time": self._last_time,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of `state_dict`."""
        self._tracker.load_state_dict(state["tracker"])
        self._shapes.load_state_dict(state["shapes"])
        self._now, self._last_time = state["now"], state["last_time"]

    def update(self, image: np.ndarray, detections: Detections, *, time: float) -> Detections:
        """Return the detections with corrected scores, in descending order.

        Call once per frame. image: the original frame, (H, W, 3) uint8; detections: in its pixels,
        all from `score_floor` on; time: of the frame, in seconds. An object without a detection of
        some class gets one, with the score of this class.
        """
        self._advance(time)
        boxes, ids = self._track(detections, time)
        self._shapes.keep(self._tracker.expected()[1])
        if not len(ids):
            return detections
        patches, sides = grey_patches(image, boxes)
        centres = (boxes[:, :2] + boxes[:, 2:]).astype(np.float64) / 2
        features = self._shapes.update(ids, patches, sides, centres, time=self._now)
        ages = self._shapes.ages(ids)
        is_old = (ages > 0) & (ages >= self.spec.wait)
        if not is_old.any():
            return detections
        objects = group_detections(boxes, detections, floor=LOW_SCORE)
        return self._corrected(
            detections, boxes, objects, self._read_out.probabilities(features), is_old
        )

    def _advance(self, time: float) -> None:
        """Set the clock: like `time`, but it always goes on."""
        goes_on = self._last_time is not None and time > self._last_time
        self._now += time - self._last_time if goes_on else FRAME_INTERVAL
        self._last_time = time

    def _track(self, detections: Detections, time: float) -> tuple[NDArray[np.float32], Rows]:
        """Boxes and ids of the tracked objects in this frame, the highest scores first."""
        found = detections[detections.scores >= LOW_SCORE]
        one_class = Detections(found.boxes, found.scores, np.zeros(len(found), np.int64))
        tracked = self._tracker.update(one_class, time=time)
        assert tracked.ids is not None, "a tracker gives ids"
        order = np.argsort(-tracked.scores, kind="stable")
        tracked = tracked[order[tracked.ids[order] > 0]]
        return tracked.boxes, tracked.ids

    def _corrected(
        self,
        detections: Detections,
        boxes: NDArray[np.float32],
        objects: Rows,
        probabilities: Array,
        is_old: NDArray[np.bool_],
    ) -> Detections:
        """The detections with the scores of the old objects' groups replaced.

        boxes (D, 4), probabilities (D, K), is_old (D,): of the tracked objects; objects: of the
        detections, see `group_detections`.
        """
        scores = detections.scores.astype(np.float64)
        labels = detections.labels
        of_old = np.flatnonzero((objects >= 0) & is_old[objects])  # detections
        rows, kinds = objects[of_old], labels[of_old]
        top = np.zeros(probabilities.shape)
        np.maximum.at(top, (rows, kinds), scores[of_old])
        found = np.flatnonzero(top.any(1))  # objects with detections
        mixed = np.zeros(top.shape)
        mixed[found] = mixed_scores(top[found], probabilities[found], self.spec)
        scores[of_old] *= mixed[rows, kinds] / top[rows, kinds]
        new, missing = np.nonzero(top[found] == 0)
        new = found[new]
        every = Detections(
            np.concatenate([detections.boxes, boxes[new]]),
            np.concatenate([scores, mixed[new, missing]]).astype(np.float32),
            np.concatenate([labels, missing]),
        )
        return every[np.argsort(-every.scores, kind="stable")]


class ReadOut:
    """The linear read-out of a `TrackClassSpec` as arrays."""

    def __init__(self, spec: TrackClassSpec) -> None:
        self._mean, self._std = np.array(spec.mean), np.array(spec.std)
        self._weight, self._bias = np.array(spec.weight), np.array(spec.bias)

    def probabilities(self, features: Array) -> Array:
        """Class probabilities of the features of tracks, (D, F) -> (D, K)."""
        logits = standardised(features, self._mean, self._std) @ self._weight + self._bias
        grown = np.exp(logits - logits.max(1, keepdims=True))
        return grown / grown.sum(1, keepdims=True)


def standardised(features: Array, mean: Array, std: Array) -> Array:
    """The input of the read-out: features (D, F) in standard deviations, within LIMIT."""
    return np.clip((features - mean) / std, -LIMIT, LIMIT)


def group_detections(boxes: Array, detections: Detections, *, floor: float) -> Rows:
    """The object of each detection: IoU with its box above SAME; -1 for none.

    boxes: of the objects, (D, 4), one or more; the first choose first. Detections below `floor`
    have no object.
    """
    is_same = pairwise_iou(boxes, detections.boxes) > SAME
    is_one = is_same.any(0) & (detections.scores >= floor)
    return np.where(is_one, is_same.argmax(0), -1)


def mixed_scores(top: Array, probabilities: Array, spec: TrackClassSpec) -> Array:
    """The new best score of each class of an object, (..., K).

    top (..., K): the best score of each class among the detections of the object, 0 for none;
    probabilities (..., K): of its track. The object keeps its highest score, for the class with the
    most evidence: the probability to a small power, times the share of the class in the scores.

    >>> spec = TrackClassSpec(("a", "b"), (), (), (), (), (0.0, 0.0), power=1.0, floor=0.02)
    >>> mixed_scores(np.array([0.6, 0.4]), np.array([0.1, 0.9]), spec).round(3).tolist()
    [0.116, 0.6]
    """
    share = np.log(top / top.sum(-1, keepdims=True) + spec.floor)
    evidence = spec.power * np.log(probabilities + spec.floor) + share
    return top.max(-1, keepdims=True) * np.exp(evidence - evidence.max(-1, keepdims=True))
