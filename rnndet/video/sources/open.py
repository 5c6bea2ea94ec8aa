"""Where frames come from: a video file, images, a camera, an address if that is allowed.

Every source gives each frame once, in order and in RGB; nothing of a file is dropped, because a
recurrent model needs the frames that a caller might not look at.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from rnndet.errors import InputError
from rnndet.structures import Frame, VideoInfo
from rnndet.video.sources.av_file import AvFile, NoVideoError, has_pyav, is_plain_stream
from rnndet.video.sources.base import (
    ASSUMED_FPS,
    MAX_PIXELS,
    Clock,
    ReadCounts,
    Source,
    check_pixels,
    ends_early,
    exists,
    is_url,
    safe_name,
    without_password,
)
from rnndet.video.sources.capture import (
    codec_name,
    decode,
    existing_file,
    frame_rate,
    open_capture,
    open_url,
)
from rnndet.video.sources.image_folder import ImageFolder, is_image, is_image_pattern
from rnndet.video.sources.listing import is_list, read_list
from rnndet.video.sources.live import Camera, LiveOptions, LiveStream, url_name

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts",
    ".wmv", ".flv", ".ogv", ".3gp", ".mxf",
)  # fmt: skip
ADDRESSES = ("rtsp://", "http://", "https://")


class VideoFile(Source):
    """A video file on disk, decoded by OpenCV's FFmpeg, turned upright where the file says so.

    A frame that cannot be decoded is skipped, its index is not given to another frame, and the
    next one says so (`gap`). Times are the file's own stamps while they increase, and steps of
    1 / fps from where they stop.

    Raises:
        InputError: the file is missing, empty, not a video, has images of more than max_pixels,
            or holds no frame that can be decoded.
    """

    _patience = math.inf  # seconds for which reads may fail in a row
    _is_plain = False  # a stream whose length is a guess

    def __init__(
        self, path: str | Path, *, name: str | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        file = existing_file(path)
        self._is_plain = is_plain_stream(file)
        self._begin(
            lambda: open_capture(file), path, name or safe_name(file.stem), max_pixels=max_pixels
        )

    def _begin(
        self,
        open_again: Callable[[], cv2.VideoCapture],
        source: str | Path,
        name: str,
        *,
        max_pixels: int,
    ) -> None:
        self._open = open_again
        self._capture = capture = open_again()
        self._restart()
        fps = frame_rate(capture.get(cv2.CAP_PROP_FPS))
        self._claimed_fps = capture.get(cv2.CAP_PROP_FPS)
        claimed = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        length = int(claimed) if 0 < claimed < 1e8 else None
        sides = [int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)]
        try:
            check_pixels(source, sides, max_pixels)
            first = next(decode(capture), None)
            if first is None:
                raise InputError(
                    f"{source}: no frame can be decoded (codec {codec_name(capture)}; OpenCV may "
                    "lack it, as it often does AV1); pip install 'rnndet[video]', or convert the "
                    "file first: ffmpeg -i IN -c:v libx264 OUT.mp4"
                )
        except InputError:
            capture.release()
            raise
        height, width = first[1].shape[:2]
        turned = int(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 360
        self.info = VideoInfo(name, str(source), width, height, fps, length, turned)

    def _restart(self) -> None:
        self._decoded = self._failed = 0
        self._truncated = False

    @property
    def counts(self) -> ReadCounts:
        return ReadCounts(self._decoded, self._failed, self.info.length, truncated=self._truncated)

    @property
    def notes(self) -> tuple[str, ...]:
        if self.info.fps is not None:
            return ()
        return (
            f"the file's frame rate ({self._claimed_fps:g}) cannot be true; "
            f"{ASSUMED_FPS} per second is assumed where frames have no times",
        )

    def __iter__(self) -> Iterator[Frame]:
        self._capture.release()
        self._capture = self._open()
        self._restart()
        fps = self.info.fps or ASSUMED_FPS
        clock, next_index, time = Clock(fps), 0, 0.0
        for index, image, stamp in decode(self._capture, patience=self._patience):
            self._failed = index - self._decoded
            self._decoded += 1
            time = clock.time(index, stamp)
            yield Frame(image, index, time, index - next_index)
            next_index = index + 1
        claimed = None if self._is_plain else self.info.length
        self._truncated = ends_early(claimed, next_index, time, fps)

    def close(self) -> None:
        self._capture.release()


class AddressedFile(VideoFile):
    """A video file behind an address: all frames in order, none dropped, no second try.

    Raises:
        InputError: as `VideoFile`.
    """

    def __init__(
        self, url: str, *, timeout: float, name: str | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        self._patience = timeout
        self._begin(
            lambda: _opened(url, timeout), without_password(url), name or url_name(url),
            max_pixels=max_pixels,
        )  # fmt: skip


def open_source(
    source: str | int | Path,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    live: LiveOptions | None = None,
) -> Source:
    """Open a video file, a folder or a pattern of images, one image, or a camera number.

    Args:
        source: a path, or what is none: a pattern of images (%06d.jpg, *.jpg), a camera number,
            as int or as digits, or an address where `live` allows it. What exists as a file is
            that file, whatever its name looks like.
        name: overrides `info.name`.
        max_pixels: refuse videos and images with more pixels than this.
        live: how cameras and addresses are read, and whether addresses are allowed.

    Raises:
        InputError: it does not exist, is empty, too large, cannot be decoded, or is on the network.
    """
    live = live or LiveOptions()
    if isinstance(source, int):
        return Camera(source, name=name, options=live, max_pixels=max_pixels)
    path, text = Path(source), str(source)
    if not exists(path):
        if text.isdecimal():
            return Camera(int(text), name=name, options=live, max_pixels=max_pixels)
        if is_url(text):
            return _open_url(text, name, max_pixels, live)
        if is_image_pattern(text):
            return ImageFolder(path, name=name, max_pixels=max_pixels)
    if is_list(path):
        count = len(read_list(path))
        raise InputError(f"{path}: a list of {count} sources where one source is expected")
    if (exists(path) and path.is_dir()) or is_image(path):
        return ImageFolder(path, name=name, max_pixels=max_pixels)
    return _open_video(path, name, max_pixels)


def _open_video(path: Path, name: str | None, max_pixels: int) -> Source:
    """By OpenCV; by PyAV, where it is there, if OpenCV cannot or would hide something.

    What neither can read is OpenCV's error, unless PyAV knows that there is only sound.
    """
    if has_pyav() and is_plain_stream(existing_file(path)):
        return AvFile(path, name=name, max_pixels=max_pixels)
    try:
        return VideoFile(path, name=name, max_pixels=max_pixels)
    except InputError:
        if not has_pyav():
            raise
        try:
            return AvFile(path, name=name, max_pixels=max_pixels)
        except NoVideoError:
            raise
        except InputError:
            pass
        raise


def _open_url(url: str, name: str | None, max_pixels: int, live: LiveOptions) -> Source:
    said = without_password(url)
    if not live.allow_network:
        raise InputError(
            f"{said}: is on the network, which is off; allow it with --allow-network, or download "
            "the video and give the path of the file"
        )
    if not url.lower().startswith(ADDRESSES):
        raise InputError(f"{said}: expected one of {', '.join(ADDRESSES)}")
    capture = _opened(url, live.timeout)
    if not 0 < capture.get(cv2.CAP_PROP_FRAME_COUNT) < 1e8:
        return LiveStream(url, capture, name=name, options=live, max_pixels=max_pixels)
    capture.release()
    return AddressedFile(url, timeout=live.timeout, name=name, max_pixels=max_pixels)


def _opened(url: str, timeout: float) -> cv2.VideoCapture:
    """Raises InputError if nothing answers, or what answers is no video."""
    capture = open_url(url, timeout=timeout)
    if not capture.isOpened():
        capture.release()
        raise InputError(
            f"{without_password(url)}: no video could be opened within {timeout:g} s; "
            "check the address, the password and the network"
        )
    return capture


def read_frames(path: str | Path, indices: Sequence[int]) -> list[np.ndarray]:
    """Frames of a video file by number, each (H, W, 3) uint8 RGB, in the order of `indices`.

    Numbers are those of `open_source`. Frames are decoded from the start without seeking, which is
    exact for every file; the cost grows with the largest index.

    Raises:
        InputError: the file cannot be read, or a frame is missing.
    """
    wanted = set(indices)
    if wanted and min(wanted) < 0:
        raise ValueError(f"expected indices >= 0, got {min(wanted)}")
    file = existing_file(path)
    found: dict[int, np.ndarray] = {}
    if wanted and not (has_pyav() and is_plain_stream(file)):
        capture = open_capture(file)
        found = {index: image for index, image, _ in decode(capture, wanted) if index in wanted}
        capture.release()
    if wanted and not found and has_pyav():
        with AvFile(path) as video:
            frames = itertools.takewhile(lambda frame: frame.index <= max(wanted), video)
            found = {frame.index: frame.image for frame in frames if frame.index in wanted}
    missing = sorted(wanted - found.keys())
    if missing:
        raise InputError(
            f"{path}: frame {missing[0]} cannot be decoded; check that the file is whole and "
            "that its labels belong to it"
        )
    return [found[index] for index in indices]
