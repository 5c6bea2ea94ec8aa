"""Run a model over a video: `track` yields the results, `run_source` writes them to files."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from rnndet.errors import InputError, RnndetError
from rnndet.inference.batch.done import DoneRecord, forget_done
from rnndet.inference.counting import Regions, read_regions
from rnndet.inference.pipeline import DEPTH, WriteBehind, prefetch, timed
from rnndet.inference.results import ResultFiles, Summary, Tally, stage_seconds
from rnndet.inference.runtimes import Runtime, as_runtime
from rnndet.inference.stream import (
    DEFAULT_SCORE,
    NoTrackClasses,
    Ready,
    Stream,
    run_video,
    score_limits,
)
from rnndet.inference.stream_state import Position, continued, load_stream, save_stream
from rnndet.messages import counted
from rnndet.models.zoo import file_sha256, find_weights
from rnndet.structures import DEFAULT_FPS, Frame, FrameResult
from rnndet.system.timing import StageTimer
from rnndet.tracking import make_tracker
from rnndet.video.key_frames import choose_key_frames
from rnndet.video.scene_cut import SceneCut
from rnndet.video.sources.base import Source
from rnndet.video.sources.excerpt import check_range, frames_of_range
from rnndet.video.sources.open import open_source

if TYPE_CHECKING:
    from rnndet.models.video_detector import VideoDetector

Part = Callable[[Iterable[Frame]], Iterator[Frame]]  # of the frames of a source

PATHS = (str, bytes, os.PathLike)  # types of a path


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of `run_source`."""

    name: str | None = None  # of the folder of results; None: `source.info.name`
    header: Mapping[str, Any] = field(default_factory=dict)  # added to the first line of the JSON
    save: tuple[str, ...] = ("video",)  # names of `writers.EXPORTS`
    trails: int = 0  # see `Annotator`
    max_frames: int | None = None
    overwrite: bool = False  # replace results of an earlier run
    load_state: str | Path | None = None  # continue from the state that another run saved there
    save_state: str | Path | None = None  # save the state there, also when interrupted
    done: DoneRecord | None = None  # written when the results are complete
    is_threaded: bool = True  # read and write on separate threads


def track(
    model: VideoDetector | Runtime,
    source: str
    | bytes
    | os.PathLike[str]
    | int
    | Sequence[str | os.PathLike[str]]
    | Iterable[Frame | np.ndarray],
    *,
    min_score: float | Mapping[str, float] = DEFAULT_SCORE,
    nms: float | None = None,
    tracker: str = "byte",
    tracker_options: Mapping[str, Any] | None = None,
    scene_cuts: bool = True,
    coast: float = 0.0,
    key_every: int = 1,
    key_lost: float = 0.0,
    classes: Sequence[str] | None = None,
    track_classes: bool = True,
    regions: Regions | str | Path | None = None,
    size: int | None = None,
    stride: int = 1,
    start: float = 0.0,
    end: float | None = None,
) -> Iterator[FrameResult]:
    """Return a generator over the results of a video, which may be endless: no result is stored.

    source: the path of a video, of a folder of images or of an image; a camera number; any iterable
    of `Frame` or of (H, W, 3) uint8 RGB arrays, which are taken as 25 per second; or a list of
    paths, whose results follow one another: each video begins with an empty state, ids from 1 and
    counts from 0, and `FrameResult.source` names it.
    min_score: minimum score, or by the name of a class, as {"person": 0.6, "*": 0.4}; "*" is every
    other class. nms: IoU above which the lower of two scores of a class is removed; None: as in the
    model. tracker: none, iou, sort, byte or oc_sort. tracker_options: fields of its options, as
    {"max_age": 2.0}, see `ByteOptions`. scene_cuts: reset state and tracks where another scene
    begins, see `SceneCut`. coast: seconds for which `predicted` contains a missed track, see
    `TrackSmoother`. key_every: the model sees every n-th frame, and a frame in which less than the
    share key_lost of the boxes could be propagated, see `KeyFrames`. classes: names of the classes
    to detect, such as ("person", "car"); None: all classes. track_classes: correct the classes by
    the shape and motion of tracks, if the weights can, see `Stream`. regions: regions and lines, or
    their JSON file, in which tracks are counted, see `rnndet.inference.counting`. size: longer edge
    of the network's input, in pixels; None: that of the model.
    stride, start, end: every n-th frame, from and to these times in seconds, see `Excerpt`.

    The model stays on its device, and nothing is set on it: generators with other options may use
    it at the same time. Raises RnndetError: for wrong options and a source that cannot be opened
    (InputError) at the call; for a later one of several paths when its turn comes.

    >>> model = load_model("aerial")  # doctest: +SKIP
    >>> for result in track(model, "clip.mp4"):  # doctest: +SKIP
    ...     print(result.frame.index, result.detections.boxes, result.detections.ids)
    """
    check_range(start, end, stride)
    stream = make_stream(
        model, tracker=tracker, tracker_options=tracker_options, min_score=min_score, nms=nms,
        scene_cuts=scene_cuts, coast=coast,
        key_every=key_every, key_lost=key_lost, classes=classes, track_classes=track_classes,
        regions=regions, size=size,
    )  # fmt: skip
    part = partial(frames_of_range, start=start, end=end, stride=stride)
    is_one = isinstance(source, str | bytes | Mapping) or not isinstance(source, Iterable)
    if is_one:
        return _results(stream, open_source(source), part)  # which refuses what is no source
    if isinstance(source, list | tuple) and source and isinstance(source[0], PATHS):
        return _results_of_all(stream, open_source(source[0]), source[1:], part)
    name = source.info.source if isinstance(source, Source) else None
    return _named(run_video(stream, part(_as_frames(source))), name)


