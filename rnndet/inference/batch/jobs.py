"""List the sources of a batch, select those of this process, and run them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from rnndet.errors import RnndetError
from rnndet.inference.batch.sharding import Shard, read_shard, split
from rnndet.inference.runtimes import Runtime
from rnndet.inference.runtimes.batching import Batcher, Member
from rnndet.video.sources.identity import source_bytes, source_names
from rnndet.video.sources.listing import expand


class Job(NamedTuple):
    """A source to run."""

    source: str | None  # None: the synthetic clip
    name: str  # of its folder
    problem: Exception | None = None  # why its list of sources cannot be read
    part: tuple[int, int] = (1, 1)  # its number in this run, from 1, and the number of jobs


def find_jobs(arguments: Sequence[str]) -> list[Job]:
    """Return the jobs of sources, lists and patterns; the synthetic clip if there are none.

    An argument that cannot be expanded becomes a job with its `problem`.

    >>> find_jobs(["day/a.mp4", "night/a.mp4"])[1].name
    'a-2'
    """
    if not arguments:
        return [Job(None, "demo")]
    sources: list[tuple[str, Exception | None]] = []
    for argument in arguments:
        try:
            sources += [(source, None) for source in expand(argument)]
        except RnndetError as error:
            sources.append((argument, error))
    names = source_names([source for source, _ in sources])
    return [Job(source, name, why) for (source, why), name in zip(sources, names, strict=True)]


def jobs_of_shard(jobs: Sequence[Job], text: str) -> tuple[list[Job], Shard]:
    """Return the jobs of shard "0/2" or "auto", balanced by file size. Raises RnndetError."""
    shard = read_shard(text, os.environ)
    sizes = [0 if job.source is None else source_bytes(job.source) for job in jobs]
    return [jobs[place] for place in split(sizes, shard.count)[shard.index]], shard


def run_jobs(
    jobs: Sequence[Job],
    run: Callable[[Job, Runtime], dict[str, Any]],
    runtime: Runtime,
    *,
    at_a_time: int,
    stop: Callable[[], bool],
    step: Callable[[], None],
) -> list[dict[str, Any]]:
    """Run the jobs, `at_a_time` of them concurrently, and return their entries in order.

    run: called with a job and its runtime, on a thread of its own if several run; returns the entry
    of the job in the summary. No job starts once `stop` returns true, or after an entry with
    "interrupted". step: called after each job.
    """
    batcher, entries = Batcher(runtime), dict[int, dict[str, Any]]()
    waiting = deque(job._replace(part=(n, len(jobs))) for n, job in enumerate(jobs, 1))

    def work() -> None:
        while not stop():
            try:
                job = waiting.popleft()
            except IndexError:
                return
            with Member(batcher) as member:
                entries[job.part[0]] = entry = run(job, member)
            step()
            if entry.get("interrupted"):
                waiting.clear()

    count = min(at_a_time, len(jobs))
    if count <= 1:
        work()
    else:
        with ThreadPoolExecutor(count) as pool:
            for worker in [pool.submit(work) for _ in range(count)]:
                worker.result()
    return [entries[number] for number in sorted(entries)]
