"""Track smoothing: average score and class over a track, and fill its gaps. Online."""

from dataclasses import dataclass, replace

import numpy as np

from rnndet.evaluation.records import EvaluatedFrame, EvaluatedVideo
from rnndet.structures import DEFAULT_FPS, Detections
from rnndet.tracking import ByteTracker

MAX_DETECTIONS = 100  # per frame, unless the frame had more


@dataclass(slots=True)
class _Track:
    score: float  # running mean
    votes: np.ndarray  # (K,) sum of scores by class
    missed: int = 0  # frames since the last detection

    @property
    def label(self) -> int:
        return int(self.votes.argmax())


def track_smooth(
    video: EvaluatedVideo, *, new: float = 0.4, coast: int = 10, fade: float = 0.9
) -> EvaluatedVideo:
    """Smooth per-frame detections with an online tracker; frame t depends on frames up to t only.

    A detection of a track gets the running mean of the track's scores, in which the detection has
    the weight `new`, and the class with the largest sum of scores in the track. A confirmed track
    without a detection is kept where the tracker predicts it, for up to `coast` frames, its score
    multiplied by `fade` per frame. Detections without a track are not changed. The tracker is
    `ByteTracker` with its defaults, without the removal of duplicates. `new`, `coast` and `fade`
    are untuned guesses.
    """
    tracker = ByteTracker(duplicate_iou=1.0)
    rate = float(video.fps or DEFAULT_FPS)
    classes = 1 + max((int(f.labels.max(initial=0)) for f in video.frames), default=0)
    tracks: dict[int, _Track] = {}
    frames = []
    for frame in video.frames:
        detections = Detections(frame.boxes, frame.scores, frame.labels.astype(np.int64))
        ids = tracker.update(detections, time=frame.index / rate).ids
        scores, labels = frame.scores.copy(), frame.labels.copy()
        for row in np.flatnonzero(ids):
            score = float(scores[row])
            track = tracks.setdefault(int(ids[row]), _Track(score, np.zeros(classes)))
            track.votes[labels[row]] += scores[row]
            track.score = new * scores[row] + (1 - new) * track.score
            track.missed = 0
            scores[row], labels[row] = track.score, track.label
        smoothed = replace(frame, scores=scores, labels=labels, ids=ids)
        frames.append(_with(smoothed, _predicted(tracker, tracks, ids, coast=coast, fade=fade)))
    return replace(video, frames=tuple(frames))


def _predicted(
    tracker: ByteTracker, tracks: dict[int, _Track], ids: np.ndarray, *, coast: int, fade: float
) -> list[tuple]:
    """Box, score, label and id of the tracks that are not in `ids`; their scores fade."""
    predicted = []
    for box, track_id in zip(*(rows.tolist() for rows in tracker.expected()), strict=True):
        track = tracks.get(track_id)
        if track is None or track_id in ids:
            continue
        track.missed += 1
        track.score *= fade
        if track.missed <= coast:
            predicted.append((box, track.score, track.label, track_id))
    return predicted


def _with(frame: EvaluatedFrame, more: list[tuple]) -> EvaluatedFrame:
    """The frame with additional boxes (box, score, label, id), at most MAX_DETECTIONS."""
    columns = list(zip(*more, strict=True)) if more else [np.zeros((0, 4)), [], [], []]
    boxes = np.concatenate([frame.boxes, np.asarray(columns[0]).reshape(-1, 4)])
    scores = np.concatenate([frame.scores, columns[1]])
    labels = np.concatenate([frame.labels, columns[2]])
    ids = np.concatenate([frame.ids, columns[3]])
    order = np.argsort(-scores, kind="stable")[: max(MAX_DETECTIONS, len(frame.scores))]
    return replace(
        frame,
        boxes=boxes[order].astype(np.float32),
        scores=scores[order].astype(np.float32),
        labels=labels[order].astype(np.int32),
        ids=ids[order].astype(np.int64),
    )
