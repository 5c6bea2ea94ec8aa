"""Measure the cost of rnndet: rnndet benchmark infer clip.mp4 --models aerial aerial_frame

infer: milliseconds per frame by stage, for one model, or for several in turn, by torch, by
onnxruntime (aerial:runtime=onnx), compiled by torch (aerial:runtime=compiled), as torchvision's
documentation runs it (aerial:runtime=stock), or with key frames (aerial:key_every=5).
eval: frames per second of an evaluation. memory: main memory over many frames.
sources: one or more sources at a time, from the files to the results, against the model alone.
startup: CPU seconds until the first result.
train: frames per second of a training configuration, and milliseconds per step by stage.
curve: accuracy against milliseconds over models, input sizes and key frames, and the best choices.
cuts: how many scene cuts are detected where labelled videos are joined, and how many are false.
"""

import argparse
import logging
import sys
from pathlib import Path
from string import ascii_uppercase
from tempfile import TemporaryDirectory
from typing import Any

from rnndet.cli.arguments import (
    CLASSES_HELP,
    SIZE_HELP,
    TRACKER_OPTION_HELP,
    TRACKERS_HELP,
    WEIGHTS_HELP,
    at_least_one,
    class_names,
    path_text,
    tracker_options,
)
from rnndet.cli.errors import Parser, command, run_tool
from rnndet.errors import RnndetError
from rnndet.messages import counted
from rnndet.models.zoo import CLIP_WEIGHTS, DEFAULT_WEIGHTS

log = logging.getLogger(__name__)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="rnndet benchmark", description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    infer = add_infer(parts)
    evaluate = parts.add_parser("eval", help="an evaluation, frames per second")
    evaluate.set_defaults(run=run_eval)
    add = evaluate.add_argument
    add("weights", nargs="?", help=WEIGHTS_HELP)
    add("--data", metavar="ROOT", help="folder of a CocoVID set; none: synthetic clips")
    add("--split", default="val")
    add("--frames", type=at_least_one, default=200, help="counted frames (200)")
    add("--threads", type=at_least_one, help="CPU threads of the model")
    memory = parts.add_parser("memory", help="main memory of inference over many frames")
    memory.set_defaults(run=run_memory)
    add = memory.add_argument
    add("weights", nargs="?", default=CLIP_WEIGHTS, help=WEIGHTS_HELP)
    add("--runtime", default="torch", help="torch, openvino, onnx or auto")
    add("--frames", type=at_least_one, default=3000, help="frames in all (3000)")
    add("--every", type=at_least_one, default=500, help="frames between two measurements (500)")
    add("--size", nargs=2, type=at_least_one, metavar=("H", "W"), help="of the frames (384 480)")
    add("--save", action="append", default=[], metavar="NAMES", help="files, as for rnndet infer")
    sources = parts.add_parser("sources", help="sources at a time, against the model alone")
    sources.set_defaults(run=run_sources)
    add = sources.add_argument
    add("source", help="video file")
    add("--weights", help=WEIGHTS_HELP)
    add("--runtime", default="torch", help="torch, openvino, onnx or auto")
    add("--sources", nargs="+", type=at_least_one, default=[1, 2, 4], metavar="N",
        help="numbers of sources at a time (1 2 4)")  # fmt: skip
    add("--frames", type=at_least_one, default=100, help="frames of each source (100)")
    add("--rounds", type=at_least_one, default=5, help="rounds (5)")
    add("--threads", type=at_least_one, help="CPU threads of the model")
    add("--no-video", action="store_true", help="leave the annotated video out")
    startup = parts.add_parser("startup", help="cost of a process before its first result")
    startup.set_defaults(run=run_startup)
    add = startup.add_argument
    add("weights", nargs="?", default=DEFAULT_WEIGHTS, help=WEIGHTS_HELP)
    add("--rounds", type=at_least_one, default=5, help="rounds of each (5)")
    train = parts.add_parser("train", help="steps of a configuration, stage by stage")
    train.set_defaults(run=run_train)
    add = train.add_argument
    add("config", help="TOML file, or the name of a shipped recipe, as for rnndet train")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    add("--steps", type=at_least_one, default=20, help="counted steps (20)")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    cuts = parts.add_parser("cuts", help="scene cuts between joined videos, detected and false")
    cuts.set_defaults(run=run_cuts)
    add = cuts.add_argument
    add("root", help="folder of a data set")
    add("--format", default="coco_vid")
    add("--split", default="val")
    add("--degrade", metavar="PLAN", help="corrupt frames: standard, or one kind")
    add("--cache", type=path_text, metavar="DIR", help="decoded frames, see rnndet cache_frames")
    add_curve(parts)
    for part in (infer, evaluate, memory, sources, startup, train, cuts):
        part.add_argument(
            "--out", type=path_text, metavar="FILE", help="write all numbers there, as JSON"
        )
        part.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(argv)
    if args.part == "infer" and len(args.models) > len(ascii_uppercase):
        infer.error(f"--models: at most {len(ascii_uppercase)} models, found {len(args.models)}")
    return args


