"""Tracking metrics, computed by the package trackeval.

HOTA: Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking", IJCV 2020.
MOTA, IDSW: Bernardin and Stiefelhagen, "Evaluating Multiple Object Tracking Performance: The CLEAR
MOT Metrics", 2008. IDF1: Ristani et al., "Performance Measures and a Data Set for Multi-Target,
Multi-Camera Tracking", ECCV workshops 2016.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from rnndet.boxes import pairwise_iou
from rnndet.errors import RnndetError
from rnndet.evaluation.metrics.base import Metric, Numbers
from rnndet.evaluation.metrics.matching import is_counted, on_ignored
from rnndet.evaluation.records import EvaluatedFrame, EvaluatedVideo

MIN_IOU = 0.5  # for matches to targets that are removed; MOTA and IDF1 use it, too
MEANS = ("HOTA", "DetA", "AssA", "IDF1", "MOTA")

_Part = dict[int, dict[str, Any]]  # [label][metric of trackeval]; only classes that occur


class _Step(NamedTuple):
    """One class in one frame: G targets and D detections."""

    target_ids: np.ndarray  # (G,) int64
    ids: np.ndarray  # (D,) int64
    iou: np.ndarray  # (G, D) float64


class Mot(Metric):
    """HOTA, DetA, AssA, IDF1, MOTA and the number of id switches (IDSW).

    Each class is evaluated separately over all videos; "HOTA" and the other means are taken over
    the classes with targets, and "IDSW" is the sum, as in the BDD100K benchmark. A track that
    changes its class therefore ends in one class and starts in another.

    Detections without a track (id 0) are dropped. Targets that are ignored or have no known id are
    removed together with their detections: the detections matched to a target without an id,
    one-to-one at IoU >= .5 among all counted targets, and the unmatched detections on an ignored
    target. Scores are not used: all output of the tracker counts. HOTA, DetA and AssA are means
    over IoU .05:.05:.95; MOTA, IDF1 and IDSW use .5. Raises RnndetError if trackeval is not
    installed.
    """

    columns = ("HOTA", "DetA", "AssA", "IDF1", "MOTA", "IDSW")
    units: ClassVar = {"IDSW": "times"}
    needs_tracks = True
    rule = "trackeval: HOTA over IoU .05:.05:.95, MOTA and IDF1 at .5; mean over classes"

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self._metrics = _metrics()

    def measure(self, video: EvaluatedVideo) -> _Part:
        """trackeval's results of every class in the labelled frames."""
        steps: dict[int, list[_Step]] = defaultdict(list)
        for frame in video.labelled().frames:
            counted, ignored = is_counted(frame), on_ignored(frame, MIN_IOU)
            tracked = frame.labels[frame.ids > 0]
            for label in np.union1d(tracked, frame.target_labels[counted]).tolist():
                steps[label].append(_step(frame, label, counted, ignored))
        return {label: self._evaluate(_sequence(rows)) for label, rows in sorted(steps.items())}

    def _evaluate(self, sequence: dict[str, Any]) -> dict[str, Any]:
        return {name: metric.eval_sequence(sequence) for name, metric in self._metrics.items()}

    def combine(self, parts: Sequence[_Part]) -> Numbers:
        """Means and sum as above, and "HOTA/<class>" and so on for the classes with targets."""
        rows = {}
        for label, name in enumerate(self._classes):
            row = self._class_numbers([part[label] for part in parts if label in part])
            if row is not None:
                rows[name] = row
        numbers = {key: _mean([row[key] for row in rows.values()]) for key in MEANS}
        numbers["IDSW"] = sum(row["IDSW"] for row in rows.values()) if rows else float("nan")
        return numbers | {f"{key}/{name}": row[key] for name, row in rows.items() for key in row}

    def _class_numbers(self, results: Sequence[dict[str, Any]]) -> Numbers | None:
        """The numbers of one class in several videos; None if it has no targets."""
        if not results:
            return None
        combined = {
            name: metric.combine_sequences(dict(enumerate(r[name] for r in results)))
            for name, metric in self._metrics.items()
        }
        hota, clear, identity = combined["HOTA"], combined["CLEAR"], combined["Identity"]
        if clear["CLR_TP"] + clear["CLR_FN"] == 0:
            return None
        return {
            "HOTA": float(np.mean(hota["HOTA"])),
            "DetA": float(np.mean(hota["DetA"])),
            "AssA": float(np.mean(hota["AssA"])),
            "IDF1": float(identity["IDF1"]),
            "MOTA": float(clear["MOTA"]),
            "IDSW": float(clear["IDSW"]),
        }

    def headline(self, parts: Sequence[_Part]) -> Numbers:
        """ "HOTA", "IDF1" and "MOTA"."""
        numbers = self.combine(parts)
        return {name: numbers[name] for name in ("HOTA", "IDF1", "MOTA")}


def _metrics() -> dict[str, Any]:
    try:
        from trackeval.metrics import CLEAR, HOTA, Identity
    except ImportError:
        raise RnndetError("tracking metrics: trackeval is missing; install rnndet[eval]") from None
    quiet = {"PRINT_CONFIG": False}
    return {"HOTA": HOTA(), "CLEAR": CLEAR(dict(quiet)), "Identity": Identity(dict(quiet))}


def _step(frame: EvaluatedFrame, label: int, counted: np.ndarray, ignored: np.ndarray) -> _Step:
    """The counted part of one class in one frame; counted (G,) targets, ignored (D,) detections."""
    of_class = counted & (frame.target_labels == label)
    tracked = (frame.labels == label) & (frame.ids > 0)
    target_ids, ids = frame.target_ids[of_class], frame.ids[tracked]
    iou = pairwise_iou(frame.target_boxes[of_class], frame.boxes[tracked], dtype=np.float64)
    known, keep = target_ids >= 0, ~ignored[tracked]
    if not (known.all() and keep.all()):
        rows, columns = linear_sum_assignment(np.where(iou >= MIN_IOU, iou, 0), maximize=True)
        near = iou[rows, columns] >= MIN_IOU
        keep[columns[near]] = known[rows[near]]
    return _Step(target_ids[known], ids[keep], iou[known][:, keep])


def _sequence(steps: Sequence[_Step]) -> dict[str, Any]:
    """One class in one video in trackeval's format; ids are renumbered from 0 without gaps."""
    target_ids = np.unique(np.concatenate([step.target_ids for step in steps]))
    ids = np.unique(np.concatenate([step.ids for step in steps]))
    return {
        "num_timesteps": len(steps),
        "num_gt_ids": len(target_ids),
        "num_tracker_ids": len(ids),
        "num_gt_dets": sum(len(step.target_ids) for step in steps),
        "num_tracker_dets": sum(len(step.ids) for step in steps),
        "gt_ids": [np.searchsorted(target_ids, step.target_ids) for step in steps],
        "tracker_ids": [np.searchsorted(ids, step.ids) for step in steps],
        "similarity_scores": [step.iou for step in steps],
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
