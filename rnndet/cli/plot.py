"""Plot the losses and metrics of a training run: rnndet plot runs/aerial."""

import argparse
import sys

from rnndet.cli.arguments import some_path
from rnndet.cli.errors import Parser, command, run_tool


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="rnndet plot", description=__doc__)
    parser.add_argument("run", type=some_path, help="run folder of rnndet train")
    parser.add_argument(
        "--out", type=some_path, help="folder for the images; default: the run folder"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> int:
    return run_tool("plot", run, parse(argv))


def run(args: argparse.Namespace) -> int:
    from rnndet.training.plots import plot_run, write_csv

    print(write_csv(args.run, args.out))
    for path in plot_run(args.run, args.out):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
