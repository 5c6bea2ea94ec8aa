"""Detect and track objects in videos.

rnndet infer clip.mp4 writes out/clip/annotated.mp4 and out/clip/detections.jsonl.
Without a SOURCE, a synthetic clip is rendered and used (out/demo).
"""

import argparse
import logging
import sys
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from rnndet.cli.arguments import (
    CLASSES_HELP,
    SIZE_HELP,
    TRACKER_OPTION_HELP,
    TRACKERS_HELP,
    WEIGHTS_HELP,
    at_least_one,
    class_names,
    class_score,
    path_text,
    score_threshold,
    tracker_options,
)
from rnndet.cli.errors import Parser, command, printable, with_flags
from rnndet.errors import RnndetError

log = logging.getLogger("infer")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="rnndet infer", description=__doc__)
    add = parser.add_argument
    add("source", nargs="*",
        help="video file, folder of images, image, list of sources (.txt), pattern in quotes "
        "('clips/*.mp4', 'frames/%%06d.jpg'), camera number, or URL")  # fmt: skip
    add("--weights", help=WEIGHTS_HELP)
    add("--out", type=path_text, default="out", help="results go to OUT/<name of the source>/")
    add("--runtime", default="torch", help="torch, openvino or onnx (see rnndet export), or auto")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--half", action="store_true", help="compute in half precision, on a GPU, or by openvino")
    add("--compile", action="store_true", help="compile the model first, which takes minutes")
    add("--graph-cache", type=path_text, metavar="DIR",
        help="keep graphs that openvino has compiled there: later runs start faster")  # fmt: skip
    add("--score-threshold", type=class_score, action="append", metavar="SCORE",
        help="show detections from this score on, 0.3 by default; also of a class, person=0.6; "
        "may be repeated")  # fmt: skip
    add("--nms", type=float, metavar="IOU",
        help="of two boxes of a class that overlap by more, keep the higher score, 0 to 1; "
        "default: that of the model")  # fmt: skip
    add("--classes", metavar="NAMES", help=CLASSES_HELP)
    add("--tracker", default="byte", help=TRACKERS_HELP)
    add("--tracker-option", action="append", default=[], metavar="KEY=VALUE",
        help=TRACKER_OPTION_HELP)  # fmt: skip
    add(
        "--no-scene-cuts",
        action="store_true",
        help="do not reset state and tracks at scene cuts",
    )
    add("--regions", metavar="FILE",
        help="JSON file of regions and lines, in which tracks are counted")  # fmt: skip
    add("--no-track-classes", action="store_true",
        help="do not correct classes by the shape and motion of tracks")  # fmt: skip
    add(
        "--key-every",
        type=at_least_one,
        default=1,
        metavar="N",
        help="run the model on every N-th frame; propagate its boxes in between",
    )
    add(
        "--key-lost",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="also run it where less than this share of the boxes could be propagated, 0 to 1",
    )
    add("--size", type=at_least_one, metavar="PIXELS", help=SIZE_HELP)
    add("--start", type=seconds, default=0.0, help="begin at this time of each source, in seconds")
    add("--end", type=seconds, help="stop each source at this time, in seconds")
    add("--stride", type=at_least_one, default=1, help="use every n-th frame only")
    add("--max-frames", type=at_least_one, help="stop each source after this many frames")
    add("--strict", action="store_true", help="exit 1 for an incomplete source")
    add("--max-pixels", type=at_least_one, default=8192 * 8192, help="refuse larger images")
    add("--allow-network", action="store_true", help="allow rtsp://, http:// and https:// sources")
    add("--timeout", type=seconds, default=10.0, help="seconds to wait for a URL")
    add("--max-reconnects", type=at_least_one, default=10,
        help="attempts in a row to reconnect")  # fmt: skip
    add(
        "--load-state",
        type=path_text,
        metavar="FILE",
        help="continue from the state that --save-state wrote",
    )
    add(
        "--save-state",
        type=path_text,
        metavar="FILE",
        help="save the recurrent state and the tracks to this file",
    )
    add("--save", action="append", metavar="NAMES",
        help="files beside detections.jsonl, by commas: video (the default), mot, coco, csv, cvat, "
        "crops, frames, parquet, yolo, html (a page to look at, with the video)")  # fmt: skip
    add("--no-video", action="store_true", help="leave the video out")
    add("--trails", type=at_least_one, default=0, metavar="N",
        help="draw the last N positions of each track")  # fmt: skip
    add("--coast", type=seconds, default=0.0, metavar="SECONDS",
        help="show a missed track at its expected position for at most this long")  # fmt: skip
    add("--show", action="store_true", help="show the annotated frames in a window; q ends the run")
    add("--shard", metavar="I/N",
        help="run part I, from 0, of N of the sources; auto: ask the launcher")  # fmt: skip
    add("--resume", action="store_true", help="skip sources that an earlier run has finished")
    add("--isolate", action="store_true", help="decode in a child process, which may crash")
    add("--batch-sources", type=at_least_one, default=1, metavar="N",
        help="run N sources at a time through one model, each with its own state")  # fmt: skip
    add("--threads", type=at_least_one, help="CPU threads of the model")
    add("--overwrite", action="store_true", help="replace results of an earlier run")
    add("--quiet", action="store_true", help="print errors only")
    add("--log-json", action="store_true", help="progress and messages as JSON lines on stderr")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(argv)


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time in seconds")
    return value


