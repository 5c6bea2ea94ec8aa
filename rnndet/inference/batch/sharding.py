"""Divide the videos of a batch among several processes."""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rnndet.errors import RnndetError
from rnndet.messages import counted

EXPECTED = "expected I/N with 0 <= I < N, for example 0/2 and 1/2, or auto"
# index and count in the environment of launchers; for SLURM's arrays see `_slurm_array`
LAUNCHERS = {"RANK": "WORLD_SIZE", "JOB_COMPLETION_INDEX": "JOB_COMPLETIONS"}


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index`, from 0, of `count` parts."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def read_shard(text: str, environment: Mapping[str, str]) -> Shard:
    """Parse "0/2", or find the shard in the environment for "auto". Raises RnndetError.

    auto supports torchrun and mpirun-like launchers (RANK, WORLD_SIZE), job arrays of SLURM
    (SLURM_ARRAY_TASK_ID and its relatives) and indexed jobs of Kubernetes (JOB_COMPLETION_INDEX,
    with JOB_COMPLETIONS set by the job to its number of completions).

    >>> read_shard("1/4", {})
    Shard(index=1, count=4)
    """
    if text == "auto":
        return _from_environment(environment)
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if found is None:
        raise RnndetError(f"`shard={text}`: {EXPECTED}")
    return _checked(int(found[1]), int(found[2]), where=f"`shard={text}`")


def split(sizes: Sequence[int], count: int) -> list[list[int]]:
    """Return positions in `sizes` for each of `count` shards; each position is in exactly one.

    Largest first, each to the shard with the smallest sum so far (Graham 1969: at most 4/3 of the
    best possible largest shard); the positions of a shard are in that order. The result depends
    on the arguments alone, so that every process computes the same assignment.

    >>> split([5, 1, 3, 3], 2)
    [[0, 1], [2, 3]]
    """
    shards: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, 0, index) for index in range(count)]  # size, number of videos, shard
    for position in sorted(range(len(sizes)), key=lambda k: (-sizes[k], k)):
        size, number, index = heapq.heappop(loads)
        shards[index].append(position)
        heapq.heappush(loads, (size + sizes[position], number + 1, index))
    return shards


def _from_environment(environment: Mapping[str, str]) -> Shard:
    found = {}
    for index, count in LAUNCHERS.items():
        if index in environment:
            where = f"`shard=auto`: {index}, {count}"
            numbers = (_number(environment, name) for name in (index, count))
            found[index] = _checked(*numbers, where=where)
    if "SLURM_ARRAY_TASK_ID" in environment:
        found["SLURM_ARRAY_TASK_ID"] = _slurm_array(environment)
    if not found:
        names = ", ".join([*LAUNCHERS, "SLURM_ARRAY_TASK_ID"])
        raise RnndetError(f"`shard=auto`: none of {names} is set; use `shard=I/N`")
    if len(found) > 1:
        names = " and ".join(found)
        raise RnndetError(f"`shard=auto`: {names} are set; choose by `shard=I/N`")
    return next(iter(found.values()))


def _slurm_array(environment: Mapping[str, str]) -> Shard:
    """Return the shard of an array such as --array=1-8 or --array=0-30:10."""
    number, count, first, last = (
        _number(environment, f"SLURM_ARRAY_TASK_{name}") for name in ("ID", "COUNT", "MIN", "MAX")
    )
    step = (last - first) // (count - 1) if count > 1 else 1
    where = f"`shard=auto`: SLURM array {first} to {last}, {counted(count, 'task')}, task {number}"
    if first + step * (count - 1) != last or step < 1 or (number - first) % step:
        raise RnndetError(f"{where}: not evenly spaced; use --array=0-{max(0, count - 1)}")
    return _checked((number - first) // step, count, where=where)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name)
    if text is None:
        raise RnndetError(f"`shard=auto`: {name} is not set; set it, or use `shard=I/N`")
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise RnndetError(f"`shard=auto`: {name}={text!r}: expected a number")
    return int(text)


def _checked(index: int, count: int, *, where: str) -> Shard:
    if not 0 <= index < count:
        raise RnndetError(f"{where}: there is no shard {index} of {count}; {EXPECTED}")
    return Shard(index, count)
