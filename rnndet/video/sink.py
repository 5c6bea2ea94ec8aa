"""Write results: detections as JSON lines, and video as mp4."""

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, Self

import cv2
import numpy as np

from rnndet.errors import InputError, OutputError
from rnndet.structures import DEFAULT_FPS, Detections, FrameResult
from rnndet.system.files import output_errors, part_of, replace
from rnndet.video.colour import LIMITED_RANGE, MATRICES, UNSPECIFIED, ColourTags
from rnndet.video.names import opencv_path
from rnndet.video.sources.base import ratio_text
from rnndet.video.sources.capture import open_capture

ENCODER_THREADS = 4
MAX_RATIO = 65_535  # numbers of a ratio in H.264 have 16 bits
MIN_TICKS = 90_000  # per second: the clock of MPEG
# Seconds: a time that is closer than this to a constant rate is moved there. Matroska rounds to
# 1 ms.
ROUNDING = 0.0006


class JsonLinesSink:
    """Write JSON objects, one per line: a header, each frame, a summary. Every line is flushed.

    A frame is `{"type": "frame", "index": 0, "time": 0.0, "objects": [{"box": [x1, y1, x2, y2],
    "label": "bird", "score": 0.93, "id": 3}]}`; boxes in pixels of the frame to 0.01, "id" left
    out before tracking; `describe_result` lists further keys. The file is valid up to its last
    line whenever the program ends, also on a full disk.

    Raises:
        OutputError: the file cannot be made (on construction) or written to.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with output_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("wb", buffering=0)
        self._end = 0  # bytes of complete lines

    def write_header(self, header: Mapping[str, Any]) -> None:
        """Write the first line: what produced the file. Values unknown to json become text."""
        self._line({"type": "header", **header})

    def write(self, result: FrameResult, classes: Sequence[str]) -> None:
        """Write a frame, also without objects.

        "cut" is present at scene cuts only; "gap" and "restart" only where frames were lost, and
        where recurrent state was reset for that; "followed" only for propagated boxes; "counts"
        only with regions or lines.
        """
        self._line(
            {"type": "frame", "index": result.frame.index, "time": round(result.frame.time, 6)}
            | ({"gap": result.frame.gap} if result.frame.gap > 0 else {})
            | ({"restart": True} if result.frame.restart else {})
            | ({"cut": True} if result.cut else {})
            | ({"followed": True} if result.propagated else {})
            | {"objects": describe_result(result, classes)}
            | ({} if result.counts is None else {"counts": asdict(result.counts)})
        )

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the last line."""
        self._line({"type": "summary", **summary})

    def close(self) -> None:
        """Close the file; may be called twice."""
        with output_errors(self.path):
            self._file.close()

    def abort(self) -> None:
        """Close the file; the lines written so far remain."""
        self._file.close()

    def _line(self, value: Mapping[str, Any]) -> None:
        text = json.dumps(value, ensure_ascii=False, default=str) + "\n"
        line = text.encode("utf-8", "backslashreplace")  # names of files may be any bytes
        with output_errors(self.path):
            try:
                rest = memoryview(line)
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError:
                with contextlib.suppress(OSError):
                    self._file.truncate(self._end)
                raise
        self._end += len(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def describe_result(result: FrameResult, classes: Sequence[str]) -> list[dict[str, Any]]:
    """The objects of a frame as plain data: detections, then predicted boxes.

    "track_label" is the class shown for the track, where it differs from "label". Predicted boxes,
    of tracks without a detection, have "predicted": true.
    """
    objects = describe(result.detections, classes)
    for entry, label in zip(objects, result.shown.labels.tolist(), strict=True):
        if classes[label] != entry["label"]:
            entry["track_label"] = classes[label]
    if result.predicted is not None:
        predicted = describe(result.predicted, classes)
        objects += [entry | {"predicted": True} for entry in predicted]
    return objects


def describe(detections: Detections, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Detections as plain data: box to 0.01 pixel, label as text, score to 4 digits, id.

    >>> detections = Detections(np.array([[1, 2, 3, 4.567]]), np.array([0.5]), np.array([0]))
    >>> describe(detections, ["bird"])
    [{'box': [1.0, 2.0, 3.0, 4.57], 'label': 'bird', 'score': 0.5}]
    """
    ids = None if detections.ids is None else detections.ids.tolist()
    rows = zip(
        detections.boxes.tolist(),
        detections.labels.tolist(),
        detections.scores.tolist(),
        strict=True,
    )
    objects = []
    for k, (box, label, score) in enumerate(rows):
        entry: dict[str, Any] = {
            "box": [round(edge, 2) for edge in box],
            "label": classes[label],
            "score": round(score, 4),
        }
        if ids is not None and ids[k] > 0:  # 0 = no track yet
            entry["id"] = ids[k]
        objects.append(entry)
    return objects


class VideoSink:
    """Write an mp4 file: H.264 if PyAV is installed, MPEG-4 part 2 otherwise.

    Frames go to `NAME.part.mp4`, which `close` renames once the number of frames in it has been
    checked; `abort` removes it. Odd sides are padded by a pixel. With PyAV frames keep their
    times; without, each is shown for 1 / fps.

    Args:
        path: ends in .mp4; missing parent folders are made.
        size_hw: height and width of every frame in pixels.
        fps: frames per second; None means 25.
        sample_aspect: width / height of a pixel; None means square.
        colours: tags to write, to which the colours of the frames are converted; None for none.
            Only with PyAV, as `sample_aspect`.

    Raises:
        OutputError: the file cannot be made (on construction), written or finished.

    >>> with VideoSink("clip.mp4", size_hw=(48, 64), fps=25) as sink:  # doctest: +SKIP
    ...     sink.write(np.zeros((48, 64, 3), np.uint8))
    """

    def __init__(
        self,
        path: str | Path,
        *,
        size_hw: tuple[int, int],
        fps: Fraction | float | None,
        sample_aspect: Fraction | None = None,
        colours: ColourTags | None = None,
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise OutputError(f"{self.path}: video is written as mp4; use a name that ends in .mp4")
        if self.path.is_dir():
            raise OutputError(f"{self.path}: is a folder; expected the name of a file")
        self._part = part_of(self.path)
        self._size_hw = size_hw
        self._frames = 0
        rate = Fraction(fps or DEFAULT_FPS).limit_denominator(1001)
        padded_hw = (size_hw[0] + size_hw[0] % 2, size_hw[1] + size_hw[1] % 2)
        with output_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._part.open("wb").close()
            try:
                self._writer: Writer | None = open_writer(
                    self._part, padded_hw, rate, sample_aspect=sample_aspect, colours=colours
                )
            except OSError:
                self._part.unlink(missing_ok=True)
                raise
        self._sample_aspect = sample_aspect
        self.codec = self._writer.codec  # "h264" or "mp4v"

    @property
    def note(self) -> str | None:
        """A warning if some players cannot play the file, else None."""
        if self.codec == "h264":
            return None
        uses = "for browsers"
        if self._sample_aspect is not None:
            uses += f", and for the shape of its pixels ({ratio_text(self._sample_aspect)}, "
            uses += "shown as square)"
        return (
            f"the video is MPEG-4 (mp4v): it plays in VLC and mpv; {uses}, "
            "install the video extra (PyAV) and run again"
        )

    def write(self, image: np.ndarray, *, time: float | None = None) -> None:
        """Append a frame, (H, W, 3) uint8 RGB of the size given on construction.

        `time` in seconds from any origin; None: 1 / fps after the last frame.
        """
        expected = (*self._size_hw, 3)
        if image.shape != expected or image.dtype != np.uint8:
            raise ValueError(f"expected {expected} uint8, got {image.shape} {image.dtype}")
        if self._writer is None:
            raise ValueError("the video is closed")
        height, width = self._size_hw
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        with output_errors(self.path):
            try:
                self._writer.write(image, time=time)
            except OSError:
                self.abort()
                raise
        self._frames += 1

    def close(self) -> None:
        """Finish, check and rename the file; without frames no file is written."""
        if self._writer is None:
            return
        if self._frames == 0:
            self.abort()
            return
        writer, self._writer = self._writer, None
        try:
            with output_errors(self.path):
                writer.close()
            written = _count_frames(self._part)
            if written != self._frames:
                raise OutputError(
                    f"{self.path}: {written} of {self._frames} frames reached the file; "
                    "check the free space of the disk"
                )
            replace(self._part, self.path)
        finally:
            self._part.unlink(missing_ok=True)

    def abort(self) -> None:
        """Remove the unfinished file; may be called twice."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(OSError):  # a full disk; the file is removed in any case
                writer.close()
            self._part.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class Writer(Protocol):
    """An encoder of mp4."""

    codec: str

    def write(self, image: np.ndarray, *, time: float | None = None) -> None:
        """Append a frame, (H, W, 3) uint8 RGB with even sides, at `time` in s; raises OSError."""

    def close(self) -> None:
        """Finish the file; raises OSError."""


def open_writer(
    path: Path,
    size_hw: tuple[int, int],
    fps: Fraction,
    *,
    sample_aspect: Fraction | None = None,
    colours: ColourTags | None = None,
) -> Writer:
    """An H.264 writer if PyAV is installed and has the encoder, else MPEG-4; raises OSError.

    sample_aspect, colours: see `VideoSink`; MPEG-4 is written without them.
    """
    try:
        return H264Writer(path, size_hw, fps, sample_aspect=sample_aspect, colours=colours)
    except (ImportError, ValueError):  # no PyAV, or a PyAV that was built without the encoder
        return Mpeg4Writer(path, size_hw, fps)


class H264Writer:
    """Encode H.264 with PyAV: yuv420p, index at the front so that playback can start early.

    A frame is shown from its time to that of the next frame, the last frame for 1 / fps.
    """

    codec = "h264"

    def __init__(
        self,
        path: Path,
        size_hw: tuple[int, int],
        fps: Fraction,
        *,
        sample_aspect: Fraction | None = None,
        colours: ColourTags | None = None,
    ) -> None:
        import av

        self._av = av
        self._container = av.open(
            str(path.absolute()), "w", format="mp4", options={"movflags": "+faststart"}
        )
        # Without B frames the decoding order is the display order, so that durations are exact.
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
        stream.codec_context.thread_count = ENCODER_THREADS
        if sample_aspect is not None:
            stream.codec_context.sample_aspect_ratio = sample_aspect.limit_denominator(MAX_RATIO)
        self._conversion = _set_colours(stream.codec_context, (colours or ColourTags()).writable())
        self._stream = stream

    def write(self, image: np.ndarray, *, time: float | None = None) -> None:
        frame = self._av.VideoFrame.from_ndarray(image, format="rgb24")
        if self._conversion:
            frame = frame.reformat(format="yuv420p", **self._conversion)
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
                packet.duration = self._ticks.per_frame  # matters for the last frame only
                self._container.mux(packet)
        except self._av.FFmpegError as error:  # only some of them are OSError
            raise OSError(error.errno, error.strerror) from None


def _set_colours(context: Any, tags: ColourTags) -> dict[str, int]:
    """Set the tags of an encoder; returns the arguments of `reformat` for them, none if untagged.

    What is not stated stays as the decoder assumes it: the matrix of BT.601 and limited range.
    """
    if not tags.is_stated:
        return {}
    context.color_primaries, context.color_trc = tags.primaries, tags.transfer
    context.colorspace, context.color_range = tags.matrix, tags.range
    conversion = {"dst_color_range": tags.range or LIMITED_RANGE}
    if tags.matrix != UNSPECIFIED:
        conversion["dst_colorspace"] = MATRICES[tags.matrix]
    return conversion


class FrameTicks:
    """Convert times of frames to ticks since the first frame.

    Ticks per second are a multiple of the frame rate, so that frames at a constant rate get exact
    distances. A frame without a time, or whose time is not after that of the last frame, follows
    it after 1 / fps.

    >>> ticks = FrameTicks(Fraction(25))
    >>> [ticks.next(time) / ticks.per_second for time in (7.0, 7.04, 7.5, None)]
    [0.0, 0.04, 0.5, 0.54]
    """

    def __init__(self, fps: Fraction) -> None:
        self.per_second = fps.numerator * math.ceil(MIN_TICKS / fps.numerator)
        self.per_frame = int(self.per_second / fps)
        self.last: int | None = None
        self._first_time: float | None = None

    def next(self, time: float | None) -> int:
        """The tick of the next frame."""
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
        return even if abs(exact - even) <= ROUNDING * self.per_second else round(exact)


class Mpeg4Writer:
    """Encode MPEG-4 part 2 with OpenCV, which every build supports; a constant frame rate only."""

    codec = "mp4v"

    def __init__(self, path: Path, size_hw: tuple[int, int], fps: Fraction) -> None:
        code = cv2.VideoWriter.fourcc(*"mp4v")
        size_wh = (size_hw[1], size_hw[0])
        with opencv_path(path.absolute()) as name:
            self._writer = cv2.VideoWriter(name, cv2.CAP_FFMPEG, code, float(fps), size_wh)
        if not self._writer.isOpened():
            raise OSError(0, "OpenCV has no encoder for mp4")

    def write(self, image: np.ndarray, *, time: float | None = None) -> None:
        done = self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        if done is False:  # OpenCV before 5 returns nothing; `VideoSink.close` counts the frames
            raise OSError(0, "OpenCV could not write a frame")

    def close(self) -> None:
        self._writer.release()


def _count_frames(path: Path) -> int:
    """The number of frames in the index of a new file, 0 if it cannot be opened."""
    try:
        capture = open_capture(path.absolute())
    except InputError:
        return 0
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return count
