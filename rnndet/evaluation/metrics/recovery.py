"""Recovery: what becomes of objects that were found when the image is gone for some frames."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rnndet.evaluation.metrics.base import Numbers
from rnndet.evaluation.metrics.overlap import is_counted, pairwise_iou
from rnndet.evaluation.metrics.record import EvaluatedFrame, EvaluatedVideo

LONGEST = 30  # frames; a longer recovery, or none, counts as this
IOU = 0.5


class _Part(NamedTuple):
    """What one video contributes."""

    delays: list[int]  # frames until each track was back after each run
    covered: int  # truth boxes in the runs, of tracks that were found before
    held: int  # of them, found nevertheless


class Recovery:
    """How objects come through the runs of frames that were corrupted on purpose.

    Made for runs of black frames. A run is as many corrupted frames as follow each other in the
    video; frames of the record that are not labelled belong to it, too. A detection with a score of
    at least `min_score` finds a track if it is of its class and overlaps its truth by IoU >= .5.
    Only tracks found in the last labelled frame before a run take part:

    - "held_share": share of their truth boxes in the runs that are found: what memory carries.
    - "recovery_frames": mean number of frames from the end of a run until a track is found; 0 = in
      the first frame after it. Of the tracks with a truth in the first labelled frame after the
      run; one that is not found within `LONGEST` frames, also because its truth ends, counts that
      much.

    Truths that are ignored or have no known id are no tracks. All classes are pooled; `classes` is
    not needed.
    """

    def __init__(self, classes: Sequence[str], *, min_score: float = 0.3) -> None:
        self._min_score = min_score
        self.rule = f"recovery after corrupted frames, IoU .5, score >= {min_score}"

    def measure(self, video: EvaluatedVideo) -> _Part:
        frames = video.labelled().frames
        indices = [frame.index for frame in frames]
        delays, covered, held = [], 0, 0
        for start, end in _runs(video):
            first, after = np.searchsorted(indices, [start, end])
            if first == 0:
                continue  # nothing was seen before
            before = self._found(frames[first - 1])
            tracks = {track for track, found in before.items() if found}
            for frame in frames[first:after]:
                found = self._found(frame)
                covered += len(tracks & found.keys())
                held += sum(found[track] for track in tracks & found.keys())
            delays += self._delays(tracks, frames[after:], end)
        return _Part(delays, covered, held)

    def _delays(self, tracks: set[int], frames: Sequence[EvaluatedFrame], end: int) -> list[int]:
        """Frames after `end` until each of the tracks in frames[0] is found."""
        waiting = tracks & self._found(frames[0]).keys() if frames else set()
        delays = []
        for frame in frames:
            if not waiting or frame.index - end >= LONGEST:
                break
            found = self._found(frame)
            back = {track for track in waiting if found.get(track)}
            delays += [frame.index - end] * len(back)
            waiting -= back
        return delays + [LONGEST] * len(waiting)

    def _found(self, frame: EvaluatedFrame) -> dict[int, bool]:
        """Whether each track of the frame is found."""
        shown = frame.scores >= self._min_score
        known = is_counted(frame) & (frame.target_ids >= 0)
        same = frame.labels[shown][:, None] == frame.target_labels[known]
        iou = pairwise_iou(frame.boxes[shown], frame.target_boxes[known])
        found = (same & (iou >= IOU)).any(0)
        return dict(zip(frame.target_ids[known].tolist(), found.tolist(), strict=True))

    def combine(self, parts: Sequence[_Part]) -> Numbers:
        """Numbers "recovery_frames" and "held_share"; NaN where no track takes part."""
        delays = [delay for part in parts for delay in part.delays]
        covered = sum(part.covered for part in parts)
        return {
            "recovery_frames": float(np.mean(delays)) if delays else float("nan"),
            "held_share": sum(part.held for part in parts) / covered if covered else float("nan"),
        }

    def headline(self, parts: Sequence[_Part]) -> Numbers:
        return self.combine(parts)


def _runs(video: EvaluatedVideo) -> list[tuple[int, int]]:
    """Index of the first frame of each run, and of the first frame after it."""
    indices = [frame.index for frame in video.frames]
    corrupted = [frame.corrupted for frame in video.frames]
    edges = np.flatnonzero(np.diff([False, *corrupted, False]))
    ends = [*indices, indices[-1] + 1 if indices else 0]
    return [(ends[a], ends[b]) for a, b in edges.reshape(-1, 2)]