def add_infer(parts: Any) -> argparse.ArgumentParser:
    """Add the part infer, the one with the most options."""
    infer = parts.add_parser("infer", help="from a video to results, stage by stage")
    infer.set_defaults(run=run_infer)
    add = infer.add_argument
    add("source", nargs="?", help="video file or folder of images; none: a synthetic clip")
    add("--models", nargs="+", default=[], metavar="MODEL",
        help="names or files, with settings: aerial:tracker=none,score=0.1,runtime=onnx,"
        f"key_every=5,key_lost=0.5; default: {DEFAULT_WEIGHTS}, on a synthetic clip "
        f"{CLIP_WEIGHTS}")  # fmt: skip
    add("--untrained", metavar="DETECTOR", choices=["fcos", "retinanet", "ssdlite"],
        help="compare the torchvision baseline with an untrained detector with a temporal module; "
        "--models is then torch or onnx")  # fmt: skip
    add("--size", nargs=2, type=at_least_one, default=[192, 320], metavar=("H", "W"),
        help="of the network's input with --untrained (192 320)")  # fmt: skip
    add("--frames", type=at_least_one, default=100, help="frames of a round (100)")
    add("--rounds", type=at_least_one, default=5, help="rounds of each model (5)")
    add("--tracker", default="byte", help=TRACKERS_HELP)
    add("--tracker-option", action="append", default=[], metavar="KEY=VALUE",
        help=TRACKER_OPTION_HELP)  # fmt: skip
    add("--threads", type=at_least_one, help="CPU threads of the model")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--apart", action="store_true",
        help="run every round in a subprocess")  # fmt: skip
    return infer


def add_curve(parts: Any) -> None:
    """Add the part curve, which has the options of rnndet evaluate for the data."""
    curve = parts.add_parser("curve", help="accuracy against time: which model, size, key frames")
    curve.set_defaults(run=run_curve, groups=None, skip_bad=False)
    add = curve.add_argument
    add("--models", nargs="+", required=True, metavar="MODEL",
        help="names in weights/weights.toml, checkpoints or graphs of rnndet export, of the same "
        "classes")  # fmt: skip
    add("--runtime", default="auto", help="torch, openvino, onnx or auto (the default)")
    add("--key-every", nargs="+", type=at_least_one, default=[1, 2, 3, 5], metavar="N",
        help="run the model on every N-th frame (1 2 3 5)")  # fmt: skip
    add("--size", nargs="+", type=at_least_one, metavar="PIXELS",
        help=f"{SIZE_HELP} of the first model")  # fmt: skip
    add("--data", metavar="ROOT", required=True, help="folder of a data set")
    add("--format", default="coco_vid", help="of the data, docs/data.md; or unlabelled")
    add("--split", default="val")
    add("--option", nargs="+", default=[], metavar="KEY=VALUE", help="of the format")
    add("--map-classes", metavar="FILE", help="as in rnndet evaluate")
    add("--classes", metavar="NAMES", help=CLASSES_HELP)
    add("--max-videos", type=at_least_one, metavar="N", help="N videos, evenly spaced in the set")
    add("--teacher", metavar="WEIGHTS",
        help="instead of labels: what these weights find, once, at their own input size; AP50 is "
        "then agreement with them, not accuracy")  # fmt: skip
    add("--teacher-score", type=float, default=0.4, metavar="SCORE",
        help="minimum score of what --teacher finds; default 0.4")  # fmt: skip
    add("--degrade", metavar="PLAN", help="corrupt a third of the frames, as in rnndet evaluate")
    add("--degrade-seed", type=int, default=0)
    add("--cache", type=path_text, metavar="DIR", help="decoded frames, see rnndet cache_frames")
    add("--frames", type=at_least_one, default=60, help="timed frames of a round (60)")
    add("--rounds", type=at_least_one, default=5, help="timed rounds of each point (5)")
    add("--threads", type=at_least_one, default=1, help="CPU threads of the model (1)")
    add("--clock", choices=["cpu", "wall"], default="cpu",
        help="the time to show: of all threads by the processor (cpu, the default), or wall; both "
        "are measured")  # fmt: skip
    add("--out", type=path_text, metavar="DIR", required=True,
        help="for curve.json, curve.md and curve.png; points that are there are not measured "
        "again")  # fmt: skip
    add("--debug", action="store_true", help="show the traceback of an error")


