"""Run one of the tools: `rnndet NAME ...`, or `python -m rnndet NAME ...`."""

import sys
from importlib import import_module

import rnndet
from rnndet.cli.errors import command
from rnndet.errors import RnndetError
from rnndet.registry import check_names

TOOLS = {  # modules of rnndet.cli, in the order in which a user meets them
    "demo": "detect and track on a street, with and without temporal context",
    "infer": "detect and track objects in videos, images, cameras and streams",
    "evaluate": "measure weights on labelled videos",
    "compare": "compare two evaluations of the same videos",
    "train": "train a model",
    "plot": "plot a training run",
    "fit_track_classes": "fit what names a track by its shape and motion",
    "dataset": "check, count, convert or draw labelled videos",
    "cache_frames": "decode the videos of a data set once, for training",
    "render_clips": "render labelled clips of flying objects or moving photographs",
    "export": "write a model as an ONNX graph that runs without torch",
    "benchmark": "measure time and memory use",
    "recall": "measure how long the recurrent cells remember",
    "publish_weights": "add the weights of a training run to the shipped ones",
    "doctor": "report versions, device, video codecs and weights",
}


@command
def main(argv: list[str] | None = None) -> int:
    """Run the tool that the first argument names; returns its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments:
        print(usage(), file=sys.stderr)
        return 2
    name, *rest = arguments
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name == "--version":
        print(f"rnndet {rnndet.__version__}")
        return 0
    try:
        check_names([name], list(TOOLS), what="")
    except RnndetError as error:
        print(f"rnndet: {error}", file=sys.stderr)
        return error.exit_code
    return import_module(f"rnndet.cli.{name}").main(rest)


def usage() -> str:
    """The tools, one line each."""
    width = max(map(len, TOOLS))
    return "\n".join([
        "usage: rnndet TOOL ...",
        "",
        "Video object detection with recurrent state.",
        "",
        *(f"  {name:<{width}}  {what}" for name, what in TOOLS.items()),
        "",
        "rnndet TOOL --help lists the options of a tool; rnndet --version prints the version.",
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
