"""Average delay: how many frames pass until a new object is found, at fixed rates of false alarms.

Mao, Yang, Dally, "A Delay Metric for Video Object Detection: What Average Precision Fails to Tell",
ICCV 2019, arXiv 1908.06368; official kit github.com/RalphMao/VMetrics.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rnndet.evaluation.metrics.base import Numbers
from rnndet.evaluation.metrics.overlap import greedy, is_counted, on_ignored, pairwise_iou
from rnndet.evaluation.metrics.record import EvaluatedVideo

FALSE_RATIOS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # false alarms per truth box
LONGEST = 30  # frames; a longer delay counts as this
IOU = 0.5


class _Part(NamedTuple):
    """What one video, or several, contribute: I instances, seen S times, and F false alarms."""

    targets: int  # truth boxes that count
    false_scores: np.ndarray  # (F,) float32
    never: np.ndarray  # (I,) int64, delay of each instance if it is never found
    instance: np.ndarray  # (S,) int64, which instance a detection finds
    offset: np.ndarray  # (S,) int64, frames since the instance's first truth
    score: np.ndarray  # (S,) float32, best score that finds it there


class AverageDelay:
    """AD over all classes together, in frames: lower is better.

    1. A detection that no truth of its class matches is a false alarm: greedy one-to-one matching
       of each frame by descending score, IoU >= .5, as for AP. Duplicates are false alarms.
    2. For each ratio of `FALSE_RATIOS` the threshold is the score of the first detection, by
       descending score, at which the false alarms exceed that ratio of the truth boxes; 0 if none.
    3. The delay of an instance is the number of frames from its first truth to the first frame with
       a detection at or above the threshold that is of its class and overlaps it by IoU > .5, and
       no other truth of the class more. One never found has the delay of its last truth. At most
       `LONGEST`.
    4. AD = 1 / mean(1 / (D + 1)) - 1 over the mean delays D at the ratios.

    An instance is an id of a truth; a truth without a known id counts as a truth box only. An
    ignored truth is neither, and what lies on one is no false alarm. Delays are in frames of the
    video: divide by its rate for seconds. An instance of one frame has no delay even if it is
    missed: read AD beside recall. All classes are pooled; `classes` is not needed.
    """

    rule = "AD, IoU .5, delays up to 30 frames, at .1 to 3.2 false alarms per truth"

    def __init__(self, classes: Sequence[str]) -> None:
        """There are no options."""

    def measure(self, video: EvaluatedVideo) -> _Part:
        targets, false_scores, seen = 0, [np.zeros(0, np.float32)], [np.zeros((0, 3))]
        for frame in video.labelled().frames:
            counted = is_counted(frame)
            ids = frame.target_ids[counted]
            same = frame.labels[:, None] == frame.target_labels[counted]
            iou = pairwise_iou(frame.boxes, frame.target_boxes[counted]) * same
            targets += len(ids)
            taken = greedy(np.where(iou >= IOU, iou, 0.0))
            false = (taken < 0) & ~on_ignored(frame, IOU)
            false_scores.append(frame.scores[false])
            rows = np.stack([ids, np.full(len(ids), frame.index), _best(iou, frame.scores)], 1)
            seen.append(rows[ids >= 0])
        return _part(targets, np.concatenate(false_scores), np.concatenate(seen))

    def combine(self, parts: Sequence[_Part]) -> Numbers:
        """Numbers "AD" and "delay@0.1" to "delay@3.2", the mean delays; NaN without instances."""
        names = [f"delay@{ratio}" for ratio in FALSE_RATIOS]
        whole = _together(parts)
        if len(whole.never) == 0:
            return dict.fromkeys(["AD", *names], float("nan"))
        delays = np.array([_mean_delay(whole, score) for score in _thresholds(whole)])
        average = 1 / np.mean(1 / (delays + 1)) - 1
        return {"AD": float(average)} | dict(zip(names, delays.tolist(), strict=True))

    def headline(self, parts: Sequence[_Part]) -> Numbers:
        return {"AD": self.combine(parts)["AD"]}


def _best(iou: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Best score (G,) of the detections that find each truth, -1 where none does."""
    best = np.full(iou.shape[1], -1.0)
    if iou.size == 0:
        return best
    nearest = iou.argmax(1)
    rows = np.flatnonzero(iou[np.arange(len(iou)), nearest] > IOU)
    np.maximum.at(best, nearest[rows], scores[rows])
    return best


def _part(targets: int, false_scores: np.ndarray, seen: np.ndarray) -> _Part:
    """seen: (S, 3) id, frame index and best score of every truth that has a known id."""
    ids, instance = np.unique(seen[:, 0], return_inverse=True)
    index, score = seen[:, 1].astype(np.int64), seen[:, 2].astype(np.float32)
    first = np.full(len(ids), np.iinfo(np.int64).max)
    last = np.full(len(ids), -1)
    np.minimum.at(first, instance, index)
    np.maximum.at(last, instance, index)
    offset = index - first[instance]
    useful = (score >= 0) & (offset < LONGEST)
    return _Part(
        targets,
        false_scores,
        np.minimum(last - first, LONGEST),
        instance[useful],
        offset[useful],
        score[useful],
    )


def _together(parts: Sequence[_Part]) -> _Part:
    """The parts as one; instances are numbered on."""
    parts = [_part(0, np.zeros(0, np.float32), np.zeros((0, 3))), *parts]
    before = np.cumsum([0] + [len(part.never) for part in parts[:-1]])
    instance = [part.instance + n for part, n in zip(parts, before, strict=True)]
    return _Part(
        sum(part.targets for part in parts),
        np.concatenate([part.false_scores for part in parts]),
        np.concatenate([part.never for part in parts]),
        np.concatenate(instance),
        np.concatenate([part.offset for part in parts]),
        np.concatenate([part.score for part in parts]),
    )


def _thresholds(part: _Part) -> list[float]:
    """The score at which each ratio is exceeded; it rises at false alarms only."""
    scores = np.sort(part.false_scores)[::-1]
    ratios = np.arange(1, len(scores) + 1) / part.targets
    places = np.searchsorted(ratios, FALSE_RATIOS, side="right")
    return [float(scores[place]) if place < len(scores) else 0.0 for place in places]


def _mean_delay(part: _Part, threshold: float) -> float:
    delays = part.never.copy()
    shown = part.score >= threshold
    np.minimum.at(delays, part.instance[shown], part.offset[shown])
    return float(delays.mean())
