"""Statistics of a labelled set: boxes, their sizes, tracks and the motion of objects; and plots.

Ignored boxes are not counted. The plots need matplotlib, but no display.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from rnndet.data.records import VideoRecord, VideoSet
from rnndet.evaluation.metrics.matching import is_counted
from rnndet.evaluation.metrics.motion import GROUPS, motion_groups, motion_iou
from rnndet.evaluation.records import EvaluatedVideo, FrameCollector
from rnndet.structures import Detections
from rnndet.system.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger(__name__)

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
    videos: np.ndarray  # (B,) int64, position of the box's video in the set
    track_labels: np.ndarray  # (K,) int32, label of the track's first box
    track_lengths: np.ndarray  # (K,) int64, number of frames in which the object has a box

    def numbers(self) -> dict[str, Any]:
        """Plain data, for a file; shares in 0..1; NaN where no box defines a number."""
        rows = {name: self._row(label) for label, name in enumerate(self.classes)}
        return {**self.counts, "all classes": self._row(None), "classes": rows}

    def _row(self, label: int | None) -> dict[str, Any]:
        """The numbers of one class; None: of all classes."""
        boxes, tracks = (
            np.full(len(labels), True) if label is None else labels == label
            for labels in (self.labels, self.track_labels)
        )
        sides, lengths = self.sides[boxes], self.track_lengths[tracks]
        size = np.searchsorted(list(SIZES.values()), sides, side="right") - 1
        group = motion_groups(self.motion[boxes])
        return {
            "videos": len(np.unique(self.videos[boxes])),
            "boxes": len(sides),
            "tracks": len(lengths),
            "median side": _median(sides),
            "median track length": _median(lengths),
            "longest track": int(lengths.max(initial=0)),
            "size": _shares(size, list(SIZES)),
            "motion": _shares(group[group < len(GROUPS)], GROUPS),
        }


def measure(videos: VideoSet) -> SetStats:
    """Count the boxes and tracks of a set; no image is read.

    >>> measure(VideoSet(("car",), (VideoRecord("v", 48, 64, None, ()),))).counts["videos"]
    1
    """
    counts = dict.fromkeys(
        ("videos", "frames", "labelled frames", "empty frames", "boxes", "ignored boxes",
         "boxes without identity", "tracks"), 0
    )  # fmt: skip
    boxes: list[tuple[np.ndarray, ...]] = []
    tracks: list[tuple[np.ndarray, ...]] = []
    for position, record in enumerate(tqdm(videos.videos, unit="video", disable=None)):
        video = _without_detections(record)
        counted = [is_counted(frame) for frame in video.frames]
        labels, ids, sides, motion = _boxes(video, counted)
        known = ids >= 0
        _, first, lengths = np.unique(ids[known], return_index=True, return_counts=True)
        boxes.append((labels, sides, motion, np.full(len(labels), position)))
        tracks.append((labels[known][first], lengths))
        counts["videos"] += 1
        counts["frames"] += len(video.frames)
        counts["labelled frames"] += sum(frame.labelled for frame in video.frames)
        counts["empty frames"] += sum(
            frame.labelled and not mask.any()
            for frame, mask in zip(video.frames, counted, strict=True)
        )
        counts["boxes"] += len(labels)
        counts["ignored boxes"] += sum(len(mask) for mask in counted) - len(labels)
        counts["boxes without identity"] += int((~known).sum())
        counts["tracks"] += len(first)
    box_columns = (np.concatenate(column) for column in zip(*boxes, strict=True))
    track_columns = (np.concatenate(column) for column in zip(*tracks, strict=True))
    return SetStats(videos.classes, counts, *box_columns, *track_columns)


def text(stats: SetStats) -> str:
    """The numbers as a table, with a row for each class that has boxes."""
    numbers = stats.numbers()
    heads = ("videos", "boxes", "tracks", "side", "length", *SIZES, *GROUPS)
    rows = {"all": numbers["all classes"]}
    rows |= {name: row for name, row in numbers["classes"].items() if row["boxes"]}
    name_width = max(map(len, rows))
    widths = [max(len(head), 6) for head in heads]
    lines = ["  ".join([" " * name_width, *_right(heads, widths)])]
    for name, row in rows.items():
        lines.append("  ".join([name.ljust(name_width), *_right(_cells(row), widths)]))
    absent = [name for name, row in numbers["classes"].items() if not row["boxes"]]
    if absent:
        lines.append(f"classes without boxes: {', '.join(absent)}")
    counts = ", ".join(f"{name} {count}" for name, count in stats.counts.items())
    return "\n".join([counts, "", *lines, "", LEGEND])


def write_plots(stats: SetStats, folder: Path) -> list[Path]:
    """Write classes.png, sizes.png, track_lengths.png and motion.png into a folder.

    Without matplotlib a warning is logged and nothing is written. Raises OutputError.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning("no plots: they need matplotlib, pip install 'rnndet[plot]'")
        return []
    height = max(4.0, 0.25 * len(stats.classes))  # inches; keeps the class names legible
    plots: dict[str, tuple[float, Callable[[Axes, SetStats], None]]] = {
        "classes": (height, _plot_classes),
        "sizes": (4.0, _plot_sizes),
        "track_lengths": (4.0, _plot_track_lengths),
        "motion": (4.0, _plot_motion),
    }
    files = []
    for name, (inches, draw) in plots.items():
        figure = Figure(figsize=(7, inches), layout="constrained")
        draw(figure.subplots(), stats)
        path = folder / f"{name}.png"
        with atomic_file(path) as part:
            FigureCanvasAgg(figure).print_png(part)
        files.append(path)
    return files


