"""Decode the videos of a data set once into a folder of images, for training.

rnndet cache_frames data/aerial --split train --cache cache/aerial

Safe to interrupt and to repeat: cached videos are not decoded again.
"""

import argparse
import sys
from pathlib import Path

from rnndet.cli.arguments import path_text
from rnndet.cli.errors import Parser, command, run_tool
from rnndet.messages import counted


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="rnndet cache_frames", description=__doc__)
    parser.add_argument("root", help="folder of the data set")
    parser.add_argument("--cache", type=path_text, required=True, help="folder for the images")
    parser.add_argument("--format", default="coco_vid")
    parser.add_argument("--option", nargs="+", default=[], metavar="KEY=VALUE",
                        help="of the format, docs/data.md")  # fmt: skip
    parser.add_argument("--split", default="train")
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> int:
    return run_tool(
        "cache_frames", run, parse(argv), interrupted="interrupted; run it again to continue"
    )


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from rnndet.data.formats import read_set, reader_options
    from rnndet.data.frames import make_cache

    options = reader_options(args.option)
    videos = read_set(args.format, args.root, args.split, **options).videos
    count = sum(make_cache(video, Path(args.cache)) for video in tqdm(videos, unit="video"))
    number = f"{counted(len(videos), 'video')} {'is' if len(videos) == 1 else 'are'}"
    print(f"{counted(count, 'frame')} decoded; {number} in {args.cache}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
