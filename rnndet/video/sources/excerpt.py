"""Read a part of a source: a time range, or every n-th frame."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from numbers import Integral

from rnndet.errors import RnndetError
from rnndet.registry import check_number
from rnndet.structures import DEFAULT_FPS, Frame
from rnndet.video.colour import ColourTags
from rnndet.video.sources.base import ReadCounts, Source


class Excerpt(Source):
    """The first and every `stride`-th frame of a source among those with start <= time < end.

    Frames keep the index and the time that they have in the source; `gap` and `restart` of skipped
    frames move to the next frame of the excerpt. Frames before `start` are decoded and not sought,
    which is exact in every file. `info.fps` is the rate of the excerpt. `close` closes the source.
    Raises RnndetError for an impossible range or stride.

    >>> from rnndet.video.synthetic.clip import SyntheticClip
    >>> clip = SyntheticClip(0, length=9, size_hw=(64, 64), fps=10)
    >>> [frame.index for frame in Excerpt(clip, start=0.25, stride=2)]
    [3, 5, 7]
    """

    def __init__(
        self, source: Source, *, start: float = 0.0, end: float | None = None, stride: int = 1
    ) -> None:
        check_range(start, end, stride)
        self._source, self._start, self._end, self._stride = source, start, end, stride
        fps = source.info.fps
        self.info = replace(
            source.info, fps=None if fps is None else fps / stride, length=self._length()
        )

    @property
    def counts(self) -> ReadCounts | None:
        """Counts of the whole source."""
        return self._source.counts

    @property
    def is_live(self) -> bool:
        return self._source.is_live

    @property
    def notes(self) -> tuple[str, ...]:
        return self._source.notes

    def colour_tags(self) -> ColourTags | None:
        return self._source.colour_tags()

    def __iter__(self) -> Iterator[Frame]:
        return frames_of_range(self._source, start=self._start, end=self._end, stride=self._stride)

    def close(self) -> None:
        self._source.close()

    def _length(self) -> int | None:
        """The approximate number of frames, for progress bars."""
        info = self._source.info
        if info.length is None and self._end is None:
            return None
        rate = float(info.fps or DEFAULT_FPS)
        last = math.inf if info.length is None else info.length
        last = last if self._end is None else min(last, math.ceil(self._end * rate))
        return max(0, math.ceil((last - math.ceil(self._start * rate)) / self._stride))


def check_range(start: float, end: float | None, stride: int) -> None:
    """Raise RnndetError for an impossible range or stride."""
    if not isinstance(stride, Integral) or stride < 1:
        raise RnndetError(f"stride = {stride}; expected 1 (all frames) or more")
    for name, time in (("start", start), ("end", end)):
        if time is not None or name == "start":
            check_number(name, time, expected="seconds")
    if not (0 <= start < math.inf and (end is None or end > start)):
        raise RnndetError(f"from {start} s to {end} s: expected 0 <= start < end, in seconds")


def frames_of_range(
    frames: Iterable[Frame], *, start: float, end: float | None, stride: int
) -> Iterator[Frame]:
    """Yield the frames of an `Excerpt` of these frames."""
    number = gap = 0
    restart = False
    for frame in frames:
        if end is not None and frame.time >= end:
            return
        if frame.time < start:
            continue
        gap, restart = gap + frame.gap, restart or frame.restart
        if number % stride == 0:
            yield replace(frame, gap=gap, restart=restart)
            gap, restart = 0, False
        number += 1
