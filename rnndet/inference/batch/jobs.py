"""What a process of a batch has to run: the sources that were asked for, less those of others."""

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

    source: str | None  # None: the made-up clip
    name: str  # of its folder
    problem: Exception | None = None  # a list of sources that cannot be read
    part: tuple[int, int] = (1, 1)  # its number in this run, from 1, and of how many


def find_jobs(arguments: Sequence[str]) -> list[Job]:
    """The jobs of sources, lists and patterns as the user typed them; the made-up clip for none.

    What cannot be expanded becomes a job with its `problem`.
    """
    if not arguments:
        return [Job(None, "demo")]
    found: list[tuple[str, Exception | None]] = []
    for argument in arguments:
        try:
            found += [(source, None) for source in expand(argument)]
        except RnndetError as error:
            found.append((argument, error))
    names = source_names([source for source, _ in found])
    return [Job(source, name, why) for (source, why), name in zip(found, names, strict=True)]


def jobs_of_shard(jobs: Sequence[Job], text: str) -> tuple[list[Job], Shard]:
    """The part of the jobs that "0/2" or "auto" means, by size of the files. Raises RnndetError."""
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
    """What `run` says of each job, in their order, `at_a_time` of them side by side.

    run is given a job and the runtime it is to use, on a thread of its own if several run. No job
    begins once stop says so, or after one whose answer has "interrupted". step is called after
    each.
    """
    batcher, done = Batcher(runtime), dict[int, dict[str, Any]]()
    waiting = deque(job._replace(part=(n, len(jobs))) for n, job in enumerate(jobs, 1))

    def work() -> None:
        while not stop():
            try:
                job = waiting.popleft()
            except IndexError:
                return
            with Member(batcher) as own:
                done[job.part[0]] = answer = run(job, own)
            step()
            if answer.get("interrupted"):
                waiting.clear()

    count = min(at_a_time, len(jobs))
    if count <= 1:
        work()
    else:
        with ThreadPoolExecutor(count) as pool:
            for worker in [pool.submit(work) for _ in range(count)]:
                worker.result()
    return [done[number] for number in sorted(done)]
