"""Report mistakes of the user as one line on stderr and an exit code."""

import argparse
import functools
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from rnndet.errors import RnndetError
from rnndet.registry import nearest_hint
from rnndet.system.streams import StreamError, standard_streams

FLAGS = {  # of the parameters that messages of the library name in backticks
    "ClassMap": "--map-classes",
    "LiveOptions.allow_network": "--allow-network",
    "changes": "--set",
    "compiled": "--compile",
    "device": "--device",
    "end": "--end",
    "frames": "--frames",
    "graph_cache": "--graph-cache",
    "half": "--half",
    "images": "--images",
    "kind": "--runtime",
    "latencies": "--latency",
    "load_state": "--load-state",
    "max_pixels": "--max-pixels",
    "min_score": "--score-threshold",
    "only_classes": "--classes",
    "options": "--option",
    "out": "--out",
    "out_dir": "--out",
    "overwrite": "--overwrite",
    "per_frame": "--frame-weights",
    "regions": "--regions",
    "resume": "--resume",
    "save": "--save",
    "save_state": "--save-state",
    "shard": "--shard",
    "show": "--show",
    "size": "--size",
    "size_hw": "--size",
    "skip_bad": "--skip-bad",
    "split": "--split",
    "start": "--start",
    "temporal": "--weights",
    "to": "--to",
    "val_clips": "--val-clips",
}
# of terminals, ends of lines, and changes of the direction of writing
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def with_flags(text: str) -> str:
    """A message of the library with flags in place of the parameters that it names.

    >>> with_flags("use `overwrite=True` or another `out`, or `kind=torch`")
    'use --overwrite or another --out, or --runtime torch'
    """

    def flag(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name not in FLAGS:
            return found[0]
        return FLAGS[name] if value in (None, "True") else f"{FLAGS[name]} {value}"

    return re.sub(r"`([\w.]+)(?:=([^`]*))?`", flag, text)


class Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line, as tools report all others."""

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        hint = nearest_hint(unknown[1], list(self._option_string_actions)) if unknown else ""
        tool = self.prog.removeprefix("rnndet ").split(" ")[0]
        text = f"{tool}: {message}; {hint}{self.prog} --help lists the arguments"
        self.exit(2, f"{printable(text)}\n")


def printable(text: str) -> str:
    r"""The text as one line that controls no terminal, since names of files may have any character.

    >>> printable("a\nb\x1b[2J.mp4: no such file")
    'a\\nb\\x1b[2J.mp4: no such file'
    """
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def shown(error: RnndetError) -> str:
    """The message of an error for the terminal, with flags; it keeps its lines."""
    return "\n".join(map(printable, with_flags(str(error)).split("\n")))


def command(main: Callable[[list[str] | None], int]) -> Callable[..., int]:
    """Decorate the `main` of a tool: it runs with `standard_streams`.

    A failure of stdout itself, such as a full disk, is one line on stderr and exit code 4. OpenCV
    prints nothing, unless the environment says so.
    """

    @functools.wraps(main)
    def run(argv: list[str] | None = None) -> int:
        os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # errors are told once, by us
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
        print(f"{name}: {shown(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{name}: {interrupted}", file=sys.stderr)
        return 130
