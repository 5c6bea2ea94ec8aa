"""Processes with the environment that torchrun gives them, forked from one that has loaded torch.

Loading torch takes longer than what the tests do, and torchrun loads it in every process and in
itself. To be called by a process that has run nothing yet: threads do not survive a fork.
"""

import os
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def run_ranks(size: int, work: Callable[[], object]) -> None:
    """Run `work` in `size` processes and wait for them; exits with 1 if it fails in any.

    A single process has no environment of torchrun. Output is passed on.
    """
    children = [_forked(work, _environment(size, rank)) for rank in range(size)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        sys.exit(1)


def torchrun(size: int, work: Callable[..., int], *arguments: Any, max_restarts: int = 0) -> int:
    """Run `work(*arguments)` in `size` processes with the agent of torchrun; returns 0.

    As `torchrun --standalone`, with processes that the agent forks instead of starting Python. The
    number that `work` returns is the exit code of a process. Raises an error if one fails.
    """
    config = LaunchConfig(
        1, 1, size, rdzv_backend="c10d", rdzv_endpoint="localhost:0", run_id="test",
        max_restarts=max_restarts, start_method="fork",
    )  # fmt: skip
    elastic_launch(config, _exit_with)(work, *arguments)
    return 0


def _exit_with(work: Callable[..., int], *arguments: Any) -> None:
    if code := work(*arguments):
        sys.exit(code)


def _environment(size: int, rank: int) -> dict[str, str]:
    if size == 1:
        return {}
    if rank == 0:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            os.environ["MASTER_PORT"] = str(one.getsockname()[1])
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
    }  # fmt: skip


def _forked(work: Callable[[], object], environment: dict[str, str]) -> int:
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.environ.update(environment)
        code = int(bool(work()))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
