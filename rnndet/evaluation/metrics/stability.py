"""Stability of the boxes of each object: fragment, centre, and scale and ratio error.

Zhang and Wang, "On the Stability of Video Detection and Tracking", 2016, arXiv 1611.06467. The
errors decrease with the recall, so they are given at thresholds that a rule chooses for each model,
together with the recall there.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from scipy.optimize import linear_sum_assignment

from rnndet.evaluation.metrics.base import Metric, Numbers
from rnndet.evaluation.metrics.matching import iou_with_targets, is_counted, on_ignored
from rnndet.evaluation.records import EvaluatedFrame, EvaluatedVideo

MIN_IOU = 0.5
# The T score thresholds to choose from; float32 as the scores are. Steps of .02, finer at the ends,
# where a focal loss and a softmax put many scores.
GRID = np.array(
    [0.001, 0.003, 0.01, *np.arange(1, 50) * 0.02, 0.99, 0.995, 0.998], np.float32
)  # (T,) ascending
ERRORS = ("fragment", "centre", "scale_ratio")
COUNTS = ("positives", "hits", "false", "tracks", "detected_tracks")

_Sums = dict[str, np.ndarray]  # each name of COUNTS and ERRORS: (T,) float64; videos add up


class Stability(Metric):
    """Means over tracks (an identity in a video) at a threshold that depends on all videos.

    - classes: as for every metric; only the labels are used.
    - recalls: the recalls, in 0..1, at which models are compared.

    For every threshold the targets of a frame are matched one-to-one to detections of their class
    with maximum total IoU, over pairs with an IoU of at least .5. With the boxes that a track of t
    frames is matched to,

    - fragment: changes between matched and missed from frame to frame, / (t - 1); 0 for t = 1.
    - centre: std of (x - x_target) / w_target + std of (y - y_target) / h_target, of the centres.
    - scale_ratio: std of sqrt(w h / (w h of the target)) + std of (w / h) / (w / h of the target).
    - stability: their sum, the paper's Phi. 0 is perfectly stable.

    Targets without identity count for recall only. A track that is never matched has no errors: it
    is in no mean and counts in "stability_never_found" (the paper's formula rewards it with a
    fragment error of 0). Ignored targets belong to no track, and detections on them are no false
    positives.
    """

    columns = ("fragment", "centre", "scale_ratio", "stability", "stability_recall",
               "stability@R50")  # fmt: skip
    units: ClassVar = {"stability_tracks": "tracks", "stability_never_found": "tracks"}
    rule = "stability at IoU .5, at the threshold of the best F1, and at equal recall (@R)"

    def __init__(self, classes: Sequence[str], *, recalls: Sequence[float] = (0.5,)) -> None:
        assert all(0 < recall <= 1 for recall in recalls), recalls
        self._recalls = {f"@R{100 * recall:g}": recall for recall in recalls}

    def measure(self, video: EvaluatedVideo) -> _Sums:
        """Sums over the tracks of the video, and counts, at every threshold of GRID."""
        frames = video.labelled().frames
        if not frames:
            return _nothing()
        pairs = [(frame, is_counted(frame)) for frame in frames]
        targets = np.concatenate(
            [frame.target_boxes[counted] for frame, counted in pairs]
        )  # (N, 4)
        ids = np.concatenate([frame.target_ids[counted] for frame, counted in pairs])
        matched = _stacked_matches(pairs)  # (T, N)
        scores = np.concatenate([frame.scores for frame in frames])
        free = np.concatenate([~on_ignored(frame, MIN_IOU) for frame in frames])
        kept = free.sum() - np.searchsorted(np.sort(scores[free]), GRID)  # (T,)
        used = np.append(free, False)[matched].sum(1)  # the appended entry is that of match -1

        known = np.flatnonzero(ids >= 0)
        names, track = np.unique(ids[known], return_inverse=True)
        order = np.argsort(track, kind="stable")
        known, track = known[order], track[order]
        boxes = np.concatenate([frame.boxes for frame in frames])
        rows = [_track_sums(track, row, targets[known], boxes) for row in matched[:, known]]
        sums = dict(zip(("detected_tracks", *ERRORS), np.array(rows).T, strict=True))
        sums["positives"] = np.full(len(GRID), float(len(ids)))
        sums["tracks"] = np.full(len(GRID), float(len(names)))
        sums["hits"] = (matched >= 0).sum(1).astype(np.float64)
        sums["false"] = (kept - used).astype(np.float64)
        return sums

    def combine(self, parts: Sequence[_Sums]) -> Numbers:
        """All numbers; NaN where no targets, or no matched targets, define one.

        At the threshold of GRID with the highest F1 of all classes pooled (the highest threshold if
        several are equal): the errors, "stability", "stability_recall", "stability_threshold" and
        "stability_never_found" (tracks). The same names with "@R50" at the highest threshold with a
        recall of at least .5; NaN if there is none. And "stability_tracks".
        """
        total = {name: sum((part[name] for part in parts), z) for name, z in _nothing().items()}
        positives, hits = total["positives"], total["hits"]
        labelled = positives > 0
        f1 = 2 * hits / np.maximum(hits + total["false"] + positives, 1)
        numbers = _at(total, labelled & (f1 == f1.max()))
        numbers["stability_tracks"] = float(total["tracks"][0])
        for suffix, recall in self._recalls.items():
            at_recall = _at(total, labelled & (hits >= recall * positives))
            numbers |= {name + suffix: value for name, value in at_recall.items()}
        return numbers

    def headline(self, parts: Sequence[_Sums]) -> Numbers:
        """The errors, their sum and the recall at the best F1, and the sum at each recall."""
        numbers = self.combine(parts)
        names = [*ERRORS, "stability", "stability_recall"]
        names += [f"stability{suffix}" for suffix in self._recalls]
        return {name: numbers[name] for name in names}


def _nothing() -> _Sums:
    return {name: np.zeros(len(GRID)) for name in (*COUNTS, *ERRORS)}


def _at(total: _Sums, allowed: np.ndarray) -> Numbers:
    """The numbers at the highest threshold that is allowed, (T,) bool; NaN if there is none."""
    keys = (*ERRORS, "stability", "stability_recall", "stability_threshold")
    keys += ("stability_never_found",)
    if not allowed.any():
        return dict.fromkeys(keys, float("nan"))
    place = np.flatnonzero(allowed)[-1]
    row = {name: float(values[place]) for name, values in total.items()}
    errors = [
        row[name] / row["detected_tracks"] if row["detected_tracks"] else float("nan")
        for name in ERRORS
    ]
    threshold = round(float(GRID[place]), 3) if row["hits"] else float("nan")
    recall = row["hits"] / row["positives"]
    values = (*errors, sum(errors), recall, threshold, row["tracks"] - row["detected_tracks"])
    return dict(zip(keys, values, strict=True))


def _stacked_matches(pairs: Sequence[tuple[EvaluatedFrame, np.ndarray]]) -> np.ndarray:
    """(T, N): the row of each counted target's match among all frames' detections; -1: none."""
    first, columns = 0, []
    for frame, counted in pairs:
        matches = _matches(frame, counted)
        columns.append(np.where(matches < 0, -1, matches + first).astype(np.int32))
        first += len(frame.scores)
    return np.concatenate(columns, 1)


def _matches(frame: EvaluatedFrame, counted: np.ndarray) -> np.ndarray:
    """(T, G): the detection that each counted target is matched to; -1: none."""
    iou = iou_with_targets(frame, counted)
    same = frame.labels[:, None] == frame.target_labels[counted]
    iou = np.where(same & (iou >= MIN_IOU), iou, 0.0)
    candidates = np.flatnonzero(iou.any(1))  # detections that can match, by descending score
    iou = iou[candidates]
    kept = np.searchsorted(-frame.scores[candidates], -GRID, side="right")  # (T,) candidates
    matches = _best_so_far(iou)[kept]  # (T, G)
    contested = iou[(iou > 0).sum(1) > 1].any(0)
    if contested.any():
        _assign(matches, iou, kept, contested)
    return np.append(candidates, -1)[matches]  # match -1 reads the appended -1


def _best_so_far(iou: np.ndarray) -> np.ndarray:
    """(D, G) -> (D + 1, G): for each target the best of the first 0..D detections; -1: none."""
    padded = np.concatenate([np.zeros((1, iou.shape[1])), iou])
    best = np.maximum.accumulate(padded, 0)
    better = np.zeros(padded.shape, bool)
    better[1:] = padded[1:] > best[:-1]
    rows = np.where(better, np.arange(-1, len(iou))[:, None], -1)
    return np.maximum.accumulate(rows, 0)


def _assign(matches: np.ndarray, iou: np.ndarray, kept: np.ndarray, contested: np.ndarray) -> None:
    """Correct `matches` (T, G) where one detection may match several targets.

    Those targets are assigned jointly; the detections of all other targets match nothing else.
    """
    columns = np.flatnonzero(contested)
    for count in np.unique(kept[kept > 0]):
        value = iou[:count, columns]
        detection, target = linear_sum_assignment(value, maximize=True)
        valid = value[detection, target] > 0
        assigned = np.full(len(columns), -1)
        assigned[target[valid]] = detection[valid]
        matches[np.ix_(kept == count, columns)] = assigned


def _track_sums(
    track: np.ndarray, match: np.ndarray, targets: np.ndarray, boxes: np.ndarray
) -> tuple[float, float, float, float]:
    """The number of tracks with a match, and the sums of their errors, in the order of ERRORS.

    track (N,) number of each target's track, ascending, and in temporal order within a track;
    match (N,) row of `boxes` (D, 4), -1 for none; targets (N, 4).
    """
    is_matched = match >= 0
    matched_track = track[is_matched]
    length = np.bincount(track)  # (K,)
    count = np.bincount(matched_track, minlength=len(length))
    changed = (is_matched[1:] != is_matched[:-1]) & (track[1:] == track[:-1])
    changes = np.bincount(track[1:][changed], minlength=len(length))
    fragment = changes / np.maximum(length - 1, 1)

    xy, wh = _centres_and_sizes(boxes[match[is_matched]])
    true_xy, true_wh = _centres_and_sizes(targets[is_matched])
    offset, ratio = (xy - true_xy) / true_wh, wh / true_wh
    x, y = (_stds(values, matched_track, count) for values in offset.T)
    size = _stds(np.sqrt(ratio.prod(1)), matched_track, count)
    shape = _stds(ratio[:, 0] / ratio[:, 1], matched_track, count)
    errors = (fragment[count > 0], x + y, size + shape)
    return (float((count > 0).sum()), *(float(error.sum()) for error in errors))


def _centres_and_sizes(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 4) -> (N, 2) centres and (N, 2) sizes, float64."""
    low, high = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    return (low + high) / 2, high - low


def _stds(values: np.ndarray, track: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Population standard deviation by track; 0 for a track without values.

    values (N,), track (N,) of each value, count (K,) values of each track -> (K,)
    """
    count = np.maximum(count, 1)
    mean = np.bincount(track, values, len(count)) / count
    return np.sqrt(np.bincount(track, (values - mean[track]) ** 2, len(count)) / count)
