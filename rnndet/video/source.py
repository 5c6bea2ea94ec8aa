"""Where frames come from: a video file, a folder of pictures, a camera. Local only, no network.

Every source gives each frame once, in order and in RGB; nothing is dropped, because a recurrent
model needs the frames that a caller might not look at.
"""

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from rnndet.errors import InputError
from rnndet.structures import Frame, VideoInfo
from rnndet.video.capture import codec_name, decode, existing_file, frame_rate, open_capture
from rnndet.video.image import read_image

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts",
    ".wmv", ".flv", ".ogv", ".3gp", ".mxf",
)  # fmt: skip
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
ASSUMED_FPS = Fraction(25)  # for frame times where a source has no rate


class Source(ABC):
    """Frames in order, once per iteration; close it, or use it as a context manager."""

    info: VideoInfo

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]: ...

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


@dataclass(frozen=True, slots=True)
class ReadCounts:
    """How the last pass over a video file has gone so far."""

    decoded: int
    failed: int  # reads that gave no frame although a later read did; they keep their index
    expected: int | None  # what the file claims; often wrong


class VideoFile(Source):
    """A video file on disk, decoded by OpenCV's FFmpeg, turned upright where the file says so.

    A frame that cannot be decoded is skipped, and its index is not given to another frame. Times
    are the file's own stamps while they increase, and steps of 1 / fps from where they stop.

    Raises:
        InputError: the file is missing, empty, not a video, or holds no frame that can be decoded.
    """

    def __init__(self, path: str | Path, *, name: str | None = None) -> None:
        self._path = existing_file(path)
        self._capture = open_capture(self._path)
        self._decoded = 0
        self._failed = 0
        fps = frame_rate(self._capture.get(cv2.CAP_PROP_FPS))
        claimed = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        length = int(claimed) if 0 < claimed < 1e8 else None
        first = next(decode(self._capture), None)
        if first is None:
            codec = codec_name(self._capture)
            raise InputError(
                f"{path}: no frame can be decoded (codec {codec}; this OpenCV may lack it, as it "
                "often does AV1); convert the file first: ffmpeg -i IN -c:v libx264 OUT.mp4"
            )
        height, width = first[1].shape[:2]
        self.info = VideoInfo(
            name or safe_name(self._path.stem), str(path), width, height, fps, length
        )

    @property
    def counts(self) -> ReadCounts:
        return ReadCounts(self._decoded, self._failed, self.info.length)

    def __iter__(self) -> Iterator[Frame]:
        self._capture.release()
        self._capture = open_capture(self._path)
        self._decoded = 0
        self._failed = 0
        clock = _Clock(self.info.fps or ASSUMED_FPS)
        for index, image, stamp in decode(self._capture):
            self._failed = index - self._decoded
            self._decoded += 1
            yield Frame(image, index, clock.time(index, stamp))

    def close(self) -> None:
        self._capture.release()


