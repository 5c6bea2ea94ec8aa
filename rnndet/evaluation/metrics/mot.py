"""Tracking metrics by the community's own code: the package trackeval, used as a library.

HOTA: Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking", IJCV 2020.
MOTA, IDSW: Bernardin and Stiefelhagen, "Evaluating Multiple Object Tracking Performance: The CLEAR
MOT Metrics", 2008. IDF1: Ristani et al., "Performance Measures and a Data Set for Multi-Target,
Multi-Camera Tracking", ECCV workshops 2016.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from rnndet.errors import RnndetError
from rnndet.evaluation.metrics.base import Numbers
from rnndet.evaluation.metrics.overlap import is_counted, on_ignored, pairwise_iou
from rnndet.evaluation.metrics.record import EvaluatedFrame, EvaluatedVideo

IOU = 0.5  # from which a detection belongs to a truth that is left out; MOTA and IDF1 use it, too
MEANS = ("HOTA", "DetA", "AssA", "IDF1", "MOTA")

_Part = dict[int, dict[str, Any]]  # [label][metric of trackeval]; only classes that occur


class _Step(NamedTuple):
    """One class in one frame: G truths and D detections."""

    target_ids: np.ndarray  # (G,) int64
    ids: np.ndarray  # (D,) int64
    iou: np.ndarray  # (G, D) float64


class Mot:
    """HOTA, DetA, AssA, IDF1, MOTA and the number of id switches (IDSW).

    Each class is scored by itself over all videos, as its own task; "HOTA" and the like are the
    means over the classes that have truths, "IDSW" is their sum, as in the BDD100K benchmark. A
    track that changes its class therefore ends in one class and starts in another.

    Detections without a track (id 0) are dropped. Truths that are ignored or have no known id are
    removed with their detections: those that are matched to a truth without an id, one-to-one at
    IoU >= .5 among all that count, and those that are matched to none and lie on an ignored one.
    Scores play no part: what a tracker reports counts. HOTA, DetA and AssA are means over IoU
    .05:.05:.95; MOTA, IDF1 and IDSW use .5. Raises RnndetError if trackeval is not installed.
    """

    rule = "trackeval: HOTA over IoU .05:.05:.95, MOTA and IDF1 at .5; mean over classes"

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self._metrics = _metrics()

    def measure(self, video: EvaluatedVideo) -> _Part:
        steps: dict[int, list[_Step]] = defaultdict(list)
        for frame in video.labelled().frames:
            counted, ignored = is_counted(frame), on_ignored(frame, IOU)
            tracked = frame.labels[frame.ids > 0]
            for label in np.union1d(tracked, frame.target_labels[counted]).tolist():
                steps[label].append(_step(frame, label, counted, ignored))
        return {label: self._score(_sequence(own)) for label, own in sorted(steps.items())}

    def _score(self, sequence: dict[str, Any]) -> dict[str, Any]:
        return {name: metric.eval_sequence(sequence) for name, metric in self._metrics.items()}

    def combine(self, parts: Sequence[_Part]) -> Numbers:
        """Means and sum as above, and "HOTA/<class>" and the like for classes that have truths."""
        rows = {}
        for label, name in enumerate(self._classes):
            row = self._class_numbers([part[label] for part in parts if label in part])
            if row is not None:
                rows[name] = row
        numbers = {key: _mean([row[key] for row in rows.values()]) for key in MEANS}
        numbers["IDSW"] = sum(row["IDSW"] for row in rows.values()) if rows else float("nan")
        return numbers | {f"{key}/{name}": row[key] for name, row in rows.items() for key in row}

    def _class_numbers(self, results: Sequence[dict[str, Any]]) -> Numbers | None:
        """The numbers of one class in several videos; None if it has no truths."""
        if not results:
            return None
        whole = {
            name: metric.combine_sequences(dict(enumerate(r[name] for r in results)))
            for name, metric in self._metrics.items()
        }
        hota, clear, identity = whole["HOTA"], whole["CLEAR"], whole["Identity"]
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
    """What of one class counts in one frame; counted (G,) truths, ignored (D,) detections."""
    own = counted & (frame.target_labels == label)
    tracked = (frame.labels == label) & (frame.ids > 0)
    target_ids, ids = frame.target_ids[own], frame.ids[tracked]
    iou = pairwise_iou(frame.target_boxes[own], frame.boxes[tracked])
    known, keep = target_ids >= 0, ~ignored[tracked]
    if not (known.all() and keep.all()):
        rows, columns = linear_sum_assignment(np.where(iou >= IOU, iou, 0), maximize=True)
        near = iou[rows, columns] >= IOU
        keep[columns[near]] = known[rows[near]]
    return _Step(target_ids[known], ids[keep], iou[known][:, keep])


def _sequence(steps: Sequence[_Step]) -> dict[str, Any]:
    """trackeval's form of one class in one video; ids are numbered from 0 without gaps."""
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
