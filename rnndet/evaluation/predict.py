"""Run a model over labelled videos: the shipped path, frame by frame, with its state.

`predict` keeps what was found beside what was there; `degraded` makes frames hard; `evaluate_set`
is what tools/evaluate.py does. rnndet/evaluation/score.py makes numbers of the result.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from rnndet.data.corruption.plan import Degrader, Plan, named_plan
from rnndet.data.frames import iterate, load
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.errors import RnndetError
from rnndet.evaluation.ablation import predict_ablations
from rnndet.evaluation.metrics.record import Predictions
from rnndet.evaluation.records import FrameCollector
from rnndet.inference.stream import Stream
from rnndet.models.video_detector import VideoDetector
from rnndet.structures import Frame
from rnndet.system.distributed import World
from rnndet.video.key_frames import KeyFrames

SCORE_FLOOR = 0.001  # COCO practice: precision at high recall needs the weak detections

Progress = Callable[[], None]  # called after each frame


def predict(
    stream: Stream,
    videos: Iterable[tuple[VideoRecord, Iterable[Frame]]],
    *,
    corrupted: Mapping[str, Collection[int]] | None = None,
    progress: Progress | None = None,
) -> Predictions:
    """Run each video through the stream, from a reset.

    `corrupted` names the frames that were made hard, by video.

    The model's `score_threshold` and the stream's `min_score` should be `SCORE_FLOOR`. Which frames
    are shown is the caller's choice; one that is not shown is not scored. The time of each step is
    kept, without decoding: the latency that the metric streaming can replay.
    """
    predictions = Predictions(stream.runtime.classes)
    for video, frames in videos:
        scored = FrameCollector(video, corrupted=(corrupted or {}).get(video.name, ()))
        stream.reset()
        for frame in frames:
            began = time.perf_counter()
            found = stream.step(frame).detections
            scored.add(frame.index, found, seconds=time.perf_counter() - began)
            if progress is not None:
                progress()
        predictions.add(scored.video())
    return predictions


def evaluate_set(
    model: VideoDetector,
    data: VideoSet,
    *,
    cache: Path | None = None,
    uses: Sequence[str] = (),
    degrade: str | None = None,
    degrade_seed: int = 0,
    every: int = 1,
    keys: KeyFrames | None = None,
    max_videos: int | None = None,
    world: World | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Predictions]:
    """Run a model over a set, once for each use of its memory: what tools/evaluate.py does.

    `uses` are of ablation.USES; without them the model runs as it is, under the name "".
    `degrade` corrupts the frames by their `named_plan`. `every` and `max_videos` show fewer
    frames and videos; with `keys` the model sees the key frames alone.
    `progress` is told the number of all frames after each. The model's
    `score_threshold` is set to SCORE_FLOOR. With a
    `world` of several processes each runs its share of the videos, and the first gets them all; the
    others get no runs.
    """
    if uses and keys is not None:
        raise RnndetError("key frames: not with other uses of the memory, which show every frame")
    model.score_threshold = SCORE_FLOOR
    videos = [thinned(video, every) for video in _spread(data.videos, max_videos)]
    plans: dict[str, Plan] = {}
    if degrade is not None:
        plans = {
            v.name: named_plan(degrade, v.name, len(v.frames), seed=degrade_seed) for v in videos
        }

    def frames_of(video: VideoRecord) -> Iterable[Frame]:
        frames = iterate(video, cache=cache)
        return degraded(video, frames, plans[video.name]) if plans else frames

    world = world or World()
    mine = world.share(range(len(videos)))
    total = sum(len(videos[place].frames) for place in mine)
    tick = None if progress is None else partial(progress, total)
    hard = {v.name: corrupted_frames(v, plans[v.name]) for v in videos} if plans else {}
    if uses:
        runs = predict_ablations(
            model, videos, frames_of, uses=uses, places=mine, corrupted=hard, min_score=SCORE_FLOOR,
            progress=tick,
        )  # fmt: skip
    else:
        pairs = ((videos[place], frames_of(videos[place])) for place in mine)
        stream = Stream(model, min_score=SCORE_FLOOR, keys=keys)
        runs = {"": predict(stream, pairs, corrupted=hard, progress=tick)}
    about = {
        "score floor": SCORE_FLOOR,
        "every": every,
        "key frames": "all" if keys is None else f"every {keys.every}, lost {keys.lost:g}",
        "degraded": "no" if degrade is None else f"{degrade}, seed {degrade_seed}",
    }
    for use, run in runs.items():
        run.about = about | {"memory": use or "carried"}
    first, *others = world.gather(runs) or [{}]
    for other in others:
        for use, run in other.items():
            first[use].merge(run)
    return first


def _spread(videos: Sequence[VideoRecord], most: int | None) -> Sequence[VideoRecord]:
    """At most so many videos, from all parts of the list: neighbours are often alike."""
    if most is None or most >= len(videos):
        return videos
    if most < 1:
        raise RnndetError(f"videos to evaluate = {most}; expected 1 or more")
    return [videos[i * len(videos) // most] for i in range(most)]


def degraded(video: VideoRecord, frames: Iterable[Frame], plan: Plan) -> Iterator[Frame]:
    """The video's frames as a plan corrupts them; it has one entry for each of `video.frames`."""
    degrader = Degrader(plan, {i: record.target for i, record in enumerate(video.frames)})
    position = {record.index: i for i, record in enumerate(video.frames)}
    for frame in frames:
        yield replace(frame, image=degrader.apply(position[frame.index], frame.image))


def corrupted_frames(video: VideoRecord, plan: Plan) -> set[int]:
    """Indices of the frames that a plan corrupts."""
    pairs = zip(video.frames, plan, strict=True)
    return {record.index for record, entry in pairs if entry is not None}


def thinned(video: VideoRecord, every: int) -> VideoRecord:
    """Only the first, the (every + 1)-th, ... frame: the video at a lower frame rate."""
    if every < 1:
        raise RnndetError(f"every = {every}; expected 1 (all frames) or more")
    return replace(video, frames=video.frames[::every])


def images_of(
    data: VideoSet, wanted: Sequence[tuple[str, int]], *, cache: Path | None = None
) -> dict[tuple[str, int], np.ndarray]:
    """The images, (H, W, 3) uint8, of some frames, by video name and frame index."""
    images = {}
    for video in data.videos:
        records = [r for r in video.frames if (video.name, r.index) in set(wanted)]
        if records:
            loaded = load(video, records, cache=cache)
            images |= {(video.name, r.index): i for r, i in zip(records, loaded, strict=True)}
    return images


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
        if record.target is None:
            return record
        labels = record.target.labels
        known = labels.clamp(min=0)  # a region of no class keeps its -1
        target = replace(record.target, labels=torch.where(labels < 0, labels, label_of[known]))
        return replace(record, target=target)

    videos = (replace(v, frames=tuple(map(relabelled, v.frames))) for v in data.videos)
    return VideoSet(classes, tuple(videos))
