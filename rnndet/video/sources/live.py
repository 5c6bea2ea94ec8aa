"""Read cameras and live streams in a thread that keeps the newest frame and reconnects."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from rnndet.errors import InputError
from rnndet.structures import DEFAULT_FPS, Frame, VideoInfo
from rnndet.video.sources.base import (
    MAX_PIXELS,
    ReadCounts,
    Source,
    check_pixels,
    safe_name,
    size_text,
    without_password,
)
from rnndet.video.sources.capture import FAILED_READS, frame_rate, open_camera, open_url, to_rgb

log = logging.getLogger(__name__)

FIRST_WAIT = 1.0  # seconds before the first attempt to reconnect; doubled each time, up to
LONGEST_WAIT = 30.0
CLOSE_WAIT = 1.0  # seconds for the reading thread to end; it is a daemon in any case
POLL = 0.1  # seconds between calls of `stop` while there is no frame


class Capture(Protocol):
    """Interface of cv2.VideoCapture."""

    def isOpened(self) -> bool: ...

    def read(self) -> tuple[bool, np.ndarray | None]: ...

    def get(self, prop: int, /) -> float: ...

    def release(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """Options of cameras and URLs.

    stop: called while there is no frame; True ends the source, so that Ctrl-C need not wait.
    """

    allow_network: bool = False
    timeout: float = 10.0  # seconds, limit of opening a URL and of each read
    max_reconnects: int = 10  # limit of attempts in a row, after which the source ends
    stop: Callable[[], bool] = lambda: False


@dataclass(slots=True)
class _Newest:
    image: np.ndarray  # BGR or grey, as OpenCV reads it
    index: int
    moment: float  # seconds of the monotonic clock
    restart: bool


class LiveSource(Source):
    """The newest frames of an endless source, with times of the monotonic clock.

    A thread reads continuously. Frames that arrive faster than they are consumed are dropped: they
    use up an index, are counted, and are the `gap` of the next frame; recurrent state is kept.
    The first frame after a lost connection has `restart`, and a `gap` estimated from the time that
    has passed. Images of another size are scaled to the size of the first.

    connect: opens the source; called again after a lost connection. shown_name: the name of the
    source in messages.

    Raises:
        InputError: the source cannot be opened, has no image, or images of too many pixels.
    """

    is_live = True

    def __init__(
        self,
        connect: Callable[[], Capture],
        *,
        name: str,
        shown_name: str,
        options: LiveOptions,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._connect, self._shown_name, self._options = connect, shown_name, options
        self._changed = threading.Condition()
        self._newest: _Newest | None = None
        self._ended = self._closing = False
        self._fps = 0.0
        self._decoded = self._dropped = self._reconnects = 0
        self._change = ""  # of the size, the first one
        self._thread = threading.Thread(target=self._read, name=f"read {shown_name}", daemon=True)
        self._thread.start()
        first = self._wait(lambda: self._newest)
        if first is None:
            self.close()
            raise InputError(
                f"{shown_name}: sends no image; check that it is connected and not in use"
            )
        try:
            check_pixels(shown_name, first.image.shape, max_pixels)
        except InputError:
            self.close()
            raise
        height, width = first.image.shape[:2]
        self.info = VideoInfo(name, shown_name, width, height, frame_rate(self._fps), None)

    @property
    def counts(self) -> ReadCounts:
        lost = self._ended and not self._closing
        return ReadCounts(
            self._decoded, 0, None, dropped=self._dropped, reconnects=self._reconnects,
            truncated=lost,
        )  # fmt: skip

    @property
    def notes(self) -> tuple[str, ...]:
        if not self._change:
            return ()
        return (
            f"the image size changes, first {self._change}; all images are scaled to "
            f"{self.info.width}x{self.info.height}",
        )

    def __iter__(self) -> Iterator[Frame]:
        start: float | None = None
        next_index = 0
        last = expected = (self.info.height, self.info.width)
        while (newest := self._wait(self._take)) is not None:
            if start is None:
                start, next_index = newest.moment, newest.index
                self._dropped = 0  # frames before the first are not lost
            image, restart = to_rgb(newest.image), newest.restart
            size = image.shape[:2]
            if size != last:
                change = f"from {size_text(last)} to {size_text(size)} at frame {newest.index}"
                self._change = self._change or change
                last, restart = size, True
            if size != expected:
                image = cv2.resize(image, expected[::-1], interpolation=cv2.INTER_AREA)
            self._decoded += 1
            gap = newest.index - next_index
            next_index = newest.index + 1
            yield Frame(image, newest.index, newest.moment - start, gap, restart)

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(CLOSE_WAIT)

    def _take(self) -> _Newest | None:
        newest, self._newest = self._newest, None
        return newest

    def _wait(self, get: Callable[[], _Newest | None]) -> _Newest | None:
        """Wait until `get` returns a frame; None at the end of the source."""
        with self._changed:
            while (newest := get()) is None:
                if self._ended or self._closing:
                    return None
                if self._options.stop():
                    self._closing = True
                    return None
                self._changed.wait(POLL)
            return newest

    # methods of the reading thread

    def _read(self) -> None:
        try:
            self._read_until_lost()
        except cv2.error as error:
            log.warning("%s: %s", self._shown_name, str(error).strip().splitlines()[-1])
        finally:  # after any error, so that no reader waits forever
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _read_until_lost(self) -> None:
        index, lost_at, attempts = 0, None, 0
        while not self._closing:
            capture = self._connect()
            first = index
            try:
                if capture.isOpened():
                    self._fps = self._fps or capture.get(cv2.CAP_PROP_FPS)
                    index, lost_at = self._read_connected(capture, index, lost_at)
            finally:
                capture.release()
            if index == 0:  # no image so far: report it without retries
                break
            attempts = 1 if index > first else attempts + 1
            if self._closing or attempts > self._options.max_reconnects:
                break
            wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempts - 1))
            log.info("%s: no image; reconnecting in %.0f s", self._shown_name, wait)
            with self._changed:
                self._changed.wait_for(lambda: self._closing, wait)
            self._reconnects += 1

    def _read_connected(
        self, capture: Capture, index: int, lost_at: float | None
    ) -> tuple[int, float | None]:
        """Read until the connection is lost; the next index, and the time of the last frame."""
        moment, last_good = lost_at, time.monotonic()
        is_first, failed = True, 0
        while not self._closing:
            good, image = capture.read()
            now = time.monotonic()
            if not good or image is None:
                failed += 1
                if failed == FAILED_READS or now - last_good >= self._options.timeout:
                    break
                continue
            failed, last_good = 0, now
            if is_first and moment is not None:
                rate = frame_rate(self._fps) or DEFAULT_FPS
                index += max(1, round((now - moment) * rate) - 1)  # the frames lost meanwhile
            restart = is_first and moment is not None
            is_first = False
            moment = now
            with self._changed:
                if self._newest is not None:
                    self._dropped += 1
                    restart = restart or self._newest.restart
                self._newest = _Newest(image, index, now, restart)
                self._changed.notify_all()
            index += 1
        return index, moment


class Camera(LiveSource):
    """A camera of this computer, by its number from 0.

    Raises:
        InputError: the camera does not exist, or has no image.
    """

    def __init__(
        self,
        number: int,
        *,
        name: str | None = None,
        options: LiveOptions | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__(
            lambda: open_camera(number), name=name or f"camera-{number}",
            shown_name=f"camera {number}", options=options or LiveOptions(),
            max_pixels=max_pixels,
        )  # fmt: skip


class LiveStream(LiveSource):
    """A live stream behind rtsp://, http:// or https://, such as that of a network camera.

    capture: the first connection, already opened.

    Raises:
        InputError: the stream has no image.
    """

    def __init__(
        self,
        url: str,
        capture: Capture,
        *,
        name: str | None,
        options: LiveOptions,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        opened = [capture]

        def connect() -> Capture:
            return opened.pop() if opened else open_url(url, timeout=options.timeout)

        super().__init__(
            connect, name=name or url_name(url), shown_name=without_password(url), options=options,
            max_pixels=max_pixels,
        )  # fmt: skip


def url_name(url: str) -> str:
    """A name for a URL: its host and the last part of its path, without passwords.

    >>> url_name("rtsp://me:secret@camera:554/live/door.sdp?token=abc")
    'camera_door'
    """
    rest = without_password(url).partition("//")[2].partition("?")[0]
    host, _, path = rest.rpartition("@")[2].partition("/")
    last = path.rstrip("/").rpartition("/")[2].partition(".")[0]
    return safe_name(f"{host.partition(':')[0]}_{last}")
