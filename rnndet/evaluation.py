"""Score what a stream sees: the shipped path, frame by frame, with its state.

`evaluate` measures; `evaluate_ablations` also measures what the memory is worth, by taking it away
("reset") and by exchanging it for another video's ("foreign"); `degraded` makes frames hard.
Results are plain dicts of numbers; `table` and `write_report` show and keep them.
"""

import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from rnndet.data.frames import iterate
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.degradation import Degrader, Plan, standard_plan
from rnndet.errors import OutputError, RnndetError
from rnndet.metrics.base import Evaluator
from rnndet.metrics.coco_ap import CocoAP
from rnndet.model import Output, VideoDetector
from rnndet.stream import Stream, run_video
from rnndet.structures import Detections, Frame, Truth
from rnndet.temporal.state import State

SCORE_FLOOR = 0.001  # COCO practice: precision at high recall needs the weak detections
ABLATIONS = ("carried", "reset", "foreign")
FOREIGN_FRAMES = 16  # of the other video: enough for a memory that is in its steady state

Numbers = dict[str, float]
FramesOf = Callable[[VideoRecord], Iterable[Frame]]
Progress = Callable[[], None]  # called after each frame


def evaluate(
    stream: Stream,
    videos: Iterable[tuple[VideoRecord, Iterable[Frame]]],
    evaluators: Mapping[str, Evaluator],
    *,
    progress: Progress | None = None,
) -> dict[str, Numbers]:
    """Run each video through the stream, from a reset; returns the numbers by evaluator name.

    Every frame is stepped, only frames with a truth are scored. The model's `score_threshold` and
    the stream's `min_score` should be `SCORE_FLOOR`. To score one run in subsets, give several
    evaluators that each take some of the frames. Which frames are shown is the caller's choice, and
    one that is not shown is not scored.
    """
    for video, frames in videos:
        truths = _truths(video)
        for result in run_video(stream, frames):
            index = result.frame.index
            _score(video.name, index, truths.get(index), [(result.detections, evaluators)])
            if progress is not None:
                progress()
    return {name: evaluator.compute() for name, evaluator in evaluators.items()}


