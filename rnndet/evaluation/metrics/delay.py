"""Average delay: frames until a new object is first detected, at fixed rates of false positives.

Mao, Yang, Dally, "A Delay Metric for Video Object Detection: What Average Precision Fails to Tell",
ICCV 2019, arXiv 1908.06368; official kit github.com/RalphMao/VMetrics.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from rnndet.evaluation.metrics.base import Metric, Numbers
from rnndet.evaluation.metrics.matching import greedy, iou_with_targets, is_counted, on_ignored
from rnndet.evaluation.records import EvaluatedVideo

FALSE_RATIOS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # false positives per target
MAX_DELAY = 30  # frames; longer delays are clipped
IOU = 0.5


class _Part(NamedTuple):
    """The contribution of one or several videos: I instances, S sightings, F false positives."""

    targets: int  # counted targets
    false_scores: np.ndarray  # (F,) float32
    never: np.ndarray  # (I,) int64, delay of each instance if it is never detected
    instance: np.ndarray  # (S,) int64, the instance that is detected
    offset: np.ndarray  # (S,) int64, frames since the instance's first target
    score: np.ndarray  # (S,) float32, highest score of the detections of it in that frame


class AverageDelay(Metric):
    """AD over all classes together, in frames: lower is better.

    1. A detection that is matched to no target of its class is a false positive: greedy one-to-one
       matching in each frame by descending score, IoU >= .5, as for AP. Duplicates are false
       positives.
    2. For each ratio of `FALSE_RATIOS` the threshold is the score of the first detection, by
       descending score, at which the false positives exceed that ratio of the number of targets;
       0 if that never happens.
    3. The delay of an instance is the number of frames from its first target to the first frame
       with a detection at or above the threshold that has its class, an IoU > .5 with it, and no
       higher IoU with another target of the class. An instance that is never detected has the delay
       of its last target. Delays are clipped at `MAX_DELAY`.
    4. AD = 1 / mean(1 / (D + 1)) - 1 over the mean delays D at the ratios.
    5. Not of the paper: "never" is the share of instances that are not detected in any frame.

    An instance is an id of targets; a target without a known id only counts as a target. An ignored
    target is neither, and a detection on it is no false positive. Delays are in frames of the
    video: divide by its frame rate for seconds. An instance of a single frame has no delay even if
    it is missed: read AD together with "never". All classes are pooled; `classes` is not used.
    """

    columns = ("AD", "delay@0.1", "delay@0.4", "delay@1.6", "never@0.4")
    units: ClassVar = {"AD": "frames", "delay": "frames"}
    rule = "AD, IoU .5, delays up to 30 frames, at .1 to 3.2 false positives per target"

    def __init__(self, classes: Sequence[str]) -> None:
        """There are no options."""

    def measure(self, video: EvaluatedVideo) -> _Part:
        """Matches of every labelled frame, and the sightings of every instance."""
        targets, false_scores, sightings = 0, [np.zeros(0, np.float32)], [np.zeros((0, 3))]
        for frame in video.labelled().frames:
            counted = is_counted(frame)
            ids = frame.target_ids[counted]
            same = frame.labels[:, None] == frame.target_labels[counted]
            iou = iou_with_targets(frame, counted) * same
            targets += len(ids)
            taken = greedy(np.where(iou >= IOU, iou, 0.0))
            false = (taken < 0) & ~on_ignored(frame, IOU)
            false_scores.append(frame.scores[false])
            rows = np.stack([ids, np.full(len(ids), frame.index), _best(iou, frame.scores)], 1)
            sightings.append(rows[ids >= 0])
        return _part(targets, np.concatenate(false_scores), np.concatenate(sightings))

    def combine(self, parts: Sequence[_Part]) -> Numbers:
        """ "AD", and by ratio the mean delays "delay@0.1" and the shares "never@0.1".

        NaN without instances.
        """
        pooled = _pooled(parts)
        if len(pooled.never) == 0:
            names = [f"{name}@{ratio}" for name in ("delay", "never") for ratio in FALSE_RATIOS]
            return dict.fromkeys(["AD", *names], float("nan"))
        by_ratio = dict(zip(FALSE_RATIOS, _thresholds(pooled), strict=True))
        delays = {f"delay@{r}": _mean_delay(pooled, score) for r, score in by_ratio.items()}
        never = {f"never@{r}": _never(pooled, score) for r, score in by_ratio.items()}
        average = 1 / np.mean(1 / (np.array([*delays.values()]) + 1)) - 1
        return {"AD": float(average)} | delays | never

    def headline(self, parts: Sequence[_Part]) -> Numbers:
        """ "AD" and "never@0.4"."""
        numbers = self.combine(parts)
        return {name: numbers[name] for name in ("AD", "never@0.4")}


def _best(iou: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Highest score (G,) of the detections of each target, -1 without any."""
    best = np.full(iou.shape[1], -1.0)
    if iou.size == 0:
        return best
    nearest = iou.argmax(1)
    rows = np.flatnonzero(iou[np.arange(len(iou)), nearest] > IOU)
    np.maximum.at(best, nearest[rows], scores[rows])
    return best


def _part(targets: int, false_scores: np.ndarray, sightings: np.ndarray) -> _Part:
    """sightings: (S, 3) id, frame index and highest score of every target with a known id."""
    ids, instance = np.unique(sightings[:, 0], return_inverse=True)
    index, score = sightings[:, 1].astype(np.int64), sightings[:, 2].astype(np.float32)
    first = np.full(len(ids), np.iinfo(np.int64).max)
    last = np.full(len(ids), -1)
    np.minimum.at(first, instance, index)
    np.maximum.at(last, instance, index)
    offset = index - first[instance]
    useful = score >= 0
    return _Part(
        targets,
        false_scores,
        np.minimum(last - first, MAX_DELAY),
        instance[useful],
        offset[useful],
        score[useful],
    )


def _pooled(parts: Sequence[_Part]) -> _Part:
    """All parts as one; instances are renumbered."""
    parts = [_part(0, np.zeros(0, np.float32), np.zeros((0, 3))), *parts]
    first = np.cumsum([0] + [len(part.never) for part in parts[:-1]])
    instance = [part.instance + n for part, n in zip(parts, first, strict=True)]
    return _Part(
        sum(part.targets for part in parts),
        np.concatenate([part.false_scores for part in parts]),
        np.concatenate([part.never for part in parts]),
        np.concatenate(instance),
        np.concatenate([part.offset for part in parts]),
        np.concatenate([part.score for part in parts]),
    )


def _thresholds(part: _Part) -> list[float]:
    """The score at which each ratio is exceeded; the ratio rises at false positives only."""
    scores = np.sort(part.false_scores)[::-1]
    ratios = np.arange(1, len(scores) + 1) / part.targets
    ranks = np.searchsorted(ratios, FALSE_RATIOS, side="right")
    return [float(scores[rank]) if rank < len(scores) else 0.0 for rank in ranks]


def _mean_delay(part: _Part, threshold: float) -> float:
    delays = part.never.copy()
    kept = part.score >= threshold
    np.minimum.at(delays, part.instance[kept], part.offset[kept])
    return float(delays.mean())


def _never(part: _Part, threshold: float) -> float:
    """The share of instances without a sighting at or above the threshold."""
    found = np.unique(part.instance[part.score >= threshold])
    return 1 - len(found) / len(part.never)
