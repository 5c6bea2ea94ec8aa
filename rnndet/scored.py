"""The link between labelled videos and metrics: what was found beside what was there."""

from collections.abc import Collection
from dataclasses import replace

import torch

from rnndet.data.records import VideoRecord
from rnndet.metrics.record import ScoredFrame, ScoredVideo, scored_frame
from rnndet.stream import track
from rnndet.structures import Detections
from rnndet.tracking import Tracker

FPS = 25.0  # where a video has no frame rate


class ScoredFrames:
    """Collects the frames of one video, in any order; `corrupted` are indices of frames."""

    def __init__(self, video: VideoRecord, *, corrupted: Collection[int] = ()) -> None:
        self._record, self._corrupted = video, corrupted
        self._truths = {record.index: record.truth for record in video.frames}
        self._frames: list[ScoredFrame] = []

    def add(self, index: int, found: Detections) -> None:
        """Add a frame; one that the record does not list counts as unlabelled."""
        truth = self._truths.get(index)
        hard = index in self._corrupted
        self._frames.append(scored_frame(index, found, truth, corrupted=hard))

    def video(self) -> ScoredVideo:
        """The frames so far, in temporal order."""
        frames = sorted(self._frames, key=lambda frame: frame.index)
        size_hw = (self._record.height, self._record.width)
        return ScoredVideo(self._record.name, self._record.fps, size_hw, tuple(frames))


def with_tracks(video: ScoredVideo, tracker: Tracker, *, min_score: float = 0.3) -> ScoredVideo:
    """What a stream with this tracker shows of the same detections, with ids."""
    tracker.reset()
    frames = []
    for frame in video.frames:
        found = Detections(
            torch.from_numpy(frame.boxes),
            torch.from_numpy(frame.scores),
            torch.from_numpy(frame.labels).long(),
        )
        time = frame.index / (video.fps or FPS)
        shown = track(found, tracker, min_score=min_score, time=time)
        kept = scored_frame(frame.index, shown, None)
        frames.append(replace(frame, boxes=kept.boxes, scores=kept.scores, labels=kept.labels,
                              ids=kept.ids))  # fmt: skip
    return replace(video, frames=tuple(frames))
