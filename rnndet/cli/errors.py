"""Report mistakes of the user as one line on stderr and an exit code."""

import argparse
import functools
import sys
from collections.abc import Callable

from rnndet.errors import RnndetError
from rnndet.system.streams import StreamError, standard_streams


def command(main: Callable[[list[str] | None], int]) -> Callable[..., int]:
    """Decorate the `main` of a tool: it runs with `standard_streams`.

    A failure of stdout itself, such as a full disk, is one line on stderr and exit code 4.
    """

    @functools.wraps(main)
    def run(argv: list[str] | None = None) -> int:
        try:
            with standard_streams():
                return main(argv)
        except StreamError as error:
            print(f"rnndet: {error}", file=sys.stderr)
            return error.exit_code

    return run


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
