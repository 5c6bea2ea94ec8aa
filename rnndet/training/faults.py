"""What went wrong in a step, and what to do about it."""

import torch

from rnndet.config import Config
from rnndet.errors import RnndetError


def out_of_memory(
    error: Exception, config: Config, *, step: int, rows: int, device: torch.device
) -> RnndetError:
    """The error that says what did not fit, and two settings that make it smaller.

    rows: of this process in a step.
    """
    train, clip = config.train, config.clip
    height, width = config.augment.crop
    peak = ""
    if device.type == "cuda":
        peak = f", {torch.cuda.max_memory_allocated(device) / 2**20:.0f} MiB at most"
    return RnndetError(
        f"step {step}: out of memory with {rows // train.accumulate} rows of {clip.length} frames "
        f"of {height}x{width} at once{peak}; try train.accumulate = {2 * train.accumulate} or "
        f"clip.length = {max(1, clip.length // 2)} ({str(error).splitlines()[0][:100]})"
    )
