"""Write a trained model as an ONNX graph that rnndet infer runs by onnxruntime or OpenVINO.

rnndet export everyday writes weights/everyday.onnx, beside weights/everyday.pt. The graph and
the model are then compared frame by frame; a graph with different detections is deleted.

rnndet export everyday --int8 --calibrate CLIP ... writes weights/everyday.int8.onnx, whose
convolutions compute in int8, and weights/everyday.int8.json, how it was made. It is compared with
the float graph on the labelled videos of --data; one that loses more than --max-loss is deleted.
"""

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from rnndet.cli.arguments import ITS_CLASSES, path_text
from rnndet.cli.errors import Parser, command, run_tool
from rnndet.errors import OutputError, RnndetError
from rnndet.messages import counted


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="rnndet export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("weights", help="name in weights/weights.toml, or a file")
    add(
        "--out",
        type=path_text,
        metavar="FILE",
        help="the graph; none: beside the weights, for --runtime onnx",
    )
    add("--frames", type=int, default=100, help="frames of a synthetic clip to compare on (100)")
    add("--overwrite", action="store_true", help="replace an existing graph")
    add("--int8", action="store_true", help="write the graph with its convolutions in int8")
    add("--calibrate", nargs="+", metavar="CLIP", default=[],
        help="with --int8: videos like those that the model will see")  # fmt: skip
    add("--per-clip", type=int, default=8, metavar="N", help="frames of each CLIP that count (8)")
    add("--data", nargs="+", metavar="ROOT", default=[],
        help="with --int8: labelled sets to compare both graphs on")  # fmt: skip
    add("--format", nargs="+", metavar="FORMAT", default=["coco_vid"],
        help="of --data, see docs/data.md: one for all sets, or one for each")  # fmt: skip
    add("--option", nargs="+", default=[], metavar="KEY=VALUE",
        help="of the format of the labelled sets, docs/data.md")  # fmt: skip
    add("--teacher", metavar="WEIGHTS",
        help="labels the sets of format unlabelled: what it finds on the clean frames")  # fmt: skip
    add("--split", default="val", help="of --data")
    add("--every", type=int, default=1, metavar="N", help="every N-th frame of --data only")
    add("--degrade", metavar="PLAN", help="compare on corrupted frames too, as in rnndet evaluate")
    add("--max-loss", type=float, default=0.5, metavar="POINTS",
        help="largest loss of AP50 on all frames of a set, of an int8 graph (0.5)")  # fmt: skip
    add("--unchecked", action="store_true", help="keep an int8 graph whatever it loses")
    add("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(argv)
    if args.frames < 2:
        parser.error("--frames: expected 2 or more")
    if args.per_clip < 1 or args.every < 1:
        parser.error("--per-clip, --every: expected 1 or more")
    if args.int8 and not args.calibrate:
        parser.error("--int8: needs --calibrate CLIP ..., videos like those the model will see")
    if args.int8 and not (args.data or args.unchecked):
        parser.error("--int8: give --data ROOT to measure what it loses, or --unchecked")
    if not args.int8 and (args.calibrate or args.data):
        parser.error("--calibrate, --data: only with --int8")
    if len(args.format) not in (1, len(args.data)) and args.data:
        parser.error("--format: give one for all sets of --data, or one for each")
    if args.option and len({*args.format} - {"unlabelled"}) > 1:
        parser.error("--option: only where all labelled sets have one format")
    if bool(args.teacher) != ("unlabelled" in args.format):
        parser.error("--teacher: for sets of --format unlabelled, which need one")
    return args


@command
def main(argv: list[str] | None = None) -> int:
    return run_tool("export", run, parse(argv))


def run(args: argparse.Namespace) -> int:
    from rnndet.models.zoo import find_weights

    path, _ = find_weights(args.weights)
    out = Path(args.out) if args.out else path.with_suffix(".int8.onnx" if args.int8 else ".onnx")
    if out.exists() and not args.overwrite:
        raise OutputError(f"{out}: exists already; use --overwrite to replace it")
    if not args.int8:
        export_float(args, path, out)
        return 0
    with TemporaryDirectory(prefix="rnndet-export-") as folder:
        graph = path
        if path.suffix != ".onnx":
            graph = Path(folder) / f"{path.stem}.onnx"
            export_float(args, path, graph)
        export_int8(args, graph, Path(folder) / out.name, out)
    return 0


def export_float(args: argparse.Namespace, path: Path, out: Path) -> None:
    """Write the graph of the checkpoint `path`."""
    from rnndet.inference.runtimes.export_onnx import export_checked
    from rnndet.models.checkpoint import load_model
    from rnndet.models.zoo import file_sha256

    spec, parities = export_checked(
        load_model(args.weights), out, weights_file=file_sha256(path), frames=args.frames
    )
    states = ", ".join(f"{s.name} ({s.channels} channels, stride {s.stride})" for s in spec.states)
    print(f"state: {states or 'none'}")
    for name, close in parities.items():
        print(
            f"{name} compared with torch over {counted(close.frames, 'frame')}, "
            f"{counted(close.detections, 'detection')}: boxes "
            f"within {close.box:.2g} px, scores within {close.score:.2g}, "
            f"{close.alone} detected by only one of the two"
        )
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB, sha256 {file_sha256(out)})")


