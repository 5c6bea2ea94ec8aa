"""Where the time of a frame goes: each stage of inference timed apart, for one or two models.

The work is that of `inference.run_source`, frame by frame; only the model's call is cut open, in
`detect_in_stages`. Two models take turns (A B A B ...), so that both meet the same weather on a
shared machine, and are compared round by round.

All numbers are medians over the frames of a round, then over rounds; with key frames, over its
cycles, each the mean of as many frames as lie from one key frame to the next. They are of the
calling thread: decoder and encoder also work on threads of their own, beside the other stages; the
CPU time counts every thread.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch

from rnndet.errors import InputError, RnndetError
from rnndet.inference.run import run_source
from rnndet.inference.runtimes import Runtime
from rnndet.inference.runtimes.torch_runtime import TorchRuntime
from rnndet.inference.stream import Stream
from rnndet.structures import Detections, FrameResult
from rnndet.system.environment import machine, peak_memory_mib
from rnndet.video.draw import draw
from rnndet.video.sink import JsonLinesSink, VideoSink
from rnndet.video.sources.base import Source
from rnndet.video.sources.live import Camera
from rnndet.video.synthetic.clip import SyntheticClip

STAGES = ("decode", "preprocess", "network", "memory", "head", "follow", "track", "draw", "write")
MODEL_STAGES = ("preprocess", "network", "memory", "head", "follow")  # together the row "model"
# cpu: of all threads of the process; pipeline: the same frames by `run_source`, its threads and all
ROWS = (*STAGES, "model", "total", "cpu", "pipeline")
NAMES = {
    "network": "network (backbone, neck)",
    "head": "head, postprocess",
    "follow": "follow boxes",
    "cpu": "CPU time",
    "pipeline": "total, with threads",
}
WARM_UP = 5  # frames at the start of each round that are not counted
FAIR_ROUNDS = 5  # under it a ratio says little
NEGLIGIBLE_MS = 0.05  # a stage that does nothing: its ratio would be one of clock ticks
CLIP_SEED = 7  # the clip of tools/infer.py

Numbers = dict[str, float]  # by ROWS


@dataclass(frozen=True, slots=True)
class Contender:
    """A stream that is ready to run, and what the report says of it."""

    name: str
    stream: Stream
    about: Mapping[str, Any]  # detector, cell, tracker ...


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """What one frame took, in seconds."""

    stages: dict[str, float]  # by STAGES
    cpu: float
    objects: int  # shown in this frame


@dataclass(frozen=True, slots=True)
class Round:
    """One pass over the source stage by stage, and one by `run_source`."""

    frames: list[FrameTimes]
    pipeline: float  # seconds of a frame: the whole run by the clock on the wall
    cycle: int = 1  # frames from one key frame to the next, at most


class FrameClock:
    """Seconds by stage of one frame after the other; waits for the device around each stage."""

    def __init__(self, device: torch.device) -> None:
        self.frames: list[FrameTimes] = []
        self._device = device
        self.begin_frame()

    def begin_frame(self) -> None:
        """Forget what was not ended."""
        self._stages = dict.fromkeys(STAGES, 0.0)
        self._cpu_start = process_time()

    def end_frame(self, *, objects: int) -> None:
        cpu = process_time() - self._cpu_start
        self.frames.append(FrameTimes(self._stages, cpu, objects))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage of the present frame."""
        self._wait()
        start = perf_counter()
        yield
        self._wait()
        self._stages[name] += perf_counter() - start

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def render_clip(folder: Path, *, length: int) -> Path:
    """Write the made-up clip as a video file, so that decoding is measured too; its path."""
    clip = SyntheticClip(CLIP_SEED, length=length)
    size_hw = (clip.info.height, clip.info.width)
    path = folder / f"{clip.info.name}.mp4"
    with VideoSink(path, size_hw=size_hw, fps=clip.info.fps) as sink:
        for frame in clip:
            sink.write(frame.image)
    return path


