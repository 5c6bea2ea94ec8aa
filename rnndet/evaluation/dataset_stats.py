"""Count what a labelled set holds: boxes, their sizes, tracks and how fast objects move.

Only boxes that count are counted: those that are not ignored.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from rnndet.data.records import VideoRecord, VideoSet
from rnndet.evaluation.metrics.motion import GROUPS, motion_groups, motion_iou
from rnndet.evaluation.metrics.overlap import is_counted
from rnndet.evaluation.metrics.record import EvaluatedVideo
from rnndet.evaluation.records import FrameCollector
from rnndet.structures import Detections

SIZES = {"small": 0, "medium": 32, "large": 96}  # name -> smallest side in pixels, as in COCO

LEGEND = """\
side: median root of the box area, in pixels of the video; length: median number of labelled frames
of an object; small to large: boxes in % by COCO's areas, below 32², below 96², larger; slow to
fast: boxes in % of those with an identity, by motion IoU above 0.9, from 0.7, below"""


@dataclass(frozen=True, slots=True)
class SetStats:
    """One row for each of B counted boxes and each of K tracks."""

    classes: tuple[str, ...]
    counts: dict[str, int]  # of the whole set
    labels: np.ndarray  # (B,) int32
    sides: np.ndarray  # (B,) float64, root of the area in pixels
    motion: np.ndarray  # (B,) float64 motion IoU, NaN without identity
    videos: np.ndarray  # (B,) int64, place of the box's video in the set
    track_labels: np.ndarray  # (K,) int32, label of the track's first box
    track_lengths: np.ndarray  # (K,) int64, frames in which the object has a box

    def numbers(self) -> dict[str, Any]:
        """Plain data, for a file; shares are in 0..1, and NaN where there is nothing."""
        rows = {name: self._row(label) for label, name in enumerate(self.classes)}
        return {**self.counts, "all classes": self._row(None), "classes": rows}

    def _row(self, label: int | None) -> dict[str, Any]:
        """The numbers of one class, or of all."""
        of, of_tracks = (
            np.full(len(labels), True) if label is None else labels == label
            for labels in (self.labels, self.track_labels)
        )
        sides, lengths = self.sides[of], self.track_lengths[of_tracks]
        size = np.searchsorted(list(SIZES.values()), sides, side="right") - 1
        group = motion_groups(self.motion[of])
        return {
            "videos": len(np.unique(self.videos[of])),
            "boxes": len(sides),
            "tracks": len(lengths),
            "median side": _median(sides),
            "median track length": _median(lengths),
            "longest track": int(lengths.max(initial=0)),
            "size": _shares(size, list(SIZES)),
            "motion": _shares(group[group < len(GROUPS)], GROUPS),
        }


def measure(videos: VideoSet) -> SetStats:
    """Count one set; no image is read."""
    counts = dict.fromkeys(
        ("videos", "frames", "labelled frames", "empty frames", "boxes", "ignored boxes",
         "boxes without identity", "tracks"), 0
    )  # fmt: skip
    boxes: list[tuple[np.ndarray, ...]] = []
    tracks: list[tuple[np.ndarray, ...]] = []
    for place, record in enumerate(tqdm(videos.videos, unit="video", disable=None)):
        video = _scored(record)
        counted = [is_counted(frame) for frame in video.frames]
        labels, ids, sides, motion = _boxes(video, counted)
        known = ids >= 0
        _, first, lengths = np.unique(ids[known], return_index=True, return_counts=True)
        boxes.append((labels, sides, motion, np.full(len(labels), place)))
        tracks.append((labels[known][first], lengths))
        counts["videos"] += 1
        counts["frames"] += len(video.frames)
        counts["labelled frames"] += sum(frame.labelled for frame in video.frames)
        counts["empty frames"] += sum(
            frame.labelled and not of.any()
            for frame, of in zip(video.frames, counted, strict=True)
        )  # fmt: skip
        counts["boxes"] += len(labels)
        counts["ignored boxes"] += sum(len(of) for of in counted) - len(labels)
        counts["boxes without identity"] += int((~known).sum())
        counts["tracks"] += len(first)
    columns = (np.concatenate(column) for column in zip(*boxes, strict=True))
    of_tracks = (np.concatenate(column) for column in zip(*tracks, strict=True))
    return SetStats(videos.classes, counts, *columns, *of_tracks)


def text(stats: SetStats) -> str:
    """The numbers as lines for people, a row for each class that has boxes."""
    numbers = stats.numbers()
    heads = ("videos", "boxes", "tracks", "side", "length", *SIZES, *GROUPS)
    rows = {"all": numbers["all classes"]}
    rows |= {name: row for name, row in numbers["classes"].items() if row["boxes"]}
    first = max(map(len, rows))
    widths = [max(len(head), 6) for head in heads]
    lines = ["  ".join([" " * first, *_right(heads, widths)])]
    lines += ["  ".join([name.ljust(first), *_right(_cells(row), widths)])
              for name, row in rows.items()]  # fmt: skip
    unseen = [name for name, row in numbers["classes"].items() if not row["boxes"]]
    if unseen:
        lines.append(f"classes without boxes: {', '.join(unseen)}")
    counts = ", ".join(f"{what} {count}" for what, count in stats.counts.items())
    return "\n".join([counts, "", *lines, "", LEGEND])


def _scored(record: VideoRecord) -> EvaluatedVideo:
    """The record as metrics read it, with nothing found."""
    frames = FrameCollector(record)
    for frame in record.frames:
        frames.add(frame.index, Detections.empty())
    return frames.video()


def _boxes(video: EvaluatedVideo, counted: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Labels, identities, sides and motion IoU of the counted boxes, each (B,)."""
    empty = (np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0))
    rows = [empty]
    for frame, motion, of in zip(video.frames, motion_iou(video), counted, strict=True):
        values = (frame.target_labels, frame.target_ids, frame.target_boxes, motion)
        rows.append(tuple(value[of] for value in values))
    labels, ids, boxes, motion = (np.concatenate(column) for column in zip(*rows, strict=True))
    sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    return labels, ids, sides, motion


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _shares(places: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    counts = np.bincount(places, minlength=len(names))
    return {
        name: float(count / len(places)) if len(places) else float("nan")
        for name, count in zip(names, counts, strict=True)
    }


def _cells(row: dict[str, Any]) -> Iterator[str]:
    yield from (str(row[key]) for key in ("videos", "boxes", "tracks"))
    yield from (f"{row[key]:.0f}" for key in ("median side", "median track length"))
    for share in (*row["size"].values(), *row["motion"].values()):
        yield f"{100 * share:.0f}"


def _right(cells: Iterable[str], widths: Sequence[int]) -> Iterator[str]:
    for cell, width in zip(cells, widths, strict=True):
        yield ("-" if cell == "nan" else cell).rjust(width)
