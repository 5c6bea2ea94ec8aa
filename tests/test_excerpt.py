"""Excerpts of a source by time and stride."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from rnndet.errors import RnndetError
from rnndet.structures import Frame, VideoInfo
from rnndet.video.sources.base import Source
from rnndet.video.sources.excerpt import Excerpt


class Clip(Source):
    """Ten frames, ten a second."""

    info = VideoInfo("clip", "clip.mp4", 4, 4, Fraction(10), 10)
    closed = False

    def __iter__(self):
        return (Frame(np.zeros((4, 4, 3), np.uint8), i, i / 10) for i in range(10))

    def close(self):
        self.closed = True


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({}, list(range(10))),
        ({"stride": 3}, [0, 3, 6, 9]),
        ({"start": 0.25}, [3, 4, 5, 6, 7, 8, 9]),
        ({"end": 0.3}, [0, 1, 2]),
        ({"start": 0.2, "end": 0.7, "stride": 2}, [2, 4, 6]),
        ({"start": 5.0}, []),
    ],
)
def test_excerpt_has_the_requested_frames(part, expected):
    excerpt = Excerpt(Clip(), **part)
    assert [frame.index for frame in excerpt] == expected
    assert excerpt.info.length == len(expected)


def test_rate_is_that_of_the_excerpt():
    assert Excerpt(Clip(), stride=4).info.fps == Fraction(5, 2)


def test_source_is_closed_with_its_excerpt():
    clip = Clip()
    with Excerpt(clip):
        pass
    assert clip.closed


@pytest.mark.parametrize("part", [{"stride": 0}, {"start": -1.0}, {"start": 2.0, "end": 1.0}])
def test_impossible_excerpt_is_refused(part):
    with pytest.raises(RnndetError, match="expected"):
        Excerpt(Clip(), **part)


def test_gap_and_restart_of_skipped_frames_reach_the_next_frame():
    class Broken(Clip):
        def __iter__(self):
            marks = {2: {"gap": 1}, 4: {"gap": 2}, 5: {"restart": True}}
            return (replace(frame, **marks.get(frame.index, {})) for frame in super().__iter__())

    frames = list(Excerpt(Broken(), start=0.1, stride=3))
    assert [(f.index, f.gap, f.restart) for f in frames] == [
        (1, 0, False), (4, 3, False), (7, 0, True),
    ]  # fmt: skip
