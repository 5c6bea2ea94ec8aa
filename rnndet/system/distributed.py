"""Several processes under torchrun. With one process nothing is started and nothing is sent."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

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

    def gather_all(self, value: Any) -> list[Any]:
        """The values of all processes in the order of their ranks, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the processes, in place; every process must call it."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def from_first(self, tensor: Tensor) -> None:
        """Give all processes the values that the tensor has in the first one."""
        if self.size > 1:
            distributed.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            distributed.barrier()

    def parallel(self, module: nn.Module, device: torch.device) -> nn.Module:
        """The module with gradients that are means over the processes; alone, the module itself."""
        if self.size == 1:
            return module
        devices = [device] if device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=devices, broadcast_buffers=False)


def store_of_attempt(store: distributed.Store, attempt: str) -> distributed.Store:
    """The part of a store that belongs to one attempt of torchrun.

    After a restart torchrun hands out the same store, with the addresses of the processes that
    died in it; two new processes that read these wait for each other without end (torch 2.14).
    """
    return distributed.PrefixStore(f"attempt_{attempt}", store)


@contextmanager
def world() -> Iterator[World]:
    """The processes that torchrun started (RANK and WORLD_SIZE), or this one alone.

    They talk over gloo on the CPU and over NCCL between GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, rank, size = next(iter(distributed.rendezvous("env://", timeout=TIMEOUT)))
    store = store_of_attempt(store, os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    distributed.init_process_group(
        backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT
    )
    try:
        yield World(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()
