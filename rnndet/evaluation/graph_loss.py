"""Compare the accuracy of an int8 graph with that of its float graph on labelled videos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from rnndet.data.records import VideoSet
from rnndet.evaluation.agreement import Teacher
from rnndet.evaluation.predict import evaluate_set
from rnndet.evaluation.score import build_metrics, score
from rnndet.inference.runtimes import Runtime


@dataclass(frozen=True, slots=True)
class GraphLoss:
    """AP50, in points, of both graphs on one subset of a labelled set."""

    data: str
    subset: str  # all frames, corrupted frames, other frames
    frames: int
    float_ap50: float
    int8_ap50: float

    @property
    def loss(self) -> float:
        return self.float_ap50 - self.int8_ap50

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "loss": self.loss}

    def __str__(self) -> str:
        return (
            f"{self.data}, {self.subset}: AP50 {self.float_ap50:.1f} float, {self.int8_ap50:.1f} "
            f"int8 ({self.frames} frames)"
        )


def graph_losses(
    float_runtime: Runtime,
    int8_runtime: Runtime,
    data: VideoSet,
    *,
    name: str,
    every: int = 1,
    degrade: str | None = None,
    teacher: Teacher | None = None,
    progress: Callable[[int], object] = lambda total: None,
) -> list[GraphLoss]:
    """Evaluate both graphs on the same frames, as `rnndet evaluate` does; one row per subset.

    data: has the model's classes, see `match_classes`. every, degrade, teacher, progress: of
    `evaluate_set`. Raises RnndetError.
    """
    options = {"every": every, "degrade": degrade, "teacher": teacher, "progress": progress}
    runs = {
        kind: evaluate_set(runtime, data, **options)[""]
        for kind, runtime in (("float", float_runtime), ("int8", int8_runtime))
    }
    rows, _ = score(runs, build_metrics(["coco_ap"], float_runtime.classes))
    frames = sum(len(video.frames) for video in runs["float"].videos)
    subsets = dict.fromkeys(key.subset for key in rows)
    ap50 = {(key.run, key.subset): 100 * numbers["AP50"] for key, numbers in rows.items()}
    where = name if degrade is None else f"{name}, {degrade}"
    where = where if teacher is None else f"{where}, agreement with {teacher.name}"
    return [
        GraphLoss(where, subset, frames, ap50["float", subset], ap50["int8", subset])
        for subset in subsets
    ]
