"""Open files, URLs and cameras with OpenCV, and decode videos in order."""

import contextlib
import math
import os
import threading
import time
from collections.abc import Collection, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from rnndet.errors import InputError
from rnndet.structures import DEFAULT_FPS
from rnndet.video.names import is_text, opencv_path
from rnndet.video.sources.base import exists, without_password

FAILED_READS = 30  # consecutive failures after which a video has ended

# Containers that FFmpeg may open. Playlists, which can name other files and hosts, are left out.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,h264,hevc,m4v,"
    "mjpeg,jpeg_pipe,mxf,nut,ivf,gif,apng,dv,rm,swf,wtv,av1,obu"
)
_FILE_OPTIONS = f"protocol_whitelist;file|format_whitelist;{CONTAINERS}"
# Without "file": a URL can redirect FFmpeg to other URLs, but never to a local file.
_URL_OPTIONS = (
    "protocol_whitelist;tcp,http,https,tls,rtp,udp,rtsp|"
    f"format_whitelist;{CONTAINERS},mpjpeg,rtsp,rtp,sdp|rtsp_transport;tcp"
)
_environment = threading.Lock()  # threads that open a source or reconnect share the environment


def existing_file(path: str | Path) -> Path:
    """The absolute path of a readable file, which FFmpeg cannot interpret as a protocol.

    Raises InputError with the reason where it is missing, a folder, empty or not readable.
    """
    path = Path(path)
    if not exists(path):
        raise InputError(f"{path}: no such file; check the path")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected the path of a file")
    if not path.is_file():
        raise InputError(f"{path}: is not a regular file; expected the path of a file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes); copy or download it again")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: no permission to read; check the permissions of the file")
    return path.absolute()


def open_capture(path: Path) -> cv2.VideoCapture:
    """Open a local file, with the file protocol only. Raises InputError."""
    try:
        with opencv_path(path) as name, _capture_options(_FILE_OPTIONS):
            capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
    except OSError as error:
        raise InputError(
            f"{path}: OpenCV cannot open a file of this name ({error.strerror}); rename it"
        ) from None
    if not capture.isOpened():
        capture.release()
        raise InputError(
            f"{path}: not a video, or an incomplete one (no index); "
            "try to play it, then copy or download it again"
        )
    return capture


def open_url(url: str, *, timeout: float) -> cv2.VideoCapture:
    """Open a URL; check `isOpened`. timeout: seconds, the limit of opening and of each read.

    Raises InputError for a URL that is not text in UTF-8.
    """
    if not is_text(url):
        raise InputError(
            f"{without_password(url)}: not text in UTF-8; write other bytes of a URL as %E9"
        )
    wait = max(1, round(1000 * timeout))
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, wait, cv2.CAP_PROP_READ_TIMEOUT_MSEC, wait]
    with _capture_options(_URL_OPTIONS):
        return cv2.VideoCapture(url, cv2.CAP_FFMPEG, limits)


def open_camera(number: int) -> cv2.VideoCapture:
    """Open a camera of this computer without messages of OpenCV; check `isOpened` of the result."""
    with _quiet():
        return cv2.VideoCapture(number)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the messages of OpenCV; the error of the caller replaces them."""
    level = cv2.utils.logging.setLogLevel(0)  # returns the level before
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


@contextlib.contextmanager
def _capture_options(options: str) -> Iterator[None]:
    """Restrict the formats that FFmpeg may open, and suppress messages of OpenCV and FFmpeg.

    OpenCV reads these options from the environment only.
    """
    settings = {"OPENCV_FFMPEG_CAPTURE_OPTIONS": options, "OPENCV_FFMPEG_LOGLEVEL": "-8"}
    with _environment, _quiet():
        before = {key: os.environ[key] for key in settings if key in os.environ}
        os.environ.update(settings)
        try:
            yield
        finally:
            for key in settings:
                os.environ.pop(key, None)
            os.environ.update(before)


def frame_rate(fps: float) -> Fraction | None:
    """Frames per second as a fraction such as 30000/1001, or None for an impossible rate.

    >>> frame_rate(29.97), frame_rate(0.0)
    (Fraction(30000, 1001), None)
    """
    if not 0.01 <= fps <= 1000:  # also refuses nan
        return None
    ntsc = Fraction(round(fps * 1.001) * 1000, 1001)  # often stored rounded, as 29.97
    if abs(fps - ntsc) < 5e-6 * fps:
        return ntsc
    return Fraction(fps).limit_denominator(1001)


def states_end(path: Path) -> bool:
    """Whether the header of a file states the time of its end, as Matroska and ASF do.

    That is the length only if its timestamps begin at 0.
    """
    with path.open("rb") as file:
        return file.read(4) in (b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75")


def first_timestamp(capture: cv2.VideoCapture) -> int:
    """The timestamp of the frame that was read last, in frames; 0 if unknown or before 0."""
    code = getattr(cv2, "CAP_PROP_PTS", None)  # since OpenCV 4.11
    timestamp = 0.0 if code is None else capture.get(code)
    return int(timestamp) if timestamp > 0 else 0


def rate_note(claimed: float | None) -> str:
    """The warning that a file's frame rate cannot be true, or that it states none."""
    rate = "the file states no frame rate"
    if claimed is not None:
        rate = f"the file's frame rate ({claimed:g}) cannot be true"
    return f"{rate}; {DEFAULT_FPS} per second is assumed where frames have no timestamps"


def codec_name(capture: cv2.VideoCapture) -> str:
    """The four-character code of the codec, or "unknown"."""
    code = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    text = code.to_bytes(4, "little").decode("ascii", "replace")
    return text if text.isprintable() and text.strip() else "unknown"


def decode(
    capture: cv2.VideoCapture,
    indices: Collection[int] | None = None,
    *,
    timeout: float = math.inf,
) -> Iterator[tuple[int, np.ndarray, float | None]]:
    """Yield index, RGB image and timestamp in ms, None if it has none, of each frame.

    A failed read uses up an index; `FAILED_READS` of them in a row, or `timeout` seconds without a
    frame, end the video. With `indices`, only those frames are converted and given, and reading
    ends after the last of them.
    """
    last = max(indices) if indices else None
    index = failed = given = 0
    last_good = time.monotonic()
    while failed < FAILED_READS and (last is None or index <= last):
        good = capture.grab()
        if good and (indices is None or index in indices):
            good, image = capture.retrieve()
            if good:
                timestamp = capture.get(cv2.CAP_PROP_POS_MSEC)  # 0 where there is none
                yield index, to_rgb(image), timestamp if timestamp or not given else None
                given += 1
        if good:
            failed, last_good = 0, time.monotonic()
        else:
            failed += 1
            if time.monotonic() - last_good >= timeout:
                return
        index += 1


def to_rgb(image: np.ndarray) -> np.ndarray:
    """A BGR or grey image of OpenCV as (H, W, 3) RGB."""
    if image.ndim == 2 or image.shape[2] == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
