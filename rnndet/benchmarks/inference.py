"""Measure where the time of a frame goes, stage by stage, for one or several models.

`run_source` itself is measured, on one thread, by the timer that it passes down. Several models
take turns (A B A B ...), so that all see the same background load on a shared machine, and the
first is compared with each of the others round by round.

All numbers are medians over the frames of a round, then over rounds; with key frames, over its
cycles, each the mean of as many frames as lie from one key frame to the next. They are of the
calling thread; the CPU time counts every thread. The row "pipeline" is a run with its reading and
writing threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from string import ascii_uppercase as LETTERS
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import torch

from rnndet.errors import InputError, RnndetError
from rnndet.inference.results import MODEL_STAGES
from rnndet.inference.run import RunOptions, run_source
from rnndet.inference.runtimes import Runtime
from rnndet.inference.stream import Stream
from rnndet.messages import counted
from rnndet.structures import FrameResult
from rnndet.system.environment import machine, peak_memory_mib
from rnndet.system.timing import StageTimer
from rnndet.video.sink import VideoSink
from rnndet.video.sources.base import Source
from rnndet.video.sources.live import Camera
from rnndet.video.synthetic.clip import SyntheticClip

STAGES = ("decode", *MODEL_STAGES, "track", "draw", "write")
# model: sum of MODEL_STAGES; cpu: of all threads; pipeline: the same frames with reading and
# writing threads
ROWS = (*STAGES, "model", "total", "cpu", "pipeline")
NAMES = {
    "network": "network (backbone, neck)",
    "temporal": "temporal module",
    "head": "head, postprocess",
    "propagate": "propagate boxes",
    "cpu": "CPU time",
    "pipeline": "total, with threads",
}
WARM_UP = 5  # frames at the start of each round that are not counted
FAIR_ROUNDS = 5  # with fewer, ratios are unreliable
NEGLIGIBLE_MS = 0.05  # shorter stages do nothing: their ratio would only compare clock ticks
CLIP_SEED = 7  # the clip of rnndet infer

Numbers = dict[str, float]  # by ROWS


@dataclass(frozen=True, slots=True)
class Contender:
    """A stream that is ready to run, and its description in the report."""

    name: str
    stream: Stream
    about: Mapping[str, Any]  # detector, cell, tracker ...


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """The cost of one frame, in seconds."""

    stages: dict[str, float]  # by STAGES
    cpu: float
    objects: int  # reported in this frame


@dataclass(frozen=True, slots=True)
class Round:
    """A pass over the source stage by stage, and a second pass with threads."""

    frames: list[FrameTimes]
    pipeline: float  # wall seconds per frame of the whole run
    cycle: int = 1  # frames from one key frame to the next, at most


class FrameRecorder:
    """Splits the seconds of a timer up into frames; called after each frame."""

    def __init__(self, timer: StageTimer) -> None:
        self.frames: list[FrameTimes] = []
        self._timer = timer
        self._before: dict[str, float] = {}
        self._cpu = process_time()

    def __call__(self, result: FrameResult) -> None:
        seconds, cpu = dict(self._timer.seconds), process_time()
        stages = {name: seconds.get(name, 0.0) - self._before.get(name, 0.0) for name in STAGES}
        self.frames.append(FrameTimes(stages, cpu - self._cpu, len(result.detections)))
        self._before, self._cpu = seconds, cpu


def render_clip(folder: Path, *, length: int) -> Path:
    """Write the synthetic clip as a video file, so that decoding is measured; return its path."""
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
    on_frame: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Return the report, plain data, on contenders that take turns for `rounds` rounds.

    A round is a pass over the first `frames` frames after `WARM_UP` warm-up frames, or
    over all remaining frames of a shorter source. Times are milliseconds per frame. `ratios`: A/B,
    A/C, ...; `ratio` is A/B, None for a single contender.
    Raises RnndetError for a camera, InputError for too few frames.
    """
    assert contenders, "nothing to measure"
    if isinstance(source, Camera):
        raise RnndetError(f"{source.info.source}: cannot be run twice; record a file and use it")
    about = machine(contenders[0].stream.runtime.device)  # the load, before this run adds to it
    results: list[list[Round]] = [[] for _ in contenders]
    with TemporaryDirectory(prefix="rnndet-benchmark-") as folder:
        for _ in range(rounds):
            for contender, done in zip(contenders, results, strict=True):
                done.append(
                    _measure_round(
                        contender.stream, source, Path(folder), frames=frames, on_frame=on_frame
                    )
                )
    info = source.info
    return {
        "machine": about,
        "source": {"name": info.name, "width": info.width, "height": info.height},
        "frames": len(results[0][0].frames),
        "rounds": rounds,
        "warm_up": WARM_UP,
        "models": [_describe(c, done) for c, done in zip(contenders, results, strict=True)],
        "peak_memory_mib": peak_memory_mib(),
        **compared([[round_medians(done) for done in rounds] for rounds in results]),
        "parameter_ratio": _parameter_ratio(contenders),
    }


