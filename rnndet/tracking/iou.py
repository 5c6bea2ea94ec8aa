"""Tracking by the overlap of boxes in consecutive frames."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from rnndet.registry import AtLeastOne, NotNegative, Share
from rnndet.structures import Detections
from rnndet.tracking.assign import assign, buffered_iou
from rnndet.tracking.base import BaseTracker, of_labels
from rnndet.tracking.tracks import LastBox, Motion, TrackOptions, to_arrays


@dataclass(frozen=True, kw_only=True)
class IouOptions(TrackOptions):
    """Options of `IouTracker`."""

    min_iou: Share = 0.2  # a pair with a lower IoU is never matched
    min_hits: AtLeastOne = 1
    max_age: NotNegative = 0.5


class IouTracker(BaseTracker[IouOptions]):
    """Give a detection the id of the track whose last box has the highest IoU with it.

    Bochinski, Eiselein and Sikora, "High-Speed Tracking-by-Detection Without Using Image
    Information", AVSS 2017. Differences: the matching is optimal over all pairs instead of greedy,
    and a track survives `max_age` seconds without a detection. Classes are ignored.

    Options: see `IouOptions`. Detections below min_score get id 0 (no track) and neither extend nor
    start a track.

    >>> tracker = IouTracker()
    >>> for x in (10, 12):
    ...     box = np.array([[x, 10, x + 20, 30]], np.float32)
    ...     print(tracker.update(Detections(box, np.array([0.9]), np.array([0]))).ids)
    [1]
    [1]
    """

    Options: ClassVar[type[TrackOptions]] = IouOptions

    def update(self, detections: Detections, *, time: float | None = None) -> Detections:
        """Return the same detections with ids; call once per frame, also without detections.

        time is in seconds. Id 0 means that the detection has no track yet.
        """
        boxes, scores, labels = to_arrays(detections)
        ids = np.zeros(len(detections), np.int64)
        self._tracks.advance(time)
        confident = np.flatnonzero(scores >= of_labels(self.min_score, labels))
        overlap = buffered_iou(self._tracks.motion.boxes, boxes[confident], buffer=0.0)
        rows, columns = assign(1 - overlap, limit=1 - self.options.min_iou)
        matched = confident[columns]
        ids[matched] = self._tracks.update(rows, boxes[matched], scores[matched], labels[matched])
        new = np.setdiff1d(confident, matched)
        ids[new] = self._tracks.start(boxes[new], scores[new], labels[new])
        self._tracks.remove_expired()
        return replace(detections, ids=ids)

    def _new_motion(self) -> Motion:
        return LastBox()
