"""Measure one or more sources at a time against the model alone: from the files to the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import numpy as np

from rnndet.benchmarks.inference import paired_ratio
from rnndet.errors import InputError
from rnndet.inference.batch.jobs import Job, run_jobs
from rnndet.inference.run import RunOptions, make_stream, run_source
from rnndet.inference.runtimes import Runtime
from rnndet.inference.runtimes.base import scaled
from rnndet.messages import counted
from rnndet.structures import DetectionLimits
from rnndet.system.environment import machine
from rnndet.video.sources.open import open_source

LOW_SCORE = 0.1  # of the detections that a stream with a tracker asks for
WARM_UP = 5  # frames of a run before the first round, in which graphs are compiled

Cost = tuple[float, float]  # milliseconds of a frame: wall, CPU of all threads


def measure_sources(
    runtime: Runtime,
    path: str | Path,
    counts: Sequence[int],
    *,
    frames: int = 100,
    rounds: int = 5,
    save: Sequence[str] = ("video",),
    on_round: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Return wall and CPU milliseconds of a frame, medians of `rounds` rounds, plain data.

    Each round runs the model alone, on frames that are decoded and scaled already, and then each of
    `counts` sources at a time, all of them the same file, as `rnndet infer --batch-sources` does;
    a frame of any source counts as one. `ratio` is the wall time of each over that of the model
    alone, round by round. Raises InputError if the file has no frame.
    """
    about = machine(runtime.device)  # the load, before this run adds to it
    with open_source(path) as source:
        images = [frame.image for frame in islice(source, frames)]
    if not images:
        raise InputError(f"{path}: no frame could be read")
    size_hw, inputs = images[0].shape[:2], [scaled(i, runtime.input_spec) for i in images]
    passes: dict[str, Callable[[int], int]] = {
        "model alone": lambda limit: _run_model(runtime, inputs[:limit], size_hw)
    }
    costs: dict[str, list[Cost]] = {}
    with TemporaryDirectory(prefix="rnndet-benchmark-") as folder:
        for count in counts:
            passes[counted(count, "source")] = _run_of(runtime, path, count, Path(folder), save)
        for run in passes.values():
            run(WARM_UP)
        for _ in range(rounds):
            for name, run in passes.items():
                costs.setdefault(name, []).append(_cost(run, frames))
                on_round()
    alone = [wall for wall, _ in costs["model alone"]]
    return {
        "machine": about,
        "frames": len(images),
        "rounds": rounds,
        "ms": {name: median(wall for wall, _ in rows) for name, rows in costs.items()},
        "cpu_ms": {name: median(cpu for _, cpu in rows) for name, rows in costs.items()},
        "ratio": {
            name: paired_ratio([wall for wall, _ in rows], alone) for name, rows in costs.items()
        },
    }


def _cost(run: Callable[[int], int], frames: int) -> Cost:
    wall, cpu = perf_counter(), process_time()
    done = run(frames)
    return 1000 * (perf_counter() - wall) / done, 1000 * (process_time() - cpu) / done


def _run_model(runtime: Runtime, inputs: Sequence[np.ndarray], size_hw: tuple[int, int]) -> int:
    """Run the model alone over scaled frames of a video; returns their number."""
    state, limits = None, [DetectionLimits(LOW_SCORE)]
    for image in inputs:
        _, state = runtime.detect([image], [size_hw], state, limits=limits)
    return len(inputs)


def _run_of(
    runtime: Runtime, path: str | Path, count: int, folder: Path, save: Sequence[str]
) -> Callable[[int], int]:
    """A function that runs `count` sources up to a number of frames, and returns their sum."""
    jobs = [Job(str(path), f"source-{number}") for number in range(count)]

    def run(limit: int) -> int:
        def run_job(job: Job, member: Runtime) -> dict[str, Any]:
            options = RunOptions(job.name, save=tuple(save), max_frames=limit, overwrite=True)
            with open_source(path) as source:
                summary = run_source(make_stream(member), source, folder, options)
            return {"frames": summary.frames}

        entries = run_jobs(
            jobs, run_job, runtime, at_a_time=count, stop=lambda: False, step=lambda: None
        )
        return sum(entry["frames"] for entry in entries)

    return run


def lines_of(report: Mapping[str, Any]) -> list[str]:
    """Return the report for people; the first line names the machine."""
    lines = [
        report["machine"]["words"],
        f"medians of {counted(report['rounds'], 'round')} in turn, "
        f"{counted(report['frames'], 'frame')} of each source",
        f"{'ms per frame':16}{'wall':>8}{'CPU':>8}   wall / model alone (min to max)",
    ]
    for name, ratio in report["ratio"].items():
        times = f"{report['ms'][name]:8.2f}{report['cpu_ms'][name]:8.2f}"
        spread = f"{ratio['median']:.3f} ({ratio['min']:.3f} to {ratio['max']:.3f})"
        lines.append(f"{name:16}{times}   {spread}")
    return lines
