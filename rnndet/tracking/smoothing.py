"""Smooth the displayed classes and scores of tracks, and show tracks through missed detections."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rnndet.boxes import clip, pairwise_iou
from rnndet.errors import RnndetError
from rnndet.structures import Detections
from rnndet.tracking.assign import Array, Rows

# Seconds after which the weight of past classes and scores is halved. Not tuned: a class may be
# unclear for a while, a score should follow the detections within a few frames.
CLASS_HALF_LIFE, SCORE_HALF_LIFE = 1.0, 0.2
LEAD = 1.5  # factor between the sums of another class and of the shown class for a change
COVERED = 0.5  # IoU with a detection from which on a missed track is not shown
ROUNDING = 1e-6  # seconds: 0.28 - 0.16 is not above 0.12
MIN_SIDE = 1.0  # pixels of a predicted box inside the image


@dataclass(slots=True)
class _Track:
    label: int
    score: float
    last_update: float  # seconds, the time of its last detection
    sums: dict[int, float] = field(default_factory=lambda: defaultdict(float))  # by class


class TrackSmoother:
    """Displayed class, score and predicted boxes of each track of a video.

    The class is that with the largest sum of scores in the track, with exponential decay; it
    changes only when another class leads by a factor of `LEAD`. The score is a running mean.

    coast: seconds for which a confirmed track without a detection is shown at its predicted box;
        0 = never. The tracker removes tracks after its own max_age, so a longer time has no effect.

    >>> smoother = TrackSmoother()
    >>> box, ids = np.array([[10, 10, 30, 30]], np.float32), np.array([1])
    >>> for k, label in enumerate([0, 0, 1]):  # a wrong class in the third frame
    ...     detections = Detections(box, np.array([0.6]), np.array([label]), ids)
    ...     smoothed, _ = smoother.update(detections, (box, ids), time=k / 25, size_hw=(64, 64))
    >>> smoothed.labels.tolist()
    [0]
    """

    def __init__(self, *, coast: float = 0.0) -> None:
        if not 0 <= coast < float("inf"):
            raise RnndetError(f"coast = {coast}; expected a time in seconds, 0 = never")
        self.coast = coast
        self.reset()

    def reset(self) -> None:
        """Remove all tracks."""
        self._tracks: dict[int, _Track] = {}

    def state_dict(self) -> dict[str, Any]:
        """The state that the next frame depends on, as plain data; not `coast`."""
        rows = [
            {
                "id": track_id,
                "label": track.label,
                "score": track.score,
                "seen": track.last_update,
                "sums": [*track.sums.items()],
            }
            for track_id, track in self._tracks.items()
        ]
        return {"tracks": rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of `state_dict`."""
        self._tracks = {
            row["id"]: _Track(
                row["label"], row["score"], row["seen"], defaultdict(float, map(tuple, row["sums"]))
            )
            for row in state["tracks"]
        }

    def update(
        self,
        detections: Detections,
        expected: tuple[Array, Rows],
        *,
        time: float,
        size_hw: tuple[int, int],
    ) -> tuple[Detections, Detections]:
        """Return the detections with the displayed classes and scores, and the missed tracks.

        Call once per frame. detections have ids; expected is `Tracker.expected()` after this frame.
        Missed tracks have their last class and score, and their boxes are clipped to the image.
        """
        assert detections.ids is not None, "only tracked detections belong to tracks"
        labels, scores = detections.labels.copy(), detections.scores.copy()
        for row, track_id in enumerate(detections.ids.tolist()):  # few: detections of a frame
            if track_id > 0:
                track = self._add(track_id, int(labels[row]), float(scores[row]), time)
                labels[row], scores[row] = track.label, track.score
        alive = set(expected[1].tolist())
        self._tracks = {k: track for k, track in self._tracks.items() if k in alive}
        smoothed = replace(detections, labels=labels, scores=scores)
        return smoothed, self._missed(detections, expected, time=time, size_hw=size_hw)

    def _add(self, track_id: int, label: int, score: float, time: float) -> _Track:
        """Add a detection to its track."""
        track = self._tracks.get(track_id)
        if track is None:
            track = self._tracks[track_id] = _Track(label, score, time)
        elapsed = max(time - track.last_update, 0.0)
        decay = 0.5 ** (elapsed / CLASS_HALF_LIFE)
        for known_label in track.sums:
            track.sums[known_label] *= decay
        track.sums[label] += score
        best = max(track.sums, key=track.sums.__getitem__)
        if track.sums[best] > LEAD * track.sums[track.label]:
            track.label = best
        decay = 0.5 ** (elapsed / SCORE_HALF_LIFE)
        track.score = decay * track.score + (1 - decay) * score
        track.last_update = time
        return track

    def _missed(
        self,
        detections: Detections,
        expected: tuple[Array, Rows],
        *,
        time: float,
        size_hw: tuple[int, int],
    ) -> Detections:
        """Tracks without a detection in this frame, at their predicted boxes."""
        detected = set() if detections.ids is None else set(detections.ids.tolist())
        rows, columns = [], []
        for row, track_id in enumerate(expected[1].tolist()):
            track = self._tracks.get(track_id)
            if track is None or track_id in detected:
                continue
            if 0 < time - track.last_update <= self.coast + ROUNDING:
                rows.append(row)
                columns.append((track.score, track.label, track_id))
        if not rows:
            return replace(Detections.empty(), ids=np.zeros(0, np.int64))
        scores, labels, ids = zip(*columns, strict=True)
        boxes = clip(expected[0][rows].astype(np.float32), size_hw=size_hw)
        missed = Detections(
            boxes, np.array(scores, np.float32), np.array(labels, np.int64), np.array(ids, np.int64)
        )
        is_shown = (boxes[:, 2:] - boxes[:, :2]).min(1) >= MIN_SIDE
        is_shown &= pairwise_iou(boxes, detections.boxes).max(1, initial=0) < COVERED
        missed = missed[is_shown]
        return missed[np.argsort(-missed.scores, kind="stable")]
