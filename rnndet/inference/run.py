"""From a source to results: `track` yields them, `run_source` writes them to a folder."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rnndet.errors import InputError
from rnndet.inference.pipeline import DEPTH, WriteBehind, prefetch, timed
from rnndet.inference.results import ResultFiles, StageClock, Summary, Tally
from rnndet.inference.runtimes import Runtime, as_runtime
from rnndet.inference.stream import Stream, run_video
from rnndet.inference.stream_state import Position, continued, load_stream, save_stream
from rnndet.models.zoo import file_sha256, find_weights
from rnndet.registry import lookup
from rnndet.structures import Frame, FrameResult
from rnndet.tracking import TRACKERS
from rnndet.video.key_frames import choose_key_frames
from rnndet.video.scene_cut import SceneCut
from rnndet.video.sources.base import Source
from rnndet.video.sources.open import open_source

if TYPE_CHECKING:
    from rnndet.models.video_detector import VideoDetector

ARRAY_FPS = 25  # frame times of plain arrays, which have none


def track(
    model: VideoDetector | Runtime,
    source: str | Path | int | Iterable[Frame | np.ndarray],
    *,
    min_score: float = 0.3,
    tracker: str = "byte",
    scene_cuts: bool = True,
    coast: float = 0.0,
    key_every: int = 1,
    key_lost: float = 0.0,
) -> Iterator[FrameResult]:
    """Return a generator over the results of one video; nothing is kept, so any length will do.

    source: the path of a video, of a folder of images or of one image; a camera number; or
    any iterable of `Frame` or of (H, W, 3) uint8 RGB arrays, which are taken as 25 per second.
    tracker: none, iou, sort or byte. scene_cuts: begin anew where another scene begins, see
    `rnndet.video.SceneCut`. coast: seconds for which `predicted` holds a missed track, see
    `rnndet.tracking.SteadyTracks`. key_every: the model sees every n-th frame, and sooner one in
    which less than the share key_lost could be followed, see `rnndet.video.KeyFrames`. The
    model stays where it is.
    Raises RnndetError (a source that cannot be opened: InputError), bad names at the call.
    """
    stream = make_stream(
        model, tracker=tracker, min_score=min_score, scene_cuts=scene_cuts, coast=coast,
        key_every=key_every, key_lost=key_lost,
    )  # fmt: skip
    if isinstance(source, str | Path | int):
        return _results(stream, open_source(source))
    return run_video(stream, _as_frames(source))


def make_stream(
    model: VideoDetector | Runtime,
    *,
    tracker: str = "byte",
    min_score: float = 0.3,
    scene_cuts: bool = True,
    coast: float = 0.0,
    key_every: int = 1,
    key_lost: float = 0.0,
) -> Stream:
    """A stream whose tracker and model go by one threshold; sets the model's `score_threshold`.

    The arguments are those of `track`.
    """
    chosen = lookup(tracker, TRACKERS, what="tracker")(min_score=min_score)
    stream = Stream(
        as_runtime(model),
        chosen,
        min_score=min_score,
        cuts=SceneCut() if scene_cuts else None,
        keys=choose_key_frames(key_every, key_lost),
        coast=coast,
    )
    stream.runtime.score_threshold = stream.score_floor
    return stream


def run_source(
    stream: Stream,
    source: Source,
    out_dir: str | Path,
    *,
    name: str | None = None,
    header: Mapping[str, Any] | None = None,
    save: Sequence[str] = ("video",),
    trails: int = 0,
    show: Callable[[np.ndarray], None] | None = None,
    max_frames: int | None = None,
    overwrite: bool = False,
    on_frame: Callable[[FrameResult], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
    load_state: str | Path | None = None,
    save_state: str | Path | None = None,
    begin: Callable[[], None] = lambda: None,
    end: Callable[[Summary], None] = lambda summary: None,
) -> Summary:
    """Run one video and write OUT_DIR/NAME/detections.jsonl and what `save` names.

    save: names of `writers.EXPORTS`. trails, show: see `ResultFiles`.
    name is `source.info.name` if not given; header adds to the first line of the JSON. Results
    have their final names only when complete, so old ones are replaced at once or not at all;
    after an error `detections.part.jsonl` holds the frames until then. stop is asked after each
    frame; if it says so, or at Ctrl-C, the files are finished and the summary says "interrupted".

    load_state: go on from the state that another run left in this file, see
    `rnndet.inference.stream_state`; save_state: leave it there, also when interrupted.

    begin, end: called while the folder is held by this process, before the first frame and when all
    files have their names.

    Raises OutputError if there are results already and `overwrite` is false, if another process
    writes to the folder, or on a full disk; InputError if the source gives no frame.
    """
    classes, clock, interrupted = stream.runtime.classes, StageClock(), False
    stream.reset()
    before = None if load_state is None else load_stream(load_state, stream)
    last = None
    depth = 0 if show is not None else DEPTH  # a window belongs to one thread
    tally = Tally(classes)
    about = {"device": stream.runtime.device, "min_score": stream.min_score, **(header or {})}
    folder = Path(out_dir) / (name or source.info.name)
    with ResultFiles(
        folder, source.info, classes, header=about, save=save, trails=trails, show=show,
        overwrite=overwrite,
    ) as files:  # fmt: skip
        begin()
        try:
            with (
                closing(_frames_of(source, max_frames, clock)) as frames,
                WriteBehind(partial(files.write, clock=clock), depth=depth) as writer,
            ):
                fps = source.info.fps
                seen = frames if before is None else continued(frames, before, fps=fps)
                for result in _timed_results(stream, seen, clock):
                    writer.put(result)
                    tally.add(result)
                    last = Position(result.frame.index, result.frame.time)
                    if on_frame is not None:
                        on_frame(result)
                    if stop():
                        interrupted = True
                        break
        except KeyboardInterrupt:
            interrupted = True
        if tally.frames == 0 and not interrupted:
            raise InputError(f"{source.info.source}: no frame could be read")
        interrupted = interrupted or stop()
        counts = source.counts
        summary = Summary(
            folder=folder,
            files=files.paths if tally.frames else (),
            frames=tally.frames,
            unreadable=0 if counts is None else counts.failed,
            seconds=clock.elapsed(),
            stages=clock.seconds,
            objects=tally.objects(),
            tracks=tally.tracks(),
            cuts=tally.cuts,
            propagated=tally.propagated,
            interrupted=interrupted,
            codec=files.codec,
            note=files.note,
            read=counts,
            warnings=source.notes,
        )
        files.finish(summary)
        end(summary)
    if save_state is not None and last is not None:
        save_stream(save_state, stream, last)
    return summary


def describe_model(
    model: VideoDetector | Runtime, weights: str | Path | None = None
) -> dict[str, Any]:
    """What a result file says of the model; `weights` is the name or path it was loaded from."""
    return {
        "name": None if weights is None else str(weights),
        "sha256": None if weights is None else file_sha256(find_weights(weights)[0]),
        **(runtime := as_runtime(model)).about,
        "runtime": runtime.name,
    }


def _results(stream: Stream, source: Source) -> Iterator[FrameResult]:
    with source:
        yield from run_video(stream, source)


def _as_frames(source: Iterable[Frame | np.ndarray]) -> Iterator[Frame]:
    for index, item in enumerate(source):
        yield item if isinstance(item, Frame) else Frame(item, index, index / ARRAY_FPS)


def _frames_of(source: Source, max_frames: int | None, clock: StageClock) -> Iterator[Frame]:
    """The frames of a source, read ahead; those of a live one as they come, for they are of now."""
    frames, is_live = itertools.islice(source, max_frames), source.is_live
    return timed(frames, clock) if is_live else prefetch(frames, clock)


def _timed_results(
    stream: Stream, frames: Iterable[Frame], clock: StageClock
) -> Iterator[FrameResult]:
    """`run_video` without the reset, with the parts of each step timed.

    `detect` ends with detections in main memory, so the device has finished by then.
    """
    for frame in frames:
        with clock.stage("model"):
            image = stream.prepare(frame)
            cut = stream.see_cut(frame)
            found = stream.detect(image, size_hw=frame.image.shape[:2], gap=frame.gap)
        with clock.stage("track"):
            detections = stream.track(found, time=frame.time)
            result = stream.result(frame, detections, cut=cut)
        yield result
