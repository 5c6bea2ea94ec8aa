"""Decode a video file with PyAV, where OpenCV cannot decode it or would silently rescale it.

PyAV is the `video` extra; its FFmpeg has a decoder for AV1, which the packages of OpenCV lack.
"""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from rnndet.errors import InputError
from rnndet.messages import counted
from rnndet.structures import DEFAULT_FPS, Frame, VideoInfo
from rnndet.video.colour import ColourTags
from rnndet.video.sources.base import (
    MAX_PIXELS,
    ReadCounts,
    Source,
    check_pixels,
    ends_early,
    ratio_text,
    safe_name,
    sample_aspect,
    size_text,
)
from rnndet.video.sources.capture import (
    CONTAINERS,
    FAILED_READS,
    existing_file,
    frame_rate,
    rate_note,
)
from rnndet.video.sources.clock import WRAP, Clock
from rnndet.video.sources.edit_list import is_mirrored, nothing_shown, shown_length

# Streams without a container; where they state no frame rate, FFmpeg makes one up.
RAW_FORMATS = ("h264", "hevc", "mpegvideo", "m4v", "mjpeg", "jpeg_pipe", "obu", "av1")
END_FORMATS = ("matroska,webm", "asf", "nut")  # see `states_end`
MPEG_FORMATS = ("mpegts", "mpeg")  # their timestamps have 33 bits

# code of cv2.rotate for the rotation in degrees that PyAV reports
_UPRIGHT = {
    90: cv2.ROTATE_90_COUNTERCLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_CLOCKWISE,
}


def has_pyav() -> bool:
    """Whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


def is_plain_stream(path: Path) -> bool:
    """Whether a file is a stream without an index: MPEG-TS, MPEG-PS, raw H.264...

    Detected by the first bytes. Such files can be concatenated, so the image size may change,
    which OpenCV hides (it scales all images to the first size); and their length is a guess.
    """
    with path.open("rb") as file:
        start = file.read(200)
    packets = (0, 188), (4, 196)  # MPEG-TS, and .m2ts with a timestamp before each packet
    if any(len(start) > b and start[a] == start[b] == 0x47 for a, b in packets):
        return True
    return start.startswith((b"\x00\x00\x01", b"\x00\x00\x00\x01"))


def needs_pyav(path: Path) -> bool:
    """Whether OpenCV would scale or turn the frames of a file wrongly."""
    return is_plain_stream(path) or is_mirrored(path)


def is_raw_stream(path: Path) -> bool:
    """Whether a file is a stream of a codec without a container, and so without timestamps.

    Detected by the first bytes: start codes of H.264, HEVC and MPEG video, raw JPEG and AV1.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"\x00\x00\x01\xba":  # MPEG-PS
        return False
    return start.startswith(
        (b"\x00\x00\x01", b"\x00\x00\x00\x01", b"\xff\xd8\xff", b"\x12\x00\x0a")
    )


class _Decoded(NamedTuple):
    """A frame as it is decoded."""

    index: int
    image: np.ndarray  # (H, W, 3) uint8 RGB, upright
    timestamp: float | None  # ms
    rotation: int  # in degrees, which is applied
    aspect: Fraction | None  # width / height of a pixel that the codec states


class NoVideoError(InputError):
    """A file has audio but no video stream."""


