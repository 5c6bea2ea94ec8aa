"""Boxes of one frame as files give them -> a Truth, checked."""

import math
from pathlib import Path

import torch

from rnndet.data.problems import Problems
from rnndet.structures import Target

MAX_TRACK = 2**53  # what every format that stores numbers can hold
LARGEST = 1e6  # pixels; a coordinate beyond is a mistake, not an object that reaches out
ANY_CLASS = -1  # label of an ignore region that belongs to no class


class TargetBuilder:
    """Collects the boxes of one frame of `width` x `height` pixels.

    A box whose numbers are not finite, beyond LARGEST or inverted is reported and left out. Others
    are clipped to the image; one that then has a side below one pixel is left out and counted.
    """

    def __init__(self, *, width: float, height: float, file: Path, problems: Problems) -> None:
        self._limit_x, self._limit_y = float(width), float(height)
        self._file, self._problems = file, problems
        self._rows: list[tuple[float, float, float, float, int, int, bool]] = []

    def add(
        self,
        box: tuple[float, float, float, float],
        label: int,
        *,
        entry: str | int,
        track: int = -1,
        ignore: bool = False,
    ) -> None:
        """Add a box x1 y1 x2 y2 (exclusive edges, pixels from 0) that stands at `entry`.

        `track` is the object's identity in its video, -1 where the file has none.
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
            self._problems.correct("boxes lie within 0..1: are they shares instead of pixels?")
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
        """The Truth of the frame; empty if it holds nothing."""
        if not self._rows:
            return Target.empty()
        return Target(
            boxes=torch.tensor([row[:4] for row in self._rows], dtype=torch.float32),
            labels=torch.tensor([row[4] for row in self._rows]),
            ids=torch.tensor([row[5] for row in self._rows]),
            ignore=torch.tensor([row[6] for row in self._rows]),
        )


def _shown(box: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{v:g}" for v in box) + ")"
