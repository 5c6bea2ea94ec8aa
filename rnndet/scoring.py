"""From predictions to numbers, tables and reports."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rnndet.errors import OutputError
from rnndet.metrics.base import Metric, Numbers, compute
from rnndet.metrics.record import Predictions

Parts = dict[str, list[Any]]  # by metric: what each video contributes


def subsets(run: Predictions) -> dict[str, Predictions]:
    """All frames and, where some were corrupted, those and the others."""
    parts = {"all frames": run}
    if any(frame.corrupted for video in run.videos for frame in video.frames):
        hard = run.map(lambda video: video.only(lambda frame: frame.corrupted))
        other = run.map(lambda video: video.only(lambda frame: not frame.corrupted))
        parts |= {"corrupted frames": hard, "other frames": other}
    return parts


def score(runs: Mapping[str, Predictions], metrics: Mapping[str, Metric]) -> dict[str, Numbers]:
    """All numbers by row of a table: each run, on each of its subsets."""
    rows: dict[str, Numbers] = {}
    for name, run in runs.items():
        for subset, part in subsets(run).items():
            row = f"{name}, {subset}" if name else subset
            rows[row] = {}
            for metric in metrics.values():
                rows[row] |= compute(metric, part)
    return rows


def protocol(run: Predictions, metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """What a reader must know to compare the numbers."""
    frames = [frame for video in run.videos for frame in video.frames]
    return {
        "rules": {name: metric.rule for name, metric in metrics.items()},
        **run.about,
        "videos": len(run),
        "frames shown": len(frames),
        "frames scored": sum(frame.labelled for frame in frames),
        "classes": len(run.classes),
    }


def table(rows: Mapping[str, Numbers], columns: Sequence[str]) -> str:
    """Numbers in per cent under their names, one line per row; `-` where a number is undefined."""
    first = max(len(name) for name in ("", *rows))
    widths = [max(len(column), 5) for column in columns]
    heads = [column.rjust(width) for column, width in zip(columns, widths, strict=True)]
    lines = ["  ".join([" " * first, *heads])]
    for name, numbers in rows.items():
        cells = []
        for column, width in zip(columns, widths, strict=True):
            value = numbers.get(column, math.nan)
            cells.append(("-" if math.isnan(value) else f"{100 * value:.1f}").rjust(width))
        lines.append("  ".join([name.ljust(first), *cells]))
    return "\n".join(lines)


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
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
