"""Fit what names a track by its shape and motion, and add it to weights.

rnndet fit_track_classes aerial --data data/aerial --out runs/aerial_tracks.pt

The videos need labels with ids of objects. Cross-validates by scene group; the model is not run.
"""

import argparse
import logging
import math
import sys

from rnndet.cli.arguments import ITS_CLASSES, some_path
from rnndet.cli.errors import Parser, command, run_tool
from rnndet.errors import OutputError

logger = logging.getLogger(__name__)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="rnndet fit_track_classes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("weights", help="a name of weights/weights.toml, or a checkpoint file")
    add("--data", required=True, metavar="ROOT", help="folder of the data set")
    add("--format", default="coco_vid")
    add("--split", default="train")
    add("--option", nargs="+", default=[], metavar="KEY=VALUE", help="of the format, docs/data.md")
    add("--skip-bad", action="store_true", help="skip entries of the labels that cannot be read")
    add("--cache", type=some_path, metavar="DIR", help="decoded frames, see rnndet cache_frames")
    add("--holdout", nargs="+", default=[], metavar="GROUP",
        help="scene groups that are only measured on")  # fmt: skip
    add("--seed", type=int, default=0, help="of the errors that are added to labelled boxes")
    add(
        "--out", type=some_path, required=True, metavar="FILE", help="the weights with the read-out"
    )
    add("--overwrite", action="store_true", help="replace an existing file")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return run_tool("fit_track_classes", run, args)


def run(args: argparse.Namespace) -> int:
    from rnndet.data.clips.sampling import hold_out
    from rnndet.data.formats import read_set, reader_options
    from rnndet.evaluation.videos import match_classes
    from rnndet.models.checkpoint import (
        model_from_checkpoint,
        read_weights,
        save_with_track_classes,
    )
    from rnndet.system.progress import Progress
    from rnndet.training.track_classes import (
        collect_samples,
        cross_validated,
        fit_read_out,
        measure_read_out,
    )

    if args.out.exists() and not args.overwrite:
        raise OutputError(f"{args.out}: exists already; use --overwrite to replace it")
    content = read_weights(args.weights)
    model_from_checkpoint(content, where=args.weights)  # it must build and fit
    classes = tuple(content["classes"])
    options = reader_options(args.option)
    data = read_set(args.format, args.data, args.split, skip_bad=args.skip_bad, **options)
    data = match_classes(data, classes, remedy=ITS_CLASSES)
    rest, held = hold_out(data, args.holdout)
    total = sum(len(video.frames) for video in data.videos)
    with Progress("reading", total, quiet=False) as progress:
        samples, held_samples = (
            collect_samples(part.videos, cache=args.cache, seed=args.seed, progress=progress.step)
            for part in (rest, held)
        )
    spec = fit_read_out(samples, classes)
    found = cross_validated(samples, classes)
    if found is None:
        print("not cross-validated: all tracks of a class are in one part of the scene groups")
    else:
        print_figures("cross-validated by scene group", found, classes)
    if len(held_samples):
        print_figures("on the held-out groups", measure_read_out(spec, held_samples), classes)
    save_with_track_classes(content, spec, args.out)
    print(args.out)
    return 0


def print_figures(title: str, figures, classes: tuple[str, ...]) -> None:
    """Print the `Figures` of a read-out."""
    count = len(classes)
    by_class = ", ".join(f"{name} {100 * share:.1f}" for name, share in figures.by_class.items())
    print(
        f"{title}: log loss {figures.log_loss:.3f} ({math.log(count):.3f} by chance), accuracy "
        f"{100 * figures.accuracy:.1f} % ({100 / count:.1f} by chance; {by_class}), "
        f"{100 * figures.named:.1f} % of the tracks named"
    )


if __name__ == "__main__":
    sys.exit(main())
