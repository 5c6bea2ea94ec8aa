"""The two ways of encoding an mp4 file; used by `sink`."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

_ENCODER_THREADS = 4
_FINEST = 90_000  # ticks per second at least: the clock of MPEG
# Seconds: a time this near to an even rhythm is meant to be on it. Matroska rounds to 1 ms.
_ROUNDING = 0.0006


class Writer(Protocol):
    codec: str

    def write(self, image: np.ndarray, *, time: float | None = None) -> None:
        """(H, W, 3) uint8 RGB with even sides, shown at `time` in seconds; raises OSError."""

    def close(self) -> None:
        """Raises OSError."""


class H264Writer:
    """H.264, yuv420p, index at the front so that players can start before the end is loaded.

    A frame is shown from its time to that of the next one, the last frame for 1 / fps.
    """

    codec = "h264"

    def __init__(self, path: Path, size_hw: tuple[int, int], fps: Fraction) -> None:
        import av

        self._av = av
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        # Without B frames the order of decoding is that of showing, so that every duration is true.
        options = {"crf": "20", "preset": "veryfast", "bf": "0"}
        try:
            stream = self._container.add_stream("libx264", rate=fps, options=options)
        except BaseException:
            self._container.close()
            raise
        stream.height, stream.width = size_hw
        stream.pix_fmt = "yuv420p"
        self._ticks = FrameTicks(fps)
        stream.codec_context.time_base = Fraction(1, self._ticks.per_second)
        stream.codec_context.thread_count = _ENCODER_THREADS
        self._stream = stream

    def write(self, image: np.ndarray, *, time: float | None = None) -> None:
        frame = self._av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts = self._ticks.next(time)
        frame.time_base = self._stream.codec_context.time_base
        self._encode(frame)

    def close(self) -> None:
        try:
            try:
                if self._ticks.last is not None:
                    self._encode(None)
            finally:
                self._container.close()
        except self._av.FFmpegError as error:
            raise OSError(error.errno, error.strerror) from None

    def _encode(self, frame: object) -> None:
        try:
            for packet in self._stream.encode(frame):
                packet.duration = self._ticks.per_frame  # counts for the last frame only
                self._container.mux(packet)
        except self._av.FFmpegError as error:  # only some of them are OSError
            raise OSError(error.errno, error.strerror) from None


class FrameTicks:
    """Times of frames in ticks from the first one; a multiple of the frame rate per second.

    Frames in an even rhythm get exact distances. A frame without a time, or one whose time does
    not lie after the last frame's, follows it at 1 / fps.
    """

    def __init__(self, fps: Fraction) -> None:
        self.per_second = fps.numerator * math.ceil(_FINEST / fps.numerator)
        self.per_frame = int(self.per_second / fps)
        self.last: int | None = None
        self._first_time: float | None = None

    def next(self, time: float | None) -> int:
        """The tick of one frame more."""
        tick = None if time is None or not math.isfinite(time) else self._tick(time)
        if self.last is None:
            tick = 0
        elif tick is None or tick <= self.last:
            tick = self.last + self.per_frame
        self.last = tick
        return tick

    def _tick(self, time: float) -> int:
        if self._first_time is None:
            self._first_time = time
        exact = (time - self._first_time) * self.per_second
        even = round(exact / self.per_frame) * self.per_frame
        return even if abs(exact - even) <= _ROUNDING * self.per_second else round(exact)


class Mpeg4Writer:
    """MPEG-4 part 2 by OpenCV, which every build can write; an even rhythm only."""

    codec = "mp4v"

    def __init__(self, path: Path, size_hw: tuple[int, int], fps: Fraction) -> None:
        code = cv2.VideoWriter.fourcc(*"mp4v")
        size_wh = (size_hw[1], size_hw[0])
        self._writer = cv2.VideoWriter(
            str(path.absolute()), cv2.CAP_FFMPEG, code, float(fps), size_wh
        )
        if not self._writer.isOpened():
            raise OSError(0, "OpenCV has no encoder for mp4")

    def write(self, image: np.ndarray, *, time: float | None = None) -> None:
        done = self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        if done is False:  # OpenCV before 5 returns nothing; `VideoSink.close` counts the frames
            raise OSError(0, "OpenCV could not write a frame")

    def close(self) -> None:
        self._writer.release()


def open_writer(path: Path, size_hw: tuple[int, int], fps: Fraction) -> Writer:
    """H.264 if PyAV is installed and has the encoder, else MPEG-4; raises OSError."""
    try:
        return H264Writer(path, size_hw, fps)
    except (ImportError, ValueError):  # no PyAV, or a PyAV that was built without the encoder
        return Mpeg4Writer(path, size_hw, fps)
