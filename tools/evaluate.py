"""Measure weights on labelled videos: python tools/evaluate.py aerial --data data/aerial.

Frames go through the same stream as in inference, one at a time, with its memory.
"""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

COLUMNS = ("AP50", "AP", "AP75", "AP_small", "AP_medium", "AP_large", "AR100", "F1")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", help="a name of weights/weights.toml, or a checkpoint file")
    parser.add_argument("--data", required=True, metavar="ROOT", help="folder of the data set")
    parser.add_argument("--format", default="coco_vid")
    parser.add_argument("--split", default="val")
    parser.add_argument("--annotations", metavar="FILE", help="instead of the split's own file")
    parser.add_argument("--groups", nargs="+", metavar="GROUP",
                        help="only the videos of these scene groups")  # fmt: skip
    parser.add_argument("--cache", metavar="DIR", help="decoded frames, see tools/cache_frames.py")
    parser.add_argument("--ablate-memory", nargs="*", metavar="USE",
                        help="uses of the memory: carried, reset, foreign (these three without "
                        "a name), shuffled, identical")  # fmt: skip
    parser.add_argument("--degrade", choices=["none", "standard"], default="none",
                        help="standard: corrupt a third of the frames, in runs")  # fmt: skip
    parser.add_argument("--degrade-seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, metavar="N",
                        help="show every N-th frame only: a lower frame rate")  # fmt: skip
    parser.add_argument("--max-videos", type=int, metavar="N", help="N videos, spread over the set")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's choice")
    parser.add_argument("--out", metavar="FILE", help="write all numbers there, as JSON")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from rnndet.errors import RnndetError

    try:
        return run(args)
    except RnndetError as error:
        if args.debug:
            raise
        print(f"evaluate: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("evaluate: interrupted; nothing was written", file=sys.stderr)
        return 130


def run(args: argparse.Namespace) -> int:
    import torch

    from rnndet.ablation import STANDARD
    from rnndet.checkpoint import load_model
    from rnndet.data import read_set
    from rnndet.data.sampling import hold_out
    from rnndet.device import choose_device
    from rnndet.evaluation import evaluate_set, match_classes
    from rnndet.metrics.coco_ap import CocoAP
    from rnndet.progress import Progress
    from rnndet.scoring import protocol, score, table, write_report

    if args.threads is not None:
        torch.set_num_threads(max(1, args.threads))
    device, why = choose_device(args.device)
    model = load_model(args.weights, device=device)
    options = {"annotations": str(Path(args.annotations).absolute())} if args.annotations else {}
    data = read_set(args.format, args.data, args.split, **options)
    if args.groups:
        _, data = hold_out(data, args.groups)
    uses = () if args.ablate_memory is None else args.ablate_memory or STANDARD
    with Progress("evaluating", None, quiet=False) as progress:
        runs = evaluate_set(
            model,
            match_classes(data, model.classes),
            cache=Path(args.cache) if args.cache else None,
            uses=uses,
            degrade_seed=args.degrade_seed if args.degrade == "standard" else None,
            every=args.every,
            max_videos=args.max_videos,
            progress=progress.step_of,
        )
    metrics = {"coco_ap": CocoAP(model.classes)}
    results = score(runs, metrics)
    facts = protocol(next(iter(runs.values())), metrics)
    classes = [name for name in model.classes if any(f"AP/{name}" in r for r in results.values())]
    print(table(results, COLUMNS))
    print("\nAP50 by class")
    by_class = {
        row: {name: numbers[f"AP50/{name}"] for name in classes if f"AP50/{name}" in numbers}
        for row, numbers in results.items()
    }
    print(table(by_class, classes))
    print("\n" + "; ".join(f"{key} {value}" for key, value in facts.items()))
    print(f"{progress.count} frames in {progress.seconds:.0f} s on {device} ({why})")
    if args.out:
        setting = {"weights": args.weights, "split": args.split, "groups": args.groups}
        write_report(args.out, {"setting": setting, "protocol": facts, "results": results})
        print(f"numbers: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
