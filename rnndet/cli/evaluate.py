"""Evaluate weights on labelled videos: rnndet evaluate aerial --data data/aerial.

Frames go through the same stream as in inference, one at a time, with the recurrent state. Under
torchrun the videos are distributed over the processes. --predictions evaluates a stored run again
without the model.
"""

import argparse
import logging
import sys
from pathlib import Path

from rnndet.cli.arguments import (
    CLASSES_HELP,
    SIZE_HELP,
    TRACKER_OPTION_HELP,
    TRACKERS_HELP,
    at_least_one,
    class_names,
    path_text,
    tracker_options,
)
from rnndet.cli.errors import Parser, command, run_tool
from rnndet.errors import RnndetError
from rnndet.messages import counted

logger = logging.getLogger(__name__)

# Options that only apply while weights are run, and their defaults.
NEEDS_WEIGHTS = {
    "ablate_memory": None,
    "degrade": None,
    "every": 1,
    "half": False,
    "key_every": 1,
    "key_lost": 0.0,
    "max_videos": None,
    "no_track_classes": False,
    "runtime": "torch",
    "size": None,
    "teacher": None,
}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="rnndet evaluate", description=__doc__)
    add = parser.add_argument
    add("weights", nargs="?", help="a name of weights/weights.toml, a checkpoint file or a graph")
    add("--runtime", default="torch", help="torch, openvino, onnx (see rnndet export), or auto")
    add("--predictions", nargs="+", metavar="FILE", help="evaluate these files instead of weights")
    add("--data", metavar="ROOT", help="folder of the data set; with --predictions: new labels")
    add("--format", default="coco_vid")
    add("--split", default="val")
    add("--option", nargs="+", default=[], metavar="KEY=VALUE",
        help="of the format, docs/data.md; for example annotations=mine.json")  # fmt: skip
    add("--teacher", metavar="WEIGHTS",
        help="instead of labels: what these weights find on the clean frames, one by one; figures "
        "are then agreement with them, not accuracy")  # fmt: skip
    add("--teacher-score", type=float, default=0.4, metavar="SCORE",
        help="minimum score of what --teacher finds; default 0.4")  # fmt: skip
    add("--classes", metavar="NAMES", help=CLASSES_HELP)
    add("--map-classes", metavar="FILE",
        help="a TOML file that names the class of the model for each class of the data to "
        "evaluate; shipped: coco_to_vid")  # fmt: skip
    add("--skip-bad", action="store_true", help="skip entries of the labels that cannot be read")
    add("--groups", nargs="+", metavar="GROUP", help="only the videos of these scene groups")
    add("--cache", type=path_text, metavar="DIR", help="decoded frames, see rnndet cache_frames")
    add("--metrics", nargs="+", metavar="NAME", default=["coco_ap"],
        help="coco_ap, vid_ap, errors, stability, delay, recovery, flicker, mot, streaming; "
        "all: all of them")  # fmt: skip
    add("--tracker", default="byte", help=f"for the metric mot: {TRACKERS_HELP}")
    add("--tracker-option", action="append", default=[], metavar="KEY=VALUE",
        help=TRACKER_OPTION_HELP)  # fmt: skip
    add("--rescore", choices=["seq_nms", "track_smooth"],
        help="with --predictions: a baseline without temporal module; stored in --out")  # fmt: skip
    add("--latency", type=float, nargs="+", default=[], metavar="MS",
        help="trace for streaming; default: the times measured in the run")  # fmt: skip
    add("--samples", type=int, default=0, metavar="N",
        help="bootstrap samples of the videos, for 95 %% intervals; 200 is usual")  # fmt: skip
    add("--ablate-memory", nargs="*", metavar="USE",
        help="uses of the recurrent state: carried, reset, foreign (the default), shuffled, "
        "identical")  # fmt: skip
    add("--degrade", metavar="PLAN",
        help="corrupt a third of the frames, in runs: standard (mixed), or one kind and optionally "
        "its severity from 0 to 1, such as defocus or defocus@0.5")  # fmt: skip
    add("--degrade-seed", type=int, default=0)
    add("--every", type=int, default=1, metavar="N",
        help="use every N-th frame only: a lower frame rate")  # fmt: skip
    add("--key-every", type=int, default=1, metavar="N",
        help="run the model on every N-th frame; boxes are propagated in between")  # fmt: skip
    add("--key-lost", type=float, default=0.0, metavar="SHARE",
        help="and on frames in which less than this share of the boxes was propagated")  # fmt: skip
    add("--size", type=at_least_one, metavar="PIXELS", help=SIZE_HELP)
    add("--half", action="store_true", help="compute in half precision, on a GPU, or by openvino")
    add("--no-track-classes", action="store_true",
        help="do not correct classes by the shape and motion of tracks")  # fmt: skip
    add("--max-videos", type=int, metavar="N", help="N videos, evenly spaced in the set")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--threads", type=int, help="CPU threads; default: torch's choice")
    add(
        "--out",
        type=path_text,
        metavar="DIR",
        help="for report.json, report.html and the predictions",
    )
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return run_tool("evaluate", run, args)


