"""What a process costs: time to start, and main memory over many frames."""

from __future__ import annotations

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
from rnndet.inference.run import run_source
from rnndet.inference.stream import Stream
from rnndet.structures import Frame, FrameResult, VideoInfo
from rnndet.video.sources.base import Source
from rnndet.video.synthetic.clip import SyntheticClip

ROOT = Path(__file__).resolve().parent.parent.parent
CLIP_SEED, CLIP_LENGTH = 7, 50  # rendered once, shown again and again

# Runs a program and tells what it took: CPU seconds of it and of its children, and peak memory.
WRAPPER = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(code, used.ru_utime + used.ru_stime, used.ru_maxrss)
"""


class Looped(Source):
    """The frames of a clip again and again, `length` in all, with times that go on."""

    def __init__(self, images: Sequence[np.ndarray], length: int) -> None:
        height, width = images[0].shape[:2]
        self._images, self._length = images, length
        self.info = VideoInfo("looped", "looped", width, height, None, length)

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self._length):
            yield Frame(self._images[index % len(self._images)], index, index / 25)


def measure_memory(
    stream: Stream, *, frames: int, every: int, on_frame: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Main memory (MiB, resident) of this process at frame 200 and then every so many frames.

    The whole of inference but the video file: detections.jsonl is written.
    """
    images = [frame.image for frame in SyntheticClip(CLIP_SEED, length=CLIP_LENGTH)]
    points: list[tuple[int, float]] = []

    def look(result: FrameResult) -> None:
        index = result.frame.index
        if index == 200 or (index > 200 and index % every == 0) or index == frames - 1:
            points.append((index, resident_mib()))
        on_frame()

    with TemporaryDirectory(prefix="rnndet-benchmark-") as folder:
        run_source(stream, Looped(images, frames), folder, save=(), on_frame=look)
    return {"frames": frames, "resident_mib": points}


def resident_mib() -> float:
    """Main memory that this process holds now, in MiB. Raises RnndetError where it is not known."""
    told = Path("/proc/self/statm")
    if not told.exists():
        raise RnndetError(f"main memory is read from {told}, which only Linux has")
    pages = int(told.read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure_startup(commands: Mapping[str, Sequence[str]], *, rounds: int) -> dict[str, Any]:
    """CPU and wall seconds and peak memory (MiB) of whole processes, medians of `rounds`.

    commands: arguments of Python by name, run in the repository in turn.
    """
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, arguments in commands.items():
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", WRAPPER, sys.executable, *arguments],
                cwd=ROOT, capture_output=True, text=True, check=True,
            )  # fmt: skip
            wall = time.perf_counter() - began
            code, cpu, peak = done.stdout.split()
            if code != "0":
                raise RnndetError(f"{name}: the process ended with {code}")
            times[name].append((float(cpu), wall, float(peak) / 2**10))
    return {
        name: dict(zip(("cpu_s", "wall_s", "peak_mib"), map(median, zip(*rows, strict=True)),
                       strict=True))
        for name, rows in times.items()
    }  # fmt: skip


def startup_commands(weights: str, *, has_onnx: bool) -> dict[str, list[str]]:
    """What `measure_startup` compares: help of every tool, and one frame by each runtime."""
    tools = sorted(path.name for path in (ROOT / "tools").glob("*.py"))
    commands = {f"{name} --help": [f"tools/{name}", "--help"] for name in tools}
    commands["import rnndet"] = ["-c", "import rnndet"]
    for runtime in ("torch", *(["onnx"] if has_onnx else [])):
        commands[f"one frame, {runtime}"] = ["-c", ONE_FRAME, weights, runtime]
    return commands


# A model opened and one frame looked at, without a video file.
ONE_FRAME = """
import sys
import numpy as np
from rnndet.inference.run import make_stream
from rnndet.inference.runtimes import open_runtime
from rnndet.structures import Frame
stream = make_stream(open_runtime(sys.argv[1], kind=sys.argv[2], device="cpu")[0])
stream.step(Frame(np.zeros((360, 640, 3), np.uint8), 0, 0.0))
"""


def memory_lines(report: Mapping[str, Any]) -> list[str]:
    """For people."""
    points = report["resident_mib"]
    lines = [f"frame {index}: {mib:.1f} MiB" for index, mib in points]
    return [*lines, f"grown by {points[-1][1] - points[0][1]:.1f} MiB since frame {points[0][0]}"]


def startup_lines(report: Mapping[str, Any]) -> list[str]:
    """For people."""
    lines = [f"{'':24}{'CPU s':>8}{'wall s':>8}{'peak MiB':>10}"]
    for name, row in report.items():
        lines.append(f"{name:24}{row['cpu_s']:8.2f}{row['wall_s']:8.2f}{row['peak_mib']:10.0f}")
    return lines
