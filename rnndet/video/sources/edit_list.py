"""Read how an mp4 file is shown: how long, since its edit list can hide frames, and if mirrored.

A file that was cut without encoding stores the frames back to the last key frame and hides them.
The number of frames that its index states includes them, and OpenCV and PyAV return that number.
"""

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

MAX_BOXES = 100_000  # read from one file
FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")  # of mp4 and mov


def shown_length(path: Path, length: int | None, fps: Fraction | None) -> int | None:
    """The frames of a file that are shown, where `length` is the number that it stores."""
    seconds = shown_seconds(path) if length is not None and fps is not None else None
    if seconds is None:
        return length
    return min(length, max(1, round(seconds * fps)))


def shown_seconds(path: Path) -> Fraction | None:
    """The seconds that the first video track of an mp4 file shows.

    None if it has no edit list, if the list does not state a length, and for other files.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            return _shown_seconds(_Boxes(file), size)
        except (struct.error, ValueError):  # not an mp4 file, or a damaged one
            return None


def shows_nothing(path: Path) -> bool:
    """Whether the edits of an mp4 file's first video track have a duration of 0, but for pauses.

    FFmpeg decodes no frame of such a file. In a file of fragments it means an unknown duration.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            boxes = _Boxes(file)
            movie = _movie(boxes, size)
            track = _video_track(boxes, movie)
            shown = [] if track is None else _shown_edits(boxes, track)
            is_fragmented = movie is not None and boxes.find(b"mvex", movie) is not None
        except (struct.error, ValueError):
            return False
    return bool(shown) and not any(shown) and not is_fragmented


def nothing_shown(source: object, path: Path) -> str | None:
    """The message about a file of `shows_nothing` without frames; None for all others."""
    if not shows_nothing(path):
        return None
    return (
        f"{source}: its edit list has a duration of 0, so no frame is shown; "
        "write it again: ffmpeg -ignore_editlist 1 -i IN -c copy OUT.mp4"
    )


def is_mirrored(path: Path) -> bool:
    """Whether the first video track of an mp4 file is to be shown as in a mirror.

    Apps for front cameras write such files. OpenCV turns their frames upside down instead.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            boxes = _Boxes(file)
            track = _video_track(boxes, _movie(boxes, size))
            header = None if track is None else boxes.find(b"tkhd", track)
            if header is None:
                return False
            at = header[0] + (52 if boxes.read(header[0], 1) == b"\1" else 40)
            a, b, c, d = struct.unpack(">ii4xii", boxes.read(at, 20))
        except (struct.error, ValueError):
            return False
    return a * d - b * c < 0


class _Boxes:
    """The boxes of a file; raises ValueError or struct.error where there is none."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._count = file, 0

    def within(self, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """Kind, begin and end of the content of each box between two places."""
        while begin < end:
            self._count += 1
            if self._count > MAX_BOXES:
                raise ValueError("too many boxes")
            size, kind = struct.unpack(">I4s", self.read(begin, 8))
            head = 8
            if size == 1:
                (size,), head = struct.unpack(">Q", self.read(begin + 8, 8)), 16
            size = size or end - begin  # 0: to the end
            if size < head or begin + size > end:
                raise ValueError(f"a box of {size} bytes")
            yield kind, begin + head, begin + size
            begin += size

    def find(self, kind: bytes, place: tuple[int, int]) -> tuple[int, int] | None:
        """Begin and end of the content of the first box of a kind."""
        found = (box[1:] for box in self.within(*place) if box[0] == kind)
        return next(found, None)

    def read(self, begin: int, count: int) -> bytes:
        self._file.seek(begin)
        return self._file.read(count)


def _movie(boxes: _Boxes, size: int) -> tuple[int, int] | None:
    for place, (kind, begin, end) in enumerate(boxes.within(0, size)):
        if place == 0 and kind not in FIRST_BOXES:
            return None
        if kind == b"moov":
            return begin, end
    return None


def _video_track(boxes: _Boxes, movie: tuple[int, int] | None) -> tuple[int, int] | None:
    for kind, begin, end in () if movie is None else boxes.within(*movie):
        if kind == b"trak" and _is_video(boxes, (begin, end)):
            return begin, end
    return None


def _shown_seconds(boxes: _Boxes, size: int) -> Fraction | None:
    movie = _movie(boxes, size)
    header = None if movie is None else boxes.find(b"mvhd", movie)
    if movie is None or header is None:
        return None
    version = boxes.read(header[0], 1)
    (per_second,) = struct.unpack(">I", boxes.read(header[0] + (20 if version == b"\1" else 12), 4))
    track = _video_track(boxes, movie)
    ticks = None if track is None else _shown_ticks(boxes, track)
    return Fraction(ticks, per_second) if ticks and per_second else None


def _is_video(boxes: _Boxes, track: tuple[int, int]) -> bool:
    media = boxes.find(b"mdia", track)
    handler = None if media is None else boxes.find(b"hdlr", media)
    return handler is not None and boxes.read(handler[0] + 8, 4) == b"vide"


def _shown_ticks(boxes: _Boxes, track: tuple[int, int]) -> int | None:
    """The sum of the edits that show frames; None without edits, or if one has no length."""
    shown = _shown_edits(boxes, track)
    return sum(shown) if shown and all(shown) else None


def _shown_edits(boxes: _Boxes, track: tuple[int, int]) -> list[int]:
    """The duration of each edit of a track that shows frames."""
    edits = boxes.find(b"edts", track)
    table = None if edits is None else boxes.find(b"elst", edits)
    if table is None:
        return []
    begin, end = table
    version, count = struct.unpack(">B3xI", boxes.read(begin, 8))
    entry = struct.Struct(">QqI" if version == 1 else ">IiI")
    if begin + 8 + count * entry.size > end:
        raise ValueError("an edit list beyond its box")
    places = range(begin + 8, begin + 8 + min(count, MAX_BOXES) * entry.size, entry.size)
    edits = (entry.unpack(boxes.read(place, entry.size)) for place in places)
    return [ticks for ticks, start, _ in edits if start >= 0]  # -1: nothing is shown
