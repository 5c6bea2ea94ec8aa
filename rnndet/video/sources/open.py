"""Open a source of frames: a video file, images, a camera, or a URL where URLs are allowed.

Every source gives each frame once, in order and in RGB; no frame of a file is dropped, because a
recurrent model also needs the frames that a caller does not use.
"""

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from rnndet.errors import InputError, RnndetError
from rnndet.structures import DEFAULT_FPS, Frame, VideoInfo
from rnndet.video.colour import BT709, ColourTags
from rnndet.video.sources.av_file import (
    AvFile,
    NoVideoError,
    has_pyav,
    is_plain_stream,
    is_raw_stream,
    needs_pyav,
    read_colour_tags,
)
from rnndet.video.sources.base import (
    MAX_PIXELS,
    ReadCounts,
    Source,
    check_pixels,
    ends_early,
    exists,
    is_url,
    safe_name,
    sample_aspect,
    without_password,
)
from rnndet.video.sources.capture import (
    codec_name,
    decode,
    existing_file,
    first_timestamp,
    frame_rate,
    open_capture,
    open_url,
    rate_note,
    states_end,
)
from rnndet.video.sources.clock import WRAP, Clock
from rnndet.video.sources.edit_list import is_mirrored, nothing_shown, shown_length
from rnndet.video.sources.image_folder import (
    OTHER_SUFFIXES,
    ImageFolder,
    is_image,
    is_image_pattern,
)
from rnndet.video.sources.listing import is_list, read_list
from rnndet.video.sources.live import Camera, LiveOptions, LiveStream, url_name

URL_SCHEMES = ("rtsp://", "http://", "https://")
MAX_LENGTH = 1e8  # frames; a stated length from here on counts as unknown


def open_source(
    source: str | bytes | os.PathLike[str] | int,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    live: LiveOptions | None = None,
) -> Source:
    """Open a video file, a folder or pattern of images, a single image, a camera or a URL.

    Args:
        source: a path, as text, bytes or a Path; or, where no file has that name, a pattern of
            images (%06d.jpg, *.jpg), a camera number as int or digits, or a URL if `live` allows
            it.
        name: overrides `info.name`.
        max_pixels: refuse videos and images with more pixels than this.
        live: options of cameras and URLs, including whether URLs are allowed.

    Raises:
        InputError: the source does not exist, is empty, has too many pixels, cannot be decoded, or
            is a URL that is not allowed.

    >>> with open_source("clip.mp4") as source:  # doctest: +SKIP
    ...     for frame in source:
    ...         print(frame.index, frame.time, frame.image.shape)
    """
    live = live or LiveOptions()
    source = _as_source(source)
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
        raise InputError(f"{path}: a list of {count} sources; expected a single source")
    if (exists(path) and path.is_dir()) or is_image(path):
        return ImageFolder(path, name=name, max_pixels=max_pixels)
    return _open_video(path, name, max_pixels)


def _as_source(source: object) -> str | int | Path:
    """A source with the name of a file as text; raises RnndetError for what is no source."""
    if isinstance(source, str | bytes) and not source:
        raise RnndetError("source: expected a path, found an empty text")
    if isinstance(source, bytes | os.PathLike):
        return Path(os.fsdecode(source))
    if isinstance(source, str) or (isinstance(source, int) and not isinstance(source, bool)):
        return source
    raise RnndetError(
        f"source: expected the path of a video, of a folder of images or of an image, the number "
        f"of a camera, or a URL; found {type(source).__name__} {source!r:.60}"
    )


def read_frames(path: str | Path, indices: Sequence[int]) -> list[np.ndarray]:
    """Frames of a video file by index, each (H, W, 3) uint8 RGB, in the order of `indices`.

    Indices are those of `open_source`. Frames are decoded from the start without seeking, which is
    exact for every file; the cost grows with the largest index.

    Raises:
        InputError: the file cannot be read, or a frame is missing.
    """
    requested = set(indices)
    if requested and min(requested) < 0:
        raise ValueError(f"expected indices >= 0, got {min(requested)}")
    file = existing_file(path)
    images: dict[int, np.ndarray] = {}
    if requested and not (has_pyav() and needs_pyav(file)):
        capture = open_capture(file)
        frames = decode(capture, requested)
        images = {index: image for index, image, _ in frames if index in requested}
        capture.release()
    if requested and not images and has_pyav():
        with AvFile(path) as video:
            frames = itertools.takewhile(lambda frame: frame.index <= max(requested), video)
            images = {frame.index: frame.image for frame in frames if frame.index in requested}
    missing = sorted(requested - images.keys())
    if missing:
        raise InputError(
            f"{path}: frame {missing[0]} cannot be decoded; check that the file is complete and "
            "that its labels belong to it"
        )
    return [images[index] for index in indices]


