"""Average precision by the rule of ILSVRC's video task, also by the motion of the objects.

IoU threshold .5, lower for small objects, all-point interpolation. Not comparable with COCO's AP50
(flat threshold, 101 points). Rule and motion groups as in Zhu et al., "Flow-Guided
Feature Aggregation for Video Object Detection", ICCV 2017, and of its evaluation,
github.com/msracver/Flow-Guided-Feature-Aggregation, lib/dataset/imagenet_vid_eval_motion.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rnndet.evaluation.metrics.base import Metric, Numbers
from rnndet.evaluation.metrics.matching import greedy, iou_with_targets, is_counted, on_ignored
from rnndet.evaluation.metrics.motion import GROUPS, UNKNOWN, motion_groups, motion_iou
from rnndet.evaluation.records import EvaluatedFrame, EvaluatedVideo

MAX_IOU = 0.5  # the threshold of large boxes
TOLERANCE = 10.0  # pixels by which each side of a small box may be off
SUFFIXES = ("", *(f"_{group}" for group in GROUPS))
FALSE, IGNORED = -1, -2  # an unmatched detection: false positive, or on an ignored target


class _ClassDetections(NamedTuple):
    """Detections of one class by descending score, without those on ignored targets."""

    scores: np.ndarray  # (D,) float32
    groups: np.ndarray  # (D,) int8, motion group of the matched target; FALSE if unmatched
    weights: np.ndarray  # (D, 3) float32, weight as a false positive by group; (D, 0) if all are 1


class _Part(NamedTuple):
    """The contribution of one video."""

    detections: list[_ClassDetections]  # by class
    positives: np.ndarray  # (K, 4) int64, targets by class and group; the last column: UNKNOWN


class VidAP(Metric):
    """AP over classes at the IoU threshold of each target: min(.5, w*h / ((w + 10) * (h + 10))).

    - classes: names by label. A class without targets has no numbers and is in no mean.
    - fgfa_compat: weight false positives in the motion groups as the official evaluation does.

    In every frame each detection, by descending score, is matched to the unmatched target of its
    class with the highest IoU that reaches the target's threshold; unmatched detections are false
    positives. Sides as in ILSVRC, xmax - xmin + 1, which is x2 - x1 of exclusive edges. A
    false positive on an ignored target (see `on_ignored`) does not count; a region of no class
    absorbs detections of every class.

    For a motion group the targets outside it are ignored: they are not missed, and a detection
    matched to such a target does not count. Other detections are false positives in every group, as
    in COCO's areas. With fgfa_compat a false positive counts in a group

    - with weight 1 if its highest IoU is with a target (of any class) inside the group, with weight
      0 if it is with a target outside; a side without targets in the frame loses against an IoU
      of 0;
    - if both sides are equal: with the share of the frame's targets that are outside the group;
    - in a frame without targets: with the group's share of all targets.
    """

    columns = tuple(f"AP50_ilsvrc{suffix}" for suffix in SUFFIXES)

    def __init__(self, classes: Sequence[str], *, fgfa_compat: bool = False) -> None:
        self._classes = tuple(classes)
        self._fgfa_compat = fgfa_compat
        groups = "weighed as FGFA does" if fgfa_compat else "in every motion group"
        self.rule = (
            "ILSVRC, inclusive pixels, IoU min(.5, wh/((w+10)(h+10))), all points, false alarms "
            + groups
        )

    def measure(self, video: EvaluatedVideo) -> _Part:
        """Greedy matching of every labelled frame."""
        video = video.labelled()
        positives = np.zeros((len(self._classes), UNKNOWN + 1), np.int64)
        rows: list[tuple[np.ndarray, ...]] = [_no_rows(self._fgfa_compat)]
        for frame, motion in zip(video.frames, motion_iou(video), strict=True):
            groups, counted = motion_groups(motion), is_counted(frame)
            np.add.at(positives, (frame.target_labels[counted], groups[counted]), 1)
            rows.append(self._match(frame, groups, counted))
        labels, *fields = (np.concatenate(column) for column in zip(*rows, strict=True))
        order = np.lexsort((-fields[0], labels))
        cuts = np.searchsorted(labels[order], np.arange(1, len(self._classes)))
        by_class = zip(*(np.split(field[order], cuts) for field in fields), strict=True)
        return _Part([_ClassDetections(*arrays) for arrays in by_class], positives)

    def combine(self, parts: Sequence[_Part]) -> Numbers:
        """All numbers, in 0..1; NaN where there are no targets to define one.

        "AP50_ilsvrc", "AP50_ilsvrc_slow", "AP50_ilsvrc_medium", "AP50_ilsvrc_fast", and
        "AP50_ilsvrc/<class>" for classes with targets. Targets without identity are in no group.
        """
        aps = self._aps(parts)
        numbers = _means(aps)
        for name, value in zip(self._classes, aps[:, 0].tolist(), strict=True):
            if not np.isnan(value):
                numbers[f"AP50_ilsvrc/{name}"] = value
        return numbers

    def headline(self, parts: Sequence[_Part]) -> Numbers:
        """The means over classes only."""
        return _means(self._aps(parts))

    def _match(
        self, frame: EvaluatedFrame, groups: np.ndarray, counted: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        """Labels, scores, groups and weights of the counted detections of one frame."""
        limits = _min_iou(frame.target_boxes)
        iou = iou_with_targets(frame)
        same = frame.labels[:, None] == frame.target_labels
        taken = greedy(np.where(same & counted & (iou >= limits), iou, 0.0))
        result = np.full(len(taken), FALSE, np.int8)
        result[taken >= 0] = groups[taken[taken >= 0]]
        result[(taken < 0) & on_ignored(frame, limits)] = IGNORED
        kept = result != IGNORED
        weights = np.zeros((len(taken), 0), np.float32)
        if self._fgfa_compat:
            weights = _compat_weights(iou[:, counted], groups[counted])
        return frame.labels[kept], frame.scores[kept], result[kept], weights[kept]

    def _aps(self, parts: Sequence[_Part]) -> np.ndarray:
        """(K, 4) AP by class, of all targets and of each group; NaN without targets."""
        start = np.zeros((len(self._classes), UNKNOWN + 1), np.int64)
        positives = sum((part.positives for part in parts), start)
        shares = positives.sum(0) / max(positives.sum(), 1)
        aps = np.full((len(self._classes), len(SUFFIXES)), np.nan)
        for k in np.flatnonzero(positives.any(1)):
            rows = [part.detections[k] for part in parts]
            scores, groups, weights = (np.concatenate(field) for field in zip(*rows, strict=True))
            aps[k, 0] = continuous_ap(scores, groups != FALSE, positives[k].sum())
            for g in range(len(GROUPS)):
                kept = (groups == g) | (groups == FALSE)
                weight = None
                if self._fgfa_compat:
                    weight = weights[kept, g]
                    weight = np.where(np.isnan(weight), shares[g], weight)
                hits = groups[kept] == g
                aps[k, 1 + g] = continuous_ap(scores[kept], hits, positives[k, g], weight)
        return aps


def _min_iou(boxes: np.ndarray) -> np.ndarray:
    """The threshold of each target, (G, 4) -> (G,)."""
    width, height = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64).T
    relaxed = width * height / ((width + TOLERANCE) * (height + TOLERANCE))
    return np.minimum(MAX_IOU, relaxed)


def _compat_weights(iou: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(D, G) IoU and (G,) groups of counted targets -> (D, 3); NaN: the group's share of all."""
    if len(groups) == 0:
        return np.full((len(iou), len(GROUPS)), np.nan, np.float32)
    weights = np.empty((len(iou), len(GROUPS)), np.float32)
    for g in range(len(GROUPS)):
        in_group = groups == g
        inside = iou[:, in_group].max(1, initial=-1.0)
        outside = iou[:, ~in_group].max(1, initial=-1.0)
        cases = [inside > outside, inside < outside]
        weights[:, g] = np.select(cases, [1.0, 0.0], np.mean(~in_group))
    return weights


