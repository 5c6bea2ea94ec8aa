"""Flicker: temporal instability of the displayed boxes. Needs no ground truth.

The definitions are specific to rnndet. A detector with no output has zero flicker: compare models
at thresholds of equal recall.
"""

import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from rnndet.boxes import pairwise_iou
from rnndet.evaluation.metrics.base import Metric, Numbers
from rnndet.evaluation.records import EvaluatedFrame, EvaluatedVideo

LINK_IOU = 0.5
MAX_GAP = 3  # frames; after a longer gap a new track starts
SHORT_TRACK = 5  # frames; a shorter track is a spurious blink
SAME_PLACE = 0.7  # IoU; two real objects of different classes hardly ever overlap by more
MIN_SIZE = 1e-3  # pixels; keeps the logarithm of an empty box finite


class _Part(NamedTuple):
    """Counts of one video."""

    tracks: int
    short: int  # short tracks
    track_frames: int  # frames from the first to the last box of every track, gaps included
    gaps: int
    pairs: int  # pairs of linked boxes in consecutive frames
    wobble: float  # sum of the score changes over pairs
    links: int  # pairs if boxes are linked regardless of the class
    flips: int  # links at which the class changes
    jitter: np.ndarray  # (J, 3) float32: of the centre, the width, the height


class Flicker(Metric):
    """Stability of the detections with a score of at least `min_score`; lower is better.

    Boxes of consecutive frames are linked one-to-one with maximum total IoU, over pairs of the same
    class with an IoU of at least .5. A track without a box may be continued from its last box after
    a gap of up to 3 frames. Ids of a tracker are not used. All frames count, labelled or not; where
    frames of a video were left out, nothing is linked across.

    - "flicker": gaps per 1000 track-frames; the frames of a gap are track-frames, too.
    - "class_flips": share of links between consecutive frames at which the class changes. For this
      number the class does not matter for linking, and of overlapping boxes of several classes
      (IoU > .7) only the one with the highest score counts.
    - "jitter": |c(t+1) - 2 c(t) + c(t-1)| / sqrt(w h) of the box centre c, the median over all
      frames in which a track has a box there, before and after. It is 0 for a constant velocity.
      "jitter_width", "jitter_height": the same for log w and log h, as absolute values. Medians are
      taken over all videos together.
    - "score_wobble": mean |s(t+1) - s(t)| of linked boxes in consecutive frames.
    - "short_tracks": share of tracks that span fewer than 5 frames.

    All classes are pooled; `classes` is not used.
    """

    needs_labels = False
    columns = ("flicker", "class_flips", "jitter", "score_wobble", "short_tracks")
    units: ClassVar = {"flicker": "per 1000 frames"}

    def __init__(self, classes: Sequence[str], *, min_score: float = 0.3) -> None:
        self._min_score = min_score
        self.rule = f"flicker of boxes with score >= {min_score}, linked at IoU .5, gaps up to 3"

    def measure(self, video: EvaluatedVideo) -> _Part:
        """Link the boxes of all frames, and count."""
        frames = [_displayed(frame, self._min_score) for frame in video.frames]
        holes = holes_before([frame.index for frame in video.frames])
        links, flips = _class_flips(frames, holes)
        labels = [frame.labels for frame in frames]
        by_frame = link_boxes([f.boxes for f in frames], labels, holes, max_gap=MAX_GAP)
        tracks = np.concatenate([np.zeros(0, np.int64), *by_frame])
        times = np.repeat(np.arange(len(frames)), [len(n) for n in by_frame])
        order = np.lexsort((times, tracks))
        boxes = np.concatenate([np.zeros((0, 4), np.float32), *(f.boxes for f in frames)])[order]
        scores = np.concatenate([np.zeros(0, np.float32), *(f.scores for f in frames)])[order]
        tracks, times = tracks[order], times[order]
        same, step = np.diff(tracks) == 0, np.diff(times)  # of each row and the next
        pairs = same & (step == 1)
        first = np.flatnonzero(np.append(True, ~same)[: len(tracks)])
        last = np.append(first[1:] - 1, len(tracks) - 1)[: len(first)]
        spans = times[last] - times[first] + 1
        return _Part(
            tracks=len(spans),
            short=int((spans < SHORT_TRACK).sum()),
            track_frames=int(spans.sum()),
            gaps=int((same & (step > 1)).sum()),
            pairs=int(pairs.sum()),
            wobble=float(np.abs(np.diff(scores.astype(np.float64)))[pairs].sum()),
            links=links,
            flips=flips,
            jitter=_jitter(boxes.astype(np.float64), np.flatnonzero(pairs[:-1] & pairs[1:]) + 1),
        )

    def combine(self, parts: Sequence[_Part]) -> Numbers:
        """The numbers above; NaN where no boxes define one."""
        jitter = np.concatenate([np.zeros((0, 3), np.float32), *(part.jitter for part in parts)])
        medians = np.median(jitter, 0) if len(jitter) else np.full(3, np.nan)

        def ratio(numerator: str, denominator: str) -> float:
            count = sum(getattr(part, denominator) for part in parts)
            return sum(getattr(part, numerator) for part in parts) / count if count else math.nan

        return {
            "flicker": 1000 * ratio("gaps", "track_frames"),
            "class_flips": ratio("flips", "links"),
            "jitter": float(medians[0]),
            "jitter_width": float(medians[1]),
            "jitter_height": float(medians[2]),
            "score_wobble": ratio("wobble", "pairs"),
            "short_tracks": ratio("short", "tracks"),
        }

    def headline(self, parts: Sequence[_Part]) -> Numbers:
        """ "flicker", "class_flips" and "jitter"."""
        numbers = self.combine(parts)
        return {name: numbers[name] for name in ("flicker", "class_flips", "jitter")}


