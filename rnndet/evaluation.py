"""Run a model over labelled videos: the shipped path, frame by frame, with its state.

`predict` keeps what was found beside what was there; `predict_ablations` does so for several uses
of the memory at once; `degraded` makes frames hard. rnndet/scoring.py makes numbers of the result.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from rnndet.data.frames import iterate
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.degradation import Degrader, Plan, standard_plan
from rnndet.errors import RnndetError
from rnndet.metrics.record import Predictions, ScoredFrame, ScoredVideo, scored_frame
from rnndet.model import Output, VideoDetector
from rnndet.stream import Stream, run_video
from rnndet.structures import Detections, Frame
from rnndet.temporal.state import State

SCORE_FLOOR = 0.001  # COCO practice: precision at high recall needs the weak detections
ABLATIONS = ("carried", "reset", "foreign")
FOREIGN_FRAMES = 16  # of the other video: enough for a memory that is in its steady state

FramesOf = Callable[[VideoRecord], Iterable[Frame]]
Progress = Callable[[], None]  # called after each frame


def predict(
    stream: Stream,
    videos: Iterable[tuple[VideoRecord, Iterable[Frame]]],
    *,
    progress: Progress | None = None,
) -> Predictions:
    """Run each video through the stream, from a reset.

    The model's `score_threshold` and the stream's `min_score` should be `SCORE_FLOOR`. Which frames
    are shown is the caller's choice; one that is not shown is not scored.
    """
    predictions = Predictions(stream.model.classes)
    for video, frames in videos:
        scored = _Scored(video)
        for result in run_video(stream, frames):
            scored.add(result.frame.index, result.detections)
            if progress is not None:
                progress()
        predictions.add(scored.video())
    return predictions


def predict_ablations(
    model: VideoDetector,
    videos: Sequence[VideoRecord],
    frames_of: FramesOf,
    *,
    min_score: float = SCORE_FLOOR,
    foreign_frames: int = FOREIGN_FRAMES,
    progress: Progress | None = None,
) -> dict[str, Predictions]:
    """Three uses of the memory in one pass, by name of ABLATIONS.

    - carried: the state goes from frame to frame, as in `predict`, with the same result.
    - reset: every frame is the first one.
    - foreign: before every frame the state is the one that the previous video of the list (for the
      first video, the last) left after its first `foreign_frames` frames.

    What does not depend on the memory is computed once per frame. Raises RnndetError for fewer than
    two videos.
    """
    if len(videos) < 2:
        raise RnndetError("the memory ablation needs at least two videos, for a foreign state")
    stream = Stream(model, min_score=min_score)
    first_frames = itertools.islice(frames_of(videos[-1]), foreign_frames)
    foreign = _state_after(stream, first_frames)
    predictions = {name: Predictions(model.classes) for name in ABLATIONS}
    for video in videos:
        scored = {name: _Scored(video) for name in ABLATIONS}
        stream.reset()
        next_foreign: State | None = None
        for count, frame in enumerate(frames_of(video), start=1):
            outputs = _three_ways(stream, frame, foreign)
            for name, output in zip(ABLATIONS, outputs, strict=True):
                scored[name].add(frame.index, _found(output, stream.score_floor))
            stream.state = outputs[0].state
            if count <= foreign_frames:
                next_foreign = stream.state
            if progress is not None:
                progress()
        foreign = next_foreign
        for name, predicted in predictions.items():
            predicted.add(scored[name].video())
    return predictions


class _Scored:
    """The frames of one video as they come."""

    def __init__(self, video: VideoRecord) -> None:
        self._record = video
        self._truths = {record.index: record.truth for record in video.frames}
        self._frames: list[ScoredFrame] = []

    def add(self, index: int, found: Detections) -> None:
        self._frames.append(scored_frame(index, found, self._truths.get(index)))

    def video(self) -> ScoredVideo:
        size_hw = (self._record.height, self._record.width)
        return ScoredVideo(self._record.name, self._record.fps, size_hw, tuple(self._frames))


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `evaluate_set` found: runs by use of the memory ("" where it is not ablated)."""

    runs: dict[str, Predictions]
    corrupted: set[tuple[str, int]] | None  # video and index of frames made hard; None: not done
    protocol: dict[str, Any]


