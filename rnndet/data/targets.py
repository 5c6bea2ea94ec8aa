"""Convert between the boxes of one frame in a file and a Target; checks every box."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from rnndet.data.problems import Problems
from rnndet.data.records import VideoRecord
from rnndet.structures import Role, Target, TrackingTarget

MAX_TRACK = 2**53  # the largest id that every format can store
LARGEST = 1e6  # pixels; a larger coordinate is a mistake, not an object that leaves the image
ANY_CLASS = -1  # label of an ignore region that belongs to no class
DROPPED = -2  # in a table of new labels: boxes with this label are left out
SHARES_HINT = "boxes within 0..1, perhaps relative instead of in pixels"  # a correction
ROTATED = "rotated boxes read as upright"  # a correction

Box = tuple[float, float, float, float]  # x1 y1 x2 y2, pixels from 0, exclusive edges


class TargetBuilder:
    """Collect the boxes of one frame of `width` x `height` pixels.

    A box that is not finite, beyond LARGEST or inverted is reported and left out, and so is one
    with an identity that the frame has already, unless it is ignored. Other boxes are clipped to
    the image; a clipped box with a side below one pixel is left out and counted. `Target.tracking`
    keeps them as they are, also outside the image, with their roles in tracking
    metrics; it is None where it would hold nothing that the target does not.

    min_height: as in `TrackingTarget`.

    >>> builder = TargetBuilder(width=64, height=48, file=Path("a.txt"), problems=Problems())
    >>> builder.add((-5, 8, 30, 20), 2, entry=1, track=7)
    >>> target = builder.build()
    >>> target.boxes.tolist(), target.tracking.boxes.tolist()
    ([[0.0, 8.0, 30.0, 20.0]], [[-5.0, 8.0, 30.0, 20.0]])
    """

    def __init__(
        self,
        *,
        width: float,
        height: float,
        file: Path,
        problems: Problems,
        min_height: float = 0.0,
    ) -> None:
        self._limit_x, self._limit_y = float(width), float(height)
        self._file, self._problems = file, problems
        self._rows: list[tuple[float, float, float, float, int, int, bool]] = []
        self._tracking: list[tuple[Box, int, int, Role, int]] = []  # and the place in _rows, or -1
        self._ids: set[int] = set()  # of boxes that are not ignored
        self._min_height = min_height
        self._differs = min_height > 0  # is `Target.tracking` needed?

    def add(
        self,
        box: Box,
        label: int,
        *,
        entry: str | int,
        track: int = -1,
        ignore: bool = False,
        role: Role | None = None,
    ) -> None:
        """Add a box; `entry` is its place in the file, for messages.

        `track` is the object's identity in its video, -1 if the file has none. `role`: in tracking
        metrics, None for that of `default_role`.
        """
        if not _is_in_pixels(box):
            self._problems.add(self._file, entry, f"box {_shown(box)} is not in pixels")
            return
        if not -1 <= track <= MAX_TRACK:
            self._problems.add(self._file, entry, f"id {track} is out of range")
            return
        x1, y1, x2, y2 = box
        if x2 < x1 or y2 < y1:
            self._problems.add(self._file, entry, f"box {_shown(box)} has a negative size")
            return
        if track >= 0 and not ignore:
            if track in self._ids:
                reason = f"the id {track} comes twice in its frame"
                self._problems.add(self._file, entry, reason)
                return
            self._ids.add(track)
        # From -1, because formats that count pixels from 1 have been shifted by then.
        if min(box) >= -1 and max(box) <= 1 and (x2 - x1) * (y2 - y1) > 0:
            self._problems.correct(SHARES_HINT)
        clipped = (
            min(max(x1, 0.0), self._limit_x), min(max(y1, 0.0), self._limit_y),
            min(max(x2, 0.0), self._limit_x), min(max(y2, 0.0), self._limit_y),
        )  # fmt: skip
        default = default_role(label, track, ignore=ignore)
        role = default if role is None else role
        is_small = clipped[2] - clipped[0] < 1 or clipped[3] - clipped[1] < 1
        if x2 - x1 >= 1 and y2 - y1 >= 1:
            row = -1 if is_small else len(self._rows)
            self._tracking.append((box, label, track, role, row))
            self._differs |= clipped != tuple(box) or role != default
        if is_small:
            self._problems.correct("boxes of less than one pixel in the image left out")
            return
        if clipped != tuple(box):
            self._problems.correct("boxes clipped to the image")
        self._rows.append((*clipped, label, track, ignore))

    def add_uncounted(self, box: Box, *, track: int) -> None:
        """Add an object of another class, which only takes part in the matching of tracking."""
        if _is_in_pixels(box) and box[0] <= box[2] and box[1] <= box[3]:
            self._tracking.append((box, ANY_CLASS, track, Role.UNCOUNTED, -1))
            self._differs = True

    def build(self) -> Target:
        """Return the target of the frame; empty without boxes."""
        tracking = self._tracking_target() if self._differs else None
        if not self._rows:
            return replace(Target.empty(), tracking=tracking)
        return Target(
            boxes=torch.tensor([row[:4] for row in self._rows], dtype=torch.float32),
            labels=torch.tensor([row[4] for row in self._rows]),
            ids=torch.tensor([row[5] for row in self._rows]),
            ignore=torch.tensor([row[6] for row in self._rows]),
            tracking=tracking,
        )

    def _tracking_target(self) -> TrackingTarget:
        columns = zip(*self._tracking, strict=True) if self._tracking else [()] * 5
        boxes, labels, ids, roles, rows = columns
        return TrackingTarget(
            boxes=np.array(boxes, np.float64).reshape(-1, 4),
            labels=np.array(labels, np.int64),
            ids=np.array(ids, np.int64),
            roles=np.array(roles, np.int8),
            rows=np.array(rows, np.int64),
            min_height=self._min_height,
        )


def default_role(label: int, track: int, *, ignore: bool) -> Role:
    """The role of a box in tracking metrics where its format defines no other.

    An object of unknown identity cannot be counted, but its detection is no mistake.

    >>> default_role(2, -1, ignore=False).name, default_role(2, 7, ignore=True).name
    ('DISTRACTOR', 'REGION')
    """
    if ignore or label < 0:
        return Role.REGION
    return Role.COUNTED if track >= 0 else Role.DISTRACTOR


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


def unclipped_rows(target: Target) -> Iterator[TargetRow]:
    """Yield the boxes as `target_rows`, but as they were labelled; then those outside the image."""
    rows = list(target_rows(target))
    tracking = target.tracking
    if tracking is not None:
        boxes = zip(
            tracking.boxes.astype(np.float32).tolist(), tracking.boxes.tolist(), strict=True
        )
        columns = (tracking.labels, tracking.ids, tracking.roles, tracking.rows)
        others = zip(*(column.tolist() for column in columns), strict=True)
        for (rounded, box), (label, track, role, row) in zip(boxes, others, strict=True):
            if row >= 0 and rows[row].box != tuple(rounded):
                rows[row] = rows[row]._replace(box=tuple(box))
            elif row < 0 and track >= 0 and role in (Role.COUNTED, Role.DISTRACTOR):
                rows.append(TargetRow(tuple(box), label, track, role == Role.DISTRACTOR))
    yield from rows


def relabelled(video: VideoRecord, old: Sequence[str], new: Sequence[str]) -> VideoRecord:
    """Convert the labels of a video from indices into `old` to indices into `new`.

    Boxes of classes that are not in `new` are left out.
    """
    labels_of_old = [new.index(name) if name in new else DROPPED for name in old]
    table = torch.tensor([*labels_of_old, ANY_CLASS])  # [-1] is ANY_CLASS
    frames = []
    for frame in video.frames:
        if frame.target is not None:
            frame = replace(frame, target=_relabelled(frame.target, table))
        frames.append(frame)
    return replace(video, frames=tuple(frames))


def _relabelled(target: Target, table: torch.Tensor) -> Target:
    labels = table[target.labels]
    kept = labels != DROPPED
    tracking = target.tracking
    if tracking is not None:
        tracking = relabelled_tracking(tracking, table.numpy(), kept.numpy())
    return replace(replace(target, labels=labels)[kept], tracking=tracking)


def relabelled_tracking(
    tracking: TrackingTarget, table: np.ndarray, kept: np.ndarray
) -> TrackingTarget:
    """The boxes with the labels of a table, as in `relabelled`; kept (D,): rows of the target."""
    labels = table[tracking.labels].astype(np.int64)
    keep = labels != DROPPED
    rows = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)[tracking.rows]  # [-1] is -1
    return TrackingTarget(
        boxes=tracking.boxes[keep],
        labels=labels[keep],
        ids=tracking.ids[keep],
        roles=tracking.roles[keep],
        rows=rows[keep],
        min_height=tracking.min_height,
    )


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


def _is_in_pixels(box: Box) -> bool:
    return all(math.isfinite(v) and abs(v) <= LARGEST for v in box)


def _shown(box: Box) -> str:
    return "(" + ", ".join(f"{v:g}" for v in box) + ")"