def count_frames(path: str | Path) -> int:
    """The number of frames of a video file up to the last one that can be decoded.

    All of the file is decoded, since the number that a file states is often wrong.

    Raises:
        InputError: the file cannot be read, or ends well before the length that it states.
    """
    count = 0
    with _open_video(Path(path), None, MAX_PIXELS) as source:
        for frame in source:
            count = frame.index + 1
        counts = source.counts
    if counts is not None and counts.truncated:
        raise InputError(
            f"{path}: ends early, after {count} of {counts.expected} frames; "
            "copy or download it again"
        )
    return count


class _CaptureSource(Source):
    """A video of limited length that OpenCV decodes.

    open_capture: opens the video at its first frame; called again for each pass. timeout: seconds
    without a frame that end a pass. file: the local file, if it is one.
    """

    def __init__(
        self,
        open_capture: Callable[[], cv2.VideoCapture],
        source: str | Path,
        *,
        name: str,
        max_pixels: int,
        timeout: float = math.inf,
        file: Path | None = None,
    ) -> None:
        self._open, self._timeout, self._file = open_capture, timeout, file
        # a stream without an index, whose length is a guess; and one without a container,
        # whose frame rate OpenCV makes up
        self._is_plain = file is not None and is_plain_stream(file)
        self._is_mirrored = file is not None and is_mirrored(file)
        self._is_raw = is_raw = file is not None and is_raw_stream(file)
        self._capture = capture = open_capture()
        self._reset_counts()
        self._claimed_fps = capture.get(cv2.CAP_PROP_FPS)
        fps = None if is_raw else frame_rate(self._claimed_fps)
        length = None if is_raw else _length(capture)
        try:
            height, width = self._first_image(source, max_pixels).shape[:2]
        except InputError:
            capture.release()
            raise
        if file is not None and length is not None:
            start = first_timestamp(capture) if states_end(file) else 0
            length = shown_length(file, length - start if start < length else length, fps)
        rotation = int(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 360
        sides = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
        ratio = Fraction(*map(int, sides)) if min(sides) >= 1 else None
        aspect = sample_aspect(ratio, rotation)
        self.info = VideoInfo(name, str(source), width, height, fps, length, rotation, aspect)

    @property
    def counts(self) -> ReadCounts:
        return ReadCounts(self._decoded, self._failed, self.info.length, truncated=self._truncated)

    @property
    def notes(self) -> tuple[str, ...]:
        if self._is_raw:
            return (rate_note(None),)
        notes = () if self._clock is None else self._clock.notes
        if self._is_mirrored:
            hint = "install the video extra (PyAV)"
            notes = (
                f"the video is to be shown mirrored, and is turned by 180 degrees; {hint}",
                *notes,
            )
        return notes if self.info.fps is not None else (rate_note(self._claimed_fps), *notes)

    def __iter__(self) -> Iterator[Frame]:
        self._capture.release()
        self._capture = self._open()
        self._reset_counts()
        fps = self.info.fps or DEFAULT_FPS
        is_mpeg = self._is_plain and not self._is_raw
        self._clock = clock = Clock(fps, wrap=WRAP if is_mpeg else None)
        next_index, time = 0, 0.0
        decoded = decode(self._capture, timeout=self._timeout)
        for (index, image, _), time in clock.times(decoded, lambda item: (item[0], item[2])):
            self._failed = index - self._decoded
            self._decoded += 1
            yield Frame(image, index, time, index - next_index)
            next_index = index + 1
        claimed = None if self._is_plain else self.info.length
        self._truncated = ends_early(claimed, next_index, time, fps)

    def colour_tags(self) -> ColourTags | None:
        if self._file is None or not has_pyav():
            return None
        tags = read_colour_tags(self._file)
        if tags is not None and tags.is_wide and int(cv2.__version__.partition(".")[0]) >= 5:
            return replace(tags, primaries=BT709, transfer=BT709, matrix=BT709)
        return tags

    def close(self) -> None:
        self._capture.release()

    def _reset_counts(self) -> None:
        self._decoded = self._failed = 0
        self._truncated = False
        self._clock: Clock | None = None

    def _first_image(self, source: str | Path, max_pixels: int) -> np.ndarray:
        sides = (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)
        check_pixels(source, [int(self._capture.get(side)) for side in sides], max_pixels)
        first = next(decode(self._capture), None)
        if first is None:
            if self._file is not None and (reason := nothing_shown(source, self._file)):
                raise InputError(reason)
            raise InputError(
                f"{source}: no frame can be decoded (codec {codec_name(self._capture)}; OpenCV may "
                "lack it, as it often does AV1); pip install 'rnndet[video]', or convert the "
                "file first: ffmpeg -i IN -c:v libx264 OUT.mp4"
            )
        return first[1]


class VideoFile(_CaptureSource):
    """A local video file decoded by OpenCV's FFmpeg, rotated upright as its metadata requires.

    A frame that cannot be decoded is skipped; its index stays unused, and the next frame has a
    `gap`. Times are those of `Clock`.

    Raises:
        InputError: the file is missing, empty, not a video, has images of more than max_pixels, or
            no frame can be decoded.
    """

    def __init__(
        self, path: str | Path, *, name: str | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        file = existing_file(path)
        super().__init__(
            lambda: open_capture(file), path, name=name or safe_name(file.stem),
            max_pixels=max_pixels, file=file,
        )  # fmt: skip


class UrlFile(_CaptureSource):
    """A video file behind a URL: all frames in order, none dropped, without reconnecting.

    Raises:
        InputError: as `VideoFile`.
    """

    def __init__(
        self, url: str, *, timeout: float, name: str | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        super().__init__(
            lambda: _opened(url, timeout), without_password(url), name=name or url_name(url),
            max_pixels=max_pixels, timeout=timeout,
        )  # fmt: skip


def _open_video(path: Path, name: str | None, max_pixels: int) -> Source:
    """Open a file with OpenCV, or with PyAV if OpenCV cannot decode it or would rescale it.

    Where neither can read the file, the error is OpenCV's, unless PyAV finds audio only.
    """
    if has_pyav() and needs_pyav(existing_file(path)):
        return AvFile(path, name=name, max_pixels=max_pixels)
    try:
        return VideoFile(path, name=name, max_pixels=max_pixels)
    except InputError as error:
        failure = error
    if has_pyav():
        try:
            return AvFile(path, name=name, max_pixels=max_pixels)
        except NoVideoError:
            raise
        except InputError:
            pass
    suffix = path.suffix.lower()
    if suffix in OTHER_SUFFIXES - {".gif"}:
        raise InputError(f"{path}: {suffix} images cannot be read; convert it to jpg or png")
    raise failure


def _open_url(url: str, name: str | None, max_pixels: int, live: LiveOptions) -> Source:
    shown = without_password(url)
    if not live.allow_network:
        raise InputError(
            f"{shown}: is on the network, which is off; allow it with "
            "`LiveOptions.allow_network`, or download the video and give the path of the file"
        )
    if not url.lower().startswith(URL_SCHEMES):
        raise InputError(f"{shown}: expected one of {', '.join(URL_SCHEMES)}")
    capture = _opened(url, live.timeout)
    if _length(capture) is None:
        return LiveStream(url, capture, name=name, options=live, max_pixels=max_pixels)
    capture.release()
    return UrlFile(url, timeout=live.timeout, name=name, max_pixels=max_pixels)


def _opened(url: str, timeout: float) -> cv2.VideoCapture:
    """Raises InputError if there is no answer, or no video in it."""
    capture = open_url(url, timeout=timeout)
    if not capture.isOpened():
        capture.release()
        raise InputError(
            f"{without_password(url)}: no video could be opened within {timeout:g} s; "
            "check the URL, the password and the network"
        )
    return capture


def _length(capture: cv2.VideoCapture) -> int | None:
    """The stated number of frames; None if unknown, as for a live stream."""
    claimed = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(claimed) if 0 < claimed < MAX_LENGTH else None
