"""Where the time of a step goes."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import torch

STAGES = ("load", "move", "forward", "backward", "optimise")


class StepClock:
    """Seconds by stage since `reset`.

    exact: wait for the device around each stage; without it a GPU's work counts where the CPU waits
    for it, and only "load" is right.
    """

    def __init__(self, device: torch.device, *, exact: bool = False) -> None:
        self._wait = torch.cuda.synchronize if exact and device.type == "cuda" else None
        self.reset()

    def reset(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.began = perf_counter()

    @property
    def total(self) -> float:
        """Seconds since `reset`, whatever they went into."""
        return perf_counter() - self.began

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        if self._wait is not None:
            self._wait()
        start = perf_counter()
        yield
        if self._wait is not None:
            self._wait()
        self.seconds[name] += perf_counter() - start
