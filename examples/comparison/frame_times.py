"""Time the frames of a tracking loop, on as many cores as it may have threads.

Used by the scripts beside it, each of which runs in the environment of its own tool. It imports
nothing else, so that the limits hold for all libraries.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

WARM_UP = 10  # frames at the start that are not counted
# read by OpenMP, MKL, OpenBLAS and the FFmpeg of OpenCV when they are loaded
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments that all scripts have."""
    arguments = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("video")
    arguments.add_argument("--threads", type=int, default=1, help="and cores (1)")
    arguments.add_argument("--frames", type=int, default=100, help="after 10 of warm-up (100)")
    return arguments


def limit_threads(threads: int) -> None:
    """Limit this process to so many cores, the last ones that it may use, and its libraries.

    Call it before any other import: libraries count the cores when they are loaded. Where a
    process cannot be tied to cores (macOS, Windows), only the libraries are limited.
    """
    for name in VARIABLES:
        os.environ[name] = str(threads)
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = f"threads;{threads}"
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < threads:
            sys.exit(f"--threads {threads}: this process may use {len(cores)} cores only")
        os.sched_setaffinity(0, cores[-threads:])


def measure(
    objects: Iterator[int], *, frames: int, now: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """Return the time of a frame: medians in milliseconds, and what else is printed.

    objects: runs the loop; yields the number of reported objects after each frame. The first
    `WARM_UP` frames are not counted. Exits if fewer than `frames` follow.
    """
    walls, cpus, counts = [], [], []
    wall, cpu = now(), time.process_time()
    for count in objects:
        new_wall, new_cpu = now(), time.process_time()
        walls.append(new_wall - wall)
        cpus.append(new_cpu - cpu)
        counts.append(count)
        if len(walls) == WARM_UP + frames:
            break
        wall, cpu = now(), time.process_time()
    if len(walls) < WARM_UP + frames:
        sys.exit(f"{len(walls)} frames are too few for --frames {frames} and {WARM_UP} of warm-up")
    return {
        "ms": 1000 * median(walls[WARM_UP:]),
        "cpu_ms": 1000 * median(cpus[WARM_UP:]),
        "cores": sum(cpus[WARM_UP:]) / sum(walls[WARM_UP:]),  # used; at most --threads
        "frames": frames,
        "objects": sum(counts[WARM_UP:]) / frames,
        "peak_mib": _peak_mib(),
    }


def _peak_mib() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def report(tool: str, size_hw: tuple[int, int], measured: dict[str, Any], **about: Any) -> None:
    """Print one line of JSON; size_hw: of the network's input, as it really is."""
    line = {"tool": tool, "input": [int(side) for side in size_hw], **measured, **about}
    print(json.dumps(line), flush=True)


def existing(path: str) -> str:
    """The absolute path of a file. Exits if there is none."""
    if not Path(path).is_file():
        sys.exit(f"{path}: no such file")
    return str(Path(path).resolve())