@command
def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    set_up_log(args)
    try:
        check(args)
        jobs, summary_name = list_jobs(args)
        runtime, header = build(args)
    except RnndetError as error:
        return report(error, args)
    except KeyboardInterrupt:
        return 130
    return run(args, jobs, runtime, header=header, summary_name=summary_name)


def run(
    args: argparse.Namespace,
    jobs: list[Any],
    runtime: Any,
    *,
    header: dict[str, Any],
    summary_name: str,
) -> int:
    """Run the jobs and write the summary; the exit code."""
    from rnndet.inference.batch.jobs import run_jobs
    from rnndet.inference.batch.run import exit_code_of
    from rnndet.inference.results import write_run_summary
    from rnndet.system.progress import SourcesBar
    from rnndet.system.signals import stop_on_signals

    overall = SourcesBar(len(jobs), quiet=args.quiet or args.log_json)
    with stop_on_signals() as stop, closing(overall):
        batch = make_batch(args, header, stop=lambda: stop.number > 0)
        entries = run_jobs(
            jobs, batch.run, runtime,
            at_a_time=args.batch_sources, stop=batch.stop, step=overall.step,
        )  # fmt: skip
    code = exit_code_of(entries, signal_code=stop.exit_code)
    try:
        write_run_summary(Path(args.out) / summary_name, entries, exit_code=code)
    except RnndetError as error:
        return code or report(error, args)
    return code


def set_up_log(args: argparse.Namespace) -> None:
    """Send messages of the library and progress to stderr, as text or as JSON."""
    level = logging.ERROR if args.quiet else logging.INFO
    logging.basicConfig(level=level, format="%(message)s")
    if args.log_json:
        from rnndet.system.progress import JsonFormatter

        handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter())
        logging.basicConfig(level=level, handlers=[handler], force=True)


def check(args: argparse.Namespace) -> None:
    """Fill in defaults; raise RnndetError for errors detected before a model is loaded."""
    from rnndet.inference.counting import read_regions
    from rnndet.inference.writers import export_names
    from rnndet.models.zoo import default_weights
    from rnndet.system.files import check_name
    from rnndet.system.lock import check_writable

    if args.weights is None:
        args.weights = default_weights(args.source)
    args.score_threshold = score_threshold(args.score_threshold)
    args.tracker_options = tracker_options(args.tracker_option)
    if args.regions is not None:
        args.regions = read_regions(args.regions)
    names = set(export_names(["video"] if args.save is None else args.save))
    if "html" in names:
        names.add("video")  # the page shows it
    if args.no_video:
        names.discard("video")
    args.save = tuple(sorted(names))
    if args.end is not None and args.end <= args.start:
        raise RnndetError(f"--end {args.end:g}: expected more than --start, {args.start:g}")
    if args.coast and args.tracker == "none":
        raise RnndetError("--coast: only tracks are shown while missed; use a --tracker")
    if args.compile and args.batch_sources > 1:
        raise RnndetError("--compile: processes one source at a time; omit --batch-sources")
    if args.show:
        from rnndet.video.window import check_display

        if args.batch_sources > 1:
            raise RnndetError("--show: shows one source at a time; omit --batch-sources")
        check_display()
    check_writable(Path(args.out))
    if args.save_state is not None:
        check_name(Path(args.save_state))
        check_writable(Path(args.save_state).parent)


