"""Smoothing by tracks: a tracker's past speaks for a detection, and for one that is missing."""

from dataclasses import replace

import numpy as np

from rnndet.evaluation.metrics.record import EvaluatedFrame, EvaluatedVideo
from rnndet.structures import Detections
from rnndet.tracking import ByteTracker

FPS = 25.0  # where a video has no frame rate


def track_smooth(
    video: EvaluatedVideo, *, new: float = 0.4, coast: int = 10, fade: float = 0.9
) -> EvaluatedVideo:
    """Per-frame detections as an online tracker would show them; frame t knows frames up to t.

    A detection that belongs to a track gets the running mean of its track's scores, in which it
    has the share `new`, and the class that its track has most votes for. A confirmed track that is
    missed is shown where the tracker expects it, for up to `coast` frames, its score multiplied by
    `fade` a frame. Detections of no track stay as they are. The tracker is `ByteTracker` with its
    defaults, less the removal of duplicates. `new`, `coast`, `fade` are plain guesses, not tuned.
    """
    tracker = ByteTracker(duplicate_iou=1.0)
    votes: dict[int, np.ndarray] = {}
    means: dict[int, float] = {}
    missed: dict[int, int] = {}
    count = 1 + max((int(f.labels.max(initial=0)) for f in video.frames), default=0)
    frames = []
    for frame in video.frames:
        found = Detections(frame.boxes, frame.scores, frame.labels.astype(np.int64))
        ids = tracker.update(found, time=frame.index / (video.fps or FPS)).ids
        scores, labels = frame.scores.copy(), frame.labels.copy()
        for row in np.flatnonzero(ids):
            one = int(ids[row])
            votes.setdefault(one, np.zeros(count))[labels[row]] += scores[row]
            means[one] = new * scores[row] + (1 - new) * means.get(one, float(scores[row]))
            scores[row], labels[row] = means[one], votes[one].argmax()
            missed[one] = 0
        boxes, rows = tracker.expected()
        shown = []
        for box, one in zip(boxes, rows.tolist(), strict=True):
            if one in means and one not in ids:
                missed[one] += 1
                means[one] *= fade
                if missed[one] <= coast:
                    shown.append((box, means[one], votes[one].argmax(), one))
        frames.append(_with(replace(frame, scores=scores, labels=labels, ids=ids), shown))
    return replace(video, frames=tuple(frames))


def _with(frame: EvaluatedFrame, more: list[tuple]) -> EvaluatedFrame:
    """The frame with more boxes, each (box, score, label, id); at most as many as it had or 100."""
    columns = list(zip(*more, strict=True)) if more else [np.zeros((0, 4)), [], [], []]
    boxes = np.concatenate([frame.boxes, np.asarray(columns[0]).reshape(-1, 4)])
    scores = np.concatenate([frame.scores, columns[1]])
    labels = np.concatenate([frame.labels, columns[2]])
    ids = np.concatenate([frame.ids, columns[3]])
    order = np.argsort(-scores, kind="stable")[: max(100, len(frame.scores))]
    return replace(
        frame,
        boxes=boxes[order].astype(np.float32),
        scores=scores[order].astype(np.float32),
        labels=labels[order].astype(np.int32),
        ids=ids[order].astype(np.int64),
    )
