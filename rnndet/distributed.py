"""Several processes under torchrun. With one process nothing is started and nothing is sent."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

Item = TypeVar("Item")
TIMEOUT = timedelta(hours=2)  # shares of a set are never equally long


@dataclass(frozen=True, slots=True)
class World:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """This process's items: each item belongs to exactly one process, none is repeated."""
        return list(items[self.rank :: self.size])

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes in the order of their ranks; on others than the first, []."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.is_first else None
        distributed.gather_object(value, values, dst=0)
        return values or []


@contextmanager
def world() -> Iterator[World]:
    """The processes that torchrun started (RANK and WORLD_SIZE), or this one alone.

    They talk over gloo on the CPU: what evaluation sends is small.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    distributed.init_process_group("gloo", timeout=TIMEOUT)
    try:
        yield World(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()
