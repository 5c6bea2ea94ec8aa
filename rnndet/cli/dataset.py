"""Check labelled videos, count their boxes, convert them or draw their labels.

rnndet dataset check data/aerial --split train val
rnndet dataset stats data/aerial --out out/aerial
rnndet dataset convert data/aerial data/aerial_mot --to mot --images
rnndet dataset show data/aerial --split val --video V_AIRPLANE_002 --out labels.mp4
"""

import argparse
import logging
import sys
from pathlib import Path

from rnndet.cli.arguments import at_least_one, path_text
from rnndet.cli.errors import Parser, command, run_tool, with_flags
from rnndet.errors import InputError
from rnndet.messages import counted


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="rnndet dataset",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    shared = Parser(add_help=False)
    shared.add_argument("root", help="folder of the data set")
    shared.add_argument("--format", default="coco_vid")
    shared.add_argument("--option", nargs="+", default=[], metavar="KEY=VALUE",
                        help="of the format, docs/data.md")  # fmt: skip
    shared.add_argument("--skip-bad", action="store_true",
                        help="leave out entries that cannot be used")  # fmt: skip
    shared.add_argument("--debug", action="store_true", help="show the traceback of an error")
    split = Parser(add_help=False)
    split.add_argument("--split", default="train")

    command = commands.add_parser("check", parents=[shared],
                                  help="find errors; exit code 3 if there are any")  # fmt: skip
    command.add_argument("--split", nargs="+", default=["train"],
                         help="several: also compared with each other")  # fmt: skip
    command.add_argument("--decode", choices=["all", "sample", "none"], default="sample",
                         help="images to decode; sample: five of each video")  # fmt: skip
    command = commands.add_parser("stats", parents=[shared, split], help="count boxes and tracks")
    command.add_argument(
        "--out", type=path_text, metavar="DIR", help="write stats.json and plots there"
    )
    command = commands.add_parser("convert", parents=[shared, split], help="write another format")
    command.add_argument("out", type=path_text, metavar="OUT", help="folder of the new data set")
    command.add_argument("--to", required=True, choices=["coco_vid", "mot", "imagenet_vid"])
    command.add_argument("--images", "--pictures", action="store_true",
                         help="write the frames as image files")  # fmt: skip
    command = commands.add_parser("show", parents=[shared, split], help="draw labels onto frames")
    command.add_argument("--video", required=True, metavar="NAME")
    command.add_argument(
        "--out", type=path_text, required=True, metavar="FILE.mp4|DIR", help="video, or images"
    )
    command.add_argument("--frames", type=at_least_one, metavar="N", help="only the first N frames")
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    level = logging.ERROR if args.command == "check" else logging.INFO  # check prints all lines
    logging.basicConfig(level=level, format="%(message)s")
    commands = {"check": check, "stats": stats, "convert": convert, "show": show}
    return run_tool("dataset", commands[args.command], args)


def check(args: argparse.Namespace) -> int:
    from rnndet.data.checks.run import check_dataset
    from rnndet.data.formats import reader_options

    report = check_dataset(
        args.format, args.root, args.split, decode=args.decode, skip_bad=args.skip_bad,
        options=reader_options(args.option),
    )  # fmt: skip
    for finding in report.findings:
        print(finding)
    print(report.summary())
    return InputError.exit_code if report.errors else 0


def read(args: argparse.Namespace):
    """Read the split of the command."""
    from rnndet.data.formats import read_set, reader_options

    options = reader_options(args.option)
    return read_set(args.format, args.root, args.split, skip_bad=args.skip_bad, **options)


def stats(args: argparse.Namespace) -> int:
    from rnndet.evaluation.dataset_stats import measure, text, write_plots
    from rnndet.evaluation.score import write_report

    found = measure(read(args))
    print(text(found))
    if args.out:
        report = Path(args.out) / "stats.json"
        write_report(report, found.numbers())
        for path in (report, *write_plots(found, Path(args.out))):
            print(path)
    return 0


def convert(args: argparse.Namespace) -> int:
    from rnndet.data.writers.convert import convert as write

    videos = read(args)
    split = "all" if args.split == "." else args.split  # a name of files and folders
    notes = write(videos, Path(args.out), split, to=args.to, images=args.images)
    for note in notes:
        print(f"note: {with_flags(note)}")
    print(f"{split} in {args.to}: {args.out}")
    return 0


def show(args: argparse.Namespace) -> int:
    from rnndet.data.preview import find_video, write_preview

    videos = read(args)
    video = find_video(videos, args.video)
    count = write_preview(video, videos.classes, Path(args.out), frames=args.frames)
    print(f"{counted(count, 'frame')} of {video.name}: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