def make_stream(
    model: VideoDetector | Runtime,
    *,
    tracker: str = "byte",
    tracker_options: Mapping[str, Any] | None = None,
    min_score: float | Mapping[str, float] = DEFAULT_SCORE,
    nms: float | None = None,
    scene_cuts: bool = True,
    coast: float = 0.0,
    key_every: int = 1,
    key_lost: float = 0.0,
    classes: Sequence[str] | None = None,
    track_classes: bool = True,
    regions: Regions | str | Path | None = None,
    size: int | None = None,
) -> Stream:
    """Return a stream with one threshold for tracker and model; the arguments of `track`."""
    runtime = as_runtime(model)
    scores = score_limits(min_score, runtime.classes)
    return Stream(
        runtime,
        make_tracker(tracker, min_score=scores, options=tracker_options),
        min_score=min_score,
        nms=nms,
        cuts=SceneCut() if scene_cuts else None,
        keys=choose_key_frames(key_every, key_lost),
        coast=coast,
        classes=classes,
        track_classes=track_classes,
        regions=read_regions(regions) if isinstance(regions, str | Path) else regions,
        size=size,
    )


def run_source(
    stream: Stream,
    source: Source,
    out_dir: str | Path,
    options: RunOptions | None = None,
    *,
    show: Callable[[np.ndarray], None] | None = None,
    on_frame: Callable[[FrameResult], None] = lambda result: None,
    stop: Callable[[], bool] = lambda: False,
    timer: StageTimer | None = None,
) -> Summary:
    """Run one video and write OUT_DIR/NAME/detections.jsonl and the files of `RunOptions.save`.

    Results have their final names only when complete, so older ones are replaced together or not at
    all; after an error `detections.part.jsonl` has the frames until then. A done.json of earlier
    results is removed first.

    show: called with each annotated image, on this thread. on_frame: called after each frame. stop:
    asked after each frame; if it returns true, or at Ctrl-C, the files are completed and the
    summary has `interrupted`. timer: measures the stages decode, draw and write and those of
    `Stream.step`.

    Raises OutputError if there are results already and `overwrite` is false, if another process
    writes to the folder, or on a full disk; InputError if the source has no frame.

    >>> stream = make_stream(load_model("aerial"))  # doctest: +SKIP
    >>> with open_source("clip.mp4") as source:  # doctest: +SKIP
    ...     summary = run_source(stream, source, "out", RunOptions(save=("video", "mot")))
    """
    options = options or RunOptions()
    timer = timer or StageTimer()
    begin = perf_counter()
    run = _Run(stream, source, options=options, timer=timer, on_frame=on_frame, stop=stop)
    about = {"device": stream.runtime.device, "min_score": stream.min_score, **options.header}
    if stream.classes is not None:
        about["selected_classes"] = list(stream.classes)
    if not isinstance(stream.track_classes, NoTrackClasses):
        about["track_classes"] = True
    save = options.save
    if stream.nms is not None:
        about["nms"] = stream.nms
    if stream.size is not None:
        about["size"] = stream.size
    if stream.regions is not None:
        about["regions"] = stream.regions.to_dict()
        save = tuple(dict.fromkeys((*save, "counts")))
    elif "counts" in save:
        raise RnndetError("`save` counts: there is nothing to count; use `regions`")
    folder = Path(out_dir) / (options.name or source.info.name)
    with ResultFiles(
        folder, source.info, stream.runtime.classes, header=about, save=save,
        trails=options.trails, regions=stream.regions, show=show, overwrite=options.overwrite,
        colours=source.colour_tags() if "video" in save else None,
    ) as files:  # fmt: skip
        forget_done(folder)  # it must never accompany results of another run
        run.write_frames(files, depth=0 if show is not None or not options.is_threaded else DEPTH)
        summary = run.summary(folder, files, seconds=perf_counter() - begin)
        files.finish(summary)
        if options.done is not None and not summary.interrupted:
            options.done.write(
                folder, frames=summary.frames, is_complete=summary.is_complete, files=summary.files
            )
    if options.save_state is not None and run.last is not None:
        save_stream(options.save_state, stream, run.last)
    return summary


