"""Open a video with OpenCV's FFmpeg and decode it in order; used by the sources."""

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
from rnndet.video.sources.base import exists

FAILED_READS = 30  # consecutive failures after which a video has ended

# What FFmpeg may open: plain containers. Play lists, which can name other files and hosts, are
# left out.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,"
    "mpeg,mpegvideo,flv,ogg,asf,h264,hevc,m4v,mjpeg,mxf,nut,ivf,gif,apng,dv,rm,swf,wtv,av1,obu"
)
_FILE_OPTIONS = f"protocol_whitelist;file|format_whitelist;{CONTAINERS}"
# No "file": an address can send FFmpeg to other addresses, never to a file of this machine.
_ADDRESS_OPTIONS = (
    "protocol_whitelist;tcp,http,https,tls,rtp,udp,rtsp|"
    f"format_whitelist;{CONTAINERS},mpjpeg,rtsp,rtp,sdp|rtsp_transport;tcp"
)
_environment = threading.Lock()  # a source that reconnects and one that opens share it


def existing_file(path: str | Path) -> Path:
    """The absolute path, so that no part of a name is taken for a protocol."""
    path = Path(path)
    if not exists(path):
        raise InputError(f"{path}: no such file; check the path")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a file; give the path of a file")
    if not path.is_file():
        raise InputError(f"{path}: is no file; give the path of one")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes); copy or download it again")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: no permission to read; check the rights of the file")
    return path.absolute()


def open_capture(path: Path) -> cv2.VideoCapture:
    """A local file; the file protocol alone."""
    with _capture_options(_FILE_OPTIONS):
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        capture.release()
        raise InputError(
            f"{path}: not a video, or an incomplete one (no index); "
            "try to play it, then copy or download it again"
        )
    return capture


def open_url(url: str, *, timeout: float) -> cv2.VideoCapture:
    """An address on the network; may not be opened. `timeout` in seconds, for each wait."""
    wait = max(1, round(1000 * timeout))
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, wait, cv2.CAP_PROP_READ_TIMEOUT_MSEC, wait]
    with _capture_options(_ADDRESS_OPTIONS):
        return cv2.VideoCapture(url, cv2.CAP_FFMPEG, limits)


def open_camera(number: int) -> cv2.VideoCapture:
    """A camera of this computer; may not be opened, of which OpenCV says nothing then."""
    with _quiet():
        return cv2.VideoCapture(number)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep OpenCV's own lines off the terminal; one line of ours says what is wrong."""
    level = cv2.utils.logging.setLogLevel(0)  # returns the level before
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


@contextlib.contextmanager
def _capture_options(options: str) -> Iterator[None]:
    """Limit what FFmpeg opens, and keep OpenCV and FFmpeg quiet about files that are no video.

    OpenCV takes these options from the environment only.
    """
    settings = {"OPENCV_FFMPEG_CAPTURE_OPTIONS": options, "OPENCV_FFMPEG_LOGLEVEL": "-8"}
    with _environment, _quiet():
        before = {key: os.environ.get(key) for key in settings}
        os.environ.update(settings)
        try:
            yield
        finally:
            for key, value in before.items():
                if value is None:
                    os.environ.pop(key, None)
                else:
                    os.environ[key] = value


def frame_rate(fps: float) -> Fraction | None:
    """Frames per second as a fraction such as 30000/1001, or None if it cannot be true."""
    if not 0.01 <= fps <= 1000:  # also refuses nan
        return None
    ntsc = Fraction(round(fps * 1.001) * 1000, 1001)  # often stored rounded, as 29.97
    if abs(fps - ntsc) < 5e-6 * fps:
        return ntsc
    return Fraction(fps).limit_denominator(1001)


def codec_name(capture: cv2.VideoCapture) -> str:
    code = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    text = code.to_bytes(4, "little").decode("ascii", "replace")
    return text if text.isprintable() and text.strip() else "unknown"


def decode(
    capture: cv2.VideoCapture,
    wanted: Collection[int] | None = None,
    *,
    patience: float = math.inf,
) -> Iterator[tuple[int, np.ndarray, float]]:
    """Index, RGB image, stamp in ms. Failed reads use up an index; many in a row end the video.

    With `wanted`, only those frames are converted, and reading ends after the last of them. It
    also ends where nothing has been read for `patience` seconds.
    """
    last = max(wanted) if wanted else None
    index = failed = 0
    last_good = time.monotonic()
    while failed < FAILED_READS and (last is None or index <= last):
        good = capture.grab()
        if good and (wanted is None or index in wanted):
            good, image = capture.retrieve()
            if good:
                stamp = capture.get(cv2.CAP_PROP_POS_MSEC)
                yield index, to_rgb(image), stamp
        if good:
            failed, last_good = 0, time.monotonic()
        else:
            failed += 1
            if time.monotonic() - last_good >= patience:
                return
        index += 1


def to_rgb(image: np.ndarray) -> np.ndarray:
    if image.ndim == 2 or image.shape[2] == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
