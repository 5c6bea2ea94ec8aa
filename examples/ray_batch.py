"""Run many videos on one machine or on a Ray cluster, one task per video.

python examples/ray_batch.py clips/*.mp4 --out out -- --tracker sort --no-video

Options after "--" are options of `rnndet infer`. The results equal `rnndet infer`, and a
second run processes only the videos that are not finished. On a cluster every machine needs this
checkout, the sources and --out under the same paths.
"""

import argparse
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rnndet.cli import infer  # noqa: E402
from rnndet.cli.errors import shown  # noqa: E402
from rnndet.inference.batch.jobs import Job  # noqa: E402

EXAMPLES = str(Path(__file__).resolve().parent)
WORKER_DIED = 3  # exit code if a worker dies, the same as for an unreadable video


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Split the command line into the options of this script and of `rnndet infer`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("source", nargs="+", help="as for rnndet infer")
    add("--out", default="out", help="results go to OUT/<name of the source>/")
    add("--address", help="of a running Ray cluster, or auto; default: start Ray on this machine")
    add("--workers", type=infer.at_least_one, help="videos in parallel on this machine")
    add("--gpus", type=float, default=0.0, help="GPUs per video, such as 1 or 0.5")
    add("--retries", type=infer.at_least_one, default=2, help="further tries if a worker dies")
    local, options = argv, []
    if "--" in argv:
        local, options = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
    return parser.parse_args(local), options


def main(argv: list[str] | None = None) -> int:
    given, options = parse(sys.argv[1:] if argv is None else argv)
    try:
        import ray
    except ImportError:
        print("ray_batch: Ray is not installed; pip install 'rnndet[ray]'", file=sys.stderr)
        return 2
    from rnndet.errors import RnndetError
    from rnndet.inference.batch.run import exit_code_of
    from rnndet.inference.results import write_run_summary

    # with --resume a video can be run again after its worker died
    order = [*given.source, "--out", given.out, "--resume", "--quiet", *options]
    args = infer.parse(order)
    if args.shard:
        print("ray_batch: Ray distributes the sources; omit --shard", file=sys.stderr)
        return 2
    try:
        infer.check(args)
        jobs, _ = infer.list_jobs(args)
        # Load the model here first, so that an error in the weights is reported once and not by
        # every task; on the CPU, because only the workers may have a GPU.
        infer.build(argparse.Namespace(**vars(args) | {"device": "cpu"}))
        start_ray(ray, given)
        entries, interrupted = run_jobs(ray, jobs, tuple(order), given)
        code = exit_code_of(entries, signal_code=130 if interrupted else 0)
        write_run_summary(Path(given.out) / "summary.json", entries, exit_code=code)
    except RnndetError as error:
        print(f"ray_batch: {shown(error)}", file=sys.stderr)
        return error.exit_code
    return code


def start_ray(ray: Any, given: argparse.Namespace) -> None:
    """Connect to the cluster, or start Ray here. Raises RnndetError if no cluster answers."""
    from rnndet.errors import RnndetError

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage reports
    # for a Ray that is started here; its default is to retry without limit
    os.environ.setdefault("RAY_task_oom_retries", str(given.retries))
    local = {} if given.address else {"num_cpus": given.workers, "include_dashboard": False}
    try:
        ray.init(given.address, logging_level="ERROR", log_to_driver=False, **local)
    except ConnectionError:
        raise RnndetError(
            f"--address {given.address}: no Ray cluster answers at this address"
        ) from None


def run_jobs(
    ray: Any, jobs: list[Job], order: tuple[str, ...], given: argparse.Namespace
) -> tuple[list[dict[str, Any]], bool]:
    """Return the summary entries in the order of `jobs`, and whether Ctrl-C ended the run."""
    from rnndet.video.sources.identity import source_bytes

    remote = ray.remote(num_cpus=1, num_gpus=given.gpus, max_retries=given.retries)(task)
    longest_first = sorted(range(len(jobs)), key=lambda k: -source_bytes(jobs[k].source))
    running = {remote.remote(EXAMPLES, order, *jobs[k]): k for k in longest_first}
    entries: dict[int, dict[str, Any]] = {}
    interrupted = False
    try:
        while running:
            (ready,), _ = ray.wait(list(running), num_returns=1)
            place = running.pop(ready)
            entries[place] = result_of(ray, ready, jobs[place], tries=given.retries + 1)
            outcome = entries[place].get("error") or f"{jobs[place].name}: done"
            print(f"{len(entries)} of {len(jobs)}: {outcome}", flush=True)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        ray.shutdown()  # also ends running tasks
    return [entries[place] for place in sorted(entries)], interrupted


def result_of(ray: Any, ready: Any, job: Job, *, tries: int) -> dict[str, Any]:
    """Return the summary entry of a task that has ended, with or without an error."""
    from rnndet.video.sources.base import without_password

    entry = {"source": without_password(job.source), "folder": job.name}
    try:
        return ray.get(ready)
    except ray.exceptions.RayTaskError as error:  # a bug: show its traceback
        print(error, file=sys.stderr)
        return entry | {
            "exit_code": 1,
            "error": f"{entry['source']}: {str(error).splitlines()[-1]}",
        }
    except ray.exceptions.RayError as error:
        why = type(error).__name__
        return entry | {
            "exit_code": WORKER_DIED,
            "error": f"{entry['source']}: its worker died in each of {tries} tries ({why})",
        }


def task(examples: str, order: tuple[str, ...], *job: Any) -> dict[str, Any]:
    """Run one video in a worker. Ray sends this function by value, so it imports this file."""
    import sys

    if examples not in sys.path:
        sys.path.append(examples)
    import ray_batch

    return ray_batch.run_video(order, *job)


@cache
def loaded(order: tuple[str, ...]) -> tuple[argparse.Namespace, Any, dict[str, Any]]:
    """Return options, runtime and header; the model is loaded once per worker."""
    args = infer.parse(list(order))
    infer.check(args)
    return args, *infer.build(args)


def run_video(order: tuple[str, ...], *job: Any) -> dict[str, Any]:
    """Run one `Job`, given by its fields, like `rnndet infer`; returns its summary entry."""
    args, runtime, header = loaded(order)
    return infer.make_batch(args, header, stop=lambda: False).run(Job(*job), runtime)


if __name__ == "__main__":
    sys.exit(main())
