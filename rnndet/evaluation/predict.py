"""Run a model over labelled videos as in inference, frame by frame with its recurrent state."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from rnndet.data.corruption.plan import Plan, named_plan
from rnndet.data.frames import iterate
from rnndet.data.records import VideoRecord, VideoSet
from rnndet.errors import RnndetError
from rnndet.evaluation.ablation import predict_ablations
from rnndet.evaluation.agreement import Teacher
from rnndet.evaluation.class_map import ClassMap, map_detections
from rnndet.evaluation.records import FrameCollector, Predictions
from rnndet.evaluation.videos import corrupted_frames, degraded, spread, thinned
from rnndet.inference.runtimes import Runtime
from rnndet.inference.runtimes.graph import GraphRuntime
from rnndet.inference.runtimes.torch_runtime import TorchRuntime
from rnndet.inference.stream import Stream
from rnndet.models.video_detector import VideoDetector
from rnndet.structures import Frame
from rnndet.system.distributed import World
from rnndet.video.key_frames import KeyFrames

SCORE_FLOOR = 0.001  # as usual for COCO: precision at high recall needs the weak detections


def predict(
    stream: Stream,
    videos: Iterable[tuple[VideoRecord, Iterable[Frame]]],
    *,
    corrupted: Mapping[str, Collection[int]] | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Predictions:
    """Run each video through the stream, which is reset before it.

    videos: records with their frames; only these frames are evaluated. corrupted: indices of the
    corrupted frames, by video name. progress: called after each frame. The stream's `min_score`
    should be `SCORE_FLOOR`. The time of each step, without decoding, is recorded for the metric
    streaming.
    """
    predictions = Predictions(stream.runtime.classes)
    for video, frames in videos:
        collector = FrameCollector(video, corrupted=(corrupted or {}).get(video.name, ()))
        stream.reset()
        for frame in frames:
            began = time.perf_counter()
            detections = stream.step(frame).detections
            collector.add(frame.index, detections, seconds=time.perf_counter() - began)
            progress()
        predictions.add(collector.video())
    return predictions


def evaluate_set(
    model: VideoDetector | Runtime,
    data: VideoSet,
    *,
    cache: Path | None = None,
    uses: Sequence[str] = (),
    degrade: str | None = None,
    degrade_seed: int = 0,
    every: int = 1,
    keys: KeyFrames | None = None,
    size: int | None = None,
    max_videos: int | None = None,
    teacher: Teacher | None = None,
    class_map: ClassMap | None = None,
    track_classes: bool = True,
    world: World | None = None,
    progress: Callable[[int], object] = lambda total: None,
) -> dict[str, Predictions]:
    """Run a model over a set of videos, as rnndet evaluate does; returns the runs by use.

    uses: of the temporal state, from `ablation.USES`; without them one plain run, named "". They
    need torch.
    degrade, degrade_seed: corrupt the frames by their `named_plan`.
    every, max_videos: use every N-th frame, and at most this many videos.
    keys: the model processes only the key frames.
    size: longer edge of the network's input, in pixels; None: that of the model.
    teacher: its detections on the clean frames replace the labels: figures are agreement with it.
    class_map: the classes to evaluate; the data has its classes, see `only_classes`. None: those of
    the model, which the data has, see `match_classes`.
    track_classes: correct the classes by the shape and motion of tracks, as in inference.
    world: each process runs its share of the videos. The first gets all runs, the rest none.
    progress: called after each frame, of the teacher also, with the total number of frames.

    Detections with a score above SCORE_FLOOR are evaluated. Raises RnndetError for impossible
    values and a teacher with other classes.
    """
    if teacher is not None:
        teacher.check_classes(model.classes)
    if uses and isinstance(model, GraphRuntime):
        raise RnndetError(f"uses of the memory: not by {model.name}; use `kind=torch`")
    if uses and isinstance(model, TorchRuntime):
        if model.is_half:
            raise RnndetError("`half=True`: not with other uses of the memory; leave it out")
        model = model.model
    if uses and keys is not None:
        raise RnndetError("key frames: not with other uses of the memory, which need every frame")
    if uses and size is not None:
        raise RnndetError("`size`: not with other uses of the memory; leave it out")
    world = world or World()
    videos = [thinned(video, every) for video in spread(data.videos, max_videos)]
    share = world.share(range(len(videos)))
    plans = _plans(videos, degrade, seed=degrade_seed)
    corrupted = {v.name: corrupted_frames(v, plans[v.name]) for v in videos if v.name in plans}
    frames_of = partial(_frames, cache=cache, plans=plans)
    frame_count = sum(len(videos[position].frames) for position in share)
    tick = partial(progress, frame_count * (1 if teacher is None else 2))
    if teacher is not None:
        for position in share:
            videos[position] = teacher.label(videos[position], cache=cache, progress=tick)

    if uses:
        runs = predict_ablations(
            model,
            videos,
            frames_of,
            uses=uses,
            positions=share,
            corrupted=corrupted,
            min_score=SCORE_FLOOR,
            track_classes=track_classes,
            progress=tick,
        )
    else:
        chosen = None if class_map is None else class_map.model_names
        stream = Stream(
            model,
            min_score=SCORE_FLOOR,
            keys=keys,
            classes=chosen,
            track_classes=track_classes,
            size=size,
        )
        pairs = ((videos[position], frames_of(videos[position])) for position in share)
        runs = {"": predict(stream, pairs, corrupted=corrupted, progress=tick)}

    facts = {
        "score floor": SCORE_FLOOR,
        "every": every,
        "key frames": "all" if keys is None else f"every {keys.every}, lost {keys.lost:g}",
        "degraded": "no" if degrade is None else f"{degrade}, seed {degrade_seed}",
    }
    if size is not None:
        facts["size"] = size
    if model.track_classes is not None:
        facts["track classes"] = "corrected" if track_classes else "not corrected"
    if teacher is not None:
        facts["labels"] = teacher.rule
    for use, run in runs.items():
        run.about = facts | {"memory": use or "carried"}
    if class_map is not None:
        runs = {use: map_detections(run, class_map) for use, run in runs.items()}
    return _gathered(runs, world)


def _plans(videos: Iterable[VideoRecord], degrade: str | None, *, seed: int) -> dict[str, Plan]:
    """The corruption plan of each video, by name; none without `degrade`."""
    if degrade is None:
        return {}
    return {v.name: named_plan(degrade, v.name, len(v.frames), seed=seed) for v in videos}


def _frames(
    video: VideoRecord, *, cache: Path | None, plans: Mapping[str, Plan]
) -> Iterable[Frame]:
    """The frames of a video, corrupted if it has a plan."""
    frames = iterate(video, cache=cache)
    return degraded(video, frames, plans[video.name]) if video.name in plans else frames


def _gathered(runs: dict[str, Predictions], world: World) -> dict[str, Predictions]:
    """The runs over the videos of all processes, in the first process; {} in the rest."""
    first, *others = world.gather(runs) or [{}]
    for other in others:
        for use, run in other.items():
            first[use].merge(run)
    return first
