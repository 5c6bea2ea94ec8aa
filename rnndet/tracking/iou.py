"""Tracking by the overlap of boxes in consecutive frames."""

from dataclasses import replace

import numpy as np

from rnndet.structures import Detections
from rnndet.tracking.assign import assign, buffered_iou
from rnndet.tracking.base import BaseTracker, MinScore, of_labels
from rnndet.tracking.tracks import LastBox, Motion, to_arrays


class IouTracker(BaseTracker):
    """Give a detection the id of the track whose last box has the highest IoU with it.

    Bochinski, Eiselein and Sikora, "High-Speed Tracking-by-Detection Without Using Image
    Information", AVSS 2017. Differences: the matching is optimal over all pairs instead of greedy,
    and a track survives `max_age` seconds without a detection. Classes are ignored.

    min_score: detections below it get id 0 (no track) and neither extend nor start a track.
    min_iou: a pair with a lower IoU is never matched.
    min_hits: detections that a track needs before it gets an id; until then they have id 0.
    max_age: seconds without a detection after which a track is removed.
    frame_interval: seconds between frames, used only where `update` gets no time.

    >>> tracker = IouTracker()
    >>> for x in (10, 12):
    ...     box = np.array([[x, 10, x + 20, 30]], np.float32)
    ...     print(tracker.update(Detections(box, np.array([0.9]), np.array([0]))).ids)
    [1]
    [1]
    """

    def __init__(
        self,
        *,
        min_score: MinScore = 0.3,
        min_iou: float = 0.2,
        min_hits: int = 1,
        max_age: float = 0.5,
        frame_interval: float = 0.04,
    ) -> None:
        self._min_score, self._max_cost = min_score, 1 - min_iou
        super().__init__(min_hits=min_hits, max_age=max_age, frame_interval=frame_interval)

    def update(self, detections: Detections, *, time: float | None = None) -> Detections:
        """Return the same detections with ids; call once per frame, also without detections.

        time is in seconds. Id 0 means that the detection has no track yet.
        """
        boxes, scores, labels = to_arrays(detections)
        ids = np.zeros(len(detections), np.int64)
        self._tracks.advance(time)
        confident = np.flatnonzero(scores >= of_labels(self._min_score, labels))
        overlap = buffered_iou(self._tracks.motion.boxes, boxes[confident], buffer=0.0)
        rows, columns = assign(1 - overlap, limit=self._max_cost)
        matched = confident[columns]
        ids[matched] = self._tracks.update(rows, boxes[matched], scores[matched], labels[matched])
        new = np.setdiff1d(confident, matched)
        ids[new] = self._tracks.start(boxes[new], scores[new], labels[new])
        self._tracks.remove_expired()
        return replace(detections, ids=ids)

    def _new_motion(self) -> Motion:
        return LastBox()
