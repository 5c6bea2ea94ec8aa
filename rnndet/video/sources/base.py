"""What every source offers, and the names and times that they share."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

from rnndet.errors import InputError
from rnndet.structures import Frame, VideoInfo

ASSUMED_FPS = Fraction(25)  # for frame times where a source has no rate
MAX_PIXELS = 8192 * 8192  # of one image; 200 MB of RGB


@dataclass(frozen=True, slots=True)
class ReadCounts:
    """How the last pass over a source has gone so far."""

    decoded: int
    failed: int  # reads that gave no frame although a later one did; they keep their index
    expected: int | None  # what the source claims; often wrong
    missing: int = 0  # numbers that a sequence of images passes over
    dropped: int = 0  # of a live source: frames passed over because a newer one was there
    reconnects: int = 0  # of a live source
    truncated: bool = False  # the source ended well before its claimed end, or its connection did

    @property
    def is_whole(self) -> bool:
        """Whether every frame was there; frames that a live source passed over do not count."""
        return not (self.failed or self.missing or self.truncated)


class Source(ABC):
    """Frames in order, once per iteration; close it, or use it as a context manager."""

    info: VideoInfo
    notes: tuple[str, ...] = ()  # what to know about the last pass, for the user
    is_live = False  # its frames are those of now, so they are not to be read ahead

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]: ...

    @property
    def counts(self) -> ReadCounts | None:
        """None where nothing can be lost."""
        return None

    def close(self) -> None:
        """Let go of the file or device; may be called twice."""
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Clock:
    """Seconds since the first frame, from stamps while they increase, else from the rate."""

    def __init__(self, fps: Fraction) -> None:
        self._fps = fps
        self._first_stamp: float | None = None
        self._last_index = 0
        self._last_time = 0.0
        self._trusted = True

    def time(self, index: int, stamp_ms: float) -> float:
        """`index` increases from call to call."""
        if self._first_stamp is None:
            self._first_stamp = stamp_ms
            self._last_index = index
            return 0.0
        seconds = (stamp_ms - self._first_stamp) / 1000
        self._trusted = self._trusted and self._last_time < seconds < float("inf")
        if not self._trusted:
            return self._last_time + float((index - self._last_index) / self._fps)
        self._last_index, self._last_time = index, seconds
        return seconds


def check_pixels(source: object, size_hw: Sequence[int], max_pixels: int) -> None:
    """Raise InputError if an image of `size_hw` has more than `max_pixels` pixels."""
    height, width = size_hw[0], size_hw[1]
    if height * width > max_pixels:
        raise InputError(
            f"{source}: {width}x{height} is more than {max_pixels} pixels; make the image "
            "smaller, or raise --max-pixels"
        )


def ends_early(length: int | None, seen: int, time: float, fps: Fraction) -> bool:
    """Whether `seen` frames up to `time` are less than 95 % of what `length` claims, by both.

    By the time as well, because the claimed length of a video with a variable frame rate is a
    guess.
    """
    if length is None:
        return False
    return seen < 0.95 * length and time + float(1 / fps) < 0.95 * float(length / fps)


def safe_name(text: str) -> str:
    """`text` with anything unfit for a folder name replaced by "_", at most 80 characters."""
    name = re.sub(r"[^\w.-]+", "_", text).strip("._-")[:80]
    return name or "video"


def size_text(shape: Sequence[int]) -> str:
    """(H, W, ...) as WxH."""
    return f"{shape[1]}x{shape[0]}"


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; not for a name that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, behind a folder that may not be read; a null byte
        return False


def is_url(text: str) -> bool:
    """Whether a text is an address such as rtsp://camera/1 rather than the name of a file."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://?", text) is not None


def without_password(url: str) -> str:
    """An address with `user:password@` and what follows a "?" as ***; other text as it is."""
    if not is_url(url):
        return url
    # up to the last "@": a sign in a password that should have been written %40 hides nothing
    start, mark, _ = re.sub(r":/+.*@", "://***@", url).partition("?")
    return start + (f"{mark}***" if mark else "")
