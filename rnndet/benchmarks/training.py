"""Measure the speed of training steps of a configuration, stage by stage."""

import resource
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from rnndet.config import Config
from rnndet.messages import counted
from rnndet.training.run import build_run
from rnndet.training.trainer import STAGES, Trainer

WARM_UP = 3  # steps that are not counted: the first allocate memory and start the loaders


def measure_training(config: Config, *, steps: int, device: str = "auto") -> dict[str, Any]:
    """Run `steps` steps of a configuration as rnndet train does, in a folder that is thrown away.

    Returns frames_per_s, steps_per_s, ms (per step, by stage and in all), share (of the time, by
    stage; "other" is the rest), gflop_per_frame (forward and backward; a multiplication and an
    addition are two) and peak_mib (of the device's memory, on the CPU of the whole process's).
    Raises RnndetError as a training does.
    """
    every = steps + WARM_UP
    changes = {"steps": every, "log_every": every + 1, "save_every": 0, "validate_every": 0}
    short = replace(config, train=replace(config.train, **changes))
    with TemporaryDirectory(prefix="rnndet-train-") as folder:
        trainer, dataset = build_run(
            short, Path(folder), device=device, quiet=True, exact_timing=True
        )
        loader = trainer.loader(dataset)
        with FlopCounterMode(display=False) as counter:
            trainer.run(loader, 1)
        trainer.run(loader, WARM_UP)
        trainer.run(loader, every)
        frames = len(trainer.rows) * config.clip.length
        return summary(trainer, steps) | {
            "gflop_per_frame": counter.get_total_flops() / frames / 1e9,
            "peak_mib": peak_memory(trainer.device) / 2**20,
        }


def peak_memory(device: torch.device) -> int:
    """The most bytes that tensors of this process took on a GPU, or the process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kibibytes on Linux


def summary(trainer: Trainer, steps: int) -> dict[str, Any]:
    """Speed and stages of the last `steps` steps, from the trainer's timer."""
    total, seconds = trainer.timer.total, trainer.timer.seconds
    parts = {name: seconds.get(name, 0.0) for name in STAGES}
    parts["other"] = total - sum(seconds.values())
    frames = trainer.config.train.batch * trainer.config.clip.length
    return {
        "device": str(trainer.device),
        "steps": steps,
        "frames_per_step": frames,
        "frames_per_s": frames * steps / total,
        "steps_per_s": steps / total,
        "ms": {name: 1000 * seconds / steps for name, seconds in parts.items()}
        | {"total": 1000 * total / steps},
        "share": {name: seconds / total for name, seconds in parts.items()},
    }


def lines_of(report: dict[str, Any]) -> list[str]:
    """The report as a table."""
    lines = [
        f"{report['frames_per_s']:.1f} frames/s, {report['steps_per_s']:.2f} steps/s of "
        f"{counted(report['frames_per_step'], 'frame')} on {report['device']}",
        f"{'stage':<12}{'ms/step':>10}{'share':>8}",
    ]
    for name in (*STAGES, "other"):
        lines.append(f"{name:<12}{report['ms'][name]:>10.1f}{report['share'][name]:>8.1%}")
    lines.append(f"{'total':<12}{report['ms']['total']:>10.1f}")
    kind = "the process" if report["device"] == "cpu" else "tensors on the device"
    lines.append(f"{report['gflop_per_frame']:.1f} GFLOP a frame, forward and backward")
    return [*lines, f"{report['peak_mib']:.0f} MiB at most, {kind}"]
