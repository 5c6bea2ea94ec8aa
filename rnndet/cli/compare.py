"""Compare two runs over the same videos: rnndet compare A.npz B.npz.

A and B are predictions that rnndet evaluate --out wrote. Every difference has a 95 % interval
over resampled videos; a difference whose interval excludes 0 is marked.
"""

import argparse
import sys

from rnndet.cli.arguments import TRACKER_OPTION_HELP, TRACKERS_HELP, path_text, tracker_options
from rnndet.cli.errors import Parser, command, run_tool


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="rnndet compare", description=__doc__)
    parser.add_argument("a", metavar="A", help="predictions of the first run")
    parser.add_argument("b", metavar="B", help="predictions of the second run")
    parser.add_argument("--metrics", nargs="+", metavar="NAME", default=["coco_ap"],
                        help="as in rnndet evaluate; streaming: both timed")  # fmt: skip
    parser.add_argument("--tracker", default="byte", help=f"for the metric mot: {TRACKERS_HELP}")
    parser.add_argument("--tracker-option", action="append", default=[], metavar="KEY=VALUE",
                        help=TRACKER_OPTION_HELP)  # fmt: skip
    parser.add_argument("--samples", type=int, default=200, metavar="N", help="of the bootstrap")
    parser.add_argument(
        "--out", type=path_text, metavar="FILE", help="write the numbers to this file, as JSON"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> int:
    return run_tool("compare", run, parse(argv))


def run(args: argparse.Namespace) -> int:
    from rnndet.evaluation.metrics.streaming import is_timed
    from rnndet.evaluation.records import load_predictions
    from rnndet.evaluation.score import (
        build_metrics,
        compare,
        metric_names,
        protocol,
        write_report,
    )

    a, b = load_predictions(args.a), load_predictions(args.b)
    names = metric_names(args.metrics, timed=is_timed(a) and is_timed(b))
    metrics = build_metrics(names, a.classes)
    options = tracker_options(args.tracker_option)
    numbers = compare(
        a, b, metrics, tracker=args.tracker, tracker_options=options, samples=args.samples
    )
    facts = protocol({"A": a, "B": b}, metrics) | {"samples": args.samples}
    print_table(numbers)
    print(f"\nA: {args.a}\nB: {args.b}")
    print("\n".join(f"{key}: {value}" for key, value in facts.items()))
    if args.out:
        keys = ("a", "b", "low", "high")
        named = {name: dict(zip(keys, values, strict=True)) for name, values in numbers.items()}
        write_report(args.out, {"protocol": facts, "numbers": named})
    return 0


def print_table(numbers: dict[str, tuple[float, float, float, float]]) -> None:
    """A line per number: a, b, the difference b - a and its interval."""
    from rnndet.evaluation.score import format_number

    width = max(len(name) for name in numbers)
    print(f"{' ' * width}  {'A':>7}  {'B':>7}  {'B - A':>7}  95 % interval")
    for name, (a, b, low, high) in numbers.items():
        cells = [format_number(name, value).rjust(7) for value in (a, b, b - a)]
        ends = f"[{format_number(name, low)}, {format_number(name, high)}]"
        mark = " *" if low > 0 or high < 0 else ""
        print("  ".join([name.ljust(width), *cells, ends]) + mark)


if __name__ == "__main__":
    sys.exit(main())