class _Run:
    """Runs the frames of one video and counts them."""

    def __init__(
        self,
        stream: Stream,
        source: Source,
        *,
        options: RunOptions,
        timer: StageTimer,
        on_frame: Callable[[FrameResult], None],
        stop: Callable[[], bool],
    ) -> None:
        self._stream, self._source, self._options, self._timer = stream, source, options, timer
        self._on_frame, self._stop = on_frame, stop
        self._tally = Tally(stream.runtime.classes)
        self._interrupted = False
        self.last: Position | None = None
        stream.reset()
        path = options.load_state
        self._before = None if path is None else load_stream(path, stream)

    def write_frames(self, files: ResultFiles, *, depth: int) -> None:
        """Run all frames and write their results; depth: see `WriteBehind`."""
        try:
            with (
                closing(self._frames()) as frames,
                WriteBehind(partial(files.write, timer=self._timer), depth=depth) as writer,
            ):
                self._write_frames(frames, writer)
        except KeyboardInterrupt:
            self._interrupted = True
        if self._tally.frames == 0 and not self._interrupted:
            counts, name = self._source.counts, self._source.info.source
            if counts is not None and counts.decoded:
                read = counted(counts.decoded, "frame")
                raise InputError(f"{name}: {read} read, none of them from `start` to `end`")
            raise InputError(f"{name}: no frame could be read")
        self._interrupted = self._interrupted or self._stop()

    def _write_frames(
        self, frames: Iterator[tuple[Frame, Ready | None]], writer: WriteBehind
    ) -> None:
        for frame, ready in frames:
            result = self._stream.step(frame, self._timer, ready=ready)
            writer.put(result)
            self._tally.add(result)
            self.last = Position(frame.index, frame.time)
            self._on_frame(result)
            if self._stop():
                self._interrupted = True
                return

    def _frames(self) -> Iterator[tuple[Frame, Ready | None]]:
        """The frames of the source; prefetched, except live frames, which would become stale.

        Prefetched frames are also scaled on the thread of the reader, which counts as decoding.
        """
        frames = itertools.islice(self._source, self._options.max_frames)
        if self._before is not None:
            frames = continued(frames, self._before, fps=self._source.info.fps)
        if self._source.is_live or not self._options.is_threaded:
            return ((frame, None) for frame in timed(frames, self._timer))
        return prefetch(((frame, self._stream.ready(frame)) for frame in frames), self._timer)

    def summary(self, folder: Path, files: ResultFiles, *, seconds: float) -> Summary:
        """Return the summary of the frames so far."""
        tally, counts = self._tally, self._source.counts
        return Summary(
            folder=folder,
            files=files.paths if tally.frames else (),
            frames=tally.frames,
            unreadable=0 if counts is None else counts.failed,
            seconds=seconds,
            stages=stage_seconds(self._timer.seconds),
            objects=tally.objects(),
            tracks=tally.tracks(),
            cuts=tally.cuts,
            propagated=tally.propagated,
            interrupted=self._interrupted,
            codec=files.codec,
            note=files.note,
            read=counts,
            warnings=self._source.notes,
            counts=tally.counts,
        )


def describe_model(
    model: VideoDetector | Runtime, weights: str | Path | None = None
) -> dict[str, Any]:
    """Describe the model for a result file; weights: the name or path it was loaded from."""
    runtime = as_runtime(model)
    return {
        "name": None if weights is None else str(weights),
        "sha256": None if weights is None else file_sha256(find_weights(weights)[0]),
        **runtime.about,
        "runtime": runtime.name,
    }


def _results(stream: Stream, source: Source, part: Part) -> Iterator[FrameResult]:
    with source:
        yield from _named(run_video(stream, part(source)), source.info.source)


def _results_of_all(
    stream: Stream, first: Source, others: Sequence[str | Path], part: Part
) -> Iterator[FrameResult]:
    yield from _results(stream, first, part)
    for path in others:
        yield from _results(stream, open_source(path), part)


def _named(results: Iterator[FrameResult], source: str | None) -> Iterator[FrameResult]:
    for result in results:
        yield replace(result, source=source)


def _check_frame(item: object, index: int) -> None:
    image = item.image if isinstance(item, Frame) else item
    if not isinstance(image, np.ndarray):
        found = f"{type(image).__name__} {image!r:.60}"
    elif image.ndim != 3 or image.shape[2] != 3:
        found = f"an array of shape {image.shape}"
    else:
        return
    raise RnndetError(
        f"source: item {index} of the iterable: expected a Frame or an (H, W, 3) uint8 array, "
        f"found {found}; to read a file, give its path as the source, and for several a list "
        "of paths"
    )


def _as_frames(source: Iterable[Frame | np.ndarray]) -> Iterator[Frame]:
    for index, item in enumerate(source):
        _check_frame(item, index)
        yield item if isinstance(item, Frame) else Frame(item, index, float(index / DEFAULT_FPS))
