"""The link between labelled videos and metrics: what was found beside what was there."""

import math
from collections.abc import Collection
from dataclasses import replace

import numpy as np

from rnndet.data.records import VideoRecord, VideoSet
from rnndet.errors import RnndetError
from rnndet.evaluation.metrics.record import (
    EvaluatedFrame,
    EvaluatedVideo,
    Predictions,
    evaluated_frame,
)
from rnndet.inference.stream import track
from rnndet.structures import Detections
from rnndet.tracking import Tracker

FPS = 25.0  # where a video has no frame rate


class FrameCollector:
    """Collects the frames of one video, in any order; `corrupted` are indices of frames."""

    def __init__(self, video: VideoRecord, *, corrupted: Collection[int] = ()) -> None:
        self._record, self._corrupted = video, corrupted
        self._targets = {record.index: record.target for record in video.frames}
        self._frames: list[EvaluatedFrame] = []

    def add(self, index: int, found: Detections, *, seconds: float = math.nan) -> None:
        """Add a frame; one that the record does not list counts as unlabelled.

        `seconds`: what the model took for it; NaN if that was not measured.
        """
        target = self._targets.get(index)
        hard = index in self._corrupted
        self._frames.append(evaluated_frame(index, found, target, corrupted=hard, seconds=seconds))

    def video(self) -> EvaluatedVideo:
        """The frames so far, in temporal order."""
        frames = sorted(self._frames, key=lambda frame: frame.index)
        size_hw = (self._record.height, self._record.width)
        return EvaluatedVideo(self._record.name, self._record.fps, size_hw, tuple(frames))


def with_targets(run: Predictions, data: VideoSet) -> Predictions:
    """The same detections beside the labels of another data set, matched by video and frame number.

    The data has the classes of the run, in their order (`predict.match_classes`). Raises
    RnndetError for a video that the data does not have; frames it does not have are unlabelled.
    """
    records = {record.name: record for record in data.videos}

    def relabelled(video: EvaluatedVideo) -> EvaluatedVideo:
        if video.name not in records:
            raise RnndetError(f"the labels have no video {video.name}, which the predictions have")
        targets = {entry.index: entry.target for entry in records[video.name].frames}
        frames = []
        for frame in video.frames:
            known = evaluated_frame(frame.index, Detections.empty(), targets.get(frame.index))
            frames.append(
                replace(frame, target_boxes=known.target_boxes, target_labels=known.target_labels,
                        target_ids=known.target_ids, target_ignore=known.target_ignore,
                        labelled=known.labelled)
            )  # fmt: skip
        return replace(video, frames=tuple(frames))

    return run.map(relabelled)


def with_tracks(
    video: EvaluatedVideo, tracker: Tracker, *, min_score: float = 0.3
) -> EvaluatedVideo:
    """What a stream with this tracker shows of the same detections, with ids."""
    tracker.reset()
    frames = []
    for frame in video.frames:
        found = Detections(frame.boxes, frame.scores, frame.labels.astype(np.int64))
        time = frame.index / (video.fps or FPS)
        shown = track(found, tracker, min_score=min_score, time=time)
        kept = evaluated_frame(frame.index, shown, None)
        frames.append(replace(frame, boxes=kept.boxes, scores=kept.scores, labels=kept.labels,
                              ids=kept.ids))  # fmt: skip
    return replace(video, frames=tuple(frames))