def check(args: argparse.Namespace) -> None:
    """Raise RnndetError for options that do not fit together."""
    if bool(args.weights) == bool(args.predictions):
        raise RnndetError("give weights, or --predictions FILE")
    if args.weights and not args.data:
        raise RnndetError("--data ROOT is needed to run weights")
    if args.map_classes and not args.data:
        raise RnndetError("--map-classes: needs the labels of the data; set --data ROOT")
    if args.map_classes and has_no_labels(args):
        raise RnndetError("--map-classes: there are no labels to map; use --classes")
    if args.rescore and not args.predictions:
        raise RnndetError("--rescore: only with --predictions FILE, see --out")
    if args.predictions and args.data and args.format == "unlabelled":
        raise RnndetError("--format unlabelled has no labels to replace; leave out --data")
    if not 0 <= args.teacher_score <= 1:
        raise RnndetError(f"--teacher-score {args.teacher_score:g}: expected a number from 0 to 1")
    if args.samples < 0:
        raise RnndetError(f"--samples {args.samples}: expected 0 (no intervals) or more")
    ignored = [f for f, default in NEEDS_WEIGHTS.items() if getattr(args, f) != default]
    if args.predictions and ignored:
        flags = ", ".join("--" + flag.replace("_", "-") for flag in ignored)
        raise RnndetError(f"{flags}: only while weights are run, not with --predictions")


def run(args: argparse.Namespace) -> int:
    check(args)
    from rnndet.evaluation.score import build_metrics, format_tables, protocol, score
    from rnndet.system.distributed import world
    from rnndet.system.files import output_errors

    latencies = [ms / 1000 for ms in args.latency]
    runs, data = load(args) if args.predictions else (None, None)
    # An invalid request must be reported before the model runs for an hour.
    names = requested_metrics(args, runs, latencies)
    if args.out:
        with output_errors(Path(args.out)):
            Path(args.out).mkdir(parents=True, exist_ok=True)
    if runs is None:
        with world() as here:
            runs, data = predict(args, here)
            if not here.is_first:
                return 0
    classes = next(iter(runs.values())).classes
    metrics = build_metrics(names, classes, latencies=latencies)
    options = tracker_options(args.tracker_option)
    rows, intervals = score(
        runs, metrics, tracker=args.tracker, tracker_options=options, samples=args.samples
    )
    facts = protocol(runs, metrics)
    if options:
        facts["tracker options"] = ", ".join(f"{key} = {value}" for key, value in options.items())
    if "labels" in facts:
        print(f"{facts['labels']}\n")
    print(format_tables(rows, intervals, metrics, classes))
    print("\n" + "\n".join(f"{key}: {value}" for key, value in facts.items()))
    if args.out:
        write(args, runs, data=data, facts=facts, rows=rows, intervals=intervals)
    return 0


def requested_metrics(args: argparse.Namespace, runs, latencies: list[float]) -> list[str]:
    """The names of --metrics, after a check of them and of --tracker; runs: None for weights."""
    from rnndet.evaluation.metrics.streaming import is_timed
    from rnndet.evaluation.score import MIN_SCORE, build_metrics, metric_names
    from rnndet.tracking import make_tracker

    timed = args.ablate_memory is None if runs is None else all(map(is_timed, runs.values()))
    names = metric_names(args.metrics, timed=timed or bool(latencies))
    metrics = build_metrics(names, (), latencies=latencies)
    if args.weights and args.format == "unlabelled" and not args.teacher:
        needy = [name for name, metric in metrics.items() if metric.needs_labels]
        if needy:
            raise RnndetError(
                f"{args.data}: has no labels for {', '.join(needy)}; give --teacher WEIGHTS to "
                "measure agreement with them, or only --metrics flicker, which needs no labels"
            )
    make_tracker(args.tracker, min_score=MIN_SCORE, options=tracker_options(args.tracker_option))
    if "streaming" in names and not (timed or latencies):
        raise RnndetError("streaming: the frame times are unknown; set --latency MS")
    return names


