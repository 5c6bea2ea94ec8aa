"""From predictions to numbers, intervals, tables and reports."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rnndet.errors import OutputError, RnndetError
from rnndet.evaluation.metrics import METRICS
from rnndet.evaluation.metrics.base import Metric, Numbers, unit
from rnndet.evaluation.metrics.intervals import Intervals, interval, paired_interval
from rnndet.evaluation.metrics.motion import GROUPS
from rnndet.evaluation.metrics.record import EvaluatedFrame, Predictions
from rnndet.evaluation.records import with_tracks
from rnndet.registry import lookup
from rnndet.tracking import TRACKERS

MIN_SCORE = 0.3  # of what a tracker shows: the default of tools/infer.py
FRAMEWISE = ("coco_ap",)  # metrics that make sense on some frames of a video
COLUMNS = {
    "coco_ap": ("AP50", "AP", "AP75", "AP_small", "AP_medium", "AP_large", "AP50_slow",
                "AP50_medium", "AP50_fast", "AR100", "F1"),
    "vid_ap": ("AP50_ilsvrc", "AP50_ilsvrc_slow", "AP50_ilsvrc_medium", "AP50_ilsvrc_fast"),
    "stability": ("fragment", "centre", "scale_ratio", "stability", "stability_recall",
                  "stability@R50"),
    "delay": ("AD", "delay@0.1", "delay@0.4", "delay@1.6"),
    "recovery": ("recovery_frames", "held_share"),
    "flicker": ("flicker", "class_flips", "jitter", "score_wobble", "short_tracks"),
    "mot": ("HOTA", "DetA", "AssA", "IDF1", "MOTA", "IDSW"),
    "streaming": ("sAP50", "sAP", "mismatch", "in_time"),
}  # fmt: skip
# Of whole videos: not computed on a part of the frames.
MOTION = tuple(f"AP50_{group}" for group in GROUPS)

Measured = dict[str, list[Any]]  # by metric: what each video contributes


def metric_names(names: Sequence[str], *, timed: bool) -> list[str]:
    """The names, each once, with "all" spelled out; streaming is in it if there are latencies."""
    every = [name for name in METRICS if name != "streaming" or timed]
    return list(dict.fromkeys(n for name in names for n in (every if name == "all" else [name])))


def build_metrics(
    names: Sequence[str], classes: Sequence[str], *, latencies: Sequence[float] = ()
) -> dict[str, Metric]:
    """Metrics by name. `latencies`, in seconds, are for "streaming"; none: those measured.

    Raises RnndetError for an unknown name and for impossible latencies.
    """
    metrics = {}
    for name in names:
        options = {"latencies": latencies} if name == "streaming" and latencies else {}
        metrics[name] = lookup(name, METRICS, what="metric")(classes, **options)
    return metrics


def measure(run: Predictions, metrics: Mapping[str, Metric], *, tracker: str) -> Measured:
    """Measure every video; the tracking metrics see what the tracker makes of the detections."""
    measured: Measured = {name: [] for name in metrics}
    follow = lookup(tracker, TRACKERS, what="tracker")(min_score=MIN_SCORE)
    for video in run.videos:
        for name, metric in metrics.items():
            seen = video
            if name == "mot" and follow is not None:
                seen = with_tracks(video, follow, min_score=MIN_SCORE)
            measured[name].append(metric.measure(seen))
    return measured


def subsets(run: Predictions) -> dict[str, Predictions]:
    """All frames and, where some were corrupted, those and the others."""
    parts = {"all frames": run}
    if any(frame.corrupted for video in run.videos for frame in video.frames):
        hard = run.map(lambda video: video.only(lambda frame: frame.corrupted))
        other = run.map(lambda video: video.only(lambda frame: not frame.corrupted))
        parts |= {"corrupted frames": hard, "other frames": other}
    return parts


def score(
    runs: Mapping[str, Predictions],
    metrics: Mapping[str, Metric],
    *,
    tracker: str = "byte",
    samples: int = 0,
) -> tuple[dict[str, Numbers], dict[str, Intervals]]:
    """All numbers by row of a table: each run, on each of its subsets; and their intervals.

    On corrupted and on other frames alone only FRAMEWISE metrics are computed, without motion,
    which is a matter of whole videos. `samples` of the bootstrap; 0 gives no intervals.
    """
    rows: dict[str, Numbers] = {}
    intervals: dict[str, Intervals] = {}
    for name, run in runs.items():
        for subset, part in subsets(run).items():
            row = f"{name}, {subset}" if name else subset
            whole = subset == "all frames"
            chosen = {n: m for n, m in metrics.items() if whole or n in FRAMEWISE}
            rows[row], intervals[row] = {}, {}
            for key, parts in measure(part, chosen, tracker=tracker).items():
                numbers = chosen[key].combine(parts)
                if not whole:
                    numbers = {n: v for n, v in numbers.items() if n not in MOTION}
                rows[row] |= numbers
                if samples:
                    intervals[row] |= interval(chosen[key], parts, samples=samples)
    return rows, intervals


def compare(
    a: Predictions,
    b: Predictions,
    metrics: Mapping[str, Metric],
    *,
    tracker: str = "byte",
    samples: int = 200,
) -> dict[str, tuple[float, float, float, float]]:
    """Headline numbers of two runs over the same frames: a, b, and the interval of b - a.

    Raises RnndetError if classes, videos or frames differ.
    """
    check_same(a, b)
    found = {}
    for name, metric in metrics.items():
        parts_a = measure(a, {name: metric}, tracker=tracker)[name]
        parts_b = measure(b, {name: metric}, tracker=tracker)[name]
        ends = paired_interval(metric, parts_a, parts_b, samples=samples)
        first, second = metric.headline(parts_a), metric.headline(parts_b)
        found |= {key: (first[key], second[key], *ends[key]) for key in first}
    return found


def check_same(a: Predictions, b: Predictions) -> None:
    """Raise RnndetError unless both runs show the same frames, beside the same truths."""
    if a.classes != b.classes:
        raise RnndetError(
            f"the runs have different classes: {', '.join(a.classes)}; {', '.join(b.classes)}"
        )
    frames_a = {v.name: [f.index for f in v.frames] for v in a.videos}
    frames_b = {v.name: [f.index for f in v.frames] for v in b.videos}
    for name in sorted(frames_a.keys() | frames_b.keys()):
        if frames_a.get(name) != frames_b.get(name):
            raise RnndetError(f"the runs show different frames of {name}; evaluate both alike")
    for one, other in zip(a.videos, b.videos, strict=True):
        if not all(map(_same_targets, one.frames, other.frames)):
            raise RnndetError(f"the runs have different labels of {one.name}; evaluate both alike")


def _same_targets(a: EvaluatedFrame, b: EvaluatedFrame) -> bool:
    fields = ("target_boxes", "target_labels", "target_ids", "target_ignore", "labelled")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in fields)


def protocol(runs: Mapping[str, Predictions], metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """What a reader must know to compare the numbers; by run where the runs, by name, differ.

    The runs are of the same frames, see `check_same`.
    """
    first = next(iter(runs.values()))
    about: dict[str, Any] = {}
    for key in dict.fromkeys(key for run in runs.values() for key in run.about):
        values = {name: run.about.get(key) for name, run in runs.items()}
        one, *others = values.values()
        about[key] = one if all(other == one for other in others) else values
    frames = [frame for video in first.videos for frame in video.frames]
    return {
        "rules": {name: metric.rule for name, metric in metrics.items()},
        **about,
        "videos": len(first),
        "frames shown": len(frames),
        "frames scored": sum(frame.labelled for frame in frames),
        "classes": len(first.classes),
    }


def shown(column: str, value: float) -> str:
    """A number as tables show it: shares in per cent, others as they are, `-` if undefined."""
    if math.isnan(value):
        return "-"
    return f"{100 * value:.1f}" if unit(column) is None else f"{value:.2f}"


def table(rows: Mapping[str, Numbers], columns: Sequence[str]) -> str:
    """Numbers under their names, one line per row."""
    first = max(len(name) for name in ("", *rows))
    widths = [max(len(column), 5) for column in columns]
    heads = [column.rjust(width) for column, width in zip(columns, widths, strict=True)]
    lines = ["  ".join([" " * first, *heads])]
    for name, numbers in rows.items():
        cells = []
        for column, width in zip(columns, widths, strict=True):
            cells.append(shown(column, numbers.get(column, math.nan)).rjust(width))
        lines.append("  ".join([name.ljust(first), *cells]))
    return "\n".join(lines)


def shown_tables(
    rows: Mapping[str, Numbers],
    intervals: Mapping[str, Intervals],
    metrics: Mapping[str, Metric],
    classes: Sequence[str],
) -> str:
    """One table per metric, AP50 by class, and the intervals."""
    parts = []
    for name in metrics:
        columns = COLUMNS[name]
        having = {row: n for row, n in rows.items() if any(c in n for c in columns)}
        parts.append(f"{name}\n{table(having, columns)}")
    present = [c for c in classes if any(f"AP50/{c}" in numbers for numbers in rows.values())]
    if present:
        by_class = {
            row: {c: numbers.get(f"AP50/{c}", math.nan) for c in present}
            for row, numbers in rows.items()
        }
        parts.append(f"AP50 by class\n{table(by_class, present)}")
    lines = [
        f"{row}: {key} {shown(key, rows[row][key])} [{shown(key, low)}, {shown(key, high)}]"
        for row, ends in intervals.items()
        for key, (low, high) in ends.items()
    ]
    if lines:
        parts.append("\n".join(["95 % intervals, videos resampled", *lines]))
    return "\n\n".join(parts)


def write_report(path: str | Path, report: Mapping[str, Any]) -> None:
    """Write JSON atomically; NaN becomes null, which JSON has. Raises OutputError."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    text = json.dumps(_without_nan(report), indent=2, allow_nan=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise OutputError(f"{path}: report cannot be written: {error.strerror}") from None


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
