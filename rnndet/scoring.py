"""From predictions to numbers, tables and reports."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rnndet.errors import OutputError
from rnndet.evaluation import Evaluation
from rnndet.metrics.base import Metric, Numbers, compute

SUBSETS = ("all frames", "corrupted frames", "other frames")


def score(evaluation: Evaluation, metrics: Sequence[Metric]) -> dict[str, Numbers]:
    """All numbers by row of a table: each use of the memory, on all, corrupted and other frames.

    Frames are told apart only where some were corrupted.
    """
    rows: dict[str, Numbers] = {}
    bad = evaluation.corrupted
    for use, run in evaluation.runs.items():
        parts = {"all frames": run}
        if bad is not None:
            parts["corrupted frames"] = run.only(lambda video, index: (video, index) in bad)
            parts["other frames"] = run.only(lambda video, index: (video, index) not in bad)
        for subset, part in parts.items():
            name = f"{use}, {subset}" if use else subset
            rows[name] = {k: v for metric in metrics for k, v in compute(metric, part).items()}
    return rows


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