@command
def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    kept = "the same command continues" if args.part == "curve" else "nothing was written"
    return run_tool("benchmark", args.run, args, interrupted=f"interrupted; {kept}")


def run_infer(args: argparse.Namespace) -> int:
    import torch

    from rnndet.benchmarks.inference import WARM_UP, lines_of, measure, render_clip
    from rnndet.models.zoo import default_weights
    from rnndet.system.progress import Progress
    from rnndet.video.sources.base import VIDEO_SUFFIXES
    from rnndet.video.sources.open import open_source

    if args.models and args.models[-1].lower().endswith(VIDEO_SUFFIXES):
        raise RnndetError(f"--models: {args.models[-1]} is no model; put SOURCE before --models")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    count = args.frames + WARM_UP
    with TemporaryDirectory(prefix="rnndet-clip-") as folder:
        if args.untrained:
            args.models = untrained(args, Path(folder))
        args.models = args.models or [default_weights(args.source)]
        if args.apart:
            report = measure_in_subprocesses(args, Path(folder))
            return show(args, report, lines_of(report))
        models = contenders(args)
        path = args.source or render_clip(Path(folder), length=count)
        total = count * args.rounds * len(models)
        with open_source(path) as source, Progress("measuring", total, quiet=False) as progress:
            report = measure(
                models, source, frames=args.frames, rounds=args.rounds, on_frame=progress.step
            )
    return show(args, report, lines_of(report))


def show(args: argparse.Namespace, report: dict[str, Any], lines: list[str]) -> int:
    """Print the lines, and write the numbers to --out."""
    print("\n".join(lines))
    if args.out:
        from rnndet.evaluation.score import write_report

        write_report(args.out, report)
        print(f"numbers: {args.out}")
    return 0


def run_eval(args: argparse.Namespace) -> int:
    import torch

    from rnndet.benchmarks.evaluation import measure_eval
    from rnndet.models.checkpoint import load_model
    from rnndet.models.zoo import default_weights

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    root = Path(args.data) if args.data else None
    model = load_model(args.weights or default_weights(args.data))
    report = measure_eval(model, root, split=args.split, frames=args.frames)
    line = (
        f"{counted(report['frames'], 'frame')} of {counted(report['videos'], 'video')} in "
        f"{report['seconds']:.1f} s, "
        f"{report['frames_per_second']:.1f} per second; metrics {report['metrics_seconds']:.1f} s"
    )
    return show(args, report, [report["machine"]["words"], line])


def run_memory(args: argparse.Namespace) -> int:
    from rnndet.benchmarks.process import measure_memory, memory_lines
    from rnndet.inference.run import make_stream
    from rnndet.inference.runtimes import open_runtime
    from rnndet.inference.writers import export_names
    from rnndet.system.progress import Progress

    stream = make_stream(open_runtime(args.weights, kind=args.runtime, device="cpu")[0])
    with Progress("running", args.frames, quiet=False) as progress:
        report = measure_memory(
            stream, frames=args.frames, every=args.every, size_hw=args.size,
            save=export_names(args.save), on_frame=progress.step,
        )  # fmt: skip
    return show(args, report, memory_lines(report))


def run_sources(args: argparse.Namespace) -> int:
    from rnndet.benchmarks.sources import lines_of, measure_sources
    from rnndet.inference.runtimes import open_runtime
    from rnndet.models.zoo import default_weights
    from rnndet.system.progress import Progress

    weights = args.weights or default_weights(args.source)
    runtime = open_runtime(weights, kind=args.runtime, device="cpu", threads=args.threads)[0]
    total = args.rounds * (1 + len(args.sources))
    with Progress("runs", total, quiet=False) as progress:
        report = measure_sources(
            runtime, args.source, args.sources, frames=args.frames, rounds=args.rounds,
            save=() if args.no_video else ("video",), on_round=progress.step,
        )  # fmt: skip
    return show(args, {"weights": weights, **report}, lines_of(report))


