"""What a viewer is shown of tracks: a class and a score that do not flicker, and missed objects."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rnndet.boxes import clip, pairwise_iou
from rnndet.errors import RnndetError
from rnndet.structures import Detections
from rnndet.tracking.assign import Array, Rows

# Seconds after which what was seen of a class, or of a score, counts half. Plain guesses: a class
# may be unclear for a while, a score is to follow what is seen within a few frames.
CLASS_HALF_LIFE, SCORE_HALF_LIFE = 1.0, 0.2
LEAD = 1.5  # another class is shown once it has this many times the sum of the one shown
COVERED = 0.5  # IoU with a detection from which a missed track is not shown beside it
ROUNDING = 1e-6  # seconds: 0.28 - 0.16 is not above 0.12
SMALLEST = 1.0  # pixels: a side of what is left of a box in the image


@dataclass(slots=True)
class _Track:
    label: int
    score: float
    seen: float  # seconds, when it was last shown as a detection
    sums: dict[int, float] = field(default_factory=lambda: defaultdict(float))  # by class


class TrackSmoother:
    """The class and score by which each track of a video is shown, and where it is while missed.

    The class is the one with the largest sum of scores in the track, where older scores count
    less; it changes only when another one leads clearly. The score is a running mean.

    coast: seconds for which a track with an id is shown at its expected place while it has no
        detection; 0 = never. The tracker forgets tracks by its own rule, so that more than its
        max_age changes nothing.
    """

    def __init__(self, *, coast: float = 0.0) -> None:
        if not 0 <= coast < float("inf"):
            raise RnndetError(f"coast = {coast}; expected a time in seconds, 0 = never")
        self.coast = coast
        self.reset()

    def reset(self) -> None:
        """Forget every track."""
        self._tracks: dict[int, _Track] = {}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next frame depends on, as plain data; not `coast`."""
        rows = [
            {
                "id": one,
                "label": t.label,
                "score": t.score,
                "seen": t.seen,
                "sums": [*t.sums.items()],
            }
            for one, t in self._tracks.items()
        ]
        return {"tracks": rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
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
        """The same detections as they are to be shown, and the missed tracks; once per frame.

        detections have ids; expected is `Tracker.expected()` after this frame.
        Missed tracks carry their last class and score, and are clipped to the image.
        """
        assert detections.ids is not None, "only tracked detections belong to tracks"
        labels, scores = detections.labels.copy(), detections.scores.copy()
        ids = detections.ids.tolist()
        for row, one in enumerate(ids):  # few: boxes of one frame
            if one > 0:
                track = self._see(one, int(labels[row]), float(scores[row]), time)
                labels[row], scores[row] = track.label, track.score
        known = set(expected[1].tolist())
        self._tracks = {one: track for one, track in self._tracks.items() if one in known}
        smoothed = replace(detections, labels=labels, scores=scores)
        return smoothed, self._missed(detections, expected, time=time, size_hw=size_hw)

    def _see(self, one: int, label: int, score: float, time: float) -> _Track:
        """Add a detection to its track."""
        track = self._tracks.get(one)
        if track is None:
            track = self._tracks[one] = _Track(label, score, time)
        elapsed = max(time - track.seen, 0.0)
        keep = 0.5 ** (elapsed / CLASS_HALF_LIFE)
        for other in track.sums:
            track.sums[other] *= keep
        track.sums[label] += score
        best = max(track.sums, key=track.sums.__getitem__)
        if track.sums[best] > LEAD * track.sums[track.label]:
            track.label = best
        share = 0.5 ** (elapsed / SCORE_HALF_LIFE)
        track.score = share * track.score + (1 - share) * score
        track.seen = time
        return track

    def _missed(
        self,
        detections: Detections,
        expected: tuple[Array, Rows],
        *,
        time: float,
        size_hw: tuple[int, int],
    ) -> Detections:
        seen = set() if detections.ids is None else set(detections.ids.tolist())
        rows, missed = [], []
        for row, one in enumerate(expected[1].tolist()):
            track = self._tracks.get(one)
            if (
                track is not None
                and one not in seen
                and 0 < time - track.seen <= self.coast + ROUNDING
            ):
                rows.append(row)
                missed.append((track.score, track.label, one))
        if not missed:
            return replace(Detections.empty(), ids=np.zeros(0, np.int64))
        scores, labels, ids = zip(*missed, strict=True)
        boxes = expected[0][rows].astype(np.float32)
        found = Detections(
            clip(boxes, size_hw=size_hw), np.array(scores, np.float32), np.array(labels, np.int64),
            np.array(ids, np.int64),
        )  # fmt: skip
        left = (found.boxes[:, 2:] - found.boxes[:, :2]).min(1) >= SMALLEST
        left &= pairwise_iou(found.boxes, detections.boxes).max(1, initial=0) < COVERED
        found = found[left]
        return found[np.argsort(-found.scores, kind="stable")]