class _Boxes(NamedTuple):
    """The displayed boxes of one frame, by descending score."""

    boxes: np.ndarray  # (D, 4) float32
    scores: np.ndarray  # (D,) float32
    labels: np.ndarray  # (D,) int32


def _displayed(frame: EvaluatedFrame, min_score: float) -> _Boxes:
    keep = frame.scores >= min_score
    return _Boxes(frame.boxes[keep], frame.scores[keep], frame.labels[keep])


def holes_before(indices: Sequence[int]) -> np.ndarray:
    """(T,) bool: whether frames were left out before this one; the smallest step is normal."""
    steps = np.diff(indices)
    return np.append(False, steps > steps.min(initial=np.iinfo(np.int64).max))[: len(indices)]


def link_boxes(
    boxes: Sequence[np.ndarray], groups: Sequence[np.ndarray], holes: np.ndarray, *, max_gap: int
) -> list[np.ndarray]:
    """The track number, from 0, of every box; boxes (D, 4) and groups (D,) by frame.

    Only boxes of the same group are linked, over at most `max_gap` frames without a box, and not
    across holes.
    """
    by_frame: list[np.ndarray] = []
    count = 0
    old_boxes, old_groups = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    old_tracks, last_seen = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for time, (new_boxes, group) in enumerate(zip(boxes, groups, strict=True)):
        if holes[time]:
            old_boxes, old_groups = old_boxes[:0], old_groups[:0]
            old_tracks, last_seen = old_tracks[:0], last_seen[:0]
        iou = pairwise_iou(old_boxes, new_boxes, dtype=np.float64)
        iou *= old_groups[:, None] == group
        rows, columns = linear_sum_assignment(np.where(iou >= LINK_IOU, iou, 0), maximize=True)
        linked = iou[rows, columns] >= LINK_IOU
        rows, columns = rows[linked], columns[linked]
        tracks = np.full(len(new_boxes), -1)
        tracks[columns] = old_tracks[rows]
        is_new = tracks < 0
        tracks[is_new] = np.arange(count, count + is_new.sum())
        count += int(is_new.sum())
        by_frame.append(tracks)
        open_gap = time - last_seen <= max_gap
        open_gap[rows] = False
        old_boxes = np.concatenate([old_boxes[open_gap], new_boxes])
        old_groups = np.concatenate([old_groups[open_gap], group])
        old_tracks = np.concatenate([old_tracks[open_gap], tracks])
        last_seen = np.concatenate([last_seen[open_gap], np.full(len(new_boxes), time)])
    return by_frame


def _class_flips(frames: Sequence[_Boxes], holes: np.ndarray) -> tuple[int, int]:
    """Links between consecutive frames regardless of the class, and those that change it."""
    kept = [_without_covered(frame) for frame in frames]
    one_group = [np.zeros(len(frame.labels)) for frame in kept]
    tracks = link_boxes([frame.boxes for frame in kept], one_group, holes, max_gap=0)
    links = flips = 0
    for i in range(1, len(kept)):
        _, before, now = np.intersect1d(
            tracks[i - 1], tracks[i], assume_unique=True, return_indices=True
        )
        links += len(now)
        flips += int((kept[i - 1].labels[before] != kept[i].labels[now]).sum())
    return links, flips


def _without_covered(frame: _Boxes) -> _Boxes:
    """Without the boxes that overlap a box of another class with a higher score."""
    other = frame.labels[:, None] != frame.labels
    iou = pairwise_iou(frame.boxes, frame.boxes, dtype=np.float64)
    covered = np.triu((iou > SAME_PLACE) & other)
    keep = np.ones(len(frame.labels), bool)
    for row in np.flatnonzero(covered.any(1)):
        if keep[row]:
            keep[covered[row]] = False
    return _Boxes(frame.boxes[keep], frame.scores[keep], frame.labels[keep])


def _jitter(boxes: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """(J, 3) at the rows `middles` (J,) of boxes (S, 4), whose neighbours have the same track."""
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], MIN_SIZE)
    values = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, np.log(size)], 1)  # x y log w h
    second = values[middles + 1] - 2 * values[middles] + values[middles - 1]
    centre = np.hypot(second[:, 0], second[:, 1]) / np.sqrt(size[middles].prod(1))
    return np.column_stack([centre, np.abs(second[:, 2:])]).astype(np.float32)
