"""Recovery: whether detected objects survive runs of corrupted frames, and how soon they return."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from rnndet.boxes import pairwise_iou
from rnndet.evaluation.metrics.base import Metric, Numbers
from rnndet.evaluation.metrics.matching import is_counted
from rnndet.evaluation.records import EvaluatedFrame, EvaluatedVideo

MAX_DELAY = 30  # frames; a longer recovery, or none, counts as this
MIN_IOU = 0.5


class _Part(NamedTuple):
    """The contribution of one video."""

    delays: list[int]  # frames until each track was detected again after each run
    covered: int  # targets inside the runs, of tracks that were detected before
    held: int  # of these targets, the detected ones


class Recovery(Metric):
    """Recovery of tracks after runs of frames that were corrupted on purpose.

    Designed for runs of black frames. A run is a maximal sequence of corrupted frames; frames
    without labels belong to it, too. A track is detected in a frame if a detection with a score of
    at least `min_score` has its class and an IoU >= .5 with its target. Only tracks detected in the
    last labelled frame before a run take part:

    - "held_share": share of their targets inside the runs that are detected: the effect of memory.
    - "recovery_frames": mean number of frames from the end of a run until a track is detected
      again; 0 = in the first frame after it. Of the tracks with a target in the first labelled
      frame after the run; a track that is not detected within `MAX_DELAY` frames, also because its
      targets end, counts as `MAX_DELAY`.

    Targets that are ignored or have no known id are no tracks. All classes are pooled; `classes` is
    not used.
    """

    columns = ("recovery_frames", "held_share")
    units: ClassVar = {"recovery_frames": "frames"}

    def __init__(self, classes: Sequence[str], *, min_score: float = 0.3) -> None:
        self._min_score = min_score
        self.rule = f"recovery after corrupted frames, IoU .5, score >= {min_score}"

    def measure(self, video: EvaluatedVideo) -> _Part:
        """The tracks before, inside and after every run."""
        frames = video.labelled().frames
        indices = [frame.index for frame in frames]
        delays, covered, held = [], 0, 0
        for start, end in _runs(video):
            first, after = np.searchsorted(indices, [start, end])
            if first == 0:
                continue  # no labelled frame before the run
            before = self._detected(frames[first - 1])
            tracks = {track for track, is_detected in before.items() if is_detected}
            for frame in frames[first:after]:
                detected = self._detected(frame)
                covered += len(tracks & detected.keys())
                held += sum(detected[track] for track in tracks & detected.keys())
            delays += self._delays(tracks, frames[after:], end)
        return _Part(delays, covered, held)

    def _delays(self, tracks: set[int], frames: Sequence[EvaluatedFrame], end: int) -> list[int]:
        """Frames from `end` until each of the tracks in frames[0] is detected."""
        missing = tracks & self._detected(frames[0]).keys() if frames else set()
        delays = []
        for frame in frames:
            if not missing or frame.index - end >= MAX_DELAY:
                break
            detected = self._detected(frame)
            recovered = {track for track in missing if detected.get(track)}
            delays += [frame.index - end] * len(recovered)
            missing -= recovered
        return delays + [MAX_DELAY] * len(missing)

    def _detected(self, frame: EvaluatedFrame) -> dict[int, bool]:
        """Whether each track of the frame is detected."""
        keep = frame.scores >= self._min_score
        known = is_counted(frame) & (frame.target_ids >= 0)
        same = frame.labels[keep][:, None] == frame.target_labels[known]
        iou = pairwise_iou(frame.boxes[keep], frame.target_boxes[known], dtype=np.float64)
        detected = (same & (iou >= MIN_IOU)).any(0)
        return dict(zip(frame.target_ids[known].tolist(), detected.tolist(), strict=True))

    def combine(self, parts: Sequence[_Part]) -> Numbers:
        """ "recovery_frames" and "held_share"; NaN where no track takes part."""
        delays = [delay for part in parts for delay in part.delays]
        covered = sum(part.covered for part in parts)
        return {
            "recovery_frames": float(np.mean(delays)) if delays else float("nan"),
            "held_share": sum(part.held for part in parts) / covered if covered else float("nan"),
        }


def _runs(video: EvaluatedVideo) -> list[tuple[int, int]]:
    """Indices of the first frame of each run and of the first frame after it."""
    indices = [frame.index for frame in video.frames]
    corrupted = [frame.corrupted for frame in video.frames]
    edges = np.flatnonzero(np.diff([False, *corrupted, False]))
    ends = [*indices, indices[-1] + 1 if indices else 0]
    return [(ends[a], ends[b]) for a, b in edges.reshape(-1, 2)]