class AvFile(Source):
    """A video file like `VideoFile`, decoded by PyAV.

    Images of another size than the first are scaled to the size of the first. The first frame
    after each change of size has `restart`, because recurrent state belongs to the old size.

    Raises:
        InputError: the file is missing, not a video, has images of more than max_pixels, or
            no frame can be decoded.
    """

    def __init__(
        self, path: str | Path, *, name: str | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        self._path, self._source = existing_file(path), path
        self._is_plain = is_plain_stream(self._path)
        self._container: Any = None
        self._max_pixels = max_pixels
        self._reset_counts()
        try:
            stream = self._reopen()
            self._claimed_fps = self._stated_rate(stream)
            fps = frame_rate(self._claimed_fps or 0.0)
            length = stream.frames or _length(self._container, stream, fps) or None
            length = shown_length(self._path, length, fps)
            check_pixels(path, (stream.height, stream.width), max_pixels)
            first = next(self._decode(stream), None)
        except InputError:
            self.close()
            raise
        if first is None:
            self.close()
            reason = f"{path}: no frame can be decoded (codec {stream.codec.name})"
            raise InputError(nothing_shown(path, self._path) or reason)
        height, width = first.image.shape[:2]
        rotation, self._shape = first.rotation, first.aspect
        self.info = VideoInfo(
            name or safe_name(self._path.stem),
            str(path),
            width,
            height,
            fps,
            length,
            rotation,
            sample_aspect(stream.sample_aspect_ratio or None, rotation),
        )

    def _reset_counts(self) -> None:
        self._decoded = self._failed = 0
        self._truncated = False
        self._changes, self._first_change = 0, ""
        self._other_shape = ""  # of pixels
        self._clock: Clock | None = None

    @property
    def counts(self) -> ReadCounts:
        return ReadCounts(self._decoded, self._failed, self.info.length, truncated=self._truncated)

    @property
    def notes(self) -> tuple[str, ...]:
        notes = []
        if self._changes:
            changes = counted(self._changes, "time")
            notes.append(
                f"the image size changes ({changes}), first {self._first_change}; all images are "
                f"scaled to {self.info.width}x{self.info.height}"
            )
        if self._other_shape:
            notes.append(f"the shape of the pixels changes, first {self._other_shape}")
        if self.info.fps is None:
            notes.append(rate_note(self._claimed_fps))
        if self._clock is not None and not self._is_raw:
            notes += self._clock.notes
        return tuple(notes)

    def __iter__(self) -> Iterator[Frame]:
        stream = self._reopen()
        self._reset_counts()
        expected = last = (self.info.height, self.info.width)
        fps = self.info.fps or DEFAULT_FPS
        is_mpeg = self._container.format.name in MPEG_FORMATS
        self._clock = clock = Clock(fps, wrap=WRAP if is_mpeg else None)
        next_index, time, shape = 0, 0.0, self._shape
        decoded = self._decode(stream)
        for item, time in clock.times(decoded, lambda item: (item.index, item.timestamp)):
            index, image = item.index, item.image
            size = image.shape[:2]
            changed = size != last
            if changed:
                self._changes += 1
                change = f"from {size_text(last)} to {size_text(size)} at frame {index}"
                self._first_change = self._first_change or change
                check_pixels(self._source, size, self._max_pixels)
                last = size
            if size != expected:
                image = cv2.resize(image, expected[::-1], interpolation=cv2.INTER_AREA)
            if item.aspect != shape and not self._other_shape:
                before, after = (ratio_text(x or Fraction(1)) for x in (shape, item.aspect))
                self._other_shape = f"from {before} to {after} at frame {index}; the first is kept"
            self._failed = index - self._decoded
            self._decoded += 1
            yield Frame(image, index, time, index - next_index, changed)
            next_index = index + 1
        claimed = None if self._is_plain else self.info.length
        self._truncated = ends_early(claimed, next_index, time, fps)

    def colour_tags(self) -> ColourTags | None:
        return read_colour_tags(self._path)

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
        self._container = None

    def _reopen(self) -> Any:
        """Open the file again; returns its video stream, at the first frame."""
        self.close()
        self._container = _open_container(self._path, self._source)
        if not self._container.streams.video:
            if self._container.streams.audio:
                raise NoVideoError(f"{self._source}: no video stream, only audio")
            raise InputError(f"{self._source}: no video stream; the file may be incomplete")
        stream = self._container.streams.video[0]
        if stream.codec_context is None:
            raise InputError(f"{self._source}: no frame can be decoded (unknown codec)")
        stream.thread_type = "AUTO"
        return stream

    def _stated_rate(self, stream: Any) -> float | None:
        """The frame rate of the file; None where a raw stream states none."""
        self._is_raw = self._container.format.name in RAW_FORMATS
        if self._is_raw:  # the other rates of the stream are made up
            rate = stream.codec_context.framerate
            return float(rate) if rate else None
        return float(stream.average_rate or stream.guessed_rate or 0)

    def _decode(self, stream: Any) -> Iterator[_Decoded]:
        """The frames; failed reads use up an index, as in `capture.decode`."""
        failed = 0
        for index, frame in enumerate(_frames(self._container, stream)):
            if frame is None:
                failed += 1
                if failed == FAILED_READS:
                    return
                continue
            failed = 0
            image = frame.to_ndarray(format="rgb24")
            rotation = int(getattr(frame, "rotation", 0)) % 360
            mirror = _mirror(frame)
            if mirror is not None:
                image, rotation = _mirrored(image, *mirror)
            elif rotation in _UPRIGHT:
                image = cv2.rotate(image, _UPRIGHT[rotation])
            timestamp = None if frame.time is None else 1000 * frame.time
            aspect = sample_aspect(stream.codec_context.sample_aspect_ratio or None, rotation)
            yield _Decoded(index, image, timestamp, -rotation % 360, aspect)


def _mirror(frame: Any) -> tuple[int, int, int, int] | None:
    """Where the matrix of a frame moves x and y, (ax, ay, bx, by); None unless it mirrors."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])
    return (a, b, c, d) if a * d - b * c < 0 else None


def _mirrored(image: np.ndarray, a: int, b: int, c: int, d: int) -> tuple[np.ndarray, int]:
    """The image at (ax + cy, bx + dy), and as its rotation 270 where sides are exchanged, or 0."""
    is_turned = abs(b) > abs(a)
    if is_turned:
        image, a, d = cv2.transpose(image), c, b
    if a < 0:
        image = cv2.flip(image, 1)
    if d < 0:
        image = cv2.flip(image, 0)
    return image, 270 if is_turned else 0


def read_colour_tags(path: Path) -> ColourTags | None:
    """The colour tags of a video file, read by PyAV; None if it states none or cannot be read."""
    try:
        with _open_container(path, path) as container:
            context = container.streams.video[0].codec_context
            tags = ColourTags(
                int(context.color_primaries), int(context.color_trc), int(context.colorspace),
                int(context.color_range),
            )  # fmt: skip
    except (InputError, IndexError, AttributeError):  # AttributeError: an unknown codec
        return None
    return tags if tags.is_stated else None


def _open_container(path: Path, source: object) -> Any:
    """Open a file with PyAV, with the file protocol only. Raises InputError."""
    import av

    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    try:
        # titles and names of channels may be in any encoding
        return av.open(str(path), options=options, metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"{source}: not a video ({error.strerror})") from None


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
    """The number of frames in the stated duration; 0 where no duration is stated."""
    seconds = Fraction(container.duration or 0, 10**6)
    if stream.duration is not None and stream.time_base is not None:
        seconds = stream.duration * stream.time_base
    if container.format.name in END_FORMATS:
        start = Fraction(max(0, container.start_time or 0), 10**6)
        seconds = seconds - start if start < seconds else seconds
    return round(seconds * (fps or DEFAULT_FPS))
