"""Communication between the processes of torchrun; a single process starts and sends nothing."""

import inspect
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
TIMEOUT = timedelta(hours=2)  # long, since the shares of a data set take different times


@dataclass(frozen=True, slots=True)
class World:
    """The rank of this process and the number of processes.

    >>> World(rank=1, size=3).share(["a", "b", "c", "d", "e"])
    ['b', 'e']
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """The items of this process: each item belongs to exactly one process."""
        return list(items[self.rank :: self.size])

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes in the order of their ranks; [] except in the first."""
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
        """Sum a tensor over the processes, in place; every process must call it."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def from_first(self, tensor: Tensor) -> None:
        """Copy the values of the tensor in the first process to all processes, in place."""
        if self.size > 1:
            distributed.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Block until every process has called this."""
        if self.size > 1:
            distributed.barrier()

    def parallel(self, module: nn.Module, device: torch.device) -> nn.Module:
        """The module with gradients averaged over the processes; unchanged in a single process."""
        if self.size == 1:
            return module
        devices = [device] if device.type == "cuda" else None
        parameters = inspect.signature(DistributedDataParallel).parameters
        new_name = "forward_sync_buffers"  # from torch 2.14 on
        name = new_name if new_name in parameters else "broadcast_buffers"
        return DistributedDataParallel(module, device_ids=devices, **{name: False})


def store_of_attempt(store: distributed.Store, attempt: str) -> distributed.Store:
    """The part of a store that belongs to one attempt of torchrun.

    After a restart torchrun provides the same store, which holds the addresses of the dead
    processes; new processes that read these wait for each other forever (torch 2.14).
    """
    return distributed.PrefixStore(f"attempt_{attempt}", store)


@contextmanager
def world() -> Iterator[World]:
    """Join the processes of torchrun (RANK, WORLD_SIZE); without it a `World` of this process.

    The backend is gloo on the CPU and NCCL between GPUs.
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