class ImageFolder(Source):
    """The pictures of one folder in natural order (2 before 10), or one picture, as a video.

    All pictures must have one size. Times assume 25 frames per second; `info.fps` is None.

    Raises:
        InputError: no pictures, one that cannot be decoded, or one of another size.
    """

    def __init__(self, path: str | Path, *, name: str | None = None) -> None:
        path = Path(path)
        self._files = list_images(path) if path.is_dir() else [existing_file(path)]
        if not self._files:
            raise InputError(f"{path}: the folder holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
        height, width = read_image(self._files[0]).shape[:2]
        self.info = VideoInfo(
            name or safe_name(path.resolve().stem), str(path), width, height, None, len(self._files)
        )

    def __iter__(self) -> Iterator[Frame]:
        expected = (self.info.height, self.info.width)
        for index, file in enumerate(self._files):
            image = read_image(file)
            if image.shape[:2] != expected:
                raise InputError(
                    f"{file}: the picture is {_size_text(image.shape)}, but the first one is "
                    f"{_size_text(expected)}; put pictures of one size in a folder"
                )
            yield Frame(image, index, float(index / ASSUMED_FPS))


class Camera(Source):
    """A camera of this computer by number, from 0; times are those of a clock. Endless.

    Raises:
        InputError: there is no such camera, or it gives no picture.
    """

    def __init__(self, number: int, *, name: str | None = None) -> None:
        self._capture = cv2.VideoCapture(number)
        first = next(decode(self._capture), None) if self._capture.isOpened() else None
        if first is None:
            self._capture.release()
            raise InputError(
                f"camera {number}: cannot be opened; check that it is connected and not in use"
            )
        height, width = first[1].shape[:2]
        fps = frame_rate(self._capture.get(cv2.CAP_PROP_FPS))
        self.info = VideoInfo(
            name or f"camera-{number}", f"camera {number}", width, height, fps, None
        )

    def __iter__(self) -> Iterator[Frame]:
        start = None
        for index, image, _ in decode(self._capture):
            now = time.monotonic()
            start = now if start is None else start
            yield Frame(image, index, now - start)

    def close(self) -> None:
        self._capture.release()


def open_source(source: str | int | Path, *, name: str | None = None) -> Source:
    """Open a video file, a folder of pictures, one picture, or a camera number.

    Args:
        source: a path; or a camera number, as int or as digits when no file has that name.
        name: overrides `info.name`.

    Raises:
        InputError: it does not exist, is empty, cannot be decoded, or is on the network.
    """
    if isinstance(source, int):
        return Camera(source, name=name)
    path = Path(source)
    if not path.exists():
        text = str(source)
        if text.isdecimal():
            return Camera(int(text), name=name)
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://?", text):
            raise InputError(
                f"{without_password(text)}: network sources are not supported yet; "
                "download the video and give the path of the file"
            )
    if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageFolder(path, name=name)
    return VideoFile(path, name=name)


def read_frames(path: str | Path, indices: Sequence[int]) -> list[np.ndarray]:
    """Frames of a video file by number, each (H, W, 3) uint8 RGB, in the order of `indices`.

    Numbers are those of `VideoFile`. Frames are decoded from the start without seeking, which is
    exact for every file; the cost grows with the largest index.

    Raises:
        InputError: the file cannot be read, or a frame is missing.
    """
    wanted = set(indices)
    if wanted and min(wanted) < 0:
        raise ValueError(f"expected indices >= 0, got {min(wanted)}")
    capture = open_capture(existing_file(path))
    try:
        found: dict[int, np.ndarray] = {}
        if wanted:
            found = {index: image for index, image, _ in decode(capture, wanted) if index in wanted}
    finally:
        capture.release()
    missing = sorted(wanted - found.keys())
    if missing:
        raise InputError(
            f"{path}: frame {missing[0]} cannot be decoded; check that the file is whole and "
            "that its labels belong to it"
        )
    return [found[index] for index in indices]


def list_images(folder: str | Path) -> list[Path]:
    """Picture files directly in a folder, in natural order; hidden files are left out."""
    files = [
        file
        for file in Path(folder).iterdir()
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    ]
    return sorted(files, key=lambda file: natural_key(file.name))


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key under which numbers inside names count as numbers: "f2" before "f10"."""
    parts = re.split(r"([0-9]+)", text)
    key = [(0, int(p), "") if p.isdecimal() else (1, 0, p.lower()) for p in parts if p]
    return [*key, (2, 0, text)]  # names that differ only in zeros or case keep one order


def safe_name(text: str) -> str:
    """`text` with anything unfit for a folder name replaced by "_", at most 80 characters."""
    name = re.sub(r"[^\w.-]+", "_", text).strip("._-")[:80]
    return name or "video"


class _Clock:
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


def _size_text(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]}"


def without_password(url: str) -> str:
    """`user:password@` of an address as ***."""
    return re.sub(r"//[^/@]*@", "//***@", url)
