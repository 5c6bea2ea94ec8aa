"""Compute numbers, intervals, tables and JSON reports from predictions."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rnndet.errors import RnndetError
from rnndet.evaluation.metrics import METRICS, unit
from rnndet.evaluation.metrics.base import Metric, Numbers
from rnndet.evaluation.metrics.intervals import Intervals, interval, paired_interval
from rnndet.evaluation.records import EvaluatedFrame, EvaluatedVideo, Predictions
from rnndet.inference.stream import track
from rnndet.registry import lookup
from rnndet.structures import DEFAULT_FPS, Detections, TrackingTarget
from rnndet.system.files import write_text
from rnndet.tracking import Tracker, make_tracker

MIN_SCORE = 0.3  # of the tracker's output: the default of rnndet infer
ALL_FRAMES = "all frames"
CORRUPTED_FRAMES, OTHER_FRAMES = "corrupted frames", "other frames"

Measured = dict[str, list[Any]]  # by metric: the contribution of each video


@dataclass(frozen=True, slots=True)
class RowKey:
    """A row of the tables: a run, by name, on all of its frames or a subset.

    >>> str(RowKey("reset")), str(RowKey("", "other frames"))
    ('reset, all frames', 'other frames')
    """

    run: str  # "" for a run without a name
    subset: str = ALL_FRAMES

    def __str__(self) -> str:
        return f"{self.run}, {self.subset}" if self.run else self.subset


def metric_names(names: Sequence[str], *, timed: bool) -> list[str]:
    """The names without repetition; "all" stands for all metrics, streaming only if `timed`.

    >>> metric_names(["mot", "mot"], timed=True)
    ['mot']
    """
    every = [name for name, metric in METRICS.items() if timed or not metric.needs_times]
    return list(dict.fromkeys(n for name in names for n in (every if name == "all" else [name])))


def build_metrics(
    names: Sequence[str], classes: Sequence[str], *, latencies: Sequence[float] = ()
) -> dict[str, Metric]:
    """Metrics by name. `latencies`, in seconds, for "streaming"; none: the measured times.

    Raises RnndetError for an unknown name and for impossible latencies.

    >>> build_metrics(["coco_ap"], ("car", "bird"))["coco_ap"].columns[:2]
    ('AP50', 'AP')
    """
    metrics = {}
    for name in names:
        metric = lookup(name, METRICS, what="metric")
        options = {"latencies": latencies} if metric.needs_times and latencies else {}
        metrics[name] = metric(classes, **options)
    return metrics


def score(
    runs: Mapping[str, Predictions],
    metrics: Mapping[str, Metric],
    *,
    tracker: str = "byte",
    tracker_options: Mapping[str, Any] | None = None,
    samples: int = 0,
) -> tuple[dict[RowKey, Numbers], dict[RowKey, Intervals]]:
    """The numbers of each run, by name, on each of its subsets; and their intervals.

    On subsets only metrics that work on single frames are computed. samples: of the bootstrap;
    0 gives no intervals. Raises RnndetError if a tracking metric would be measured with different
    targets.
    """
    _check_same_tracking(list(runs.values()), metrics)
    rows: dict[RowKey, Numbers] = {}
    intervals: dict[RowKey, Intervals] = {}
    for name, run in runs.items():
        for subset, part in subsets(run).items():
            row = RowKey(name, subset)
            is_whole = subset == ALL_FRAMES
            chosen = {n: m for n, m in metrics.items() if is_whole or m.works_on_single_frames}
            rows[row], intervals[row] = {}, {}
            measured = measure(part, chosen, tracker=tracker, tracker_options=tracker_options)
            for key, parts in measured.items():
                metric = chosen[key]
                dropped = () if is_whole else metric.whole_video_numbers
                rows[row] |= {n: v for n, v in metric.combine(parts).items() if n not in dropped}
                if samples:
                    intervals[row] |= interval(metric, parts, samples=samples)
    return rows, intervals


def subsets(run: Predictions) -> dict[str, Predictions]:
    """All frames and, if some were corrupted, the corrupted and the clean frames separately."""
    parts = {ALL_FRAMES: run}
    if any(frame.corrupted for video in run.videos for frame in video.frames):
        corrupted = run.map(lambda video: video.only(lambda frame: frame.corrupted))
        other = run.map(lambda video: video.only(lambda frame: not frame.corrupted))
        parts |= {CORRUPTED_FRAMES: corrupted, OTHER_FRAMES: other}
    return parts


def measure(
    run: Predictions,
    metrics: Mapping[str, Metric],
    *,
    tracker: str,
    tracker_options: Mapping[str, Any] | None = None,
) -> Measured:
    """Measure every video; tracking metrics measure the output of the tracker."""
    measured: Measured = {name: [] for name in metrics}
    built = make_tracker(tracker, min_score=MIN_SCORE, options=tracker_options)
    for video in run.videos:
        for name, metric in metrics.items():
            tracked = metric.needs_tracks and built is not None
            source = with_tracks(video, built, min_score=MIN_SCORE) if tracked else video
            measured[name].append(metric.measure(source))
    return measured


def with_tracks(
    video: EvaluatedVideo, tracker: Tracker, *, min_score: float = MIN_SCORE
) -> EvaluatedVideo:
    """The detections and ids that a stream with this tracker outputs for the same detections."""
    tracker.reset()
    rate = float(video.fps or DEFAULT_FPS)
    frames = []
    for frame in video.frames:
        detections = Detections(frame.boxes, frame.scores, frame.labels.astype(np.int64))
        shown = track(detections, tracker, min_score=min_score, time=frame.index / rate)
        frames.append(
            replace(
                frame,
                boxes=shown.boxes.astype(np.float32),
                scores=shown.scores.astype(np.float32),
                labels=shown.labels.astype(np.int32),
                ids=np.zeros(len(shown), np.int64) if shown.ids is None else shown.ids,
            )
        )
    return replace(video, frames=tuple(frames))


def compare(
    a: Predictions,
    b: Predictions,
    metrics: Mapping[str, Metric],
    *,
    tracker: str = "byte",
    tracker_options: Mapping[str, Any] | None = None,
    samples: int = 200,
) -> dict[str, tuple[float, float, float, float]]:
    """Headline numbers of two runs over the same frames: a, b, and the interval of b - a.

    Raises RnndetError if classes, videos or frames differ.
    """
    check_same(a, b)
    _check_same_tracking([a, b], metrics)
    numbers = {}
    for name, metric in metrics.items():
        parts_a, parts_b = (
            measure(run, {name: metric}, tracker=tracker, tracker_options=tracker_options)[name]
            for run in (a, b)
        )
        ends = paired_interval(metric, parts_a, parts_b, samples=samples)
        first, second = metric.headline(parts_a), metric.headline(parts_b)
        numbers |= {key: (first[key], second[key], *ends[key]) for key in first}
    return numbers


def check_same(a: Predictions, b: Predictions) -> None:
    """Raise RnndetError unless both runs have the same frames with the same ground truth."""
    if a.classes != b.classes:
        raise RnndetError(
            f"the runs have different classes: {', '.join(a.classes)}; {', '.join(b.classes)}"
        )
    frames_a = {v.name: [f.index for f in v.frames] for v in a.videos}
    frames_b = {v.name: [f.index for f in v.frames] for v in b.videos}
    for name in sorted(frames_a.keys() | frames_b.keys()):
        if frames_a.get(name) != frames_b.get(name):
            raise RnndetError(f"the runs have different frames of {name}; evaluate the same frames")
    for video_a, video_b in zip(a.videos, b.videos, strict=True):
        if not all(map(_same_targets, video_a.frames, video_b.frames)):
            raise RnndetError(
                f"the runs have different labels of {video_a.name}; use the same labels"
            )


def _same_targets(a: EvaluatedFrame, b: EvaluatedFrame) -> bool:
    fields = ("target_boxes", "target_labels", "target_ids", "target_ignore", "labelled")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in fields)


def _check_same_tracking(runs: Sequence[Predictions], metrics: Mapping[str, Metric]) -> None:
    """Raise RnndetError if a metric of tracks would have different targets in the runs.

    The runs have passed `check_same`. Files of earlier versions have no targets for tracking.
    """
    if not any(metric.needs_tracks for metric in metrics.values()):
        return
    for run in runs[1:]:
        for video_a, video_b in zip(runs[0].videos, run.videos, strict=True):
            for a, b in zip(video_a.frames, video_b.frames, strict=True):
                if not _same_tracking(a.tracking, b.tracking):
                    raise RnndetError(
                        f"the runs have different labels of {video_a.name} for tracking; one may be"
                        " of an earlier version: give the data to read its labels again"
                    )


def _same_tracking(a: TrackingTarget | None, b: TrackingTarget | None) -> bool:
    if a is None or b is None:
        return a is b
    names = ("boxes", "labels", "ids", "roles")
    same = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)
    return same and a.min_height == b.min_height


def protocol(runs: Mapping[str, Predictions], metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """The settings that a comparison of numbers depends on; by run where the runs differ.

    The runs have the same frames, see `check_same`.
    """
    first = next(iter(runs.values()))
    about: dict[str, Any] = {}
    for key in dict.fromkeys(key for run in runs.values() for key in run.about):
        values = {name: run.about.get(key) for name, run in runs.items()}
        value, *others = values.values()
        about[key] = value if all(other == value for other in others) else values
    frames = [frame for video in first.videos for frame in video.frames]
    return {
        "rules": {name: metric.rule for name, metric in metrics.items()},
        **about,
        "videos": len(first),
        "frames shown": len(frames),
        "frames scored": sum(frame.labelled for frame in frames),
        "classes": len(first.classes),
    }


def format_number(name: str, value: float) -> str:
    """Format a number for a table: shares in per cent, other numbers unscaled, `-` if undefined.

    >>> format_number("AP50", 0.5), format_number("delay@0.1", 3.25)
    ('50.0', '3.25')
    """
    if math.isnan(value):
        return "-"
    return f"{100 * value:.1f}" if unit(name) is None else f"{value:.2f}"


def format_tables(
    rows: Mapping[RowKey, Numbers],
    intervals: Mapping[RowKey, Intervals],
    metrics: Mapping[str, Metric],
    classes: Sequence[str],
) -> str:
    """A table for each metric, AP50 by class, and the intervals."""
    parts = []
    for name, metric in metrics.items():
        filled = {row: n for row, n in rows.items() if any(c in n for c in metric.columns)}
        parts.append(f"{name}\n{table(filled, metric.columns)}")
    present = [c for c in classes if any(f"AP50/{c}" in numbers for numbers in rows.values())]
    if present:
        by_class = {
            row: {c: numbers.get(f"AP50/{c}", math.nan) for c in present}
            for row, numbers in rows.items()
        }
        parts.append(f"AP50 by class\n{table(by_class, present)}")
    lines = [
        f"{row}: {key} {format_number(key, rows[row][key])} "
        f"[{format_number(key, low)}, {format_number(key, high)}]"
        for row, ends in intervals.items()
        for key, (low, high) in ends.items()
    ]
    if lines:
        parts.append("\n".join(["95 % intervals, videos resampled", *lines]))
    return "\n\n".join(parts)


def table(rows: Mapping[RowKey, Numbers], columns: Sequence[str]) -> str:
    """Numbers under their names, one line per row.

    >>> print(table({RowKey(""): {"AP50": 0.5}}, ["AP50"]))
                 AP50
    all frames   50.0
    """
    names = [str(row) for row in rows]
    name_width = max(len(name) for name in ("", *names))
    widths = [max(len(column), 5) for column in columns]
    heads = [column.rjust(width) for column, width in zip(columns, widths, strict=True)]
    lines = ["  ".join([" " * name_width, *heads])]
    for name, numbers in zip(names, rows.values(), strict=True):
        cells = [format_number(column, numbers.get(column, math.nan)) for column in columns]
        cells = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        lines.append("  ".join([name.ljust(name_width), *cells]))
    return "\n".join(lines)


def report_of(
    facts: Mapping[str, Any],
    rows: Mapping[RowKey, Numbers],
    intervals: Mapping[RowKey, Intervals],
) -> dict[str, Any]:
    """The content of report.json; rows are named "run, subset"."""
    return {
        "protocol": facts,
        "results": {str(row): numbers for row, numbers in rows.items()},
        "intervals": {str(row): ends for row, ends in intervals.items()},
    }


def write_report(path: str | Path, report: Mapping[str, Any]) -> None:
    """Write JSON atomically; NaN becomes null, since JSON has no NaN. Raises OutputError."""
    write_text(path, json.dumps(_without_nan(report), indent=2, allow_nan=False) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
