"""Measure how long each recurrent cell remembers: rnndet recall --out runs/recall.

Each cell learns, without a detector and on small maps, to recall a pattern after a gap. Prints the
share that it recalls across each gap, and the gradient that reaches back over the longest.
"""

import argparse
import sys

from rnndet.cli.arguments import some_path
from rnndet.cli.errors import Parser, command, run_tool
from rnndet.errors import RnndetError


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="rnndet recall",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cells", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--steps", type=int, default=400, help="of training; default 400")
    parser.add_argument("--longest", type=int, default=30, metavar="N",
                        help="longest gap in training, in frames; default 30")  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs; their mean counts")
    parser.add_argument(
        "--out", type=some_path, metavar="DIR", help="gets recall.json and recall.png"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> int:
    return run_tool("recall", run, parse(argv))


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from rnndet.benchmarks.recall import VARIANTS, gradient_reach, recalled, train_to_recall
    from rnndet.benchmarks.recall_plots import plot_recall
    from rnndet.evaluation.score import write_report
    from rnndet.registry import lookup

    for flag in ("steps", "longest", "seeds"):
        if getattr(args, flag) < (0 if flag == "steps" else 1):
            raise RnndetError(f"--{flag} {getattr(args, flag)}: too few")
    names = args.cells or list(VARIANTS)
    for name in names:
        lookup(name, VARIANTS, what="cell")
    gaps = (1, 2, 3, 5, 8, 12, 20, 30)
    recall, start, end = {}, {}, {}
    with tqdm(total=len(names) * args.seeds * args.steps, unit="step", disable=None) as bar:
        for name in names:
            fresh, trained, shares = [], [], []
            for seed in range(args.seeds):
                fresh.append(gradient_reach(train_to_recall(name, steps=0, seed=seed), gaps[-1]))
                model = train_to_recall(
                    name, steps=args.steps, longest=args.longest, seed=seed, after_step=bar.update
                )
                trained.append(gradient_reach(model, gaps[-1]))
                shares.append([recalled(model, gap) for gap in gaps])
            recall[name], start[name], end[name] = means(shares), means(fresh), means(trained)
    print("variance recalled (%), mean of the seeds" + " " * 6 + "gradient 30 frames back")
    print(f"{'gap':<16}" + "".join(f"{gap:>6}" for gap in gaps) + f"{'fresh':>12}{'trained':>10}")
    for name in names:
        row = "".join(f"{100 * share:>6.0f}" for share in recall[name])
        print(f"{name:<16}{row}{start[name][-1]:>12.1e}{end[name][-1]:>10.1e}")
    if args.out:
        about = {"steps": args.steps, "longest": args.longest, "seeds": args.seeds, "gaps": gaps}
        results = {"recall": recall, "gradient_fresh": start, "gradient_trained": end}
        write_report(args.out / "recall.json", about | results)
        plot_recall(args.out / "recall.png", gaps=gaps, recall=recall, start=start, end=end)
        print(args.out / "recall.json", args.out / "recall.png", sep="\n")
    return 0


def means(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(column) for column in zip(*rows, strict=True)]


if __name__ == "__main__":
    sys.exit(main())
