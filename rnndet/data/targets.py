"""Convert between the boxes of one frame in a file and a Target; checks every box."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from rnndet.data.problems import Problems
from rnndet.data.records import VideoRecord
from rnndet.structures import Target

MAX_TRACK = 2**53  # the largest id that every format can store
LARGEST = 1e6  # pixels; a larger coordinate is a mistake, not an object that leaves the image
ANY_CLASS = -1  # label of an ignore region that belongs to no class
DROPPED = -2  # in a table of new labels: boxes with this label are left out
SHARES_HINT = "boxes lie within 0..1: are they relative instead of in pixels?"  # a correction
ROTATED = "rotated boxes read as upright"  # a correction

Box = tuple[float, float, float, float]  # x1 y1 x2 y2, pixels from 0, exclusive edges


class TargetBuilder:
    """Collect the boxes of one frame of `width` x `height` pixels.

    A box that is not finite, beyond LARGEST or inverted is reported and left out. Other boxes are
    clipped to the image; a clipped box with a side below one pixel is left out and counted.

    >>> builder = TargetBuilder(width=64, height=48, file=Path("a.txt"), problems=Problems())
    >>> builder.add((-5, 8, 30, 20), 2, entry=1, track=7)
    >>> builder.build().boxes.tolist()
    [[0.0, 8.0, 30.0, 20.0]]
    """

    def __init__(self, *, width: float, height: float, file: Path, problems: Problems) -> None:
        self._limit_x, self._limit_y = float(width), float(height)
        self._file, self._problems = file, problems
        self._rows: list[tuple[float, float, float, float, int, int, bool]] = []

    def add(
        self, box: Box, label: int, *, entry: str | int, track: int = -1, ignore: bool = False
    ) -> None:
        """Add a box; `entry` is its place in the file, for messages.

        `track` is the object's identity in its video, -1 if the file has none.
        """
        if not all(math.isfinite(v) and abs(v) <= LARGEST for v in box):
            self._problems.add(self._file, entry, f"box {_shown(box)} is not in pixels")
            return
        if not -1 <= track <= MAX_TRACK:
            self._problems.add(self._file, entry, f"id {track} is out of range")
            return
        x1, y1, x2, y2 = box
        if x2 < x1 or y2 < y1:
            self._problems.add(self._file, entry, f"box {_shown(box)} has a negative size")
            return
        # From -1, because formats that count pixels from 1 have been shifted by then.
        if min(box) >= -1 and max(box) <= 1 and (x2 - x1) * (y2 - y1) > 0:
            self._problems.correct(SHARES_HINT)
        clipped = (
            min(max(x1, 0.0), self._limit_x), min(max(y1, 0.0), self._limit_y),
            min(max(x2, 0.0), self._limit_x), min(max(y2, 0.0), self._limit_y),
        )  # fmt: skip
        if clipped[2] - clipped[0] < 1 or clipped[3] - clipped[1] < 1:
            self._problems.correct("boxes of less than one pixel in the image left out")
            return
        if clipped != tuple(box):
            self._problems.correct("boxes clipped to the image")
        self._rows.append((*clipped, label, track, ignore))

    def build(self) -> Target:
        """Return the target of the frame; empty without boxes."""
        if not self._rows:
            return Target.empty()
        return Target(
            boxes=torch.tensor([row[:4] for row in self._rows], dtype=torch.float32),
            labels=torch.tensor([row[4] for row in self._rows]),
            ids=torch.tensor([row[5] for row in self._rows]),
            ignore=torch.tensor([row[6] for row in self._rows]),
        )


class TargetRow(NamedTuple):
    """One labelled box as plain numbers."""

    box: Box
    label: int
    track: int  # -1 without an identity
    ignore: bool


def target_rows(target: Target) -> Iterator[TargetRow]:
    """Yield the boxes of a target as plain numbers, for writers."""
    tracks = [-1] * len(target) if target.ids is None else target.ids.tolist()
    columns = (target.boxes.tolist(), target.labels.tolist(), tracks, target.ignore.tolist())
    for box, label, track, ignore in zip(*columns, strict=True):
        yield TargetRow(tuple(box), label, track, ignore)


def relabelled(video: VideoRecord, old: Sequence[str], new: Sequence[str]) -> VideoRecord:
    """Convert the labels of a video from indices into `old` to indices into `new`.

    Boxes of classes that are not in `new` are left out.
    """
    labels_of_old = [new.index(name) if name in new else DROPPED for name in old]
    table = torch.tensor([*labels_of_old, ANY_CLASS])  # [-1] is ANY_CLASS
    frames = []
    for frame in video.frames:
        if frame.target is not None:
            labels = table[frame.target.labels]
            target = replace(frame.target, labels=labels)[labels != DROPPED]
            frame = replace(frame, target=target)
        frames.append(frame)
    return replace(video, frames=tuple(frames))


def upright(box: Box, degrees: float) -> Box:
    """Return the upright box around a box that is rotated about its centre.

    >>> upright((10, 10, 30, 20), 90)
    (15.0, 5.0, 25.0, 25.0)
    """
    if degrees % 180 == 0:
        return box
    x1, y1, x2, y2 = box
    if degrees % 90 == 0:
        cos, sin = 0.0, 1.0
    else:
        cos, sin = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    half_w = ((x2 - x1) * cos + (y2 - y1) * sin) / 2
    half_h = ((x2 - x1) * sin + (y2 - y1) * cos) / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return x - half_w, y - half_h, x + half_w, y + half_h


def _shown(box: Box) -> str:
    return "(" + ", ".join(f"{v:g}" for v in box) + ")"
