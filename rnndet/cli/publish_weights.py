"""Add the weights of a training run to weights/ of a checkout, under a name and with their sha256.

rnndet publish_weights runs/aerial/weights.pt aerial
"""

import argparse
import sys
from pathlib import Path

from rnndet.cli.errors import Parser, command, run_tool
from rnndet.errors import RnndetError


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="rnndet publish_weights", description=__doc__)
    parser.add_argument("source", help="weights.pt or best.pt of a run folder")
    parser.add_argument("name", help="name for rnndet infer --weights")
    parser.add_argument("--licence", default="Apache-2.0")
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> int:
    return run_tool("publish_weights", run, parse(argv))


def run(args: argparse.Namespace) -> int:
    from rnndet.models import zoo
    from rnndet.models.publish import publish
    from rnndet.system.shipped import PACKAGE

    if zoo.WEIGHTS_DIR.is_relative_to(PACKAGE):
        raise RnndetError(f"{PACKAGE} is an installed package; run this in a checkout")
    path = publish(Path(args.source), args.name, licence=args.licence)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
