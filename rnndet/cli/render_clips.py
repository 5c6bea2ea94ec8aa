"""Render labelled clips of flying objects, or of moving photographs, as a CocoVID data set.

rnndet render_clips data/rendered --clips 160
rnndet render_clips data/moving --photographs data/photographs --clips 80 --val-clips 20
"""

import argparse
import sys
from pathlib import Path

from rnndet.cli.arguments import at_least_one, path_text
from rnndet.cli.errors import Parser, command, run_tool
from rnndet.errors import RnndetError
from rnndet.messages import counted

SIZE_WH = (640, 384)  # of clips of photographs


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="rnndet render_clips",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", type=path_text, help="folder of the new data set")
    parser.add_argument("--clips", type=at_least_one, default=160)
    parser.add_argument("--length", type=at_least_one, default=60, help="frames per clip")
    parser.add_argument("--first-seed", type=int, default=1000, help="the demo's clip is 7")
    parser.add_argument("--split", default="train",
                        help="to write; with --photographs also the split to read")  # fmt: skip
    add = parser.add_argument_group("moving photographs").add_argument
    add("--photographs", metavar="ROOT", help="folder of a labelled set of photographs")
    add("--format", default="coco_vid", help="of the photographs, docs/data.md")
    add("--option", nargs="+", default=[], metavar="KEY=VALUE", help="of the format")
    add("--skip-bad", action="store_true", help="leave out photographs that cannot be used")
    add("--size", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"),
        help="of a frame; default: {} {}".format(*SIZE_WH))  # fmt: skip
    add("--val-clips", type=int, default=0, metavar="N",
        help="also write a split val of N clips, of other photographs")  # fmt: skip
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> int:
    interrupted = "interrupted; no annotation file was written"
    return run_tool("render_clips", run, parse(argv), interrupted=interrupted)


def run(args: argparse.Namespace) -> int:
    if not args.split or Path(args.split).name != args.split:
        raise RnndetError(f"--split {args.split!r}: expected a name, not a path")
    if args.photographs:
        return photographs(args)
    if args.option or args.skip_bad or args.size or args.val_clips or args.format != "coco_vid":
        raise RnndetError("--format, --option, --skip-bad, --size, --val-clips: only with "
                          "--photographs ROOT")  # fmt: skip
    from rnndet.data.rendered import render_set

    path = render_set(
        Path(args.root),
        clips=args.clips,
        length=args.length,
        first_seed=args.first_seed,
        split=args.split,
    )
    print(f"{counted(args.clips, 'clip')}: {path}")
    return 0


def photographs(args: argparse.Namespace) -> int:
    from rnndet.data.formats import read_set, reader_options
    from rnndet.data.moving_photographs import ClipOptions, render_photographs

    width, height = args.size or SIZE_WH
    options = ClipOptions(args.clips, args.val_clips, args.length, (height, width))
    changes = reader_options(args.option)
    data = read_set(args.format, args.photographs, args.split, skip_bad=args.skip_bad, **changes)
    paths = render_photographs(
        data, Path(args.root), args.split, options=options, seed=args.first_seed,
        skip_bad=args.skip_bad,
    )  # fmt: skip
    for path, count in zip(paths, (args.clips, args.val_clips), strict=False):
        print(f"{counted(count, 'clip')}: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
