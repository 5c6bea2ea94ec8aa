"""Detect and track objects in videos.

python tools/infer.py clip.mp4 writes out/clip/annotated.mp4 and out/clip/detections.jsonl.
Without a SOURCE, a made-up clip is rendered and used (out/demo).
"""

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

DEMO_SEED = 7
log = logging.getLogger("infer")
# Options that leave the results of a video as they are; done.json keeps all others.
WITHOUT_EFFECT = {
    "source", "weights", "out", "device", "compile", "threads", "batch_sources", "shard", "resume",
    "isolate", "overwrite", "no_video", "save_state", "strict", "max_pixels", "allow_network",
    "timeout", "max_reconnects", "show", "quiet", "log_json", "debug",
}  # fmt: skip


class Run(NamedTuple):
    """What all sources of a run share."""

    runtime: Any
    header: dict[str, Any]
    args: argparse.Namespace
    stop: Callable[[], bool]


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rnndet infer", description=__doc__)
    add = parser.add_argument
    add("source", nargs="*",
        help="video file, folder of images, image, list of sources (.txt), pattern in quotes "
        "('clips/*.mp4', 'frames/%%06d.jpg'), camera number, or address")  # fmt: skip
    add("--weights", default="aerial", help="name in weights/weights.toml, or a file")
    add("--out", default="out", help="results go to OUT/<name of the source>/")
    add("--runtime", default="torch", help="torch, onnx (see tools/export.py), or auto")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--half", action="store_true", help="compute in half precision, on a GPU")
    add("--compile", action="store_true", help="compile the model first, which takes minutes")
    add("--score-threshold", type=float, default=0.3, help="show detections from this score on")
    add("--tracker", default="byte", help="byte, sort, iou or none")
    add(
        "--no-scene-cuts",
        action="store_true",
        help="keep memory and tracks where the scene changes",
    )
    add("--key-every", type=at_least_one, default=1, metavar="N",
        help="run the model on every N-th frame; in the others its boxes follow the image")  # fmt: skip  # noqa: E501
    add("--key-lost", type=float, default=0.0, metavar="SHARE",
        help="run it also where less than this share of the boxes could be followed, 0 to 1")  # fmt: skip  # noqa: E501
    add("--start", type=seconds, default=0.0, help="begin at this time of each source, in seconds")
    add("--end", type=seconds, help="stop each source at this time, in seconds")
    add("--stride", type=at_least_one, default=1, help="look at every n-th frame only")
    add("--max-frames", type=at_least_one, help="stop each source after this many frames")
    add("--strict", action="store_true", help="exit 1 for a source that is not whole")
    add("--max-pixels", type=at_least_one, default=8192 * 8192, help="refuse larger images")
    add("--allow-network", action="store_true", help="allow rtsp://, http:// and https:// sources")
    add("--timeout", type=seconds, default=10.0, help="seconds to wait for an address")
    add("--max-reconnects", type=at_least_one, default=10,
        help="attempts in a row to renew a lost connection")  # fmt: skip
    add("--load-state", metavar="FILE", help="go on from the state that --save-state left")
    add("--save-state", metavar="FILE", help="leave the state of memory and tracks in this file")
    add("--save", action="append", metavar="NAMES",
        help="files beside detections.jsonl, by commas: video (the default), mot, coco, csv, cvat, "
        "crops, frames")  # fmt: skip
    add("--no-video", action="store_true", help="leave the video out")
    add("--trails", type=at_least_one, default=0, metavar="N",
        help="draw the last N places of each track")  # fmt: skip
    add("--coast", type=seconds, default=0.0, metavar="SECONDS",
        help="show a missed track at its expected place for at most this long")  # fmt: skip
    add("--show", action="store_true", help="show the annotated frames in a window; q ends the run")
    add("--shard", metavar="I/N", help="run part I, from 0, of N of the sources; auto: ask the job")
    add("--resume", action="store_true", help="pass over sources that an earlier run has finished")
    add("--isolate", action="store_true", help="decode in a process of its own, which may crash")
    add("--batch-sources", type=at_least_one, default=1, metavar="N",
        help="run N sources at a time through one model, each with its own memory")  # fmt: skip
    add("--threads", type=at_least_one, help="CPU threads of the model")
    add("--overwrite", action="store_true", help="replace results of an earlier run")
    add("--quiet", action="store_true", help="print errors and nothing else")
    add("--log-json", action="store_true", help="progress and messages as JSON lines on stderr")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(argv)