def measure(
    contenders: Sequence[Contender],
    source: Source,
    *,
    frames: int = 100,
    rounds: int = FAIR_ROUNDS,
    on_frame: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """The report, plain data, on one or two contenders that take turns for `rounds` rounds.

    A round is one pass over the first `frames` frames after `WARM_UP` others; a shorter source
    gives as many as it has. Milliseconds per frame; `ratio` is A/B, None for one contender.
    Raises RnndetError for a camera, InputError for too few frames.
    """
    assert 1 <= len(contenders) <= 2, [contender.name for contender in contenders]
    if isinstance(source, Camera):
        raise RnndetError(f"{source.info.source}: cannot be run twice; record a file, give that")
    about = machine(contenders[0].stream.runtime.device)  # the load, before this run adds to it
    results: list[list[Round]] = [[] for _ in contenders]
    with TemporaryDirectory(prefix="rnndet-benchmark-") as folder:
        for _ in range(rounds):
            for contender, done in zip(contenders, results, strict=True):
                limit = frames + WARM_UP
                times = run_round(
                    contender.stream, source, Path(folder), limit=limit, tell=on_frame
                )
                keys = contender.stream.keys
                cycle = 1 if keys is None else keys.every
                if len(times) < WARM_UP + cycle:
                    raise InputError(
                        f"{source.info.source}: {len(times)} frames are too few; {WARM_UP} are "
                        f"warm-up, so give a video, and --frames, of {WARM_UP + cycle} or more"
                    )
                whole = run_source(
                    contender.stream, source, folder, name="whole", max_frames=limit,
                    overwrite=True,
                )  # fmt: skip
                done.append(Round(times[WARM_UP:], whole.seconds / whole.frames, cycle))
    info = source.info
    return {
        "machine": about,
        "source": {"name": info.name, "width": info.width, "height": info.height},
        "frames": len(results[0][0].frames),
        "rounds": rounds,
        "warm_up": WARM_UP,
        "models": [_describe(c, done) for c, done in zip(contenders, results, strict=True)],
        "peak_memory_mib": peak_memory_mib(),
        **_compared(contenders, results),
    }


def run_round(
    stream: Stream,
    source: Source,
    folder: Path,
    *,
    limit: int,
    tell: Callable[[], None] | None = None,
) -> list[FrameTimes]:
    """One video, at most `limit` frames, from a reset to results in `folder`; old ones go."""
    stream.reset()
    runtime, info = stream.runtime, source.info
    classes, clock = runtime.classes, FrameClock(torch.device(runtime.device))
    with (
        JsonLinesSink(folder / "detections.jsonl") as lines,
        VideoSink(
            folder / "annotated.mp4", size_hw=(info.height, info.width), fps=info.fps
        ) as video,
    ):
        frames = itertools.islice(source, limit)
        while True:
            clock.begin_frame()
            with clock.stage("decode"):
                frame = next(frames, None)
            if frame is None:
                return clock.frames
            with clock.stage("preprocess"):
                image = stream.prepare(frame)
            with clock.stage("track"):
                cut = stream.see_cut(frame)
            found = detect_in_stages(stream, image, frame.image.shape[:2], clock)
            with clock.stage("track"):
                result = FrameResult(frame, stream.track(found, time=frame.time), cut)
            with clock.stage("draw"):
                image = draw(frame.image, result.detections, classes)
            with clock.stage("write"):
                lines.write(result, classes)
                video.write(image)
            clock.end_frame(objects=len(result.detections))
            if tell is not None:
                tell()


def detect_in_stages(
    stream: Stream, image: np.ndarray, size_hw: tuple[int, int], clock: FrameClock
) -> Detections:
    """`stream.detect`, its parts timed; a test holds the two equal.

    Of another runtime than torch all is one part, "network".
    """
    runtime, keys = stream.runtime, stream.keys
    if keys is not None:
        with clock.stage("follow"):
            propagated = keys.between(image, size_hw=size_hw)
        if propagated is not None:
            return propagated
    if type(runtime) is TorchRuntime and not runtime.is_compiled:
        found = _found_in_stages(stream, runtime, image, size_hw, clock)
    else:  # it cannot be cut open
        with clock.stage("network"):
            (found,), stream.state = runtime.detect([image], [size_hw], stream.state)
    found = found[found.scores >= stream.score_floor]
    if keys is not None:
        with clock.stage("follow"):
            keys.keep(image, found)
    return found


def _found_in_stages(
    stream: Stream,
    runtime: TorchRuntime,
    image: np.ndarray,
    size_hw: tuple[int, int],
    clock: FrameClock,
) -> Detections:
    """`TorchRuntime.detect` of one frame of the stream."""
    model, detector = runtime.model, runtime.model.detector
    with torch.inference_mode():
        with clock.stage("preprocess"):
            pixels = runtime.to_tensors([image])
            prepared = detector.prepare(list(pixels.flatten(0, 1)), original_sizes=[size_hw])
        with clock.stage("network"):
            features = detector.backbone(prepared.pixels)
            if model.site == "neck":
                features = detector.neck(features)
        with clock.stage("memory"):
            features, stream.state = model.temporal(features, stream.state, 1)
        if model.site == "backbone":
            with clock.stage("network"):
                features = detector.neck(features)
        with clock.stage("head"):
            return detector.detect(prepared, features)[0]


def round_medians(done: Round) -> Numbers:
    """Milliseconds by ROWS, each the median over the frames, or the cycles, of one round."""
    frames = done.frames
    rows = {name: [frame.stages[name] for frame in frames] for name in STAGES}
    rows["model"] = [sum(frame.stages[name] for name in MODEL_STAGES) for frame in frames]
    rows["total"] = [sum(frame.stages.values()) for frame in frames]
    rows["cpu"] = [frame.cpu for frame in frames]
    numbers = {name: 1000 * median(_means(each, done.cycle)) for name, each in rows.items()}
    return numbers | {"pipeline": 1000 * done.pipeline}


def _means(values: Sequence[float], size: int) -> list[float]:
    """Of each `size` values that follow each other; there are as many at least."""
    whole = len(values) // size * size
    return [sum(values[i : i + size]) / size for i in range(0, whole, size)]


def shares(ms: Mapping[str, float]) -> dict[str, float]:
    """The part of each stage in the sum of all stages; they sum to 1."""
    total = sum(ms[name] for name in STAGES)
    return {name: ms[name] / total for name in STAGES}


def paired_ratio(a: Sequence[float], b: Sequence[float]) -> dict[str, float]:
    """a/b round by round: median, min and max of the quotients. All of `b` are above 0."""
    quotients = [one / other for one, other in zip(a, b, strict=True)]
    return {"median": median(quotients), "min": min(quotients), "max": max(quotients)}


def _describe(contender: Contender, rounds: Sequence[Round]) -> dict[str, Any]:
    by_round = [round_medians(done) for done in rounds]
    ms = {name: median(numbers[name] for numbers in by_round) for name in ROWS}
    every = [frame for done in rounds for frame in done.frames]
    return {
        **contender.about,
        "name": contender.name,
        "runtime": contender.stream.runtime.name,
        **_parameters(contender.stream.runtime),
        "objects_per_frame": sum(frame.objects for frame in every) / len(every),
        "ms": ms,
        "share": shares(ms),
        "frames_per_second": 1000 / ms["total"],
        "cpu_seconds": sum(frame.cpu for frame in every),  # of all frames that were counted
        "ms_by_round": by_round,
    }


def _compared(
    contenders: Sequence[Contender], results: Sequence[Sequence[Round]]
) -> dict[str, Any]:
    """Ratios A/B of times by row, None for a stage that does nothing, and of parameters."""
    if len(contenders) < 2:
        return {"ratio": None, "parameter_ratio": None}
    a, b = ([round_medians(done) for done in rounds] for rounds in results)
    ratio: dict[str, dict[str, float] | None] = {}
    for name in ROWS:
        pair = [row[name] for row in a], [row[name] for row in b]
        is_work = min(map(min, pair)) >= NEGLIGIBLE_MS
        ratio[name] = paired_ratio(*pair) if is_work else None
    first, second = (_parameters(c.stream.runtime)["parameters"] for c in contenders)
    return {"ratio": ratio, "parameter_ratio": first / second if first and second else None}


def _parameters(runtime: Runtime) -> dict[str, int | None]:
    """How many numbers were learned, None of an exported graph, which does not say."""
    model = getattr(runtime, "model", None)
    if model is None:
        return {"parameters": None, "memory_parameters": None}
    counts = [sum(p.numel() for p in part.parameters()) for part in (model, model.temporal)]
    return dict(zip(("parameters", "memory_parameters"), counts, strict=True))


def lines_of(report: Mapping[str, Any]) -> list[str]:
    """The report for people; the first line names the machine."""
    models, source, ratio = report["models"], report["source"], report["ratio"]
    turns = " of each in turn" if ratio else ""
    lines = [
        report["machine"]["words"],
        f"{source['name']}, {source['width']}x{source['height']}: medians of {report['rounds']} "
        f"rounds{turns}, {report['frames']} frames each after {report['warm_up']} of warm-up",
    ]
    for letter, model in zip("AB", models, strict=False):
        keys = ("detector", "cell", "tracker", "runtime")
        kind = ", ".join(str(model[key]) for key in keys if key in model)
        size = ""
        if model["parameters"] is not None:
            size = f"{model['parameters']:,} parameters (memory {model['memory_parameters']:,}), "
        lines.append(
            f"{letter} {model['name']}: {kind}; {size}{model['objects_per_frame']:.1f} objects a "
            f"frame, {model['frames_per_second']:.1f} frames per second"
        )
    peak = report["peak_memory_mib"]
    of_all = "" if peak is None else f"peak memory {peak:.0f} MiB (the whole process)"
    if ratio:
        if report["parameter_ratio"] is not None:
            of_all = f"parameters A/B {report['parameter_ratio']:.3f}; {of_all}"
        if report["rounds"] < FAIR_ROUNDS:
            lines.append(f"fewer than {FAIR_ROUNDS} rounds: the ratios are not to be relied on")
    return [*lines, of_all, "", *_table(models, ratio)]


def _table(models: Sequence[Mapping[str, Any]], ratio: Mapping[str, Any] | None) -> list[str]:
    heads = [f"{letter:>9}   share" for letter in "AB"[: len(models)]]
    lines = [f"{'ms per frame':21}" + "".join(heads) + ("   A/B (min to max)" if ratio else "")]
    for name in ROWS:
        line = f"{NAMES.get(name, name):21}"
        for model in models:
            share = f"{100 * model['share'][name]:5.1f} %" if name in model["share"] else ""
            line += f"{model['ms'][name]:9.2f} {share:>7}"
        if ratio:
            q = ratio[name]
            line += "   " + (f"{q['median']:.3f} ({q['min']:.3f} to {q['max']:.3f})" if q else "-")
        lines.append(line.rstrip())
    return lines
