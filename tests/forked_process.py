"""Processes that tests stop or kill, forked from a server that has loaded torch once."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

PRELOADED = ["pytest", "torch", "torchvision", "rnndet.inference.run", "rnndet.training.run"]


class ForkedProcess:
    """A call of `target`, with the methods of `subprocess.Popen` that tests use.

    target: a function that can be imported; the number that it returns is the exit code.
    """

    def __init__(self, target: Callable[..., object], *arguments: Any, **options: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self._process = context.Process(target=_run, args=(target, arguments, options))
        self._process.start()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float = 60) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("forked process", timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()


def _run(target: Callable[..., object], arguments: tuple, options: dict) -> None:
    code = target(*arguments, **options)
    sys.exit(code if isinstance(code, int) else 0)