def evaluate_ablations(
    model: VideoDetector,
    videos: Sequence[VideoRecord],
    frames_of: FramesOf,
    evaluators: Mapping[str, Mapping[str, Evaluator]],
    *,
    min_score: float = SCORE_FLOOR,
    foreign_frames: int = FOREIGN_FRAMES,
    progress: Progress | None = None,
) -> dict[str, dict[str, Numbers]]:
    """Evaluate three uses of the memory in one pass: evaluators and numbers by ablation, then name.

    - carried: the state goes from frame to frame, as in `evaluate`, with the same numbers.
    - reset: every frame is the first one.
    - foreign: before every frame the state is the one that the previous video of the list (for the
      first video, the last) left after its first `foreign_frames` frames.

    What does not depend on the memory is computed once per frame. Raises RnndetError for fewer than
    two videos.
    """
    assert set(evaluators) == set(ABLATIONS), sorted(evaluators)
    if len(videos) < 2:
        raise RnndetError("the memory ablation needs at least two videos, for a foreign state")
    stream = Stream(model, min_score=min_score)
    first_frames = itertools.islice(frames_of(videos[-1]), foreign_frames)
    foreign = _state_after(stream, first_frames)
    for video in videos:
        truths = _truths(video)
        stream.reset()
        next_foreign: State | None = None
        for count, frame in enumerate(frames_of(video), start=1):
            outputs = _three_ways(stream, frame, foreign)
            found = [_found(output, stream.score_floor) for output in outputs]
            rows = zip(found, (evaluators[name] for name in ABLATIONS), strict=True)
            _score(video.name, frame.index, truths.get(frame.index), rows)
            stream.state = outputs[0].state
            if count <= foreign_frames:
                next_foreign = stream.state
            if progress is not None:
                progress()
        foreign = next_foreign
    return {
        ablation: {name: evaluator.compute() for name, evaluator in row.items()}
        for ablation, row in evaluators.items()
    }


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
) -> tuple[dict[str, Numbers], dict[str, Any]]:
    """COCO numbers of a model by row of a table, and the protocol: what tools/evaluate.py does.

    `degrade_seed` corrupts the frames by their `standard_plan`; there are then rows for corrupted
    and for other frames. `every` and `max_videos` show fewer frames and videos. `progress` is told
    the number of all frames after each. The model's `score_threshold` is set to SCORE_FLOOR.
    """
    model.score_threshold = SCORE_FLOOR
    videos = [thinned(video, every) for video in _spread(data.videos, max_videos)]
    plans: dict[str, Plan] = {}
    if degrade_seed is not None:
        plans = {v.name: standard_plan(v.name, len(v.frames), seed=degrade_seed) for v in videos}

    def frames_of(video: VideoRecord) -> Iterable[Frame]:
        frames = iterate(video, cache=cache)
        return degraded(video, frames, plans[video.name]) if plans else frames

    bad = {pair for v in videos if plans for pair in corrupted_frames(v, plans[v.name])}
    subsets: dict[str, Callable[[str, int], bool] | None] = {"all frames": None}
    if plans:
        subsets["corrupted frames"] = lambda video, index: (video, index) in bad
        subsets["other frames"] = lambda video, index: (video, index) not in bad
    evaluators = {
        mode: {name: CocoAP(data.classes, frames=frames) for name, frames in subsets.items()}
        for mode in ABLATIONS
    }
    total = sum(len(video.frames) for video in videos)
    tick = None if progress is None else partial(progress, total)
    if ablate_memory:
        by_mode = evaluate_ablations(model, videos, frames_of, evaluators, progress=tick)
        results = {f"{m}, {n}": numbers for m, row in by_mode.items() for n, numbers in row.items()}
    else:
        pairs = ((video, frames_of(video)) for video in videos)
        stream = Stream(model, min_score=SCORE_FLOOR)
        results = evaluate(stream, pairs, evaluators["carried"], progress=tick)
    protocol = {
        "rule": "COCO, IoU .50:.05:.95, 101 points",
        "detections": 100,
        "score floor": SCORE_FLOOR,
        "videos": len(videos),
        "frames shown": total,
        "frames scored": len(evaluators["carried"]["all frames"]),
        "every": every,
        "degraded": "no" if degrade_seed is None else f"standard plan, seed {degrade_seed}",
        "classes": len(data.classes),
    }
    return results, protocol


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
        truth = replace(record.truth, labels=label_of[record.truth.labels])
        return replace(record, truth=truth)

    videos = (replace(v, frames=tuple(map(relabelled, v.frames))) for v in data.videos)
    return VideoSet(classes, tuple(videos))


def _truths(video: VideoRecord) -> dict[int, Truth]:
    """The labelled frames."""
    return {record.index: record.truth for record in video.frames if record.truth is not None}


def _score(
    name: str,
    index: int,
    truth: Truth | None,
    rows: Iterable[tuple[Detections, Mapping[str, Evaluator]]],
) -> None:
    """Give one frame's detections to the evaluators beside them, if the frame is labelled."""
    if truth is None:
        return
    for detections, evaluators in rows:
        for evaluator in evaluators.values():
            evaluator.update(name, index, detections, truth)


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


def table(rows: Mapping[str, Numbers], columns: Sequence[str]) -> str:
    """Numbers in per cent under their names, one line per row; `-` where a number is undefined."""
    first = max(len(name) for name in ("", *rows))
    widths = [max(len(column), 5) for column in columns]
    heads = [column.rjust(width) for column, width in zip(columns, widths, strict=True)]
    lines = ["  ".join([" " * first, *heads])]
    for name, numbers in rows.items():
        cells = []
        for column, width in zip(columns, widths, strict=True):
            value = numbers.get(column, math.nan)
            cells.append(("-" if math.isnan(value) else f"{100 * value:.1f}").rjust(width))
        lines.append("  ".join([name.ljust(first), *cells]))
    return "\n".join(lines)


def write_report(path: str | Path, report: Mapping[str, Any]) -> None:
    """Write JSON atomically; NaN becomes null, which JSON has. Raises OutputError."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    text = json.dumps(_without_nan(report), indent=2, allow_nan=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise OutputError(f"{path}: report cannot be written: {error.strerror}") from None


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
