"""Describe the environment of a run or a measurement: machine, packages, commit, memory use."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("torch", "torchvision", "numpy", "opencv-python", "pycocotools")


def versions(device: torch.device) -> dict[str, str]:
    """Versions of Python and packages, commit of the code, device, cores and threads.

    >>> sorted(versions(torch.device("cpu")).keys() - set(PACKAGES))
    ['commit', 'cores', 'device', 'python', 'threads']
    """
    described = {"python": platform.python_version(), "commit": commit()}
    for name in PACKAGES:
        try:
            described[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            described[name] = "unknown"
    described["device"] = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    )
    return described | {"cores": str(os.cpu_count()), "threads": str(torch.get_num_threads())}


def commit() -> str:
    """The commit of a checkout, followed by "+" if tracked files have changed; else "unknown"."""
    if not (ROOT / ".git").exists():
        return "unknown"
    try:
        number = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return number + ("+" if changed else "")


def _git(*arguments: str) -> str:
    finished = subprocess.run(
        ["git", "-C", str(ROOT), *arguments],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return finished.stdout.strip()


def machine(name: str = "cpu") -> dict[str, Any]:
    """The machine that measurements are valid for; `words` summarises it in one line."""
    has_affinity = hasattr(os, "sched_getaffinity")  # Linux: the cores of this process
    cpus = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count()
    device = torch.device(name)
    threads, kind = torch.get_num_threads(), _cpu_name()
    on = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    busy = "" if load is None else f"; load {load:.1f} before the start"
    words = (
        f"{cpus} CPU{'s' * (cpus != 1)} ({kind}), torch {torch.__version__} with {threads} "
        f"thread{'s' * (threads != 1)}, on {on}{busy}"
    )
    facts = {"cpus": cpus, "cpu": kind, "threads": threads, "torch": torch.__version__}
    return {"words": words, **facts, "device": on, "load": load}


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def peak_memory_mib() -> float | None:
    """Peak main memory of this process so far, in MiB; None if unknown."""
    status = Path("/proc/self/status")  # Linux; getrusage would also count a parent's, before exec
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024  # kB
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 2**20 if platform.system() == "Darwin" else 2**10  # bytes on macOS, else kB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
