"""Processes that tests stop or kill, forked from a server that has loaded torch once."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
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

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float = 60) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("forked process", timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def with_files(
    target: Callable[..., object],
    *arguments: Any,
    output: str | Path = os.devnull,
    errors: str | Path = os.devnull,
) -> object:
    """Call `target` in this process with files as its standard output and standard error."""
    for number, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    return target(*arguments)


def _run(target: Callable[..., object], arguments: tuple, options: dict) -> None:
    code = target(*arguments, **options)
    sys.exit(code if isinstance(code, int) else 0)
