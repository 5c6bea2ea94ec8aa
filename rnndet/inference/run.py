"""Run a model over a video: `track` yields the results, `run_source` writes them to files."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from rnndet.errors import InputError
from rnndet.inference.batch.done import DoneRecord, forget_done
from rnndet.inference.pipeline import DEPTH, WriteBehind, prefetch, timed
from rnndet.inference.results import ResultFiles, Summary, Tally, stage_seconds
from rnndet.inference.runtimes import Runtime, as_runtime
from rnndet.inference.stream import NoTrackClasses, Stream, run_video
from rnndet.inference.stream_state import Position, continued, load_stream, save_stream
from rnndet.models.zoo import file_sha256, find_weights
from rnndet.structures import DEFAULT_FPS, Frame, FrameResult
from rnndet.system.timing import StageTimer
from rnndet.tracking import make_tracker
from rnndet.video.key_frames import choose_key_frames
from rnndet.video.scene_cut import SceneCut
from rnndet.video.sources.base import Source
from rnndet.video.sources.open import open_source

if TYPE_CHECKING:
    from rnndet.models.video_detector import VideoDetector


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
    source: str | Path | int | Iterable[Frame | np.ndarray],
    *,
    min_score: float = 0.3,
    tracker: str = "byte",
    tracker_options: Mapping[str, Any] | None = None,
    scene_cuts: bool = True,
    coast: float = 0.0,
    key_every: int = 1,
    key_lost: float = 0.0,
    classes: Sequence[str] | None = None,
    track_classes: bool = True,
) -> Iterator[FrameResult]:
    """Return a generator over the results of a video, which may be endless: no result is stored.

    source: the path of a video, of a folder of images or of an image; a camera number; or any
    iterable of `Frame` or of (H, W, 3) uint8 RGB arrays, which are taken as 25 per second.
    tracker: none, iou, sort, byte or oc_sort. tracker_options: fields of its options, such as
    {"max_age": 2.0}, see `ByteOptions`. scene_cuts: reset state and tracks where another scene
    begins, see `SceneCut`. coast: seconds for which `predicted` contains a missed track, see
    `TrackSmoother`. key_every: the model sees every n-th frame, and a frame in which less than the
    share key_lost of the boxes could be propagated, see `KeyFrames`. classes: names of the classes
    to detect, such as ("person", "car"); None: all classes. track_classes: correct the classes by
    the shape and motion of tracks, if the weights can, see `Stream`. The model stays on its device.
    Raises RnndetError (InputError for a source that cannot be opened); for wrong names at the call.

    >>> model = load_model("aerial")  # doctest: +SKIP
    >>> for result in track(model, "clip.mp4"):  # doctest: +SKIP
    ...     print(result.frame.index, result.detections.boxes, result.detections.ids)
    """
    stream = make_stream(
        model, tracker=tracker, tracker_options=tracker_options, min_score=min_score,
        scene_cuts=scene_cuts, coast=coast,
        key_every=key_every, key_lost=key_lost, classes=classes, track_classes=track_classes,
    )  # fmt: skip
    if isinstance(source, str | Path | int):
        return _results(stream, open_source(source))
    return run_video(stream, _as_frames(source))


def make_stream(
    model: VideoDetector | Runtime,
    *,
    tracker: str = "byte",
    tracker_options: Mapping[str, Any] | None = None,
    min_score: float = 0.3,
    scene_cuts: bool = True,
    coast: float = 0.0,
    key_every: int = 1,
    key_lost: float = 0.0,
    classes: Sequence[str] | None = None,
    track_classes: bool = True,
) -> Stream:
    """Return a stream with one threshold for tracker and model; sets the model's `score_threshold`.

    The arguments are those of `track`.
    """
    stream = Stream(
        as_runtime(model),
        make_tracker(tracker, min_score=min_score, options=tracker_options),
        min_score=min_score,
        cuts=SceneCut() if scene_cuts else None,
        keys=choose_key_frames(key_every, key_lost),
        coast=coast,
        classes=classes,
        track_classes=track_classes,
    )
    stream.runtime.score_threshold = stream.score_floor
    return stream


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
    folder = Path(out_dir) / (options.name or source.info.name)
    with ResultFiles(
        folder, source.info, stream.runtime.classes, header=about, save=options.save,
        trails=options.trails, show=show, overwrite=options.overwrite,
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
            raise InputError(f"{self._source.info.source}: no frame could be read")
        self._interrupted = self._interrupted or self._stop()

    def _write_frames(self, frames: Iterator[Frame], writer: WriteBehind) -> None:
        if self._before is not None:
            frames = continued(frames, self._before, fps=self._source.info.fps)
        for frame in frames:
            result = self._stream.step(frame, self._timer)
            writer.put(result)
            self._tally.add(result)
            self.last = Position(frame.index, frame.time)
            self._on_frame(result)
            if self._stop():
                self._interrupted = True
                return

    def _frames(self) -> Iterator[Frame]:
        """The frames of the source; prefetched, except live frames, which would become stale."""
        frames = itertools.islice(self._source, self._options.max_frames)
        if self._source.is_live or not self._options.is_threaded:
            return timed(frames, self._timer)
        return prefetch(frames, self._timer)

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


def _results(stream: Stream, source: Source) -> Iterator[FrameResult]:
    with source:
        yield from run_video(stream, source)


def _as_frames(source: Iterable[Frame | np.ndarray]) -> Iterator[Frame]:
    for index, item in enumerate(source):
        yield item if isinstance(item, Frame) else Frame(item, index, float(index / DEFAULT_FPS))
