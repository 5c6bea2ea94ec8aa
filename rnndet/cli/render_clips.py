"""Render labelled clips of flying objects as a CocoVID data set, to train on with real video.

rnndet render_clips data/rendered --clips 160
"""

import argparse
import sys
from pathlib import Path

from rnndet.cli.errors import run_tool


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rnndet render_clips", description=__doc__)
    parser.add_argument("root", help="folder of the new data set")
    parser.add_argument("--clips", type=int, default=160)
    parser.add_argument("--length", type=int, default=60, help="frames per clip")
    parser.add_argument("--first-seed", type=int, default=1000, help="the demo's clip is 7")
    parser.add_argument("--split", default="train")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    interrupted = "interrupted; no annotation file was written"
    return run_tool("render_clips", run, parse(argv), interrupted=interrupted)


def run(args: argparse.Namespace) -> int:
    from rnndet.data.rendered import render_set

    path = render_set(
        Path(args.root),
        clips=args.clips,
        length=args.length,
        first_seed=args.first_seed,
        split=args.split,
    )
    print(f"{args.clips} clips: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
