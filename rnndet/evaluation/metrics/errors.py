"""Kinds of error: whether objects are found, whether found ones are named, and what costs AP50.

The split of what is lost follows Bolya et al., "TIDE: A General Toolbox for Identifying Object
Detection Errors", ECCV 2020, arXiv 2008.08115, and its package tidecv 1.0.1.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from rnndet.boxes import pairwise_share
from rnndet.evaluation.metrics.base import Metric, Numbers
from rnndet.evaluation.metrics.coco_ap import RECALLS, best_f1, precision_at_recalls
from rnndet.evaluation.metrics.matching import greedy, iou_with_targets, is_counted
from rnndet.evaluation.records import EvaluatedFrame, EvaluatedVideo

FOUND_IOU = 0.3  # a box this near says where the object is, though not its size
FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1  # those of TIDE
FREE, IGNORED = -1, -2  # a detection without a target: false positive, or on an ignored target

# Kinds of detections: a hit, or one of TIDE's errors of false positives.
HIT, CLS, LOC, BOTH, DUPE, BKG = range(6)
FALSE_POSITIVES = {"cls": CLS, "loc": LOC, "both": BOTH, "dupe": DUPE, "bkg": BKG}


class _Detections(NamedTuple):
    """Detections of all frames, without those on ignored targets, for an AP."""

    scores: np.ndarray  # (D,) float32
    labels: np.ndarray  # (D,) int64; 0 where classes are ignored
    hits: np.ndarray  # (D,) bool


class _Named(NamedTuple):
    """Found targets, by descending score in each frame."""

    scores: np.ndarray  # (F,) float32, of the detection
    right: np.ndarray  # (F,) bool, the detection has the class of the target
    tracks: np.ndarray  # (F,) int64, of the target; -1 = unknown


class _Kinds(NamedTuple):
    """Detections by kind of error at IoU .5, without those on ignored targets."""

    scores: np.ndarray  # (D,) float32
    labels: np.ndarray  # (D,) int64
    kinds: np.ndarray  # (D,) int8
    repaired: np.ndarray  # (D,) int64, class of the hit that an oracle makes of it; -1: removed


class _Part(NamedTuple):
    """The contribution of one video, or of one frame."""

    named_ap: _Detections  # at IoU .3
    found: _Detections  # classes ignored, IoU .3
    found50: _Detections  # classes ignored, IoU .5
    named: _Named
    kinds: _Kinds
    positives: np.ndarray  # (K,) int64, targets by class
    missed: np.ndarray  # (K,) int64, targets that no hit and no CLS or LOC error lies on


class Errors(Metric):
    """What is found, what is named, and what each kind of error costs.

    - classes: names by label. A class without targets is in no mean.
    - max_detections: detections with the highest scores that count, per class and frame; per frame
      where classes are ignored.

    AP is COCO's: greedy matching by score, 101 points, mean over classes.

    - "AP30": AP at IoU .3. "found", "found50": AP at IoU .3 and .5 with classes ignored. Another
      class name for an object is no second object: an unmatched detection that reaches the IoU
      with targets that only detections of other classes match does not count. (pycocotools with
      useCats = 0 takes it for a false positive.)
    - "named": of the targets found at IoU .3, matched one-to-one with classes ignored, by
      detections at the score threshold of the best F1 of this matching ("found_threshold"): the
      share whose detection has the right class.
    - "named_tracks": the share of tracks for which detections of the right class have more than
      half of the sum of scores over the frames where the track is found. Tracks never found and
      targets of unknown id do not count.
    - "dAP_...": how far AP50 would rise if one kind of error were corrected. Each false positive
      has the first kind that applies: "loc", highest IoU with a target of its class in [.1, .5);
      "cls", IoU >= .5 with a target of another class; "dupe", IoU >= .5 with a target of its class
      that another detection matches; "bkg", no IoU above .1; "both", the rest. A loc or cls error
      on an unmatched target becomes a hit if it has the highest score of such errors on it; all
      other false positives of the kind are removed. "miss": targets without a match and without
      such an error are removed. "FP": all false positives are removed. "FN": all targets without a
      match are removed. The parts do not add up to the loss, since precision is interpolated.

    Differences from tidecv, which this follows otherwise: `max_detections` per class and frame
    (COCO; tidecv: per frame). A class without targets but with detections is in no mean (COCO;
    tidecv: AP 0). A class whose targets "miss" or "FN" removes completely has AP 1 (tidecv: AP 0
    if it has detections, else in no mean). A detection on an ignored target is no error (tidecv:
    an oracle may make a hit of it). An IoU of exactly .5 with a matched target is a duplicate
    (tidecv: loc). tidecv does not limit the rise for FP and FN to 0 or more. Its recalls k / 100
    are rounded otherwise than those of COCO, numpy's linspace, so that a recall of exactly k / 100
    may reach one step less or more (on random data up to .1 points of 100).

    An ignored target is a COCO crowd, as in coco_ap: a detection that matches no target and has at
    least the share .3 or .5 (the threshold) of its area inside one of its class, or of no class
    (label -1), does not count. Where classes are ignored, the class of ignored targets is, too.

    >>> import math
    >>> math.isnan(Errors(("car",)).combine([])["found"])
    True
    """

    columns = ("AP30", "found", "found50", "named", "named_tracks", "dAP_cls", "dAP_loc",
               "dAP_both", "dAP_dupe", "dAP_bkg", "dAP_miss", "dAP_FP", "dAP_FN")  # fmt: skip
    works_on_single_frames = True

    def __init__(self, classes: Sequence[str], *, max_detections: int = 100) -> None:
        self._classes = tuple(classes)
        self._max_detections = max_detections
        self.rule = (
            f"COCO's AP at IoU .3 and .5, {max_detections} detections a class, a frame where "
            "classes are ignored; named: at the best F1 of found; dAP: AP50, TIDE, IoU .1 and .5"
        )

    def measure(self, video: EvaluatedVideo) -> _Part:
        """Greedy matching of every labelled frame."""
        return self._joined(self._frame(frame) for frame in video.labelled().frames)

    def combine(self, parts: Sequence[_Part]) -> Numbers:
        """All numbers, in 0..1; NaN where there are no targets to define one.

        The names in `columns`, and "found_threshold".
        """
        part = self._joined(_with_own_tracks(parts))
        every = part.positives.sum(keepdims=True)
        best = best_f1(part.found.scores, part.found.hits, int(every[0]))
        return {
            "AP30": _ap(*part.named_ap, part.positives),
            "found": _ap(*part.found, every),
            "found50": _ap(*part.found50, every),
            **_named(part.named, best["threshold"]),
            **_losses(part),
            "found_threshold": best["threshold"],
        }

    def headline(self, parts: Sequence[_Part]) -> Numbers:
        """The names in `columns`."""
        numbers = self.combine(parts)
        return {name: numbers[name] for name in self.columns}

    def _frame(self, frame: EvaluatedFrame) -> _Part:
        iou, counted = iou_with_targets(frame), is_counted(frame)
        labels = frame.labels.astype(np.int64)
        in_class, in_frame = self._first_in_class(labels), np.arange(len(labels))
        same = labels[:, None] == frame.target_labels
        named_ap = _match(frame, iou, same, FOUND_IOU, in_class)
        strict = _match(frame, iou, same, FOREGROUND_IOU, in_class)
        in_frame = in_frame[: self._max_detections]
        found = _match_any(frame, iou, FOUND_IOU, in_frame)
        found50 = _match_any(frame, iou, FOREGROUND_IOU, in_frame)
        rows = np.flatnonzero(found >= 0)
        targets = found[rows]
        kinds, missed = _kinds(frame, iou, strict)
        count = len(self._classes)
        return _Part(
            _detections(frame.scores, labels, named_ap),
            _detections(frame.scores, np.zeros_like(labels), found),
            _detections(frame.scores, np.zeros_like(labels), found50),
            _Named(frame.scores[rows], same[rows, targets], frame.target_ids[targets]),
            kinds,
            np.bincount(frame.target_labels[counted], minlength=count),
            np.bincount(frame.target_labels[missed], minlength=count),
        )

    def _first_in_class(self, labels: np.ndarray) -> np.ndarray:
        """Positions of the first `max_detections` of each class, ascending."""
        if len(labels) <= self._max_detections:
            return np.arange(len(labels))
        firsts = [np.flatnonzero(labels == k)[: self._max_detections] for k in np.unique(labels)]
        return np.sort(np.concatenate(firsts))

    def _joined(self, parts: Iterable[_Part]) -> _Part:
        """Several parts as one."""
        columns = list(zip(_nothing(len(self._classes)), *parts, strict=True))
        *rows, positives, missed = columns
        joined = (
            type(column[0])(*(np.concatenate(field) for field in zip(*column, strict=True)))
            for column in rows
        )
        return _Part(*joined, np.sum(positives, 0), np.sum(missed, 0))


def _match(
    frame: EvaluatedFrame, iou: np.ndarray, same: np.ndarray, limit: float, keep: np.ndarray
) -> np.ndarray:
    """The target of each detection, (D,) int64; FREE, or IGNORED: does not count.

    iou (D, G); same (D, G) bool, the pairs that may match; keep: positions of the detections that
    count.
    """
    result = np.full(len(iou), IGNORED)
    counted = is_counted(frame)
    may = same[keep] & counted & (iou[keep] >= limit)
    result[keep] = greedy(np.where(may, iou[keep], 0.0))
    if not counted.all():
        inside = pairwise_share(frame.boxes, frame.target_boxes[~counted], dtype=np.float64)
        applies = same[:, ~counted] | (frame.target_labels[~counted] < 0)
        result[(result == FREE) & (applies & (inside >= limit)).any(1)] = IGNORED
    return result


def _match_any(
    frame: EvaluatedFrame, iou: np.ndarray, limit: float, keep: np.ndarray
) -> np.ndarray:
    """`_match` with classes ignored; IGNORED also for further class names of a matched target."""
    result = _match(frame, iou, np.ones(iou.shape, bool), limit, keep)
    rows = np.flatnonzero(result >= 0)
    near = iou[:, result[rows]] >= limit
    same = frame.labels[:, None] == frame.labels[rows]
    renamed = near.any(1) & ~(near & same).any(1)
    result[(result == FREE) & renamed] = IGNORED
    return result


def _detections(scores: np.ndarray, labels: np.ndarray, matched: np.ndarray) -> _Detections:
    kept = matched != IGNORED
    return _Detections(scores[kept], labels[kept], matched[kept] >= 0)


def _kinds(
    frame: EvaluatedFrame, iou: np.ndarray, matched: np.ndarray
) -> tuple[_Kinds, np.ndarray]:
    """The kinds of the detections of a frame, matched at IoU .5; positions of missed targets."""
    rows, targets = np.flatnonzero(matched != IGNORED), np.flatnonzero(is_counted(frame))
    matched, labels = matched[rows], frame.labels[rows].astype(np.int64)
    # A last column of zeros, so that a maximum exists without targets.
    iou = np.pad(iou[np.ix_(rows, targets)], ((0, 0), (0, 1)))
    same = labels[:, None] == np.append(frame.target_labels[targets], -1)
    own, other = np.where(same, iou, 0.0), np.where(same, 0.0, iou)
    best = own.max(1)
    cases = [
        matched >= 0,
        (best >= BACKGROUND_IOU) & (best < FOREGROUND_IOU),
        other.max(1) >= FOREGROUND_IOU,
        best >= FOREGROUND_IOU,
        iou.max(1) <= BACKGROUND_IOU,
    ]
    kinds = np.select(cases, [HIT, LOC, CLS, DUPE, BKG], BOTH).astype(np.int8)

    is_free = ~np.isin(targets, matched)
    meant = np.where(kinds == LOC, own.argmax(1), other.argmax(1))
    repairable = np.flatnonzero(np.isin(kinds, (LOC, CLS)) & np.append(is_free, False)[meant])
    # Rows are by descending score: the first on each target has the highest.
    on_target, first = np.unique(meant[repairable], return_index=True)
    repaired = np.full(len(rows), -1)
    repaired[repairable[first]] = frame.target_labels[targets[on_target]]
    is_free[on_target] = False
    return _Kinds(frame.scores[rows], labels, kinds, repaired), targets[is_free]


def _nothing(classes: int) -> _Part:
    """The part of no frames: gives the dtypes."""
    scores, labels, hits = np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
    detections = _Detections(scores, labels, hits)
    kinds = _Kinds(scores, labels, np.zeros(0, np.int8), labels)
    none = np.zeros(classes, np.int64)
    return _Part(
        detections, detections, detections, _Named(scores, hits, labels), kinds, none, none
    )


def _with_own_tracks(parts: Sequence[_Part]) -> Iterable[_Part]:
    """The parts with tracks numbered on from part to part, since ids are unique in a video only."""
    start = 0
    for part in parts:
        ids, tracks = np.unique(part.named.tracks, return_inverse=True)
        tracks = np.where(part.named.tracks < 0, -1, tracks + start)
        start += len(ids)
        yield part._replace(named=part.named._replace(tracks=tracks))


def _named(found: _Named, threshold: float) -> Numbers:
    """ "named" and "named_tracks" of the targets found with a score of at least `threshold`."""
    kept = found.scores >= threshold  # of none if it is NaN
    scores, right, tracks = (field[kept] for field in found)
    known = tracks >= 0
    _, number = np.unique(tracks[known], return_inverse=True)
    whole = np.bincount(number, scores[known])
    share = np.bincount(number, scores[known] * right[known]) / whole
    return {
        "named": float(right.mean()) if len(right) else float("nan"),
        "named_tracks": float((share > 0.5).mean()) if len(share) else float("nan"),
    }


def _losses(part: _Part) -> Numbers:
    """The rise of AP50 by each oracle."""
    order = np.argsort(-part.kinds.scores, kind="stable")  # once, for all oracles
    scores, labels, kinds, repaired = (field[order] for field in part.kinds)
    hits, positives = kinds == HIT, part.positives
    before = _ap(scores, labels, hits, positives)
    after = {}
    for name, kind in FALSE_POSITIVES.items():
        repair = (kinds == kind) & (repaired >= 0)
        kept = (kinds != kind) | repair
        new = np.where(repair, repaired, labels)
        after[name] = _ap(scores[kept], new[kept], (hits | repair)[kept], positives)
    after["miss"] = _ap(scores, labels, hits, positives, removed=part.missed)
    after["FP"] = _ap(scores[hits], labels[hits], hits[hits], positives)
    found = np.bincount(labels[hits], minlength=len(positives))
    after["FN"] = _ap(scores, labels, hits, positives, removed=positives - found)
    # Interpolation at 101 recalls may turn a gain into a tiny loss; np.maximum keeps NaN.
    return {f"dAP_{name}": float(np.maximum(value - before, 0.0)) for name, value in after.items()}


def _ap(
    scores: np.ndarray,
    labels: np.ndarray,
    hits: np.ndarray,
    positives: np.ndarray,
    removed: np.ndarray | None = None,
) -> float:
    """COCO's AP, mean over the classes with positives; NaN without any.

    removed (K,): positives that an oracle removes; a class of which nothing is left has AP 1.
    """
    order = np.argsort(-scores, kind="stable")
    labels, hits = labels[order], hits[order]
    left = positives if removed is None else positives - removed
    aps = [
        precision_at_recalls(hits[labels == k], left[k]).sum() / len(RECALLS) if left[k] else 1.0
        for k in np.flatnonzero(positives)
    ]
    return float(np.mean(aps)) if aps else float("nan")
