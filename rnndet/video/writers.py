"""The two ways of encoding an mp4 file; used by `sink`."""

from fractions import Fraction
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

_ENCODER_THREADS = 4


class Writer(Protocol):
    codec: str

    def write(self, image: np.ndarray) -> None:
        """(H, W, 3) uint8 RGB with even sides; raises OSError."""

    def close(self) -> None:
        """Raises OSError."""


class H264Writer:
    """H.264, yuv420p, index at the front so that players can start before the end is loaded."""

    codec = "h264"

    def __init__(self, path: Path, size_hw: tuple[int, int], fps: Fraction) -> None:
        import av

        self._av = av
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        options = {"crf": "20", "preset": "veryfast"}
        try:
            stream = self._container.add_stream("libx264", rate=fps, options=options)
        except BaseException:
            self._container.close()
            raise
        stream.height, stream.width = size_hw
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = 1 / fps
        stream.codec_context.thread_count = _ENCODER_THREADS
        self._stream = stream
        self._count = 0

    def write(self, image: np.ndarray) -> None:
        frame = self._av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts = self._count
        frame.time_base = self._stream.codec_context.time_base
        self._count += 1
        self._encode(frame)

    def close(self) -> None:
        try:
            try:
                if self._count:
                    self._encode(None)
            finally:
                self._container.close()
        except self._av.FFmpegError as error:
            raise OSError(error.errno, error.strerror) from None

    def _encode(self, frame: object) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except self._av.FFmpegError as error:  # only some of them are OSError
            raise OSError(error.errno, error.strerror) from None


class Mpeg4Writer:
    """MPEG-4 part 2 by OpenCV, which every build can write."""

    codec = "mp4v"

    def __init__(self, path: Path, size_hw: tuple[int, int], fps: Fraction) -> None:
        code = cv2.VideoWriter.fourcc(*"mp4v")
        size_wh = (size_hw[1], size_hw[0])
        self._writer = cv2.VideoWriter(
            str(path.absolute()), cv2.CAP_FFMPEG, code, float(fps), size_wh
        )
        if not self._writer.isOpened():
            raise OSError(0, "OpenCV has no encoder for mp4")

    def write(self, image: np.ndarray) -> None:
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