def evaluate_set(
    model: VideoDetector,
    data: VideoSet,
    *,
    cache: Path | None = None,
    ablate_memory: bool = False,
    degrade_seed: int | None = None,
    every: int = 1,
    max_videos: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Run a model over a set: what tools/evaluate.py does.

    `degrade_seed` corrupts the frames by their `standard_plan`. `every` and `max_videos` show fewer
    frames and videos. `progress` is told the number of all frames after each. The model's
    `score_threshold` is set to SCORE_FLOOR.
    """
    model.score_threshold = SCORE_FLOOR
    videos = [thinned(video, every) for video in _spread(data.videos, max_videos)]
    plans: dict[str, Plan] = {}
    if degrade_seed is not None:
        plans = {v.name: standard_plan(v.name, len(v.frames), seed=degrade_seed) for v in videos}

    def frames_of(video: VideoRecord) -> Iterable[Frame]:
        frames = iterate(video, cache=cache)
        return degraded(video, frames, plans[video.name]) if plans else frames

    total = sum(len(video.frames) for video in videos)
    tick = None if progress is None else partial(progress, total)
    if ablate_memory:
        runs = predict_ablations(model, videos, frames_of, progress=tick)
    else:
        pairs = ((video, frames_of(video)) for video in videos)
        runs = {"": predict(Stream(model, min_score=SCORE_FLOOR), pairs, progress=tick)}
    protocol = {
        "score floor": SCORE_FLOOR,
        "videos": len(videos),
        "frames shown": total,
        "frames scored": sum(r.truth is not None for v in videos for r in v.frames),
        "every": every,
        "degraded": "no" if degrade_seed is None else f"standard plan, seed {degrade_seed}",
        "classes": len(data.classes),
    }
    if degrade_seed is None:
        return Evaluation(runs, None, protocol)
    corrupted = {pair for v in videos for pair in corrupted_frames(v, plans[v.name])}
    return Evaluation(runs, corrupted, protocol)


def _spread(videos: Sequence[VideoRecord], most: int | None) -> Sequence[VideoRecord]:
    """At most so many videos, from all parts of the list: neighbours are often alike."""
    if most is None or most >= len(videos):
        return videos
    if most < 1:
        raise RnndetError(f"videos to evaluate = {most}; expected 1 or more")
    return [videos[i * len(videos) // most] for i in range(most)]


def degraded(video: VideoRecord, frames: Iterable[Frame], plan: Plan) -> Iterator[Frame]:
    """The video's frames as a plan corrupts them; it has one entry for each of `video.frames`."""
    degrader = Degrader(plan, {i: record.truth for i, record in enumerate(video.frames)})
    position = {record.index: i for i, record in enumerate(video.frames)}
    for frame in frames:
        yield replace(frame, image=degrader.apply(position[frame.index], frame.image))


def corrupted_frames(video: VideoRecord, plan: Plan) -> set[tuple[str, int]]:
    """Video name and index of the frames that a plan corrupts."""
    pairs = zip(video.frames, plan, strict=True)
    return {(video.name, record.index) for record, entry in pairs if entry is not None}


def thinned(video: VideoRecord, every: int) -> VideoRecord:
    """Only the first, the (every + 1)-th, ... frame: the video at a lower frame rate."""
    if every < 1:
        raise RnndetError(f"every = {every}; expected 1 (all frames) or more")
    return replace(video, frames=video.frames[::every])


def match_classes(data: VideoSet, classes: tuple[str, ...]) -> VideoSet:
    """The data with the labels of a model that has these classes; matched by name.

    Raises RnndetError if the data has a class that the model does not know.
    """
    unknown = [name for name in data.classes if name not in classes]
    if unknown:
        raise RnndetError(
            f"the data has classes that the model does not know: {', '.join(unknown)}; "
            f"it knows {', '.join(classes)}"
        )
    if data.classes == classes:
        return data
    label_of = torch.tensor([classes.index(name) for name in data.classes])

    def relabelled(record: FrameRecord) -> FrameRecord:
        if record.truth is None:
            return record
        labels = record.truth.labels
        known = labels.clamp(min=0)  # a region of no class keeps its -1
        truth = replace(record.truth, labels=torch.where(labels < 0, labels, label_of[known]))
        return replace(record, truth=truth)

    videos = (replace(v, frames=tuple(map(relabelled, v.frames))) for v in data.videos)
    return VideoSet(classes, tuple(videos))


def _state_after(stream: Stream, frames: Iterable[Frame]) -> State | None:
    for _ in run_video(stream, frames):
        pass
    return stream.state


@torch.inference_mode()
def _three_ways(stream: Stream, frame: Frame, foreign: State | None) -> list[Output]:
    """One frame, encoded once, decoded with each state; in the order of ABLATIONS."""
    encoded = stream.model.encode(stream.to_tensor(frame))
    carried = stream.model.decode(encoded, stream.state)
    reset = stream.model.decode(encoded, None)
    other = None if foreign is None else _resized(foreign, like=carried.state)
    return [carried, reset, stream.model.decode(encoded, other)]


def _resized(state: State, *, like: State) -> State:
    """The state at the spatial size of another: videos may differ in the size of their frames."""
    return {
        level: tuple(
            t if t.shape == other.shape else functional.interpolate(t, other.shape[-2:])
            for t, other in zip(tensors, like[level], strict=True)
        )
        for level, tensors in state.items()
    }


def _found(output: Output, score_floor: float) -> Detections:
    """What `Stream.detect` returns of an output."""
    assert output.detections is not None, "a model called without truths returns detections"
    detections = output.detections[0][0].to("cpu")
    return detections[detections.scores >= score_floor]
