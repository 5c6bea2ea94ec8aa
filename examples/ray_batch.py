"""Many videos on one machine or a Ray cluster, one task per video.

python examples/ray_batch.py clips/*.mp4 --out out -- --tracker sort --no-video

What follows "--" are options of tools/infer.py. Results are those of tools/infer.py, and a rerun
does only what is missing. On a cluster every machine needs this checkout, the sources and --out
under the same paths.
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
from rnndet.inference.batch.jobs import Job  # noqa: E402

EXAMPLES = str(Path(__file__).resolve().parent)
WORKER_DIED = 3  # exit code of a video that ends its worker: as of one that cannot be read


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options of this file, and those for tools/infer.py."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("source", nargs="+", help="as for tools/infer.py")
    add("--out", default="out", help="results go to OUT/<name of the source>/")
    add("--address", help="of a running Ray cluster, or auto; default: this machine alone")
    add("--workers", type=infer.at_least_one, help="videos at a time on this machine")
    add("--gpus", type=float, default=0.0, help="GPUs of a video, such as 1 or 0.5")
    add("--retries", type=infer.at_least_one, default=2, help="tries more if a worker dies")
    own, options = argv, []
    if "--" in argv:
        own, options = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
    return parser.parse_args(own), options


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

    # --resume also lets a video be tried again after its worker died
    order = [*given.source, "--out", given.out, "--resume", "--quiet", *options]
    args = infer.parse(order)
    if args.shard:
        print("ray_batch: Ray deals out the sources; leave out --shard", file=sys.stderr)
        return 2
    try:
        infer.check(args)
        jobs, _ = infer.list_jobs(args)
        # What is wrong with the weights is said once, not by every task; on the CPU, because only
        # the workers may have a GPU.
        infer.build(argparse.Namespace(**vars(args) | {"device": "cpu"}))
        start_ray(ray, given)
        entries, interrupted = run_jobs(ray, jobs, tuple(order), given)
        code = exit_code_of(entries, signal_code=130 if interrupted else 0)
        write_run_summary(Path(given.out) / "summary.json", entries, exit_code=code)
    except RnndetError as error:
        print(f"ray_batch: {error}", file=sys.stderr)
        return error.exit_code
    return code


def start_ray(ray: Any, given: argparse.Namespace) -> None:
    """Raises RnndetError if there is no cluster at the address."""
    from rnndet.errors import RnndetError

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent
    # of a machine started here; Ray's default is to try for ever
    os.environ.setdefault("RAY_task_oom_retries", str(given.retries))
    local = {} if given.address else {"num_cpus": given.workers, "include_dashboard": False}
    try:
        ray.init(given.address, logging_level="ERROR", log_to_driver=False, **local)
    except ConnectionError:
        raise RnndetError(f"--address {given.address}: no Ray cluster answers there") from None


def run_jobs(
    ray: Any, jobs: list[Job], order: tuple[str, ...], given: argparse.Namespace
) -> tuple[list[dict[str, Any]], bool]:
    """What became of each video, in the order given; and whether Ctrl-C came before the end."""
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
            told = entries[place].get("error") or f"{jobs[place].name}: done"
            print(f"{len(entries)} of {len(jobs)}: {told}", flush=True)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        ray.shutdown()  # ends the tasks of this run that still run
    return [entries[place] for place in sorted(entries)], interrupted


def result_of(ray: Any, ready: Any, job: Job, *, tries: int) -> dict[str, Any]:
    """The entry of a task that has ended, in whatever way."""
    from rnndet.video.sources.base import without_password

    entry = {"source": without_password(job.source), "folder": job.name}
    try:
        return ray.get(ready)
    except ray.exceptions.RayTaskError as error:  # a bug: for all to see
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
    """In a worker: import this file, and run one video. Sent to the worker as it is here."""
    import sys

    if examples not in sys.path:
        sys.path.append(examples)
    import ray_batch

    return ray_batch.run_video(order, *job)


@cache
def loaded(order: tuple[str, ...]) -> tuple[argparse.Namespace, Any, dict[str, Any]]:
    """Options, runtime and header; the model is loaded once per worker."""
    args = infer.parse(list(order))
    infer.check(args)
    return args, *infer.build(args)


def run_video(order: tuple[str, ...], *job: Any) -> dict[str, Any]:
    """Run one `Job`, given by its fields, as tools/infer.py does; its part of the summary."""
    args, runtime, header = loaded(order)
    return infer.make_batch(args, header, stop=lambda: False).run(Job(*job), runtime)


if __name__ == "__main__":
    sys.exit(main())
