"""Average precision by the rule of ILSVRC's video task, and by the motion of the objects.

IoU at .5, less for small objects, all-point interpolation. Not comparable with COCO's AP50 (flat
threshold, 101 points). The rule and the motion groups are those of Zhu et al., "Flow-Guided Feature
Aggregation for Video Object Detection", ICCV 2017, and of its evaluation,
github.com/msracver/Flow-Guided-Feature-Aggregation, lib/dataset/imagenet_vid_eval_motion.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rnndet.evaluation.metrics.base import Numbers
from rnndet.evaluation.metrics.motion import GROUPS, UNKNOWN, motion_groups, motion_iou
from rnndet.evaluation.metrics.overlap import (
    continuous_ap,
    greedy,
    is_counted,
    on_ignored,
    pairwise_iou,
)
from rnndet.evaluation.metrics.record import EvaluatedFrame, EvaluatedVideo

LEAST_IOU = 0.5
TOLERANCE = 10.0  # pixels by which each side of a small box may be off
COLUMNS = ("", *(f"_{group}" for group in GROUPS))
FALSE, DROPPED = -1, -2  # what became of a detection that takes no truth


class _Found(NamedTuple):
    """Detections of one class, best first, without those on ignored truths."""

    scores: np.ndarray  # (D,) float32
    groups: np.ndarray  # (D,) int8, motion group of the truth that is taken; FALSE for none
    weights: np.ndarray  # (D, 3) float32, how much of a false alarm in each group; (D, 0) if fully


class _Part(NamedTuple):
    """What one video contributes."""

    found: list[_Found]  # by class
    positives: np.ndarray  # (K, 4) int64, truths by class and group; the last column: UNKNOWN


class VidAP:
    """AP over classes at the IoU threshold of each truth: min(.5, w*h / ((w + 10) * (h + 10))).

    - classes: names by label. A class without truths has no numbers and is in no mean.
    - fgfa_compat: weigh false alarms in the motion groups as the official evaluation does.

    In every frame the detections take, best first, the unmatched truth of their class with the
    highest IoU that reaches the truth's threshold; the others are false alarms. Sides are those of
    ILSVRC, xmax - xmin + 1, which is x2 - x1 of exclusive edges. A false alarm on an ignored truth
    (see `on_ignored`) does not count; one of no class takes every class.

    For a motion group the truths outside it are ignored: they are not missed, and a detection that
    takes one does not count. Other detections are false alarms in every group, as in COCO's areas.
    With fgfa_compat a false alarm is one in a group

    - fully if its highest IoU is with a truth (of any class) in the group, not at all if with one
      out of it; a side that has no truth in the frame loses against an IoU of 0;
    - if both sides are equal: by the share of the frame's truths that are out of the group;
    - in a frame without targets: by the group's share of all truths.
    """

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
            rows.append(self._supervised(frame, groups, counted))
        labels, *fields = (np.concatenate(column) for column in zip(*rows, strict=True))
        order = np.lexsort((-fields[0], labels))
        cuts = np.searchsorted(labels[order], np.arange(1, len(self._classes)))
        by_class = zip(*(np.split(field[order], cuts) for field in fields), strict=True)
        return _Part([_Found(*own) for own in by_class], positives)

    def combine(self, parts: Sequence[_Part]) -> Numbers:
        """All numbers in 0..1; NaN where there are no truths to define one.

        "AP50_ilsvrc", "AP50_ilsvrc_slow", "AP50_ilsvrc_medium", "AP50_ilsvrc_fast", and
        "AP50_ilsvrc/<class>" for classes that have truths. Truths without identity are in no group.
        """
        aps = self._aps(parts)
        numbers = _means(aps)
        for name, value in zip(self._classes, aps[:, 0].tolist(), strict=True):
            if not np.isnan(value):
                numbers[f"AP50_ilsvrc/{name}"] = value
        return numbers

    def headline(self, parts: Sequence[_Part]) -> Numbers:
        """The means alone."""
        return _means(self._aps(parts))

    def _supervised(
        self, frame: EvaluatedFrame, groups: np.ndarray, counted: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        """Labels, scores, groups and weights of the detections of one frame that count."""
        limits = _least_iou(frame.target_boxes)
        iou = pairwise_iou(frame.boxes, frame.target_boxes)
        same = frame.labels[:, None] == frame.target_labels
        taken = greedy(np.where(same & counted & (iou >= limits), iou, 0.0))
        result = np.full(len(taken), FALSE, np.int8)
        result[taken >= 0] = groups[taken[taken >= 0]]
        result[(taken < 0) & on_ignored(frame, limits)] = DROPPED
        kept = result != DROPPED
        weights = np.zeros((len(taken), 0), np.float32)
        if self._fgfa_compat:
            weights = _compat_weights(iou[:, counted], groups[counted])
        return frame.labels[kept], frame.scores[kept], result[kept], weights[kept]

    def _aps(self, parts: Sequence[_Part]) -> np.ndarray:
        """(K, 4) AP by class of all truths and of each group; NaN without truths."""
        start = np.zeros((len(self._classes), UNKNOWN + 1), np.int64)
        positives = sum((part.positives for part in parts), start)
        shares = positives.sum(0) / max(positives.sum(), 1)
        aps = np.full((len(self._classes), len(COLUMNS)), np.nan)
        for k in np.flatnonzero(positives.any(1)):
            own = [part.found[k] for part in parts]
            scores, groups, weights = (np.concatenate(field) for field in zip(*own, strict=True))
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


def _least_iou(boxes: np.ndarray) -> np.ndarray:
    """The threshold of each truth, (G, 4) -> (G,)."""
    width, height = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64).T
    relaxed = width * height / ((width + TOLERANCE) * (height + TOLERANCE))
    return np.minimum(LEAST_IOU, relaxed)


def _compat_weights(iou: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(D, G) IoU and (G,) groups of the counted truths -> (D, 3); NaN: the group's global share."""
    if len(groups) == 0:
        return np.full((len(iou), len(GROUPS)), np.nan, np.float32)
    weights = np.empty((len(iou), len(GROUPS)), np.float32)
    for g in range(len(GROUPS)):
        own = groups == g
        within = iou[:, own].max(1, initial=-1.0)
        outside = iou[:, ~own].max(1, initial=-1.0)
        cases = [within > outside, within < outside]
        weights[:, g] = np.select(cases, [1.0, 0.0], np.mean(~own))
    return weights


def _no_rows(fgfa_compat: bool) -> tuple[np.ndarray, ...]:
    """`_judged` of a frame without detections: gives dtypes where there are no frames."""
    weights = np.zeros((0, len(GROUPS) if fgfa_compat else 0), np.float32)
    return np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.int8), weights


def _means(aps: np.ndarray) -> Numbers:
    """Over the classes that have truths."""
    numbers = {}
    for name, column in zip(COLUMNS, aps.T, strict=True):
        defined = column[~np.isnan(column)]
        numbers[f"AP50_ilsvrc{name}"] = float(defined.mean()) if defined.size else float("nan")
    return numbers