def read(args: argparse.Namespace, classes: tuple[str, ...]):
    """The videos to evaluate, and the map of their classes; classes: of the model.

    Without a map, None, the labels of the videos are those of the model. With a teacher, which
    replaces the labels, only the videos matter.
    """
    from dataclasses import replace

    from rnndet.data.clips.sampling import hold_out
    from rnndet.data.formats import read_set, reader_options
    from rnndet.evaluation.videos import match_classes, only_classes

    class_map = read_map(args, classes)  # before the data, which may take minutes
    options = reader_options(args.option)
    data = read_set(args.format, args.data, args.split, skip_bad=args.skip_bad, **options)
    if args.groups:
        _, data = hold_out(data, args.groups)
    if has_no_labels(args):
        if data.is_labelled:
            logger.info("%s: its labels are ignored because of --teacher", args.data)
        return replace(data, classes=classes), None
    if class_map is None:
        class_map = map_of_same_names(args, data.classes, classes)
    if class_map is None:
        return match_classes(data, classes), None
    class_map = class_map.of_data(data.classes)
    return only_classes(data, class_map.names), class_map


def has_no_labels(args: argparse.Namespace) -> bool:
    """Whether the data has no labels, or a teacher's instead: the classes are the model's."""
    return args.teacher is not None or args.format == "unlabelled"


def read_map(args: argparse.Namespace, classes: tuple[str, ...]):
    """The map of --map-classes, of --classes only; None without it."""
    from rnndet.config import read_toml
    from rnndet.evaluation.class_map import class_map_from_dict
    from rnndet.system.shipped import find_class_map

    if args.map_classes is None:
        return None
    tree = read_toml(find_class_map(args.map_classes))
    class_map = class_map_from_dict(tree, where=args.map_classes)
    chosen = class_names(args.classes, class_map.names, owner="the map")
    if chosen is not None:
        class_map = class_map.only(chosen)
    class_map.check_model(classes)
    return class_map


def map_of_same_names(
    args: argparse.Namespace, data_classes: tuple[str, ...], classes: tuple[str, ...]
):
    """The map of --classes without --map-classes, in the order of the model; None without it."""
    from rnndet.evaluation.class_map import same_names
    from rnndet.registry import choose_classes

    chosen = class_names(args.classes, data_classes, owner="the data")
    if chosen is None:
        return None
    return same_names(choose_classes(chosen, classes, what="--classes"))


def load(args: argparse.Namespace):
    """The runs of --predictions by file name, and --data, whose labels replace those stored."""
    from rnndet.evaluation.class_map import map_detections, select_classes
    from rnndet.evaluation.records import load_predictions, with_targets
    from rnndet.evaluation.score import check_same

    names = [Path(file).stem for file in args.predictions]
    if len(set(names)) < len(names):
        names = args.predictions  # files of the same name in several folders
    runs = {n: load_predictions(f) for n, f in zip(names, args.predictions, strict=True)}
    data = None
    known = next(iter(runs.values())).classes
    if args.data:
        data, class_map = read(args, known)
        if class_map is not None:
            runs = {name: map_detections(run, class_map) for name, run in runs.items()}
        runs = {name: with_targets(run, data) for name, run in runs.items()}
    elif args.classes:
        chosen = class_names(args.classes, known, owner="the run")
        runs = {name: select_classes(run, chosen) for name, run in runs.items()}
    first, *others = runs.values()
    for other in others:
        check_same(first, other)
    return rescored(args, runs) if args.rescore else runs, data


