"""Train a model: python tools/train.py configs/aerial.toml --out runs/aerial."""

import argparse
import logging
import sys
from pathlib import Path


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="TOML file, see configs/")
    change = "change a setting, for example train.steps=100; may be repeated"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=change)
    parser.add_argument("--out", help="run folder; default runs/<name of the config>")
    parser.add_argument("--resume", nargs="?", const="last", choices=["last", "auto"],
        help="go on from last.pt of the folder; auto: if there is one, or else begin")  # fmt: skip
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from rnndet.errors import RnndetError

    try:
        from rnndet.config import load_config
        from rnndet.system.distributed import world
        from rnndet.system.signals import Stopped
        from rnndet.training.checkpoints import holds_run
        from rnndet.training.run import run_training

        config = load_config(args.config, changes=args.set)
        folder = Path(args.out or Path("runs") / Path(args.config).stem)
        resume = args.resume == "last" or (args.resume == "auto" and holds_run(folder))
        with world() as here:
            try:
                run_training(
                    config,
                    folder,
                    device=args.device,
                    resume=resume,
                    quiet=args.quiet,
                    world=here,
                )
            except Stopped as stopped:
                if here.is_first:
                    print(f"train: {stopped}; saved; --resume goes on", file=sys.stderr)
                return stopped.exit_code
    except RnndetError as error:
        if args.debug:
            raise
        print(f"train: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("train: interrupted; --resume goes on from the last save", file=sys.stderr)
        return 130
    print(f"weights: {folder / 'weights.pt'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
