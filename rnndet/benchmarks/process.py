"""Measure the cost of a process: time to start, and main memory over many frames."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from rnndet.errors import RnndetError
from rnndet.inference.run import RunOptions, run_source
from rnndet.inference.stream import Stream
from rnndet.structures import DEFAULT_FPS, Frame, FrameResult, VideoInfo
from rnndet.video.sources.base import Source
from rnndet.video.synthetic.clip import SyntheticClip

ROOT = Path(__file__).resolve().parent.parent.parent
CLIP_SEED, CLIP_LENGTH = 7, 50  # rendered once, repeated


class Looped(Source):
    """The frames of a clip, repeated up to `length` frames, with increasing times."""

    def __init__(self, images: Sequence[np.ndarray], length: int) -> None:
        height, width = images[0].shape[:2]
        self._images, self._length = images, length
        self.info = VideoInfo("looped", "looped", width, height, None, length)

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self._length):
            yield Frame(self._images[index % len(self._images)], index, float(index / DEFAULT_FPS))


def measure_memory(
    stream: Stream,
    *,
    frames: int,
    every: int,
    size_hw: tuple[int, int] | None = None,
    save: Sequence[str] = (),
    on_frame: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Measure main memory (MiB, resident) of this process at frame 200, then every `every` frames.

    All of inference but decoding; detections.jsonl is written, and the files of `save`. size_hw: of
    the frames, by default that of the synthetic clip; with small frames a long run takes minutes.
    """
    size = {} if size_hw is None else {"size_hw": size_hw}
    clip = SyntheticClip(CLIP_SEED, length=CLIP_LENGTH, **size)
    images = [frame.image for frame in clip]
    points: list[tuple[int, float]] = []

    def record(result: FrameResult) -> None:
        index = result.frame.index
        if index == 200 or (index > 200 and index % every == 0) or index == frames - 1:
            points.append((index, resident_mib()))
        on_frame()

    with TemporaryDirectory(prefix="rnndet-benchmark-") as folder:
        options = RunOptions(save=tuple(save))
        run_source(stream, Looped(images, frames), folder, options, on_frame=record)
    return {"frames": frames, "resident_mib": points}


def resident_mib() -> float:
    """Return the resident memory of this process in MiB. Raises RnndetError if it is unknown."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        raise RnndetError(f"main memory is read from {statm}, which only Linux has")
    pages = int(statm.read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure_startup(commands: Mapping[str, Sequence[str]], *, rounds: int) -> dict[str, Any]:
    """Measure CPU and wall seconds and peak memory (MiB) of processes, medians of `rounds`.

    commands: arguments of Python by name, run in the repository in turn. Raises RnndetError for a
    process that fails.
    """
    costs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, arguments in commands.items():
            costs[name].append(_cost_of(name, arguments))
    return {
        name: {key: median(cost[key] for cost in rows) for key in ("cpu_s", "wall_s", "peak_mib")}
        for name, rows in costs.items()
    }


def _cost_of(name: str, arguments: Sequence[str]) -> dict[str, float]:
    with TemporaryDirectory(prefix="rnndet-benchmark-") as folder:
        report = Path(folder) / "cost.json"
        command = ["-m", "rnndet.benchmarks.measured_process", report, sys.executable, *arguments]
        begin = time.perf_counter()
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
        wall = time.perf_counter() - begin
        cost = json.loads(report.read_text(encoding="utf-8"))
    if cost["exit_code"] != 0:
        raise RnndetError(f"{name}: the process ended with {cost['exit_code']}")
    return cost | {"wall_s": wall}


def startup_commands(weights: str, *, has_graph: bool) -> dict[str, list[str]]:
    """Return the commands to compare: help of every tool, and one frame by each runtime."""
    tools = sorted(path.name for path in (ROOT / "tools").glob("*.py"))
    commands = {f"{name} --help": [f"tools/{name}", "--help"] for name in tools}
    commands["import rnndet"] = ["-c", "import rnndet"]
    for runtime in ("torch", *(["onnx", "openvino"] if has_graph else [])):
        commands[f"one frame, {runtime}"] = [
            "-m",
            "rnndet.benchmarks.first_frame",
            weights,
            runtime,
        ]
    return commands


def memory_lines(report: Mapping[str, Any]) -> list[str]:
    """Return the report of `measure_memory` for people."""
    points = report["resident_mib"]
    lines = [f"frame {index}: {mib:.1f} MiB" for index, mib in points]
    return [*lines, f"grown by {points[-1][1] - points[0][1]:.1f} MiB since frame {points[0][0]}"]


def startup_lines(report: Mapping[str, Any]) -> list[str]:
    """Return the report of `measure_startup` for people."""
    lines = [f"{'':24}{'CPU s':>8}{'wall s':>8}{'peak MiB':>10}"]
    for name, row in report.items():
        lines.append(f"{name:24}{row['cpu_s']:8.2f}{row['wall_s']:8.2f}{row['peak_mib']:10.0f}")
    return lines
