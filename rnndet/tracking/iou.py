"""Tracking by overlap alone."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from rnndet.structures import Detections
from rnndet.tracking.assign import Array, Rows, assign, buffered_iou
from rnndet.tracking.tracks import LastBox, Motion, Tracks, to_arrays


class IouTracker:
    """Give a detection the id of the track whose last box it overlaps most.

    Bochinski, Eiselein and Sikora, "High-Speed Tracking-by-Detection Without Using Image
    Information", AVSS 2017. Different: the matching is the best over all pairs instead of greedy,
    and a track survives `max_age` seconds without a detection. Classes are not looked at.

    min_score: detections below it get id 0 (no track) and neither extend nor start a track.
    min_iou: a pair that overlaps by less is never matched.
    min_hits: detections a track needs before it gets an id; before, its detections carry id 0.
    max_age: seconds without a detection after which a track is forgotten.
    frame_interval: seconds between frames, used only where `update` gets no time.
    """

    def __init__(
        self,
        *,
        min_score: float = 0.3,
        min_iou: float = 0.2,
        min_hits: int = 1,
        max_age: float = 0.5,
        frame_interval: float = 0.04,
    ) -> None:
        self._min_score, self._max_cost = min_score, 1 - min_iou
        self._rules = {"min_hits": min_hits, "max_age": max_age, "frame_interval": frame_interval}
        self.reset()

    def reset(self) -> None:
        """Forget every track; ids start at 1 again."""
        self._tracks = Tracks(self._new_motion(), **self._rules)

    def end_tracks(self) -> None:
        """End every track, as another scene begins; ids go on."""
        self._tracks.forget_all()

    def state_dict(self) -> dict[str, Any]:
        """The tracks as plain data, without the options."""
        return self._tracks.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._tracks.load_state_dict(state)

    def expected(self) -> tuple[Array, Rows]:
        """Where each track with an id is, or is expected to be, now: boxes (N, 4) and ids (N,)."""
        return self._tracks.expected()

    def update(self, detections: Detections, *, time: float | None = None) -> Detections:
        """Return the same detections with ids; call once per frame, also with none.

        time is in seconds. Id 0 means that the detection belongs to no track yet.
        """
        boxes, scores, labels = to_arrays(detections)
        ids = np.zeros(len(detections), np.int64)
        self._tracks.advance(time)
        sure = np.flatnonzero(scores >= self._min_score)
        overlap = buffered_iou(self._tracks.motion.boxes, boxes[sure], buffer=0.0)
        rows, columns = assign(1 - overlap, limit=self._max_cost)
        old = sure[columns]
        ids[old] = self._tracks.extend(rows, boxes[old], scores[old], labels[old])
        new = np.setdiff1d(sure, old)
        ids[new] = self._tracks.begin(boxes[new], scores[new], labels[new])
        self._tracks.forget_old()
        return replace(detections, ids=ids)

    def _new_motion(self) -> Motion:
        return LastBox()
