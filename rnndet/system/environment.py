"""The machine that numbers were measured on, in words."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch


def machine(name: str = "cpu") -> dict[str, Any]:
    """What numbers hold for that were measured here; `words` says all of it in one line."""
    has_affinity = hasattr(os, "sched_getaffinity")  # Linux: what this process may use
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
    """The most main memory this process has held so far, in MiB; None where it is not known."""
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
