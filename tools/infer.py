"""Detect and track objects in videos.

python tools/infer.py clip.mp4 writes out/clip/annotated.mp4 and out/clip/detections.jsonl.
Without a SOURCE, a made-up clip is rendered and used (out/demo).
"""

import argparse
import logging
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

DEMO_SEED = 7


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("source", nargs="*",
        help="video file, folder of pictures, picture, list of sources (.txt), pattern in quotes "
        "('clips/*.mp4', 'frames/%%06d.jpg'), camera number, or address")  # fmt: skip
    add("--weights", default="aerial", help="name in weights/weights.toml, or a file")
    add("--out", default="out", help="results go to OUT/<name of the source>/")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--score-threshold", type=float, default=0.3, help="show detections from this score on")
    add("--tracker", default="byte", help="byte, sort, iou or none")
    add(
        "--no-scene-cuts",
        action="store_true",
        help="keep memory and tracks where the scene changes",
    )
    add("--start", type=seconds, default=0.0, help="begin at this time of each source, in seconds")
    add("--end", type=seconds, help="stop each source at this time, in seconds")
    add("--stride", type=at_least_one, default=1, help="look at every n-th frame only")
    add("--max-frames", type=at_least_one, help="stop each source after this many frames")
    add("--strict", action="store_true", help="exit 1 for a source that is not whole")
    add("--max-pixels", type=at_least_one, default=8192 * 8192, help="refuse larger pictures")
    add("--allow-network", action="store_true", help="allow rtsp://, http:// and https:// sources")
    add("--timeout", type=seconds, default=10.0, help="seconds to wait for an address")
    add("--max-reconnects", type=at_least_one, default=10,
        help="attempts in a row to renew a lost connection")  # fmt: skip
    add("--load-state", metavar="FILE", help="go on from the state that --save-state left")
    add("--save-state", metavar="FILE", help="leave the state of memory and tracks in this file")
    add("--no-video", action="store_true", help="write only detections.jsonl")
    add("--threads", type=at_least_one, help="CPU threads of the model")
    add("--overwrite", action="store_true", help="replace results of an earlier run")
    add("--quiet", action="store_true", help="print errors and nothing else")
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
    sources = sources_of(args)
    if (args.load_state or args.save_state) and len(sources) > 1:
        print("infer: --load-state and --save-state are for one source", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from rnndet.errors import RnndetError

    try:
        stream, header = build(args)
    except RnndetError as error:
        return report(error, args)
    except KeyboardInterrupt:
        return 130
    from rnndet.results import write_run_summary
    from rnndet.signals import stop_on_signals
    from rnndet.video.base import without_password

    names: set[str] = set()
    done = []
    with stop_on_signals() as stop:
        for source, problem in sources:
            entry = {"source": "demo" if source is None else without_password(source)}
            try:
                if problem is not None:
                    raise problem
                summary = run_one(source, stream, header, names, args, stop=lambda: stop.number > 0)
                entry |= {"exit_code": 0, "folder": summary.folder.name, **summary.to_dict()}
                if args.strict and not summary.is_whole:
                    entry["exit_code"] = 1
            except RnndetError as error:
                entry |= {"exit_code": report(error, args), "error": str(error)}
            except KeyboardInterrupt:
                entry |= {"exit_code": 130, "interrupted": True}
            done.append(entry)
            if entry.get("interrupted") or stop.number:
                break
    codes = [entry["exit_code"] for entry in done]
    code = codes[0] if len(codes) == 1 else int(any(codes))
    if done[-1].get("interrupted") or stop.number:
        code = stop.exit_code or 130
    try:
        write_run_summary(Path(args.out) / "summary.json", done, exit_code=code)
    except RnndetError as error:
        return code or report(error, args)
    return code


def sources_of(args: argparse.Namespace) -> list[tuple[str | None, Exception | None]]:
    """The sources to run, each with what is wrong with it if it is a list that cannot be read."""
    from rnndet.errors import RnndetError
    from rnndet.video import expand

    found: list[tuple[str | None, Exception | None]] = []
    for argument in args.source:
        try:
            found += [(source, None) for source in expand(argument)]
        except RnndetError as error:
            found.append((argument, error))
    return found or [(None, None)]


def build(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The stream, and what the result files say of it."""
    import torch

    from rnndet.checkpoint import load_model
    from rnndet.device import choose_device
    from rnndet.inference import describe_model, make_stream

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    device, why = choose_device(args.device)
    model = load_model(args.weights, device=device)
    about = describe_model(model, args.weights)
    stream = make_stream(
        model, tracker=args.tracker, min_score=args.score_threshold,
        scene_cuts=not args.no_scene_cuts,
    )  # fmt: skip
    say(args, f"model {args.weights} ({about['detector']}, {about['cell']}) on {device}: {why}")
    return stream, {"model": about, "tracker": args.tracker, "scene_cuts": not args.no_scene_cuts}


def open_one(source: str | None, args: argparse.Namespace, stop: Callable[[], bool]) -> Any:
    """The opened source, or the made-up clip, as a context manager."""
    from rnndet.video import LiveOptions, SyntheticClip, open_source

    if source is None:
        return nullcontext(SyntheticClip(DEMO_SEED))
    live = LiveOptions(args.allow_network, args.timeout, args.max_reconnects, stop)
    return open_source(source, max_pixels=args.max_pixels, live=live)


def run_one(
    source: str | None,
    stream: Any,
    header: dict[str, Any],
    names: set[str],
    args: Any,
    *,
    stop: Callable[[], bool],
) -> Any:
    """Run one source, None for the made-up clip; its Summary."""
    from rnndet.inference import run_source
    from rnndet.progress import Progress
    from rnndet.video import Excerpt

    if source is None:
        say(args, "no SOURCE given: using a made-up clip")
    with open_one(source, args, stop) as opened:
        if (args.start, args.end, args.stride) != (0.0, None, 1):
            opened = Excerpt(opened, start=args.start, end=args.end, stride=args.stride)
        name = wanted = "demo" if source is None else opened.info.name
        copy = 1
        while name in names:  # sources of one name: clip, clip-2
            copy += 1
            name = f"{wanted}-{copy}"
        names.add(name)
        total = min(filter(None, [opened.info.length, args.max_frames]), default=None)
        with Progress(name, total, quiet=args.quiet) as progress:
            summary = run_source(
                stream, opened, args.out, name=name, header=header, on_frame=progress.step,
                write_video=not args.no_video, max_frames=args.max_frames,
                overwrite=args.overwrite or source is None, stop=stop,
                load_state=args.load_state, save_state=args.save_state,
            )  # fmt: skip
    for line in summary.lines():
        say(args, line)
    return summary


def say(args: argparse.Namespace, line: str) -> None:
    if not args.quiet:
        print(line, flush=True)


def report(error: Any, args: argparse.Namespace) -> int:
    """Print a user's mistake as one line; its exit code."""
    if args.debug:
        raise error
    print(f"infer: {error}", file=sys.stderr)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
