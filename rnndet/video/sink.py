"""Where results go: JSON lines and an annotated video."""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np

from rnndet.errors import InputError, OutputError
from rnndet.structures import Detections, FrameResult
from rnndet.video.sources.capture import open_capture
from rnndet.video.writers import Writer, open_writer

ASSUMED_FPS = Fraction(25)  # for sources without a rate


class JsonLinesSink:
    """One JSON object per line: a header, one per frame, a summary. Each line is flushed whole.

    A frame is `{"type": "frame", "index": 0, "time": 0.0, "objects": [{"box": [x1, y1, x2, y2],
    "label": "bird", "score": 0.93, "id": 3}]}`; boxes in pixels of the frame to 0.01, "id" left
    out before tracking; see `describe_result` for what else there may be. The file is valid up to
    its last line whenever the program ends, also on a full disk.

    Raises:
        OutputError: the file cannot be made (on construction) or written to.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        _make_folder(self.path)
        try:
            self._file = self.path.open("wb", buffering=0)
        except OSError as error:
            raise _cannot_write(self.path, error) from None
        self._end = 0  # bytes of whole lines

    def write_header(self, header: Mapping[str, Any]) -> None:
        """The first line: what produced the file. Values json does not know become text."""
        self._line({"type": "header", **header})

    def write(self, result: FrameResult, classes: Sequence[str]) -> None:
        """One frame, also when nothing was found in it; "cut" only where another scene begins.

        "gap", "restart" only where frames were lost, and where the memory began anew for that.
        """
        self._line(
            {"type": "frame", "index": result.frame.index, "time": round(result.frame.time, 6)}
            | ({"gap": result.frame.gap} if result.frame.gap > 0 else {})
            | ({"restart": True} if result.frame.restart else {})
            | ({"cut": True} if result.cut else {})
            | ({"followed": True} if result.propagated else {})
            | {"objects": describe_result(result, classes)}
        )

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """The last line."""
        self._line({"type": "summary", **summary})

    def close(self) -> None:
        """May be called twice."""
        try:
            self._file.close()
        except OSError as error:
            raise _cannot_write(self.path, error) from None

    def abort(self) -> None:
        """Close and keep the lines written so far."""
        self._file.close()

    def _line(self, value: Mapping[str, Any]) -> None:
        text = json.dumps(value, ensure_ascii=False, default=str) + "\n"
        line = text.encode("utf-8", "backslashreplace")  # names of files may be any bytes
        try:
            left = memoryview(line)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
            raise _cannot_write(self.path, error) from None
        self._end += len(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def describe_result(result: FrameResult, classes: Sequence[str]) -> list[dict[str, Any]]:
    """The objects of a frame: detections as they are, then missed tracks with "predicted": true.

    "track_label" is the class by which the track is shown, left out where it is that of the box.
    """
    objects = describe(result.detections, classes)
    for entry, label in zip(objects, result.shown.labels.tolist(), strict=True):
        if classes[label] != entry["label"]:
            entry["track_label"] = classes[label]
    if result.predicted is not None:
        more = describe(result.predicted, classes)
        objects += [entry | {"predicted": True} for entry in more]
    return objects


def describe(detections: Detections, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Detections as plain values: box to 0.01 pixel, label as text, score to 4 digits, id."""
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
    """An mp4 file: H.264 where PyAV is installed, MPEG-4 part 2 otherwise.

    Frames go to `NAME.part.mp4` beside the result, which is renamed on `close` once the number
    of frames in it has been checked; `abort` removes it. Odd sides are padded by one pixel. Frames
    keep their times with PyAV; without, each is shown for 1 / fps.

    Args:
        path: ends in .mp4; missing parent folders are made.
        size_hw: height and width of every frame in pixels.
        fps: frames per second; None means 25.

    Raises:
        OutputError: the file cannot be made (on construction), written or finished.
    """

    def __init__(
        self, path: str | Path, *, size_hw: tuple[int, int], fps: Fraction | float | None
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise OutputError(
                f"{self.path}: video is written as mp4; give a name that ends in .mp4"
            )
        _make_folder(self.path)
        self._part = self.path.with_name(f"{self.path.stem}.part.mp4")
        self._check_writable()
        self._size_hw = size_hw
        self._frames = 0
        rate = Fraction(fps or ASSUMED_FPS).limit_denominator(1001)
        padded_hw = (size_hw[0] + size_hw[0] % 2, size_hw[1] + size_hw[1] % 2)
        try:
            self._writer: Writer | None = open_writer(self._part, padded_hw, rate)
        except OSError as error:
            self._part.unlink(missing_ok=True)
            raise _cannot_write(self.path, error) from None
        self.codec = self._writer.codec  # "h264" or "mp4v"

    @property
    def note(self) -> str | None:
        """One line for the user where the file does not play everywhere, else None."""
        if self.codec == "h264":
            return None
        return (
            "the video is MPEG-4 (mp4v): it plays in VLC and mpv; for browsers, "
            "install the video extra (PyAV) and run again"
        )

    def write(self, image: np.ndarray, *, time: float | None = None) -> None:
        """Append one frame, (H, W, 3) uint8 RGB of the size given on construction.

        `time` in seconds on any clock; None: 1 / fps after the last frame.
        """
        expected = (*self._size_hw, 3)
        if image.shape != expected or image.dtype != np.uint8:
            raise ValueError(f"expected {expected} uint8, got {image.shape} {image.dtype}")
        if self._writer is None:
            raise ValueError("the video is closed")
        height, width = self._size_hw
        padded = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        try:
            self._writer.write(padded, time=time)
        except OSError as error:
            self.abort()
            raise _cannot_write(self.path, error) from None
        self._frames += 1

    def close(self) -> None:
        """Finish the file, check it and give it its name; without a frame no file is left."""
        if self._writer is None:
            return
        if self._frames == 0:
            self.abort()
            return
        writer, self._writer = self._writer, None
        try:
            writer.close()
            found = _count_frames(self._part)
            if found != self._frames:
                raise OutputError(
                    f"{self.path}: {found} of {self._frames} frames reached the file; "
                    "check the free space of the disk"
                )
            os.replace(self._part, self.path)
        except OSError as error:
            raise _cannot_write(self.path, error) from None
        finally:
            self._part.unlink(missing_ok=True)

    def abort(self) -> None:
        """Give up: remove the unfinished file. May be called twice."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(OSError):  # a full disk; the file goes in any case
                writer.close()
            self._part.unlink(missing_ok=True)

    def _check_writable(self) -> None:
        if self.path.is_dir():
            raise OutputError(f"{self.path}: is a folder; give the name of a file")
        try:
            self._part.open("wb").close()
        except OSError as error:
            raise _cannot_write(self.path, error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def _count_frames(path: Path) -> int:
    """The number of frames in the index of a file just written, 0 if it cannot be opened."""
    try:
        capture = open_capture(path.absolute())
    except InputError:
        return 0
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return count


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from None


def _cannot_write(path: Path, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(f"{path}: cannot be written ({reason}); check the folder and the disk")
