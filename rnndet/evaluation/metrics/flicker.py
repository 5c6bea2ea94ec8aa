"""Flicker: how restless the boxes are that a viewer sees. Needs no truth.

The definitions are this project's own. Any detector that shows nothing is perfectly calm: compare
models at thresholds of equal recall.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from rnndet.evaluation.metrics.base import Numbers
from rnndet.evaluation.metrics.overlap import pairwise_iou
from rnndet.evaluation.metrics.record import EvaluatedFrame, EvaluatedVideo

LINK_IOU = 0.5
LONGEST_GAP = 3  # frames; an object that is away for longer is another one
SHORT_TRACK = 5  # frames; a shorter track is a blink
SAME_PLACE = 0.7  # IoU; two real objects of different classes hardly ever overlap by more
LEAST_SIZE = 1e-3  # pixels; keeps the logarithm of an empty box finite


class _Part(NamedTuple):
    """Counts of one video."""

    tracks: int
    short: int  # of them
    track_frames: int  # from first to last of every track, gaps included
    gaps: int
    pairs: int  # linked boxes in consecutive frames
    wobble: float  # sum over pairs of the change of score
    links: int  # the same, whatever the classes
    flips: int  # of them, those that change their class
    jitter: np.ndarray  # (J, 3) float32: of the centre, the width, the height


class Flicker:
    """Steadiness of the detections with a score of at least `min_score`; lower is calmer.

    Boxes of consecutive frames are linked one-to-one where their IoU is at least .5 and their class
    is the same, so that the total IoU is highest. A track that finds no box may go on with its last
    one after a gap of up to 3 frames. Ids of a tracker are not looked at. All frames count,
    labelled or not; where frames of a video were left out, nothing is linked across.

    - "flicker": gaps per 1000 track-frames; the frames of a gap are track-frames, too.
    - "class_flips": share of links between consecutive frames at which the class changes. Here the
      class does not matter for linking, and of boxes of several classes in one place (IoU > .7)
      only the best counts.
    - "jitter": |c(t+1) - 2 c(t) + c(t-1)| / sqrt(w h) of the box centre c, the median over all
      places where a track has a box in three consecutive frames. A constant velocity has none.
      "jitter_width", "jitter_height": the same of log w and log h, as absolute values. Medians are
      taken over the places of all videos together.
    - "score_wobble": mean |s(t+1) - s(t)| of linked boxes in consecutive frames.
    - "short_tracks": share of tracks that span fewer than 5 frames.

    All classes are pooled; `classes` is not needed.
    """

    def __init__(self, classes: Sequence[str], *, min_score: float = 0.3) -> None:
        self._min_score = min_score
        self.rule = f"flicker of boxes with score >= {min_score}, linked at IoU .5, gaps up to 3"

    def measure(self, video: EvaluatedVideo) -> _Part:
        frames = [_shown(frame, self._min_score) for frame in video.frames]
        holes = _holes([frame.index for frame in video.frames])
        links, flips = _class_flips(frames, holes)
        labels = [frame.labels for frame in frames]
        numbers = _link([f.boxes for f in frames], labels, holes, gap=LONGEST_GAP)
        tracks = np.concatenate([np.zeros(0, np.int64), *numbers])
        times = np.repeat(np.arange(len(frames)), [len(n) for n in numbers])
        order = np.lexsort((times, tracks))
        boxes = np.concatenate([np.zeros((0, 4), np.float32), *(f.boxes for f in frames)])[order]
        scores = np.concatenate([np.zeros(0, np.float32), *(f.scores for f in frames)])[order]
        tracks, times = tracks[order], times[order]
        same, step = np.diff(tracks) == 0, np.diff(times)  # of each row and the one after it
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
        """The numbers above; NaN where nothing is shown to define one."""
        jitter = np.concatenate([np.zeros((0, 3), np.float32), *(part.jitter for part in parts)])
        medians = np.median(jitter, 0) if len(jitter) else np.full(3, np.nan)

        def ratio(top: str, bottom: str) -> float:
            count = sum(getattr(part, bottom) for part in parts)
            return sum(getattr(part, top) for part in parts) / count if count else float("nan")

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
        numbers = self.combine(parts)
        return {name: numbers[name] for name in ("flicker", "class_flips", "jitter")}


class _Shown(NamedTuple):
    """The boxes of one frame that a viewer sees, by descending score."""

    boxes: np.ndarray  # (D, 4) float32
    scores: np.ndarray  # (D,) float32
    labels: np.ndarray  # (D,) int32


def _shown(frame: EvaluatedFrame, min_score: float) -> _Shown:
    keep = frame.scores >= min_score
    return _Shown(frame.boxes[keep], frame.scores[keep], frame.labels[keep])


def _holes(indices: Sequence[int]) -> np.ndarray:
    """(T,) bool: a frame was left out before this one; the smallest step is the usual one."""
    steps = np.diff(indices)
    return np.append(False, steps > steps.min(initial=np.iinfo(np.int64).max))[: len(indices)]


def _link(
    boxes: Sequence[np.ndarray], groups: Sequence[np.ndarray], holes: np.ndarray, *, gap: int
) -> list[np.ndarray]:
    """The track, from 0, of every box; boxes (D, 4) and groups (D,) frame by frame.

    Only boxes of one group are linked, over at most `gap` frames without a box, and over no hole.
    """
    numbers: list[np.ndarray] = []
    count = 0
    old_boxes, old_groups = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    old_tracks, last_seen = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for time, (found, group) in enumerate(zip(boxes, groups, strict=True)):
        if holes[time]:
            old_boxes, old_groups = old_boxes[:0], old_groups[:0]
            old_tracks, last_seen = old_tracks[:0], last_seen[:0]
        iou = pairwise_iou(old_boxes, found) * (old_groups[:, None] == group)
        rows, columns = linear_sum_assignment(np.where(iou >= LINK_IOU, iou, 0), maximize=True)
        linked = iou[rows, columns] >= LINK_IOU
        rows, columns = rows[linked], columns[linked]
        tracks = np.full(len(found), -1)
        tracks[columns] = old_tracks[rows]
        new = tracks < 0
        tracks[new] = np.arange(count, count + new.sum())
        count += int(new.sum())
        numbers.append(tracks)
        waits = time - last_seen <= gap
        waits[rows] = False
        old_boxes = np.concatenate([old_boxes[waits], found])
        old_groups = np.concatenate([old_groups[waits], group])
        old_tracks = np.concatenate([old_tracks[waits], tracks])
        last_seen = np.concatenate([last_seen[waits], np.full(len(found), time)])
    return numbers


def _class_flips(frames: Sequence[_Shown], holes: np.ndarray) -> tuple[int, int]:
    """Links between consecutive frames whatever the class, and how many change the class."""
    kept = [_best_of_place(frame) for frame in frames]
    one_group = [np.zeros(len(frame.labels)) for frame in kept]
    numbers = _link([frame.boxes for frame in kept], one_group, holes, gap=0)
    links = flips = 0
    for i in range(1, len(kept)):
        _, before, now = np.intersect1d(
            numbers[i - 1], numbers[i], assume_unique=True, return_indices=True
        )
        links += len(now)
        flips += int((kept[i - 1].labels[before] != kept[i].labels[now]).sum())
    return links, flips


def _best_of_place(frame: _Shown) -> _Shown:
    """Without the boxes that a better one of another class covers."""
    other = frame.labels[:, None] != frame.labels
    rivals = np.triu((pairwise_iou(frame.boxes, frame.boxes) > SAME_PLACE) & other)
    keep = np.ones(len(frame.labels), bool)
    for row in np.flatnonzero(rivals.any(1)):
        if keep[row]:
            keep[rivals[row]] = False
    return _Shown(frame.boxes[keep], frame.scores[keep], frame.labels[keep])


def _jitter(boxes: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """(J, 3) of the rows `middles` (J,) of boxes (S, 4), whose neighbours are of the same track."""
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], LEAST_SIZE)
    values = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, np.log(size)], 1)  # x y log w h
    second = values[middles + 1] - 2 * values[middles] + values[middles - 1]
    centre = np.hypot(second[:, 0], second[:, 1]) / np.sqrt(size[middles].prod(1))
    return np.column_stack([centre, np.abs(second[:, 2:])]).astype(np.float32)
