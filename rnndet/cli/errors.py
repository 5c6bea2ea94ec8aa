"""Report mistakes of the user as one line on stderr and an exit code."""

import argparse
import sys
from collections.abc import Callable

from rnndet.errors import RnndetError


def run_tool(
    name: str,
    run: Callable[[argparse.Namespace], int],
    args: argparse.Namespace,
    *,
    interrupted: str = "interrupted",
) -> int:
    """Return the exit code of `run(args)`; a RnndetError and Ctrl-C (130) are printed as one line.

    interrupted: the line for Ctrl-C. With --debug a RnndetError is raised, for its traceback.
    """
    try:
        return run(args)
    except RnndetError as error:
        if getattr(args, "debug", False):  # not every tool has --debug
            raise
        print(f"{name}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{name}: {interrupted}", file=sys.stderr)
        return 130