def _without_detections(record: VideoRecord) -> EvaluatedVideo:
    """The record as metrics read it."""
    frames = FrameCollector(record)
    for frame in record.frames:
        frames.add(frame.index, Detections.empty())
    return frames.video()


def _boxes(video: EvaluatedVideo, counted: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Labels, identities, sides and motion IoU of the counted boxes, each (B,)."""
    empty = (np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0))
    rows = [empty]
    for frame, motion, mask in zip(video.frames, motion_iou(video), counted, strict=True):
        values = (frame.target_labels, frame.target_ids, frame.target_boxes, motion)
        rows.append(tuple(value[mask] for value in values))
    labels, ids, boxes, motion = (np.concatenate(column) for column in zip(*rows, strict=True))
    sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    return labels, ids, sides, motion


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _shares(positions: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    counts = np.bincount(positions, minlength=len(names))
    return {
        name: float(count / len(positions)) if len(positions) else float("nan")
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


def _plot_classes(axes: "Axes", stats: SetStats) -> None:
    counts = np.bincount(stats.labels, minlength=len(stats.classes))
    axes.barh(stats.classes, counts)
    axes.invert_yaxis()
    axes.set(xlabel="boxes", title="Boxes of each class")


def _plot_sizes(axes: "Axes", stats: SetStats) -> None:
    edges = np.geomspace(1, max(2.0, stats.sides.max(initial=2.0)), 41)
    axes.hist(stats.sides, bins=edges)
    for side in list(SIZES.values())[1:]:
        axes.axvline(side, color="black", linestyle="dotted")
    axes.set(xscale="log", xlabel="root of the box area in pixels (dotted: COCO's limits)",
             ylabel="boxes", title="Sizes")  # fmt: skip


def _plot_track_lengths(axes: "Axes", stats: SetStats) -> None:
    axes.hist(stats.track_lengths, bins=40)
    axes.set(xlabel="labelled frames", ylabel="objects", title="How long objects are seen")


def _plot_motion(axes: "Axes", stats: SetStats) -> None:
    axes.hist(stats.motion[~np.isnan(stats.motion)], bins=np.linspace(0, 1, 41))
    for limit in (0.7, 0.9):
        axes.axvline(limit, color="black", linestyle="dotted")
    axes.set(xlabel="motion IoU (fast below 0.7, slow above 0.9)", ylabel="boxes", title="Motion")