def run_startup(args: argparse.Namespace) -> int:
    from rnndet.benchmarks.process import measure_startup, startup_commands, startup_lines
    from rnndet.models.zoo import find_weights
    from rnndet.system.environment import machine

    path, _ = find_weights(args.weights)
    commands = startup_commands(args.weights, has_graph=path.with_suffix(".onnx").is_file())
    report = measure_startup(commands, rounds=args.rounds)
    about = machine()
    return show(args, {"machine": about, **report}, [about["words"], *startup_lines(report)])


def run_train(args: argparse.Namespace) -> int:
    from rnndet.benchmarks.training import lines_of, measure_training
    from rnndet.config import load_config
    from rnndet.system.shipped import find_recipe

    config = load_config(find_recipe(args.config), changes=args.set)
    report = measure_training(config, steps=args.steps, device=args.device)
    return show(args, report, lines_of(report))


def run_cuts(args: argparse.Namespace) -> int:
    from rnndet.benchmarks.scene_cuts import lines_of, measure_cuts
    from rnndet.data.formats import read_set
    from rnndet.system.progress import Progress

    data = read_set(args.format, args.root, args.split)
    total = sum(len(video.frames) for video in data.videos)
    cache = Path(args.cache) if args.cache else None
    with Progress("scanning", total, quiet=False) as progress:
        report = measure_cuts(
            data, degrade=args.degrade, cache=cache, on_frame=lambda: progress.step_of(total)
        )
    return show(args, report, lines_of(report))


def run_curve(args: argparse.Namespace) -> int:
    from dataclasses import replace

    import torch

    from rnndet.benchmarks.curve import (
        Curve,
        Evaluation,
        choices,
        frames_to_time,
        measure_accuracies,
        measure_times,
    )
    from rnndet.cli.evaluate import read
    from rnndet.evaluation.videos import spread
    from rnndet.system.progress import Progress

    check_curve(args)
    torch.set_num_threads(args.threads)
    contenders = curve_contenders(args)
    first = next(iter(contenders.values())).runtime
    sizes = args.size or [first.input_spec.longer]
    wanted = choices(contenders, sizes=sizes, key_everys=args.key_every)
    teacher = open_teacher(args, first.classes)
    chosen = None if teacher is None else class_names(args.classes, first.classes)
    data, class_map = read(args, first.classes)
    data = replace(data, videos=tuple(spread(data.videos, args.max_videos)))
    cache = Path(args.cache) if args.cache else None
    timed = frames_to_time(data, count=args.frames, cache=cache)
    curve = Curve(
        Path(args.out) / "curve.json",
        protocol=curve_protocol(args, data, teacher),
        weights={name: contender.sha256 for name, contender in contenders.items()},
    )
    for name in curve.dropped:
        log.info("%s: its weights have changed; its points are measured again", name)
    evaluation = Evaluation(
        data, teacher, args.degrade, args.degrade_seed, cache, class_map, chosen
    )
    with Progress("evaluating", None, quiet=False) as progress:
        measure_accuracies(curve, contenders, wanted, evaluation, progress=progress.step_of)
    with Progress("timing", None, quiet=False) as progress:
        measure_times(
            curve, contenders, wanted, timed, rounds=args.rounds, progress=progress.step_of
        )
    write_curve(args, curve)
    return 0


def write_curve(args: argparse.Namespace, curve: Any) -> None:
    """Print the table and the front, and write curve.md and curve.png."""
    from rnndet.benchmarks.curve import lines_of
    from rnndet.benchmarks.curve_plots import plot_curve
    from rnndet.system.files import write_text

    out, text = Path(args.out), "\n".join(lines_of(curve, clock=args.clock))
    print(text)
    write_text(out / "curve.md", text + "\n")
    agreement = "" if args.teacher is None else f", agreement with {Path(args.teacher).stem}"
    degraded = "" if args.degrade is None else f", corrupted ({args.degrade})"
    plot_curve(
        out / "curve.png",
        curve,
        clock=args.clock,
        accuracy=f"AP50 (%){agreement}{degraded}",
        title=f"{curve.protocol['cpu']}, {counted(args.threads, 'thread')}",
    )
    print("", *(out / f"curve.{suffix}" for suffix in ("json", "md", "png")), sep="\n")


def check_curve(args: argparse.Namespace) -> None:
    """Raise RnndetError, before hours of measurements, for what cannot work."""
    from rnndet.benchmarks.curve_plots import check_matplotlib
    from rnndet.system.lock import check_writable

    if args.format == "unlabelled" and not args.teacher:
        raise RnndetError(f"{args.data}: has no labels; give --teacher WEIGHTS for agreement")
    if args.map_classes and args.teacher:
        raise RnndetError("--map-classes: with --teacher there are no labels to map")
    if not 0 <= args.teacher_score <= 1:
        raise RnndetError(f"--teacher-score {args.teacher_score:g}: expected a number from 0 to 1")
    check_matplotlib()
    check_writable(Path(args.out))


