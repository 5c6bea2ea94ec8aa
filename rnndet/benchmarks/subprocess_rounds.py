"""Measure the rounds of one or several models in subprocesses, in turn, isolated from each other.

Settings of a process (above all the allocator of main memory) affect one model only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from rnndet.benchmarks.inference import ROWS, compared, shares
from rnndet.benchmarks.one_round import RoundRequest
from rnndet.errors import RnndetError

ROOT = Path(__file__).resolve().parent.parent.parent
MODULE = "rnndet.benchmarks.one_round"


def measure_in_subprocesses(
    requests: Sequence[RoundRequest],
    *,
    rounds: int,
    on_round: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Return the report of `inference.measure` on models that are measured in subprocesses.

    requests: one for each model. Raises RnndetError with the message of a subprocess that fails.
    """
    reports: list[list[dict[str, Any]]] = [[] for _ in requests]
    with TemporaryDirectory(prefix="rnndet-benchmark-") as folder:
        for _ in range(rounds):
            for request, done in zip(requests, reports, strict=True):
                done.append(_measure_round(request, Path(folder)))
                on_round()
    return combined(reports)


def _measure_round(request: RoundRequest, folder: Path) -> dict[str, Any]:
    request_path, report_path = folder / "request.json", folder / "report.json"
    request_path.write_text(json.dumps(asdict(request)), encoding="utf-8")
    report_path.unlink(missing_ok=True)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", MODULE, str(request_path), str(report_path)]
    run = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=False)
    if run.returncode != 0:
        raise RnndetError(f"in a subprocess: {request.model}: it ended with {run.returncode}")
    answer = json.loads(report_path.read_text(encoding="utf-8"))
    if "error" in answer:
        raise RnndetError(f"in a subprocess: {answer['error']}")
    return answer["report"]


def combined(reports: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Combine reports of single rounds of each model into one report."""
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
    return {
        **reports[0][0],
        "rounds": len(reports[0]),
        "models": models,
        "peak_memory_mib": max(peaks),
        "peak_memory_mib_by_model": peaks,
        **compared([model["ms_by_round"] for model in models]),
        "parameter_ratio": None,
    }
