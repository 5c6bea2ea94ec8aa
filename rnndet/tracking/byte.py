"""Tracking that also uses uncertain detections: sure ones first, then the rest."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnndet.boxes import nms
from rnndet.errors import RnndetError
from rnndet.structures import Detections
from rnndet.tracking.assign import assign, buffered_iou
from rnndet.tracking.kalman import ConstantVelocity
from rnndet.tracking.tracks import Array, Rows, Tracks, to_arrays

Mask = NDArray[np.bool_]

# Buffers of the matching stages, boxes of 1.6 and 3 times their size. The wide one, larger than in
# C-BIoU, reaches twice an object's own size: it is for what the narrow one leaves over.
NARROW, WIDE = 0.3, 1.0
RECENT = 0.35  # seconds: a track hidden for longer is not revived by an uncertain detection


class ByteTracker:
    """Match sure detections to tracks, then uncertain ones to the tracks that are left.

    Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", ECCV
    2022, arXiv 2110.06864, algorithm 1. Different:

    - overlap is the buffered IoU of C-BIoU (arXiv 2211.14317), narrow then wide, because objects
      of 15-40 px may move by their own size between frames and then have a plain IoU of 0;
    - the filter works in seconds (see `ConstantVelocity`);
    - several classes: a detection whose class the track has not been before matches at a higher
      cost, not never, so an object misread in one frame keeps its id. Labels stay the detector's;
    - one object reported as two classes is reduced to the better one first (`duplicate_iou`).

    min_score: a detection from this score on is sure: matched first.
    start_margin: a track starts from min_score + start_margin on (0.1 in ByteTrack).
    low_score: detections below it are not matched at all.
    min_similarity: a pair with less buffered IoU, after the class factor, is never matched.
    class_weight: in [0, 1]; what a wholly different class takes off the similarity (0 = ignored).
    duplicate_iou: of two boxes that overlap by more, whatever their classes, the lower score is
        removed; 1 = off.
    min_hits, max_age, frame_interval: as in `IouTracker`.
    """

    def __init__(
        self,
        *,
        min_score: float = 0.3,
        start_margin: float = 0.1,
        low_score: float = 0.1,
        min_similarity: float = 0.1,
        class_weight: float = 0.5,
        duplicate_iou: float = 0.7,
        min_hits: int = 2,
        max_age: float = 1.0,
        frame_interval: float = 0.04,
    ) -> None:
        if not 0 <= class_weight <= 1:
            raise RnndetError(f"ByteTracker: class_weight = {class_weight}; expected 0 to 1")
        self._min_score, self._low_score = min_score, min(low_score, min_score)
        self._start_score = min(min_score + start_margin, 0.95)
        self._max_cost, self._class_weight = 1 - min_similarity, class_weight
        self._duplicate_iou = duplicate_iou
        self._rules = {"min_hits": min_hits, "max_age": max_age, "frame_interval": frame_interval}
        self.reset()

    def reset(self) -> None:
        """Forget every track; ids start at 1 again."""
        self._tracks = Tracks(ConstantVelocity(), **self._rules)

    def end_tracks(self) -> None:
        """End every track, as another scene begins; ids go on."""
        self._tracks.forget_all()

    def state_dict(self) -> dict[str, Any]:
        """The tracks as plain data, without the options."""
        return self._tracks.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._tracks.load_state_dict(state)

    def update(self, detections: Detections, *, time: float | None = None) -> Detections:
        """Return the detections less duplicates, with ids; call once per frame, also with none.

        time is in seconds. Boxes, scores, labels and order are the detector's. Id 0 means that
        the detection belongs to no track yet: its track is provisional, or its score is too low
        to start one.
        """
        detections = self._without_duplicates(detections)
        self._tracks.advance(time)
        ids = self._match(*to_arrays(detections))
        self._tracks.forget_old()
        return replace(detections, ids=ids)

    def expected(self) -> tuple[Array, Rows]:
        """Where each track with an id is, or is expected to be, now: boxes (N, 4) and ids (N,)."""
        return self._tracks.expected()

    def _match(self, boxes: Array, scores: Array, labels: Rows) -> Rows:
        """The id of each detection, (D,); extends and begins tracks."""
        confirmed = self._tracks.is_confirmed
        recent = confirmed & (self._tracks.unseen() < RECENT)
        sure = scores >= self._min_score
        unsure = ~sure & (scores >= self._low_score)
        expected = self._tracks.motion.boxes
        share = self._tracks.class_share(labels)
        class_factor = 1 - self._class_weight * (1 - share)  # (N, D)

        free_track = np.ones(len(self._tracks), bool)
        free = np.ones(len(boxes), bool)
        none = np.zeros(0, np.int64)
        matches: list[tuple[Rows, Rows]] = [(none, none)]
        stages = [
            (confirmed, sure, NARROW),
            (confirmed, sure, WIDE),
            (recent, unsure, NARROW),
            (~confirmed, sure, WIDE),
        ]
        for tracks, wanted, buffer in stages:
            rows, columns = np.flatnonzero(tracks & free_track), np.flatnonzero(wanted & free)
            if not len(rows) or not len(columns):
                continue
            overlap = buffered_iou(expected[rows], boxes[columns], buffer=buffer)
            cost = 1 - overlap * class_factor[np.ix_(rows, columns)]
            a, b = assign(cost, limit=self._max_cost)
            matches.append((rows[a], columns[b]))
            free_track[rows[a]], free[columns[b]] = False, False

        old_rows, old = (np.concatenate(part) for part in zip(*matches, strict=True))
        ids = np.zeros(len(boxes), np.int64)
        ids[old] = self._tracks.extend(old_rows, boxes[old], scores[old], labels[old])
        new = np.flatnonzero(free & (scores >= self._start_score))
        ids[new] = self._tracks.begin(boxes[new], scores[new], labels[new])
        return ids

    def _without_duplicates(self, detections: Detections) -> Detections:
        if self._duplicate_iou >= 1 or len(detections) < 2:
            return detections
        order = np.argsort(-detections.scores, kind="stable")  # as they come, unless made by hand
        any_class = np.zeros(len(order), np.int64)
        keep = nms(detections.boxes[order], any_class, limit=self._duplicate_iou, most=len(order))
        return detections[np.sort(order[keep])]