def curve_contenders(args: argparse.Namespace) -> dict[str, Any]:
    """The models of --models by name: that of the weights, or of the file without its suffix."""
    from rnndet.benchmarks.curve import Contender
    from rnndet.inference.runtimes import open_runtime
    from rnndet.models.zoo import file_sha256, find_weights

    names = [Path(m).stem if m.endswith((".pt", ".onnx")) else m for m in args.models]
    if len(set(names)) < len(names):
        names = args.models
    contenders: dict[str, Contender] = {}
    for name, model in zip(names, args.models, strict=True):
        runtime, _ = open_runtime(model, kind=args.runtime, device="cpu", threads=args.threads)
        contenders[name] = Contender(runtime, file_sha256(find_weights(model)[0]))
        first = next(iter(contenders.values())).runtime
        if runtime.classes != first.classes:
            raise RnndetError(f"{model}: its classes are not those of {args.models[0]}")
    return contenders


def open_teacher(args: argparse.Namespace, classes: tuple[str, ...]) -> Any:
    """The teacher of --teacher; None without it."""
    from rnndet.evaluation.agreement import Teacher
    from rnndet.models.checkpoint import load_model

    if args.teacher is None:
        return None
    teacher = Teacher(load_model(args.teacher), args.teacher, min_score=args.teacher_score)
    teacher.check_classes(classes)
    return teacher


def curve_protocol(args: argparse.Namespace, data: Any, teacher: Any) -> dict[str, Any]:
    """What the points of a curve have in common: only such points can be compared."""
    from rnndet.models.zoo import file_sha256, find_weights
    from rnndet.system.environment import machine

    chosen = {} if args.classes is None else {"classes": args.classes}
    return {
        "data": f"{args.format}, {args.split}",
        "videos": {video.name: len(video.frames) for video in data.videos},
        "labels": "of the data" if teacher is None else teacher.rule,
        "teacher": None if teacher is None else file_sha256(find_weights(args.teacher)[0]),
        "map_classes": args.map_classes,
        "degraded": "no" if args.degrade is None else f"{args.degrade}, seed {args.degrade_seed}",
        "cpu": machine()["cpu"],
        "threads": args.threads,
        "timed frames": args.frames,
        **chosen,
    }


def measure_in_subprocesses(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The report from rounds in subprocesses."""
    from rnndet.benchmarks import subprocess_rounds
    from rnndet.benchmarks.inference import WARM_UP, render_clip
    from rnndet.benchmarks.one_round import RoundRequest
    from rnndet.system.progress import Progress

    source = args.source or str(render_clip(folder, length=args.frames + WARM_UP))
    requests = [
        RoundRequest(
            source,
            model,
            args.frames,
            args.tracker,
            tracker_options(args.tracker_option),
            args.device,
            args.threads,
        )
        for model in args.models
    ]
    with Progress("rounds", args.rounds * len(requests), quiet=False) as progress:
        return subprocess_rounds.measure_in_subprocesses(
            requests, rounds=args.rounds, on_round=progress.step
        )


def untrained(args: argparse.Namespace, folder: Path) -> list[str]:
    """Two settings: the torchvision baseline, and an untrained model with a temporal module."""
    from rnndet.benchmarks.untrained import write_untrained
    from rnndet.inference.runtimes.export_onnx import export_onnx
    from rnndet.models.checkpoint import load_model
    from rnndet.models.zoo import file_sha256
    from rnndet.registry import lookup

    runtime = args.models[0] if args.models else "torch"
    lookup(runtime, {"torch": 0, "onnx": 0, "openvino": 0}, what="with --untrained, --models")
    stock, ours = write_untrained(folder, args.untrained, tuple(args.size))
    if runtime != "torch":
        export_onnx(load_model(ours), ours.with_suffix(".onnx"), weights_file=file_sha256(ours))
    return [f"{stock}:runtime=stock,tracker=sort", f"{ours}:runtime={runtime}"]


def contenders(args: argparse.Namespace) -> list[Any]:
    """The models of the command line, ready to run."""
    from rnndet.benchmarks.settings import open_contender

    return [
        open_contender(
            text,
            tracker=args.tracker,
            tracker_options=tracker_options(args.tracker_option),
            device=args.device,
            threads=args.threads,
        )
        for text in args.models
    ]


if __name__ == "__main__":
    sys.exit(main())