def at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time in seconds")
    return value


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    set_up_log(args)
    from rnndet.errors import RnndetError

    try:
        check(args)
        jobs, summary_name = list_jobs(args)
        runtime, header = build(args)
    except RnndetError as error:
        return report(error, args)
    except KeyboardInterrupt:
        return 130
    from rnndet.inference.batch.jobs import run_jobs
    from rnndet.inference.results import write_run_summary
    from rnndet.system.progress import SourcesBar
    from rnndet.system.signals import stop_on_signals

    overall = SourcesBar(len(jobs), quiet=args.quiet or args.log_json)
    with stop_on_signals() as stop, closing(overall):
        run = Run(runtime, header, args, stop=lambda: stop.number > 0)
        done = run_jobs(
            jobs, lambda job, own: run_entry(job, run._replace(runtime=own)), runtime,
            at_a_time=args.batch_sources, stop=run.stop, step=overall.step,
        )  # fmt: skip
    codes = [entry["exit_code"] for entry in done]
    code = codes[0] if len(codes) == 1 else int(any(codes))
    if stop.number or (done and done[-1].get("interrupted")):
        code = stop.exit_code or 130
    try:
        write_run_summary(Path(args.out) / summary_name, done, exit_code=code)
    except RnndetError as error:
        failed = report(error, args)
        return code or failed
    return code


def set_up_log(args: argparse.Namespace) -> None:
    """Messages of the library and progress go to stderr, as text or as JSON."""
    level = logging.ERROR if args.quiet else logging.INFO
    logging.basicConfig(level=level, format="%(message)s")
    if args.log_json:
        from rnndet.system.progress import JsonFormatter

        handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter())
        logging.basicConfig(level=level, handlers=[handler], force=True)


def check(args: argparse.Namespace) -> None:
    """Raise RnndetError for what can be known to fail before a model is loaded."""
    from rnndet.errors import RnndetError
    from rnndet.inference.writers import export_names
    from rnndet.system.lock import check_writable

    names = export_names(["video"] if args.save is None else args.save)
    args.save = tuple(name for name in sorted(names) if not (args.no_video and name == "video"))
    if args.end is not None and args.end <= args.start:
        raise RnndetError(f"--end {args.end:g}: expected more than --start, {args.start:g}")
    if args.coast and args.tracker == "none":
        raise RnndetError("--coast: only tracks are shown while missed; use a --tracker")
    if args.compile and args.batch_sources > 1:
        raise RnndetError("--compile: for one source at a time; leave out --batch-sources")
    if args.show:
        from rnndet.video.window import check_display

        if args.batch_sources > 1:
            raise RnndetError("--show: shows one source at a time; leave out --batch-sources")
        check_display()
    check_writable(Path(args.out))


def list_jobs(args: argparse.Namespace) -> tuple[list[Any], str]:
    """What this process is to run, and the name of its summary."""
    from rnndet.errors import RnndetError
    from rnndet.inference.batch.jobs import find_jobs, jobs_of_shard

    jobs = find_jobs(args.source)
    if (len(jobs) > 1 or args.shard or args.resume) and (args.load_state or args.save_state):
        raise RnndetError(
            "--load-state and --save-state are for one source, without --shard and --resume"
        )
    if args.shard is None or not args.source:
        return jobs, "summary.json"
    mine, shard = jobs_of_shard(jobs, args.shard)
    say(args, f"shard {shard}: {len(mine)} of {len(jobs)} sources")
    return mine, f"summary-{shard.index}-of-{shard.count}.json"


def stream_of(runtime: Any, args: argparse.Namespace) -> Any:
    from rnndet.inference.run import make_stream

    return make_stream(
        runtime, tracker=args.tracker, min_score=args.score_threshold,
        scene_cuts=not args.no_scene_cuts, coast=args.coast,
        key_every=args.key_every, key_lost=args.key_lost,
    )  # fmt: skip