def _measure_round(
    stream: Stream, source: Source, folder: Path, *, frames: int, on_frame: Callable[[], None]
) -> Round:
    limit, cycle = frames + WARM_UP, stream.keys.every
    times = run_round(stream, source, folder, limit=limit, on_frame=on_frame)
    if len(times) < WARM_UP + cycle:
        raise InputError(
            f"{source.info.source}: {counted(len(times), 'frame')} are too few; {WARM_UP} are "
            f"warm-up, so give a video, and `frames`, of {WARM_UP + cycle} or more"
        )
    options = RunOptions(name="pipeline", max_frames=limit, overwrite=True)
    summary = run_source(stream, source, folder, options)
    return Round(times[WARM_UP:], summary.seconds / summary.frames, cycle)


def run_round(
    stream: Stream,
    source: Source,
    folder: Path,
    *,
    limit: int,
    on_frame: Callable[[], None] = lambda: None,
) -> list[FrameTimes]:
    """Run at most `limit` frames on one thread and time each; results go to `folder`/round."""
    device = torch.device(stream.runtime.device)
    is_cuda = device.type == "cuda"
    timer = StageTimer(wait=partial(torch.cuda.synchronize, device) if is_cuda else None)
    recorder = FrameRecorder(timer)

    def record(result: FrameResult) -> None:
        recorder(result)
        on_frame()

    options = RunOptions(name="round", max_frames=limit, overwrite=True, is_threaded=False)
    run_source(stream, source, folder, options, on_frame=record, timer=timer)
    return recorder.frames


def round_medians(done: Round) -> Numbers:
    """Return milliseconds by ROWS, each the median over the frames, or cycles, of a round."""
    frames = done.frames
    rows = {name: [frame.stages[name] for frame in frames] for name in STAGES}
    rows["model"] = [sum(frame.stages[name] for name in MODEL_STAGES) for frame in frames]
    rows["total"] = [sum(frame.stages.values()) for frame in frames]
    rows["cpu"] = [frame.cpu for frame in frames]
    numbers = {name: 1000 * median(cycle_means(row, done.cycle)) for name, row in rows.items()}
    return numbers | {"pipeline": 1000 * done.pipeline}


def cycle_means(values: Sequence[float], size: int) -> list[float]:
    """Return the mean of each `size` consecutive values; there are at least `size`."""
    end = len(values) // size * size
    return [sum(values[i : i + size]) / size for i in range(0, end, size)]


def shares(ms: Mapping[str, float]) -> dict[str, float]:
    """Return the share of each stage in the sum of all stages."""
    total = sum(ms[name] for name in STAGES)
    return {name: ms[name] / total for name in STAGES}


def paired_ratio(a: Sequence[float], b: Sequence[float]) -> dict[str, float]:
    """Return median, min and max of a/b, round by round. All of `b` are above 0.

    >>> paired_ratio([2.0, 9.0], [1.0, 3.0])
    {'median': 2.5, 'min': 2.0, 'max': 3.0}
    """
    quotients = [first / second for first, second in zip(a, b, strict=True)]
    return {"median": median(quotients), "min": min(quotients), "max": max(quotients)}


def _describe(contender: Contender, rounds: Sequence[Round]) -> dict[str, Any]:
    by_round = [round_medians(done) for done in rounds]
    ms = {name: median(numbers[name] for numbers in by_round) for name in ROWS}
    frames = [frame for done in rounds for frame in done.frames]
    return {
        **contender.about,
        "name": contender.name,
        "runtime": contender.stream.runtime.name,
        **_parameters(contender.stream.runtime),
        "objects_per_frame": sum(frame.objects for frame in frames) / len(frames),
        "ms": ms,
        "share": shares(ms),
        "frames_per_second": 1000 / ms["total"],
        "cpu_seconds": sum(frame.cpu for frame in frames),  # of all counted frames
        "ms_by_round": by_round,
    }


