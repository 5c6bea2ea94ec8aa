"""Train a model: rnndet train aerial --out runs/aerial.

On several GPUs of one machine: torchrun --nproc-per-node=8 -m rnndet train aerial
"""

import argparse
import logging
import sys
from pathlib import Path

from rnndet.cli.arguments import path_text
from rnndet.cli.errors import Parser, command, run_tool
from rnndet.system.shipped import find_recipe, recipe_names


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="rnndet train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    recipes = ", ".join(recipe_names())
    add("config", help=f"TOML file, or the name of a shipped recipe: {recipes}")
    add("--set", action="append", default=[], metavar="KEY=VALUE",
        help="change a setting, for example train.steps=100; may be repeated")  # fmt: skip
    add("--out", type=path_text, help="run folder; default: runs/<name of the config>")
    add("--resume", nargs="?", const="last", choices=["last", "auto"],
        help="resume from last.pt of the run folder; auto: if it exists, else start")  # fmt: skip
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--quiet", action="store_true", help="no progress bar")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    interrupted = "interrupted; continue from the last save with --resume"
    return run_tool("train", run, args, interrupted=interrupted)


def run(args: argparse.Namespace) -> int:
    from rnndet.config import load_config
    from rnndet.system.distributed import world
    from rnndet.system.signals import Stopped
    from rnndet.training.checkpoints import holds_run
    from rnndet.training.run import run_training

    config = load_config(find_recipe(args.config), changes=args.set)
    folder = Path(args.out or Path("runs") / Path(args.config).stem)
    resume = args.resume == "last" or (args.resume == "auto" and holds_run(folder))
    with world() as here:
        if not here.is_first:  # every message once
            logging.getLogger().setLevel(logging.WARNING)
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
                print(f"train: {stopped}; saved; continue with --resume", file=sys.stderr)
            return stopped.exit_code
        if here.is_first:
            print(f"weights: {folder / 'weights.pt'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