def build(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """What runs the model, and what the result files say of it."""
    from rnndet.inference.run import describe_model
    from rnndet.inference.runtimes import open_runtime

    runtime, why = open_runtime(
        args.weights,
        kind=args.runtime,
        device=args.device,
        threads=args.threads,
        half=args.half,
        compiled=args.compile,
    )
    about = describe_model(runtime, args.weights)
    stream_of(runtime, args)  # says now what is wrong with the options
    say(args, f"model {args.weights} ({about['detector']}, {about['cell']}) "
        f"by {runtime.name} on {runtime.device}: {why}")  # fmt: skip
    return runtime, {
        "model": about, "tracker": args.tracker, "scene_cuts": not args.no_scene_cuts,
        "coast": args.coast, "key_every": args.key_every, "key_lost": args.key_lost,
    }  # fmt: skip


def run_entry(job: Any, run: Run) -> dict[str, Any]:
    """Run one source, unless it is done; what the summary of the run says of it."""
    from rnndet.errors import InputError, RnndetError
    from rnndet.video.sources.base import without_password

    entry = {"source": "demo" if job.source is None else without_password(job.source)}
    try:
        if job.problem is not None:
            raise job.problem
        entry |= run_unless_done(job, run)
    except (RnndetError, OSError) as error:
        if run.stop() and isinstance(error, InputError):  # a live source that was still waiting
            return entry | {"exit_code": 130, "interrupted": True}
        if not isinstance(error, RnndetError):
            error = InputError(f"{entry['source']}: {error.strerror or error}")
        entry |= {"exit_code": report(error, run.args), "error": str(error)}
    except KeyboardInterrupt:
        entry |= {"exit_code": 130, "interrupted": True}
    return entry


def run_unless_done(job: Any, run: Run) -> dict[str, Any]:
    """`run_one`, with done.json before and after it; its Summary as plain data. Raises."""
    from rnndet.errors import OutputError
    from rnndet.inference.batch.done import describe_job, find_done, forget_done, write_done
    from rnndet.video.sources.base import without_password

    args = run.args
    folder = Path(args.out) / job.name
    begin = partial(forget_done, folder)
    if job.source is None:  # the made-up clip: quickly done again, but not over a real demo.mp4
        overwrite = args.overwrite or not (folder / "done.json").exists()
        summary = run_one(job, run, overwrite=overwrite, begin=begin)
        return result_of(job, summary, args)
    options = {key: value for key, value in vars(args).items() if key not in WITHOUT_EFFECT}
    made_from = describe_job(
        job.source, model_sha256=run.header["model"]["sha256"], options=options
    )
    if args.resume:
        try:
            record = find_done(folder, made_from)
        except OutputError:
            if not args.overwrite:
                raise
            record = None
        if record is not None and (record["whole"] or not args.strict):
            say(args, f"{job.name}: done already, {record['frames']} frames")
            return {"exit_code": 0, "folder": job.name, "skipped": True, "frames": record["frames"]}
    overwrite = args.overwrite or args.resume  # results without a record are not whole

    def end(summary: Any) -> None:
        if not summary.interrupted and (summary.is_whole or not args.strict):
            write_done(
                folder, made_from, source=without_password(job.source), frames=summary.frames,
                whole=summary.is_whole, files=summary.files,
            )  # fmt: skip

    summary = run_one(job, run, overwrite=overwrite, begin=begin, end=end)
    return result_of(job, summary, args)


def result_of(job: Any, summary: Any, args: argparse.Namespace) -> dict[str, Any]:
    """What the summary of the run says of a source that was run."""
    code = 130 if summary.interrupted else int(args.strict and not summary.is_whole)
    return {"exit_code": code, "folder": job.name, **summary.to_dict()}


def run_one(
    job: Any,
    run: Run,
    *,
    overwrite: bool,
    begin: Callable[[], None],
    end: Callable[[Any], None] = lambda summary: None,
) -> Any:
    """Run one source, None for the made-up clip; its Summary."""
    from rnndet.inference.run import run_source
    from rnndet.system.progress import Progress
    from rnndet.video.sources.excerpt import Excerpt
    from rnndet.video.window import Window

    args = run.args
    with open_job(job.source, run) as opened:
        if (args.start, args.end, args.stride) != (0.0, None, 1):
            opened = Excerpt(opened, start=args.start, end=args.end, stride=args.stride)
        total = min(filter(None, [opened.info.length, args.max_frames]), default=None)
        with (
            Progress(
                job.name,
                total,
                quiet=args.quiet or args.batch_sources > 1,
                lines=args.log_json,
                part=job.part,
            ) as progress,
            Window() if args.show else nullcontext() as window,
        ):
            summary = run_source(
                stream_of(run.runtime, args), opened, args.out, name=job.name, header=run.header,
                on_frame=progress.step, save=args.save, trails=args.trails,
                show=window and window.show,
                max_frames=args.max_frames, overwrite=overwrite,
                stop=lambda: run.stop() or (window is not None and window.wants_end),
                load_state=args.load_state, save_state=args.save_state, begin=begin, end=end,
            )  # fmt: skip
    for line in summary.lines():
        say(args, line)
    return summary


def open_job(source: str | None, run: Run) -> Any:
    """The source as a context manager; None is the made-up clip. Raises InputError."""
    from rnndet.video.sources.isolated import IsolatedSource
    from rnndet.video.sources.live import LiveOptions
    from rnndet.video.sources.open import open_source
    from rnndet.video.synthetic.clip import SyntheticClip

    args = run.args
    if source is None:
        say(args, "no SOURCE given: using a made-up clip")
        return nullcontext(SyntheticClip(DEMO_SEED))
    live = LiveOptions(args.allow_network, args.timeout, args.max_reconnects, run.stop)
    opener = IsolatedSource if args.isolate else open_source
    return opener(source, max_pixels=args.max_pixels, live=live)


def say(args: argparse.Namespace, line: str) -> None:
    """Print a message; where nobody reads on (`| head`), the run goes on in silence."""
    if args.quiet:
        return
    if args.log_json:
        log.info("%s", line)
        return
    from tqdm import tqdm

    try:
        tqdm.write(line)  # above the bars
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def report(error: Any, args: argparse.Namespace) -> int:
    """Print a user's mistake as one line; its exit code."""
    if args.debug:
        traceback.print_exception(error)
    if args.log_json:
        log.error("%s", error, extra={"facts": {"event": "error", "exit_code": error.exit_code}})
    else:
        from tqdm import tqdm

        tqdm.write(f"infer: {error}", file=sys.stderr)  # above the bars
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
