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

from rnndet.boxes import pairwise_iou, pairwise_share
from rnndet.data.targets import default_role
from rnndet.errors import RnndetError
from rnndet.evaluation.metrics.base import Metric, Numbers
from rnndet.evaluation.records import EvaluatedFrame, EvaluatedVideo
from rnndet.structures import Role, TrackingTarget

MIN_IOU = 0.5  # for matches to targets that are removed; MOTA and IDF1 use it, too
INSIDE = 0.5  # a detection of which more than this share lies in a region is removed
TINY = np.finfo(float).eps  # added to limits, as in trackeval
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

    Detections without a track (id 0) are dropped. What else does not count is removed as in
    trackeval's preparation of MOTChallenge, KITTI and BDD100K, in each frame: the targets of
    `TrackingTarget` other than regions, whatever their role, and the detections are matched by the
    Hungarian algorithm at IoU >= .5; the detections of distractors are removed, and of the
    unmatched those of which more than half lies in a region, and those that are too small; then all
    targets that are not counted. Boxes are those of the labels and may leave the image. Without a
    `TrackingTarget`, ignored targets are regions and targets without an id are distractors.

    Scores are not used: all output of the tracker counts. HOTA, DetA and AssA are means over IoU
    .05:.05:.95; MOTA, IDF1 and IDSW use .5. Raises RnndetError if trackeval is not installed, or a
    track or a counted target occurs twice in a class of a frame.
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
            target = frame.tracking or _default_target(frame)
            counted = target.labels[target.roles == Role.COUNTED]
            for label in np.union1d(frame.labels[frame.ids > 0], counted).tolist():
                where = f"{video.name}, frame {frame.index}"
                _refuse_repeated(frame, target, label, where=where, name=self._classes[label])
                steps[label].append(_step(frame, target, label))
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


def _default_target(frame: EvaluatedFrame) -> TrackingTarget:
    """The targets of a frame whose labels have nothing special for tracking metrics."""
    rows = zip(frame.target_labels, frame.target_ids, frame.target_ignore, strict=True)
    roles = [default_role(label, track, ignore=ignore) for label, track, ignore in rows]
    return TrackingTarget(
        boxes=frame.target_boxes.astype(np.float64),
        labels=frame.target_labels.astype(np.int64),
        ids=frame.target_ids,
        roles=np.array(roles, np.int8),
        rows=np.arange(len(roles)),
    )


def _refuse_repeated(
    frame: EvaluatedFrame, target: TrackingTarget, label: int, *, where: str, name: str
) -> None:
    """Raise RnndetError if an identity occurs twice; trackeval's metrics do not notice it."""
    tracks = frame.ids[(frame.labels == label) & (frame.ids > 0)]
    counted = target.ids[(target.labels == label) & (target.roles == Role.COUNTED)]
    for kind, ids in (("track", tracks), ("target", counted)):
        found, counts = np.unique(ids, return_counts=True)
        if (counts > 1).any():
            raise RnndetError(f"{where}: {kind} {found[counts > 1][0]} of {name} occurs twice")


def _step(frame: EvaluatedFrame, target: TrackingTarget, label: int) -> _Step:
    """The counted part of one class in one frame."""
    tracked = (frame.labels == label) & (frame.ids > 0)
    ids, boxes = frame.ids[tracked], frame.boxes[tracked].astype(np.float64)
    of_class = (target.labels == label) | (target.labels < 0)
    matched = of_class & (target.roles != Role.REGION)
    roles = target.roles[matched]
    iou = pairwise_iou(target.boxes[matched], boxes)
    near = np.where(iou < MIN_IOU - TINY, 0, iou)
    rows, columns = linear_sum_assignment(-near)
    is_match = near[rows, columns] > TINY
    rows, columns = rows[is_match], columns[is_match]
    regions = target.boxes[of_class & (target.roles == Role.REGION)]
    removed = (pairwise_share(boxes, regions) > INSIDE + TINY).any(1)
    if target.min_height > 0:
        removed |= boxes[:, 3] - boxes[:, 1] <= target.min_height + TINY
    removed[columns] = roles[rows] == Role.DISTRACTOR
    counted = roles == Role.COUNTED
    return _Step(target.ids[matched][counted], ids[~removed], iou[counted][:, ~removed])


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
