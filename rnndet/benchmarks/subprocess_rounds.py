"""The rounds of two models in processes of their own, in turn: each as if it were alone.

What one sets for its process (the allocator of main memory above all) neither helps nor hinders
the other.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from rnndet.benchmarks.inference import NEGLIGIBLE_MS, ROWS, paired_ratio, shares
from rnndet.errors import RnndetError

SAYS = "benchmark: "  # what tools/benchmark.py begins its errors with


def measure_in_subprocesses(
    commands: Sequence[Sequence[str]], *, rounds: int, on_round: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """The report of `inference.measure` on one or two models, from processes in turn.

    commands: one for each model; each measures one round of it and gets `--out FILE` added, where
    it leaves its own report. Raises RnndetError with what a process said if it fails.
    """
    reports: list[list[dict[str, Any]]] = [[] for _ in commands]
    with TemporaryDirectory(prefix="rnndet-benchmark-") as folder:
        path = Path(folder) / "report.json"
        for _ in range(rounds):
            for command, done in zip(commands, reports, strict=True):
                run = subprocess.run(
                    [sys.executable, *command, "--out", str(path)], capture_output=True, text=True
                )
                if run.returncode != 0:
                    said = run.stderr.strip().splitlines() or [f"it ended with {run.returncode}"]
                    raise RnndetError(f"in its own process: {said[-1].removeprefix(SAYS)}")
                done.append(json.loads(path.read_text(encoding="utf-8")))
                on_round()
    return combined(reports)


def combined(reports: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """One report from reports of single rounds of each model."""
    models = []
    for rounds in reports:
        by_round = [report["models"][0]["ms_by_round"][0] for report in rounds]
        ms = {name: median(numbers[name] for numbers in by_round) for name in ROWS}
        models.append(
            {
                **rounds[0]["models"][0],
                "ms": ms,
                "share": shares(ms),
                "frames_per_second": 1000 / ms["total"],
                "ms_by_round": by_round,
            }
        )
    peaks = [max(report["peak_memory_mib"] or 0 for report in rounds) for rounds in reports]
    report = {
        **reports[0][0],
        "rounds": len(reports[0]),
        "models": models,
        "peak_memory_mib": max(peaks),
        "peak_memory_mib_by_model": peaks,
        "ratio": None,
        "parameter_ratio": None,
    }
    if len(models) == 2:
        a, b = (model["ms_by_round"] for model in models)
        report["ratio"] = {
            name: paired_ratio([row[name] for row in a], [row[name] for row in b])
            if min(row[name] for row in (*a, *b)) >= NEGLIGIBLE_MS
            else None
            for name in ROWS
        }
    return report