def compared(models: Sequence[Sequence[Numbers]]) -> dict[str, Any]:
    """Return `ratios`: A/B, A/C, ... of times by row, None for a negligible stage; `ratio`: A/B.

    models: the numbers of each, by round.
    """
    ratios = {}
    for letter, other in zip(LETTERS[1:], models[1:], strict=False):
        ratio: dict[str, dict[str, float] | None] = {}
        for name in ROWS:
            pair = [row[name] for row in models[0]], [row[name] for row in other]
            is_measurable = min(map(min, pair)) >= NEGLIGIBLE_MS
            ratio[name] = paired_ratio(*pair) if is_measurable else None
        ratios[f"A/{letter}"] = ratio
    return {"ratio": ratios.get("A/B"), "ratios": ratios}


def _parameter_ratio(contenders: Sequence[Contender]) -> float | None:
    """The parameters of A by those of B; None for other numbers of models, and for graphs."""
    if len(contenders) != 2:
        return None
    first, second = (_parameters(c.stream.runtime)["parameters"] for c in contenders)
    return first / second if first and second else None


def _parameters(runtime: Runtime) -> dict[str, int | None]:
    """Count the parameters; None for an exported graph, which does not know them."""
    model = getattr(runtime, "model", None)
    if model is None:
        return {"parameters": None, "memory_parameters": None}
    counts = [sum(p.numel() for p in part.parameters()) for part in (model, model.temporal)]
    return dict(zip(("parameters", "memory_parameters"), counts, strict=True))


def lines_of(report: Mapping[str, Any]) -> list[str]:
    """Return the report for people; the first line names the machine."""
    models, source, ratios = report["models"], report["source"], report["ratios"]
    turns = " of each in turn" if ratios else ""
    lines = [
        report["machine"]["words"],
        f"{source['name']}, {source['width']}x{source['height']}: medians of "
        f"{counted(report['rounds'], 'round')}{turns}, {counted(report['frames'], 'frame')} "
        f"each after {report['warm_up']} of warm-up",
    ]
    for letter, model in zip(LETTERS, models, strict=False):
        keys = ("detector", "cell", "tracker", "runtime")
        kind = ", ".join(str(model[key]) for key in keys if key in model)
        size = ""
        if model["parameters"] is not None:
            temporal = f"temporal module {model['memory_parameters']:,}"
            size = f"{model['parameters']:,} parameters ({temporal}), "
        lines.append(
            f"{letter} {model['name']}: {kind}; {size}{model['objects_per_frame']:.1f} objects a "
            f"frame, {model['frames_per_second']:.1f} frames per second"
        )
    peak = report["peak_memory_mib"]
    overall = "" if peak is None else f"peak memory {peak:.0f} MiB (the whole process)"
    if ratios:
        if report["parameter_ratio"] is not None:
            overall = f"parameters A/B {report['parameter_ratio']:.3f}; {overall}"
        if report["rounds"] < FAIR_ROUNDS:
            lines.append(f"fewer than {FAIR_ROUNDS} rounds: the ratios are not reliable")
    return [*lines, overall, "", *_table(models, ratios)]


def _table(models: Sequence[Mapping[str, Any]], ratios: Mapping[str, Mapping]) -> list[str]:
    """Milliseconds and shares; the ratio with its range for two models, its median for more."""
    heads = "".join(f"{letter:>9}   share" for letter in LETTERS[: len(models)])
    has_range = len(ratios) == 1
    heads += "   A/B (min to max)" if has_range else "".join(f"{key:>8}" for key in ratios)
    lines = [f"{'ms per frame':21}" + heads]
    for name in ROWS:
        line = f"{NAMES.get(name, name):21}"
        for model in models:
            share = f"{100 * model['share'][name]:5.1f} %" if name in model["share"] else ""
            line += f"{model['ms'][name]:9.2f} {share:>7}"
        for q in (ratio[name] for ratio in ratios.values()):
            if has_range:
                line += "   "
                line += f"{q['median']:.3f} ({q['min']:.3f} to {q['max']:.3f})" if q else "-"
            else:
                line += f"{q['median']:8.3f}" if q else f"{'-':>8}"
        lines.append(line.rstrip())
    return lines
