"""Sharding of sources."""

import random

import pytest

from rnndet.errors import RnndetError
from rnndet.inference.batch.sharding import Shard, read_shard, split


def test_every_video_is_in_exactly_one_shard():
    sizes = [random.Random(0).randrange(1000) for _ in range(37)]
    for count in (1, 2, 5, 50):
        shards = split(sizes, count)
        assert len(shards) == count
        assert sorted(place for shard in shards for place in shard) == list(range(37))


def test_longest_comes_first_and_shards_are_balanced():
    assert split([10, 70, 30, 40, 50], 2) == [[1, 2], [4, 3, 0]]


def test_equal_and_unknown_sizes_are_dealt_out_in_order():
    assert split([0, 0, 0, 0, 0], 2) == [[0, 2, 4], [1, 3]]


def test_no_shard_is_much_larger_than_its_share():
    sizes = [random.Random(1).randrange(1, 1000) for _ in range(100)]
    loads = [sum(sizes[place] for place in shard) for shard in split(sizes, 7)]
    assert max(loads) - min(loads) <= max(sizes)


def test_more_shards_than_videos_leaves_some_empty():
    assert split([5], 3) == [[0], [], []]


@pytest.mark.parametrize(
    ("text", "environment", "shard"),
    [
        ("0/2", {}, Shard(0, 2)),
        ("11/12", {"RANK": "3"}, Shard(11, 12)),
        ("auto", {"RANK": "3", "WORLD_SIZE": "8"}, Shard(3, 8)),
        ("auto", {"JOB_COMPLETION_INDEX": "0", "JOB_COMPLETIONS": "4"}, Shard(0, 4)),
    ],
)
def test_shard_is_read_from_text_and_environment(text, environment, shard):
    assert read_shard(text, environment) == shard


def slurm(number, count, first, last):
    values = {"ID": number, "COUNT": count, "MIN": first, "MAX": last}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        (slurm(0, 4, 0, 3), Shard(0, 4)),
        (slurm(8, 8, 1, 8), Shard(7, 8)),
        (slurm(20, 4, 0, 30), Shard(2, 4)),  # --array=0-30:10
        (slurm(5, 1, 5, 5), Shard(0, 1)),
    ],
)
def test_slurm_arrays_may_begin_and_step_as_they_like(environment, shard):
    assert read_shard("auto", environment) == shard


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("2/2", {}, "no shard 2 of 2"),
        ("0/0", {}, "no shard 0 of 0"),
        ("1", {}, "expected I/N"),
        ("-1/2", {}, "expected I/N"),
        ("auto", {}, "none of RANK"),
        ("auto", {"RANK": "0"}, "WORLD_SIZE is not set"),
        ("auto", {"JOB_COMPLETION_INDEX": "1"}, "JOB_COMPLETIONS is not set"),
        ("auto", {"RANK": "x", "WORLD_SIZE": "2"}, "RANK='x'"),
        ("auto", {"RANK": "2", "WORLD_SIZE": "2"}, "no shard 2 of 2"),
        ("auto", slurm(3, 3, 1, 7), "not evenly spaced; use --array=0-2"),  # --array=1,3,7
        ("auto", {"RANK": "0", "WORLD_SIZE": "2"} | slurm(0, 2, 0, 1), "choose by `shard=I/N`"),
    ],
)
def test_impossible_shard_is_an_error_in_one_line(text, environment, message):
    with pytest.raises(RnndetError, match=message) as caught:
        read_shard(text, environment)
    assert "\n" not in str(caught.value)
