"""Measure the time that each stage of a frame or training step takes."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import perf_counter
from typing import Protocol


class Timer(Protocol):
    """Interface of `StageTimer` and of `NO_TIMER`, which measures nothing."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Measure the block as a stage."""
        ...


class StageTimer:
    """Seconds by stage since `reset`; a stage may be entered any number of times.

    wait: called before and after each stage, for example `torch.cuda.synchronize`; without it a
    GPU's work counts where the CPU waits for it.

    >>> timer = StageTimer()
    >>> with timer.stage("load"):
    ...     pass
    >>> list(timer.seconds)
    ['load']
    """

    def __init__(self, *, wait: Callable[[], None] | None = None) -> None:
        self._wait = wait or (lambda: None)
        self.reset()

    def reset(self) -> None:
        """Set all times to zero."""
        self.seconds: dict[str, float] = {}
        self._start = perf_counter()

    @property
    def total(self) -> float:
        """Seconds since `reset`, in stages or not."""
        return perf_counter() - self._start

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        self._wait()
        start = perf_counter()
        try:
            yield
            self._wait()
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start


class _NoTimer:
    def stage(self, name: str) -> AbstractContextManager[None]:
        return nullcontext()


NO_TIMER: Timer = _NoTimer()
