"""A part of a source: from one time to another, or every n-th frame."""

import math
from collections.abc import Iterator
from dataclasses import replace

from rnndet.errors import RnndetError
from rnndet.structures import Frame
from rnndet.video.sources.base import ASSUMED_FPS, ReadCounts, Source


class Excerpt(Source):
    """The frames of a source with start <= time < end, of these the first and every `stride`-th.

    Frames keep their index and their time in the source; `gap` and `restart` of frames that are
    passed over are those of the next one that is given. Nothing is sought: what comes before is
    decoded, which is exact in every file. `info.fps` is that of the frames that are given. Closes
    the source. Raises RnndetError for an impossible part.
    """

    def __init__(
        self, source: Source, *, start: float = 0.0, end: float | None = None, stride: int = 1
    ) -> None:
        if stride < 1:
            raise RnndetError(f"stride = {stride}; expected 1 (all frames) or more")
        if not (0 <= start < math.inf and (end is None or end > start)):
            raise RnndetError(f"from {start} s to {end} s: expected 0 <= start < end, in seconds")
        self._source, self._start, self._end, self._stride = source, start, end, stride
        fps = source.info.fps
        self.info = replace(
            source.info, fps=None if fps is None else fps / stride, length=self._length()
        )

    @property
    def counts(self) -> ReadCounts | None:
        """Those of the source, where it has any."""
        return getattr(self._source, "counts", None)

    @property
    def is_live(self) -> bool:
        return getattr(self._source, "is_live", False)

    @property
    def notes(self) -> tuple[str, ...]:
        return getattr(self._source, "notes", ())

    def __iter__(self) -> Iterator[Frame]:
        place = gap = 0
        restart = False
        for frame in self._source:
            if self._end is not None and frame.time >= self._end:
                return
            if frame.time < self._start:
                continue
            gap, restart = gap + frame.gap, restart or frame.restart
            if place % self._stride == 0:
                yield replace(frame, gap=gap, restart=restart)
                gap, restart = 0, False
            place += 1

    def close(self) -> None:
        self._source.close()

    def _length(self) -> int | None:
        """About how many frames there are, for progress bars."""
        info = self._source.info
        if info.length is None and self._end is None:
            return None
        rate = float(info.fps or ASSUMED_FPS)
        last = math.inf if info.length is None else info.length
        last = last if self._end is None else min(last, math.ceil(self._end * rate))
        return max(0, math.ceil((last - math.ceil(self._start * rate)) / self._stride))
