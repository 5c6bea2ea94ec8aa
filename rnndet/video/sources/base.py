"""The interface of a source of frames, and helpers for the names, lengths and URLs of sources."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Self

from rnndet.errors import InputError
from rnndet.structures import Frame, VideoInfo
from rnndet.video.colour import ColourTags

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts",
    ".wmv", ".flv", ".ogv", ".3gp", ".mxf",
)  # fmt: skip
MAX_PIXELS = 8192 * 8192  # of one image; 200 MB of RGB
MAX_ASPECT = 16  # width / height of a pixel, or height / width; larger ones are mistakes


@dataclass(frozen=True, slots=True)
class ReadCounts:
    """Counts of frames of the last pass over a source, so far."""

    decoded: int
    failed: int  # failed reads before a later frame; each uses up an index
    expected: int | None  # as stated by the source; often wrong
    missing: int = 0  # numbers left out in a sequence of images
    dropped: int = 0  # of a live source: frames skipped because a newer frame was there
    reconnects: int = 0  # of a live source
    truncated: bool = False  # the source or its connection ended well before the claimed end

    @property
    def is_complete(self) -> bool:
        """Whether no frame is lost; frames that a live source skips do not count as lost.

        >>> ReadCounts(decoded=10, failed=0, expected=10).is_complete
        True
        >>> ReadCounts(decoded=4, failed=0, expected=10, truncated=True).is_complete
        False
        """
        return not (self.failed or self.missing or self.truncated)


class Source(ABC):
    """Frames of a video in order, once per iteration; a context manager that closes the source."""

    info: VideoInfo
    notes: tuple[str, ...] = ()  # warnings about the last pass, for the user
    is_live = False  # whether frames arrive in real time, so that they must not be prefetched

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]: ...

    @property
    def counts(self) -> ReadCounts | None:
        """Counts of the last pass; None if no frame can be lost."""
        return None

    def colour_tags(self) -> ColourTags | None:
        """The colour tags of the frames; None if the video states none. Reads the file again."""
        return None

    def close(self) -> None:
        """Release the file or device; may be called twice."""
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def check_pixels(source: object, size_hw: Sequence[int], max_pixels: int) -> None:
    """Raise InputError if an image of `size_hw` has more than `max_pixels` pixels."""
    height, width = size_hw[0], size_hw[1]
    if height * width > max_pixels:
        raise InputError(
            f"{source}: {width}x{height} is more than {max_pixels} pixels; make the image "
            "smaller, or raise `max_pixels`"
        )


def sample_aspect(ratio: Fraction | None, rotation: int) -> Fraction | None:
    """Width / height of a pixel after a rotation in degrees; None if square, or out of all reason.

    >>> sample_aspect(Fraction(16, 11), 90)
    Fraction(11, 16)
    """
    if ratio is None or not 1 / MAX_ASPECT <= ratio <= MAX_ASPECT or ratio == 1:
        return None
    return 1 / ratio if rotation in (90, 270) else ratio


def ratio_text(ratio: Fraction) -> str:
    """A ratio such as 16:11."""
    return f"{ratio.numerator}:{ratio.denominator}"


def ends_early(length: int | None, frames: int, time: float, fps: Fraction) -> bool:
    """Whether `frames` frames up to `time` are less than 95 % of the claimed `length`.

    Both the number of frames and the time must be below 95 %, because the claimed length of a
    video with a variable frame rate is a guess.
    """
    if length is None:
        return False
    return frames < 0.95 * length and time + float(1 / fps) < 0.95 * float(length / fps)


def safe_name(text: str) -> str:
    """`text` as a folder name of letters, digits, `.`, `_` and `-`, at most 80 characters.

    >>> safe_name("my video (1).mp4")
    'my_video_1_.mp4'
    """
    name = re.sub(r"[^\w.-]+", "_", text).strip("._-")[:80]
    return name or "video"


def size_text(shape: Sequence[int]) -> str:
    """(H, W, ...) as WxH."""
    return f"{shape[1]}x{shape[0]}"


def exists(path: Path) -> bool:
    """Whether a file or folder exists; False for a name that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, in a folder without permission; a null byte
        return False


def is_url(text: str) -> bool:
    """Whether a text is a URL such as rtsp://camera/1 and not the name of a file."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://?", text) is not None


def without_password(url: str) -> str:
    """A URL with `user:password@` and the query replaced by ***; other text unchanged.

    >>> without_password("rtsp://me:secret@camera/1?token=abc")
    'rtsp://***@camera/1?***'
    """
    if not is_url(url):
        return url
    # up to the last "@", in case an "@" in the password is not written as %40
    start, mark, _ = re.sub(r":/+.*@", "://***@", url).partition("?")
    return start + (f"{mark}***" if mark else "")
