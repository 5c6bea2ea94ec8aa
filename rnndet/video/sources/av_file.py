"""A video file decoded by PyAV: for what OpenCV cannot decode, or would change without a word.

PyAV is the `video` extra; its FFmpeg has a decoder for AV1, which OpenCV's own packages lack.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rnndet.errors import InputError
from rnndet.structures import Frame, VideoInfo
from rnndet.video.sources.base import (
    ASSUMED_FPS,
    MAX_PIXELS,
    Clock,
    ReadCounts,
    Source,
    check_pixels,
    ends_early,
    safe_name,
    size_text,
)
from rnndet.video.sources.capture import CONTAINERS, FAILED_READS, existing_file, frame_rate

# cv2.rotate's code for the degrees by which PyAV says that an image is turned the wrong way
_UPRIGHT = {
    90: cv2.ROTATE_90_COUNTERCLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_CLOCKWISE,
}


def has_pyav() -> bool:
    return importlib.util.find_spec("av") is not None


def is_plain_stream(path: Path) -> bool:
    """Whether a file is a stream without an index: MPEG-TS, MPEG-PS, raw H.264...

    Known by its first bytes. Such files can be joined, so the size of the images may change,
    which OpenCV hides (it scales them to the first size); and their length is a guess.
    """
    with path.open("rb") as file:
        start = file.read(200)
    packets = (0, 188), (4, 196)  # MPEG-TS, and with a time before each packet as in .m2ts
    if any(len(start) > b and start[a] == start[b] == 0x47 for a, b in packets):
        return True
    return start.startswith((b"\x00\x00\x01", b"\x00\x00\x00\x01"))


class NoVideoError(InputError):
    """A file that holds sound and no video."""


class AvFile(Source):
    """As `VideoFile`, by PyAV. A later image of another size is scaled to the first one's.

    Such an image has `restart`, because what was remembered belongs to another size; so has the
    next one of the old size.

    Raises:
        InputError: the file is missing, not a video, has images of more than max_pixels, or
            holds no frame that can be decoded.
    """

    def __init__(
        self, path: str | Path, *, name: str | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        self._path, self._said = existing_file(path), path
        self._is_plain = is_plain_stream(self._path)
        self._container: Any = None
        self._max_pixels = max_pixels
        self._restart()
        try:
            stream = self._reopen()
            fps = frame_rate(float(stream.average_rate or stream.guessed_rate or 0))
            length = stream.frames or _length(self._container, stream, fps) or None
            check_pixels(path, (stream.height, stream.width), max_pixels)
            first = next(self._decode(stream), None)
        except InputError:
            self.close()
            raise
        if first is None:
            self.close()
            raise InputError(f"{path}: no frame can be decoded (codec {stream.codec.name})")
        _, image, _, turned = first
        height, width = image.shape[:2]
        self.info = VideoInfo(
            name or safe_name(self._path.stem), str(path), width, height, fps, length, turned
        )

    def _restart(self) -> None:
        self._decoded = self._failed = 0
        self._truncated = False
        self._changes, self._first_change = 0, ""

    @property
    def counts(self) -> ReadCounts:
        return ReadCounts(self._decoded, self._failed, self.info.length, truncated=self._truncated)

    @property
    def notes(self) -> tuple[str, ...]:
        if not self._changes:
            return ()
        return (
            f"the size of the images changes ({self._changes}), first {self._first_change}; "
            f"all are scaled to {self.info.width}x{self.info.height}",
        )

    def __iter__(self) -> Iterator[Frame]:
        stream = self._reopen()
        self._restart()
        expected = last = (self.info.height, self.info.width)
        fps = self.info.fps or ASSUMED_FPS
        clock, next_index, time = Clock(fps), 0, 0.0
        for index, image, stamp, _ in self._decode(stream):
            size = image.shape[:2]
            changed = size != last
            if changed:
                self._changes += 1
                change = f"from {size_text(last)} to {size_text(size)} at frame {index}"
                self._first_change = self._first_change or change
                check_pixels(self._said, size, self._max_pixels)
                last = size
            if size != expected:
                image = cv2.resize(image, expected[::-1], interpolation=cv2.INTER_AREA)
            self._failed = index - self._decoded
            self._decoded += 1
            time = clock.time(index, stamp)
            yield Frame(image, index, time, index - next_index, changed)
            next_index = index + 1
        claimed = None if self._is_plain else self.info.length
        self._truncated = ends_early(claimed, next_index, time, fps)

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
        self._container = None

    def _reopen(self) -> Any:
        """The video stream of the file, from its beginning."""
        import av

        self.close()
        options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
        try:
            self._container = av.open(str(self._path), options=options)
        except (av.FFmpegError, OSError) as error:
            raise InputError(f"{self._said}: not a video ({error.strerror})") from None
        if not self._container.streams.video:
            if self._container.streams.audio:
                raise NoVideoError(f"{self._said}: holds no video, only sound")
            raise InputError(f"{self._said}: holds no video; it may be incomplete")
        stream = self._container.streams.video[0]
        if stream.codec_context is None:
            raise InputError(f"{self._said}: no frame can be decoded (unknown codec)")
        stream.thread_type = "AUTO"
        return stream

    def _decode(self, stream: Any) -> Iterator[tuple[int, np.ndarray, float, int]]:
        """Index, upright RGB image, stamp in ms, rotation. As `capture.decode`."""
        failed = 0
        for index, frame in enumerate(_frames(self._container, stream)):
            if frame is None:
                failed += 1
                if failed == FAILED_READS:
                    return
            else:
                failed = 0
                turned = int(getattr(frame, "rotation", 0)) % 360
                image = frame.to_ndarray(format="rgb24")
                if turned in _UPRIGHT:
                    image = cv2.rotate(image, _UPRIGHT[turned])
                stamp = 0.0 if frame.time is None else 1000 * frame.time
                yield index, image, stamp, -turned % 360


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """Decoded frames of the stream; None for each packet that cannot be read or decoded."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
            frames = packet.decode()
        except (StopIteration, EOFError):
            return
        except av.FFmpegError:
            packets = container.demux(stream)  # an error ends the iterator, not the file
            yield None
            continue
        yield from frames


def _length(container: Any, stream: Any, fps: Fraction | None) -> int:
    """How many frames fit into the stated duration; 0 where nothing is stated."""
    seconds = Fraction(container.duration or 0, 10**6)
    if stream.duration is not None and stream.time_base is not None:
        seconds = stream.duration * stream.time_base
    return round(seconds * (fps or ASSUMED_FPS))