def rescored(args: argparse.Namespace, runs):
    """The runs after --rescore, which is recorded in their names and protocol; stored in --out."""
    from tqdm import tqdm

    from rnndet.evaluation.records import save_predictions
    from rnndet.evaluation.rescoring import OFFLINE, RESCORERS

    changed = {}
    for name, run in runs.items():
        with tqdm(total=len(run.videos), desc="rescoring", unit="video", disable=None) as bar:

            def rescore(video, bar=bar):
                bar.update()
                return RESCORERS[args.rescore](video)

            result = run.map(rescore)
        result.about["rescored"] = args.rescore + (" (offline)" if args.rescore in OFFLINE else "")
        changed[f"{name}, {args.rescore}"] = result
        if args.out:
            file = f"{Path(name).with_suffix('').as_posix().replace('/', '_')}_{args.rescore}.npz"
            save_predictions(Path(args.out) / file, result)
    return changed


def predict(args: argparse.Namespace, here):
    """Run the weights; returns the runs by use of the state, and the data. Saves them in --out."""
    import torch

    from rnndet.evaluation.ablation import STANDARD
    from rnndet.evaluation.agreement import Teacher
    from rnndet.evaluation.class_map import select_classes
    from rnndet.evaluation.predict import evaluate_set
    from rnndet.evaluation.records import save_predictions
    from rnndet.inference.runtimes import open_runtime
    from rnndet.models.checkpoint import load_model
    from rnndet.system.progress import Progress
    from rnndet.video.key_frames import choose_key_frames

    keys = choose_key_frames(args.key_every, args.key_lost)
    threads = None if args.threads is None else max(1, args.threads)
    if threads is not None:
        torch.set_num_threads(threads)  # of the teacher, and of loading
    model, why = open_runtime(
        args.weights, kind=args.runtime, device=args.device, threads=threads, half=args.half
    )
    teacher = None
    if args.teacher:
        found = load_model(args.teacher, device=model.device)
        teacher = Teacher(found, args.teacher, min_score=args.teacher_score)
        teacher.check_classes(model.classes)
    chosen = class_names(args.classes, model.classes) if has_no_labels(args) else None
    data, class_map = read(args, model.classes)
    uses = () if args.ablate_memory is None else args.ablate_memory or STANDARD
    with Progress("evaluating", None, quiet=not here.is_first) as progress:
        runs = evaluate_set(
            model,
            data,
            cache=Path(args.cache) if args.cache else None,
            uses=uses,
            degrade=args.degrade,
            degrade_seed=args.degrade_seed,
            every=args.every,
            keys=keys,
            size=args.size,
            max_videos=args.max_videos,
            teacher=teacher,
            class_map=class_map,
            track_classes=not args.no_track_classes,
            world=here,
            progress=progress.step_of,
        )
    if chosen is not None:
        runs = {use: select_classes(run, chosen) for use, run in runs.items()}
    for run in runs.values():
        run.about |= {"weights": str(args.weights), "data": f"{args.format}, {args.split}"}
        if args.half:
            run.about["precision"] = "half"
    if args.out:
        for use, run in runs.items():
            save_predictions(Path(args.out) / f"{use or 'predictions'}.npz", run)
    if here.is_first:
        print(
            f"{counted(progress.count, 'frame')} in {progress.seconds:.0f} s by {model.name} on "
            f"{model.device} ({why})\n"
        )
    return runs, data


def write(args: argparse.Namespace, runs, *, data, facts, rows, intervals) -> None:
    """Write report.json and report.html; with the worst frames, and a page for each of their
    videos, if the data has their images.
    """
    from rnndet.evaluation.report.page import worst_frames, write_html
    from rnndet.evaluation.report.video_page import write_video_pages
    from rnndet.evaluation.score import report_of, write_report
    from rnndet.evaluation.videos import images_of

    out = Path(args.out)
    write_report(out / "report.json", report_of(facts, rows, intervals))
    first = next(iter(runs.values()))
    cache = Path(args.cache) if args.cache else None
    # The data does not contain the images that were evaluated if they were corrupted.
    plain = data is not None and all(run.about["degraded"] == "no" for run in runs.values())
    worst = worst_frames(first, 12) if plain else []
    links = write_video_pages(out, first, data, worst, cache=cache) if worst else None
    title = str(args.weights or ", ".join(args.predictions))
    write_html(
        out / "report.html",
        title=f"{title}: {facts['labels']}" if "labels" in facts else title,
        protocol=facts,
        rows=rows,
        runs=runs,
        classes=first.classes,
        intervals=intervals,
        images=images_of(data, worst, cache=cache) if worst else None,
        links=links,
    )
    print(f"\nreport: {out / 'report.html'}")


if __name__ == "__main__":
    sys.exit(main())
