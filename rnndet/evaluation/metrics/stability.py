"""How steady the boxes of each object are: fragment, centre, and scale and ratio error.

Zhang and Wang, "On the Stability of Video Detection and Tracking", 2016, arXiv 1611.06467. The
errors fall when a model finds less, so they are given where a rule puts each model's threshold, and
with the recall there.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from rnndet.evaluation.metrics.base import Numbers
from rnndet.evaluation.metrics.overlap import is_counted, on_ignored, pairwise_iou
from rnndet.evaluation.metrics.record import EvaluatedFrame, EvaluatedVideo

LEAST_IOU = 0.5
# T score thresholds that are tried; float32 as the scores are. Steps of .02, and finer at the ends,
# where a focal loss and a softmax put many scores.
GRID = np.array(
    [0.001, 0.003, 0.01, *np.arange(1, 50) * 0.02, 0.99, 0.995, 0.998], np.float32
)  # (T,) ascending
ERRORS = ("fragment", "centre", "scale_ratio")
COUNTS = ("positives", "hits", "false", "tracks", "found")

_Sums = dict[str, np.ndarray]  # each name of COUNTS and ERRORS: (T,) float64, sums that just add up


class Stability:
    """Means over tracks (an identity in a video) at a threshold that depends on all videos.

    - classes: as every metric takes them; the labels alone are looked at.
    - recalls: the recalls in 0..1 at which models are compared.

    For every threshold the truths of a frame are matched to the detections of their class one to
    one, so that the total IoU is highest, over pairs of at least .5. With the boxes that a track of
    t frames is matched to,

    - fragment: changes between found and not found from frame to frame, / (t - 1); 0 for t = 1.
    - centre: std of (x - x_truth) / w_truth + std of (y - y_truth) / h_truth, of the centres.
    - scale_ratio: std of sqrt(w h / (w h of the truth)) + std of (w / h) / (w / h of the truth).
    - stability: their sum, the paper's Phi. 0 is steady.

    Truths without identity count for recall alone. A track that is never found has no errors: it is
    in no mean but in "stability_never_found" (the paper's formula gives it a fragment error of 0,
    a reward). Ignored truths are no part of a track, and detections on them no false alarms.
    """

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
        targets = np.concatenate([frame.target_boxes[own] for frame, own in pairs])  # (N, 4)
        ids = np.concatenate([frame.target_ids[own] for frame, own in pairs])
        found = _stacked_matches(pairs)  # (T, N)
        scores = np.concatenate([frame.scores for frame in frames])
        free = np.concatenate([~on_ignored(frame, LEAST_IOU) for frame in frames])
        kept = free.sum() - np.searchsorted(np.sort(scores[free]), GRID)  # (T,)
        used = np.append(free, False)[found].sum(1)  # the appended entry stands for found = -1

        known = np.flatnonzero(ids >= 0)
        names, track = np.unique(ids[known], return_inverse=True)
        order = np.argsort(track, kind="stable")
        known, track = known[order], track[order]
        boxes = np.concatenate([frame.boxes for frame in frames])
        rows = [_track_sums(track, row, targets[known], boxes) for row in found[:, known]]
        sums = dict(zip(("found", *ERRORS), np.array(rows).T, strict=True))
        sums["positives"] = np.full(len(GRID), float(len(ids)))
        sums["tracks"] = np.full(len(GRID), float(len(names)))
        sums["hits"] = (found >= 0).sum(1).astype(np.float64)
        sums["false"] = (kept - used).astype(np.float64)
        return sums

    def combine(self, parts: Sequence[_Sums]) -> Numbers:
        """All numbers; NaN where there are no truths to define one, or none was found.

        At the threshold of GRID with the highest F1 of all classes pooled (of equal ones the
        highest): the errors, "stability", "stability_recall", "stability_threshold" and
        "stability_never_found" (tracks); and "stability_tracks". The same but the last with "@R50"
        at the highest threshold whose recall is at least .5; NaN if none has.
        """
        total = {name: sum((part[name] for part in parts), z) for name, z in _nothing().items()}
        positives, hits = total["positives"], total["hits"]
        labelled = positives > 0
        f1 = 2 * hits / np.maximum(hits + total["false"] + positives, 1)
        numbers = _at(total, labelled & (f1 == f1.max()))
        numbers["stability_tracks"] = float(total["tracks"][0])
        for suffix, recall in self._recalls.items():
            own = _at(total, labelled & (hits >= recall * positives))
            numbers |= {name + suffix: value for name, value in own.items()}
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
    """The numbers at the highest threshold that is allowed, (T,) bool; NaN if none is."""
    keys = (*ERRORS, "stability", "stability_recall", "stability_threshold")
    keys += ("stability_never_found",)
    if not allowed.any():
        return dict.fromkeys(keys, float("nan"))
    place = np.flatnonzero(allowed)[-1]
    row = {name: float(values[place]) for name, values in total.items()}
    errors = [row[name] / row["found"] if row["found"] else float("nan") for name in ERRORS]
    threshold = round(float(GRID[place]), 3) if row["hits"] else float("nan")
    recall = row["hits"] / row["positives"]
    values = (*errors, sum(errors), recall, threshold, row["tracks"] - row["found"])
    return dict(zip(keys, values, strict=True))


def _stacked_matches(pairs: Sequence[tuple[EvaluatedFrame, np.ndarray]]) -> np.ndarray:
    """(T, N): for every counted truth the place among the detections of all frames; -1: none."""
    first, columns = 0, []
    for frame, own in pairs:
        matches = _matches(frame, own)
        columns.append(np.where(matches < 0, -1, matches + first).astype(np.int32))
        first += len(frame.scores)
    return np.concatenate(columns, 1)


def _matches(frame: EvaluatedFrame, counted: np.ndarray) -> np.ndarray:
    """(T, G): the detection that each counted truth is matched to; -1: none."""
    iou = pairwise_iou(frame.boxes, frame.target_boxes[counted])
    same = frame.labels[:, None] == frame.target_labels[counted]
    iou = np.where(same & (iou >= LEAST_IOU), iou, 0.0)
    able = np.flatnonzero(iou.any(1))  # best first
    iou = iou[able]
    kept = np.searchsorted(-frame.scores[able], -GRID, side="right")  # (T,) of the able ones
    places = _best_so_far(iou)[kept]  # (T, G)
    contested = iou[(iou > 0).sum(1) > 1].any(0)
    if contested.any():
        _assign(places, iou, kept, contested)
    return np.append(able, -1)[places]  # place -1 reads the appended -1


def _best_so_far(iou: np.ndarray) -> np.ndarray:
    """(D, G) -> (D + 1, G): for each truth the best of the first 0..D detections; -1: none."""
    padded = np.concatenate([np.zeros((1, iou.shape[1])), iou])
    best = np.maximum.accumulate(padded, 0)
    better = np.zeros(padded.shape, bool)
    better[1:] = padded[1:] > best[:-1]
    places = np.where(better, np.arange(-1, len(iou))[:, None], -1)
    return np.maximum.accumulate(places, 0)


def _assign(places: np.ndarray, iou: np.ndarray, kept: np.ndarray, contested: np.ndarray) -> None:
    """Correct `places` (T, G) where one detection may match several truths.

    Those truths are assigned together; the detections of the others can match nothing else.
    """
    columns = np.flatnonzero(contested)
    for count in np.unique(kept[kept > 0]):
        value = iou[:count, columns]
        found, target = linear_sum_assignment(value, maximize=True)
        real = value[found, target] > 0
        chosen = np.full(len(columns), -1)
        chosen[target[real]] = found[real]
        places[np.ix_(kept == count, columns)] = chosen


def _track_sums(
    track: np.ndarray, found: np.ndarray, targets: np.ndarray, boxes: np.ndarray
) -> tuple[float, float, float, float]:
    """The number of tracks that are found, and the sums of their errors, in the order of ERRORS.

    track (N,) number of each truth's track, ascending and in temporal order within a track;
    found (N,) row of `boxes` (D, 4), -1 for none; truths (N, 4).
    """
    seen = found >= 0
    own = track[seen]
    length = np.bincount(track)  # (K,)
    count = np.bincount(own, minlength=len(length))
    changed = (seen[1:] != seen[:-1]) & (track[1:] == track[:-1])
    changes = np.bincount(track[1:][changed], minlength=len(length))
    fragment = changes / np.maximum(length - 1, 1)

    xy, wh = _centres_and_sizes(boxes[found[seen]])
    true_xy, true_wh = _centres_and_sizes(targets[seen])
    offset, ratio = (xy - true_xy) / true_wh, wh / true_wh
    x, y = (_stds(values, own, count) for values in offset.T)
    size = _stds(np.sqrt(ratio.prod(1)), own, count)
    shape = _stds(ratio[:, 0] / ratio[:, 1], own, count)
    errors = (fragment[count > 0], x + y, size + shape)
    return (float((count > 0).sum()), *(float(error.sum()) for error in errors))


def _centres_and_sizes(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 4) -> (N, 2) centres and (N, 2) sizes, float64."""
    low, high = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    return (low + high) / 2, high - low


def _stds(values: np.ndarray, own: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Standard deviation (of all values, not of a sample) by track; 0 for one without values.

    values (N,), own (N,) track of each, count (K,) values of each track -> (K,)
    """
    count = np.maximum(count, 1)
    mean = np.bincount(own, values, len(count)) / count
    return np.sqrt(np.bincount(own, (values - mean[own]) ** 2, len(count)) / count)
