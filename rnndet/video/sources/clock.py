"""Convert the timestamps of frames to times that always increase."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

# Seconds between repeated or swapped timestamps at most; those of joined files, and damaged ones,
# lie farther apart.
JUMP = 1.0
WRAP = 2**33 / 90_000  # seconds after which the timestamps of MPEG-TS and MPEG-PS start again
# Frames: a decoder holds up to 16 back, and gives some of them without timestamps at the end.
HELD_BACK = 16
AHEAD = 5  # frames that are read ahead where timestamps leap, so that a run of bad ones is seen
# Seconds between two times at least; results are written to this precision. Timestamps of
# containers differ by more.
LEAST_STEP = 1e-6


class Clock:
    """Convert the timestamps of frames to seconds since the first frame, strictly increasing.

    A timestamp counts where it is later than the last time, unless it is more than `JUMP` ahead
    of one that follows. Otherwise

    - a frame is put between its neighbours if the next timestamp counts again, and so is a run of
      frames whose timestamps are farther than `JUMP` from those around;
    - where timestamps advance within `JUMP` behind the last time, steps are halved until the
      timestamps have caught up;
    - where they advance farther behind, as in joined files, they count from there on;
    - where there is none, or none that advances, the frame rate is assumed.

    What follows is the next timestamp, and where timestamps leap, `AHEAD` of them: `times` reads
    as far ahead.

    wrap: seconds after which timestamps start again; None if they do not.

    >>> clock = Clock(Fraction(10))
    >>> [round(clock.time(0, 50, 90), 2), round(clock.time(1, 90, 90), 2)]
    [0.0, 0.04]
    >>> [round(clock.time(2, 90, 150), 2), round(clock.time(3, 150), 2)]
    [0.07, 0.1]
    """

    def __init__(self, fps: Fraction, *, wrap: float | None = None) -> None:
        self._fps = fps
        self._wrap = None if wrap is None else 1000 * wrap
        self._origin: float | None = None  # ms, of time 0
        self._newest: float | None = None  # ms, the last timestamp that is a number
        self._frames = 0
        self._last_index = 0
        self._last_time = 0.0
        # index and time of the frame from which the rate is assumed; None where timestamps count
        self._steady: tuple[int, float] | None = None
        self._bridged, self._assumed, self._jumps = _Events(), _Events(), _Events()
        self._unstamped = _Events()  # assumed since the last timestamp

    def times(
        self, frames: Iterable[T], stamp: Callable[[T], tuple[int, float | None]]
    ) -> Iterator[tuple[T, float]]:
        """Yield each frame and its time; reads one frame ahead, more where timestamps leap.

        stamp: index and timestamp in ms of a frame.
        """
        rest = iter(frames)
        ahead = deque(islice(rest, 1))
        while ahead:
            frame = ahead.popleft()
            index, timestamp = stamp(frame)
            count = AHEAD if self._leaps(timestamp) else 1
            ahead.extend(islice(rest, max(0, count - len(ahead))))
            yield frame, self.time(index, timestamp, *(stamp(other)[1] for other in ahead))

    def time(self, index: int, timestamp_ms: float | None, *following_ms: float | None) -> float:
        """The time of a frame in seconds; `index` must increase from call to call.

        following_ms: the timestamps of the next frames, as far as they are known.
        """
        stamp = self._unwrapped(timestamp_ms)
        if stamp is not None:
            self._newest = stamp
            self._assumed.join(self._unstamped)
            self._unstamped = _Events()
        following = [self._unwrapped(other) for other in following_ms]
        time = self._next(index, stamp, following) if self._frames else 0.0
        if self._origin is None:
            self._origin = self._origin_by(time, stamp, following[0] if following else None)
        self._frames += 1
        self._last_index, self._last_time = index, time
        return time

    def _leaps(self, timestamp_ms: float | None) -> bool:
        """Whether a timestamp is farther than `JUMP` from the last time."""
        now = self._seconds(self._unwrapped(timestamp_ms))
        return now is not None and abs(now - self._last_time) > JUMP

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings about the frames so far whose timestamps do not count, a line for each kind."""
        notes = []
        if self._bridged.count:
            notes.append(
                f"timestamps out of order: {self._bridged.text}; timed between the frames around"
            )
        if self._jumps.count:
            notes.append(f"timestamps jump back: {self._jumps.text}; the time goes on from there")
        assumed = _Events(self._assumed.count, self._assumed.first)
        if self._unstamped.count > HELD_BACK or self._unstamped.count >= self._frames - 1 > 0:
            assumed.join(self._unstamped)
        if assumed.count:
            notes.append(
                f"no usable timestamps: {assumed.text}; "
                f"{float(self._fps):.5g} per second is assumed there"
            )
        return tuple(notes)

    def _next(self, index: int, stamp: float | None, following: Sequence[float | None]) -> float:
        """The time of a frame after the first."""
        last, step = self._last_time, float((index - self._last_index) / self._fps)
        now, later = self._seconds(stamp), [self._seconds(other) for other in following]
        if now is not None and self._is_later(now) and not self._is_far_ahead(now, later):
            self._steady = None
            return now
        returns = self._returns(now, later)
        if returns is not None:
            frames, then = returns
            self._bridged.add(index)
            self._steady = None
            return last + min(step, (then - last) / (frames + 1))
        then = later[0] if later else None
        if now is None or then is None or now >= then:
            (self._unstamped if stamp is None else self._assumed).add(index)
            if self._steady is None:
                self._steady = self._last_index, last
            return self._steady[1] + float((index - self._steady[0]) / self._fps)
        self._steady = None
        if last - now > JUMP:
            assert stamp is not None
            self._origin = stamp - 1000 * (last + step)
            self._jumps.add(index)
            return last + step
        self._bridged.add(index)
        return last + max(LEAST_STEP, min(step, then - now) / 2)

    def _is_later(self, time: float | None, steps: int = 1) -> bool:
        return time is not None and time >= self._last_time + steps * LEAST_STEP

    def _is_far_ahead(self, time: float, later: Sequence[float | None]) -> bool:
        """Whether a time is more than `JUMP` ahead of a later one that can be true."""
        return any(other is not None and self._last_time < other < time - JUMP for other in later)

    def _returns(
        self, now: float | None, later: Sequence[float | None]
    ) -> tuple[int, float] | None:
        """The number of frames until timestamps count again, and the time there; None if unknown.

        A timestamp within `JUMP` of the last time is not part of a run: the next one has to count.
        """
        is_run = now is not None and abs(now - self._last_time) > JUMP
        for frames, then in enumerate(later if is_run else later[:1], 1):
            is_later = then is not None and self._is_later(then, frames + 1)
            if is_later and not self._is_far_ahead(then, later[frames:]):
                return frames, then
        return None

    def _origin_by(self, time: float, stamp: float | None, following: float | None) -> float | None:
        """The timestamp of time 0, where `time` is that of the first frame with timestamps."""
        if stamp is not None:
            return stamp - 1000 * time
        if following is not None:
            return following - 1000 * (time + float(1 / self._fps))
        return None

    def _seconds(self, stamp: float | None) -> float | None:
        if stamp is None or self._origin is None:
            return None
        return (stamp - self._origin) / 1000

    def _unwrapped(self, stamp: float | None) -> float | None:
        """A timestamp in ms without the wraps since the newest; None if it is no number."""
        if stamp is None or not math.isfinite(stamp):
            return None
        if self._wrap is None or self._newest is None:
            return stamp
        return stamp - self._wrap * round((stamp - self._newest) / self._wrap)


class _Events:
    """The number of some frames and the index of the first."""

    def __init__(self, count: int = 0, first: int = 0) -> None:
        self.count, self.first = count, first

    def add(self, index: int) -> None:
        self.join(_Events(1, index))

    def join(self, other: "_Events") -> None:
        self.first = self.first if self.count else other.first
        self.count += other.count

    @property
    def text(self) -> str:
        if self.count == 1:
            return f"1 frame (frame {self.first})"
        return f"{self.count} frames (first: frame {self.first})"