def _no_rows(fgfa_compat: bool) -> tuple[np.ndarray, ...]:
    """`_match` of a frame without detections: gives the dtypes where there are no frames."""
    weights = np.zeros((0, len(GROUPS) if fgfa_compat else 0), np.float32)
    return np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.int8), weights


def _means(aps: np.ndarray) -> Numbers:
    """Means over the classes with targets."""
    numbers = {}
    for suffix, column in zip(SUFFIXES, aps.T, strict=True):
        defined = column[~np.isnan(column)]
        numbers[f"AP50_ilsvrc{suffix}"] = float(defined.mean()) if defined.size else float("nan")
    return numbers


def continuous_ap(
    scores: np.ndarray, hits: np.ndarray, positives: int, weights: np.ndarray | None = None
) -> float:
    """Average precision with all-point interpolation, in [0, 1].

    The area under the precision envelope (highest precision at this recall or beyond), over all
    steps of recall. scores (D,) in any order; hits (D,) bool; positives: number of targets; weights
    (D,): weight of each false positive, 1 by default. Detections with equal scores enter together,
    so their order has no effect. NaN if there are no targets.
    """
    if positives == 0:
        return float("nan")
    if not hits.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")  # callers pass sorted runs: nearly linear
    true = np.cumsum(hits[order])
    false = np.cumsum((~hits if weights is None else np.where(hits, 0.0, weights))[order])
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    true, false = true[last], false[last]
    total = true + false
    precision = np.divide(true, total, out=np.zeros(len(total)), where=total > 0)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(true, prepend=0) * precision).sum() / positives)