def list_jobs(args: argparse.Namespace) -> tuple[list[Any], str]:
    """The jobs of this process, and the name of its summary."""
    from rnndet.inference.batch.jobs import find_jobs, jobs_of_shard

    jobs = find_jobs(args.source)
    if (len(jobs) > 1 or args.shard or args.resume) and (args.load_state or args.save_state):
        raise RnndetError(
            "--load-state and --save-state are for one source, without --shard and --resume"
        )
    if args.shard is None or not args.source:
        return jobs, "summary.json"
    shard_jobs, shard = jobs_of_shard(jobs, args.shard)
    say(args, f"shard {shard}: {len(shard_jobs)} of {len(jobs)} sources")
    return shard_jobs, f"summary-{shard.index}-of-{shard.count}.json"


def build(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """Load the model; the runtime, and the header of the result files."""
    from rnndet.inference.run import describe_model, make_stream
    from rnndet.inference.runtimes import open_runtime

    runtime, why = open_runtime(
        args.weights,
        kind=args.runtime,
        device=args.device,
        threads=args.threads,
        half=args.half,
        compiled=args.compile,
        graph_cache=args.graph_cache,
    )
    args.classes = class_names(args.classes, runtime.classes)
    about = describe_model(runtime, args.weights)
    make_stream(runtime, **result_options(args).stream)  # raises now for wrong options
    say(args, f"model {args.weights} ({about['detector']}, {about['cell']}) "
        f"by {runtime.name} on {runtime.device}: {why}")  # fmt: skip
    return runtime, {
        "model": about, "tracker": args.tracker,
        **({"tracker_options": args.tracker_options} if args.tracker_options else {}),
        "scene_cuts": not args.no_scene_cuts,
        "coast": args.coast, "key_every": args.key_every, "key_lost": args.key_lost,
    }  # fmt: skip


def result_options(args: argparse.Namespace) -> Any:
    """The `ResultOptions` of the command line."""
    from dataclasses import fields

    from rnndet.inference.batch.run import ResultOptions

    names = [field.name for field in fields(ResultOptions)]
    return ResultOptions(**{name: getattr(args, name) for name in names})


def make_batch(
    args: argparse.Namespace, header: dict[str, Any], *, stop: Callable[[], bool]
) -> Any:
    """The `Batch` of the command line; header: of `build`, after `check`."""
    from rnndet.inference.batch.run import Batch, BatchOptions
    from rnndet.system.progress import Progress
    from rnndet.video.sources.live import LiveOptions

    options = BatchOptions(
        out=Path(args.out),
        results=result_options(args),
        resume=args.resume,
        overwrite=args.overwrite,
        strict=args.strict,
        isolate=args.isolate,
        show=args.show,
        max_pixels=args.max_pixels,
        live=LiveOptions(args.allow_network, args.timeout, args.max_reconnects),
        save_state=args.save_state,
    )
    return Batch(
        options,
        header,
        stop=stop,
        say=lambda line: say(args, line),
        say_error=lambda error: report(error, args),
        describe_error=lambda error: with_flags(str(error)),
        progress=lambda job, total: Progress(
            job.name,
            total,
            quiet=args.quiet or args.batch_sources > 1,
            lines=args.log_json,
            part=job.part,
        ),
    )


def say(args: argparse.Namespace, line: str) -> None:
    """Print a message."""
    if args.quiet:
        return
    if args.log_json:
        log.info("%s", line)
        return
    from tqdm import tqdm

    tqdm.write(printable(line))  # above the bars
    sys.stdout.flush()


def report(error: RnndetError, args: argparse.Namespace) -> int:
    """Print an error that the user can fix in one line; returns its exit code."""
    if args.debug:
        traceback.print_exception(error)
    text = with_flags(str(error))
    if args.log_json:
        log.error("%s", text, extra={"facts": {"event": "error", "exit_code": error.exit_code}})
    else:
        from tqdm import tqdm

        tqdm.write(f"infer: {printable(text)}", file=sys.stderr)  # above the bars
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
