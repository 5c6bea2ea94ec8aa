"""Measure a round of a model: python -m rnndet.benchmarks.one_round REQUEST REPORT

REQUEST is a JSON file with a `RoundRequest`. REPORT is written: {"report": ...}, or {"error": ...}
for a mistake of the user.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rnndet.benchmarks.inference import measure
from rnndet.benchmarks.settings import open_contender
from rnndet.errors import RnndetError
from rnndet.system.files import write_text
from rnndet.video.sources.open import open_source


@dataclass(frozen=True, slots=True)
class RoundRequest:
    """Arguments of a round."""

    source: str
    model: str  # see `parse_setting`
    frames: int
    tracker: str
    tracker_options: dict[str, Any]
    device: str
    threads: int | None


def main(argv: Sequence[str] | None = None) -> int:
    request_path, report_path = sys.argv[1:] if argv is None else argv
    request = RoundRequest(**json.loads(Path(request_path).read_text(encoding="utf-8")))
    try:
        answer = {"report": measure_round(request)}
    except RnndetError as error:
        answer = {"error": str(error)}
    write_text(report_path, json.dumps(answer))
    return 0


def measure_round(request: RoundRequest) -> dict[str, Any]:
    """Return the report of `measure` on one round. Raises RnndetError."""
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    contender = open_contender(
        request.model,
        tracker=request.tracker,
        tracker_options=request.tracker_options,
        device=request.device,
        threads=request.threads,
    )
    with open_source(request.source) as source:
        return measure([contender], source, frames=request.frames, rounds=1)


if __name__ == "__main__":
    sys.exit(main())
