"""Write a trained model as an ONNX graph that rnndet infer --runtime onnx runs without torch.

rnndet export everyday writes weights/everyday.onnx, beside weights/everyday.pt. The graph and
the model are then compared frame by frame; a graph with different detections is deleted.
"""

import argparse
import sys
from pathlib import Path

from rnndet.cli.errors import command, run_tool
from rnndet.errors import OutputError
from rnndet.messages import counted


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rnndet export", description=__doc__)
    add = parser.add_argument
    add("weights", help="name in weights/weights.toml, or a file")
    add("--out", metavar="FILE", help="the graph; none: beside the weights, for --runtime onnx")
    add("--frames", type=int, default=100, help="frames of a synthetic clip to compare on (100)")
    add("--overwrite", action="store_true", help="replace an existing graph")
    add("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(argv)
    if args.frames < 2:
        parser.error("--frames: expected 2 or more")
    return args


@command
def main(argv: list[str] | None = None) -> int:
    return run_tool("export", run, parse(argv))


def run(args: argparse.Namespace) -> int:
    from rnndet.inference.runtimes.export_onnx import export_checked
    from rnndet.models.checkpoint import load_model
    from rnndet.models.zoo import file_sha256, find_weights

    path, _ = find_weights(args.weights)
    out = Path(args.out) if args.out else path.with_suffix(".onnx")
    if out.exists() and not args.overwrite:
        raise OutputError(f"{out}: exists already; use --overwrite to replace it")
    spec, close = export_checked(
        load_model(args.weights), out, weights_file=file_sha256(path), frames=args.frames
    )
    states = ", ".join(f"{s.name} ({s.channels} channels, stride {s.stride})" for s in spec.states)
    print(f"state: {states or 'none'}")
    print(
        f"compared with torch over {counted(close.frames, 'frame')}, "
        f"{counted(close.detections, 'detection')}: boxes "
        f"within {close.box:.2g} px, scores within {close.score:.2g}, "
        f"{close.alone} detected by only one of the two"
    )
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB, sha256 {file_sha256(out)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