def export_int8(args: argparse.Namespace, graph: Path, part: Path, out: Path) -> None:
    """Write the int8 form of `graph` and its record, by way of `part`."""
    from rnndet.evaluation.score import ALL_FRAMES
    from rnndet.inference.runtimes.export_int8 import quantise
    from rnndet.models.zoo import file_sha256
    from rnndet.system.files import atomic_file, write_text

    record = quantise(graph, part, args.calibrate, per_clip=args.per_clip)
    print(
        f"int8: {record.convolutions} convolutions, {record.float_convolutions} of the temporal "
        f"module in float; {counted(record.frames, 'frame')} of "
        f"{counted(len(record.clips), 'clip')}"
    )
    losses = compare(args, graph, part)
    for loss in losses:
        print(loss)
    whole = [row for row in losses if row.subset == ALL_FRAMES]
    worst = max(whole, key=lambda row: row.loss, default=None)
    if worst is not None and worst.loss > args.max_loss and not args.unchecked:
        raise RnndetError(
            f"{out}: int8 loses {worst.loss:.1f} points of AP50 on {worst.data}, "
            f"more than {args.max_loss:g}; nothing was written. Calibrate on more clips, or accept "
            "it with --max-loss or --unchecked"
        )
    with atomic_file(out, durable=True) as file:
        file.write_bytes(part.read_bytes())
    tree = {
        **record.to_dict(),
        "int8": file_sha256(out),
        "size_ratio": out.stat().st_size / graph.stat().st_size,
        "measured": [loss.to_dict() for loss in losses],
    }
    write_text(out.with_suffix(".json"), json.dumps(tree, indent=1) + "\n")
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB, {tree['size_ratio']:.0%} of the float graph)")


def compare(args: argparse.Namespace, graph: Path, part: Path):
    """The accuracy of both graphs on each set of --data, clean and as --degrade says."""
    from dataclasses import replace

    from rnndet.data.formats import read_set, reader_options
    from rnndet.evaluation.agreement import Teacher
    from rnndet.evaluation.graph_loss import graph_losses
    from rnndet.evaluation.videos import match_classes
    from rnndet.inference.runtimes import open_runtime
    from rnndet.models.checkpoint import load_model
    from rnndet.system.progress import Progress

    losses = []
    plans = (None, args.degrade) if args.degrade else (None,)
    formats = args.format if len(args.format) > 1 else args.format * len(args.data)
    for root, form in zip(args.data, formats, strict=True):
        pair = [open_runtime(file, kind="auto", device="cpu")[0] for file in (graph, part)]
        options = {} if form == "unlabelled" else reader_options(args.option)
        data, teacher = read_set(form, root, args.split, **options), None
        if form == "unlabelled":
            teacher = Teacher(load_model(args.teacher), args.teacher)
            data = replace(data, classes=pair[0].classes)
        data = match_classes(data, pair[0].classes, remedy=ITS_CLASSES)
        for plan in plans:
            with Progress("comparing", None, quiet=False) as progress:
                losses += graph_losses(
                    *pair, data, name=root, every=args.every, degrade=plan, teacher=teacher,
                    progress=lambda total, bar=progress: bar.step_of(2 * total),
                )  # fmt: skip
    return losses


if __name__ == "__main__":
    sys.exit(main())
