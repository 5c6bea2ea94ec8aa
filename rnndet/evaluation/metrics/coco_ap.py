"""COCO average precision, computed by pycocotools.

IoU thresholds .50:.05:.95, 101-point interpolated precision, exclusive box edges, at most 100
detections per class and frame. Not comparable with ILSVRC's AP, which relaxes small boxes.
"""

import contextlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rnndet.boxes import xyxy_to_xywh
from rnndet.evaluation.metrics.base import Metric, Numbers
from rnndet.evaluation.metrics.motion import GROUPS, motion_groups, motion_iou
from rnndet.evaluation.records import EvaluatedFrame, EvaluatedVideo

CHUNK = 256  # frames held as pycocotools' dicts at a time: with 100 boxes each about 25 MB
AREAS = ("", "_small", "_medium", "_large")  # COCO's order: all, < 32**2, < 96**2, larger
RECALLS = np.linspace(0.0, 1.0, 101)

_Matches = list[dict[str, Any] | None]  # by frame; None for a frame without boxes of the class
_Cells = list[list[_Matches]]  # [class][area][frame]


class _Pool(NamedTuple):
    """One class of one video, all sizes."""

    scores: np.ndarray  # (D,)
    hits: np.ndarray  # (IoU thresholds, D) int8: 1 true positive, 0 false positive, -1 ignored
    positives: int


class _Part(NamedTuple):
    """The contribution of one video."""

    cells: _Cells
    pools: list[_Pool]  # by class
    motion: list[list[_Pool]]  # by motion group, then class; at IoU .5


class CocoAP(Metric):
    """AP over classes and IoU thresholds.

    - classes: names by label. A class without targets has no numbers and is in no mean.
    - max_detections: detections with the highest scores that count, per class and frame.

    For a motion group (motion.py) the targets of the other groups are ignored.

    An ignored target is a COCO crowd: it may absorb any number of detections, and is not missed; a
    region of no class (label -1) absorbs detections of every class.

    >>> from rnndet.evaluation.records import Predictions
    >>> CocoAP(("car",)).combine([])["AP50"]
    nan
    """

    columns = ("AP50", "AP", "AP75", "AP_small", "AP_medium", "AP_large", "AP50_slow",
               "AP50_medium", "AP50_fast", "AR100", "F1")  # fmt: skip
    works_on_single_frames = True
    whole_video_numbers = tuple(f"AP50_{group}" for group in GROUPS)

    def __init__(self, classes: Sequence[str], *, max_detections: int = 100):
        self._classes = tuple(classes)
        self._max_detections = max_detections
        self.rule = f"COCO, IoU .50:.05:.95, 101 points, {max_detections} detections a class"

    def measure(self, video: EvaluatedVideo) -> _Part:
        """Greedy matching of every labelled frame."""
        labelled = video.labelled()
        frames = labelled.frames
        cells: _Cells = [[[] for _ in AREAS] for _ in self._classes]
        moving: list[list[_Matches]] = [[[] for _ in self._classes] for _ in GROUPS]
        groups = [motion_groups(values) for values in motion_iou(labelled)]
        for first in range(0, len(frames), CHUNK):
            chunk = frames[first : first + CHUNK]
            results = iter(self._match_chunk(chunk))
            for row in cells:
                for cell in row:
                    cell += [_slim(next(results)) for _ in chunk]
            for group, by_class in enumerate(moving):
                inside = [values == group for values in groups[first : first + CHUNK]]
                results = iter(self._match_chunk(chunk, inside))
                for matches in by_class:
                    matches += [_slim(next(results)) for _ in chunk]
        pools = [_pool(row[0]) for row in cells]
        return _Part(cells, pools, [[_pool(matches) for matches in row] for row in moving])

    def combine(self, parts: Sequence[_Part]) -> Numbers:
        """All numbers, in 0..1; NaN where there are no targets to define one.

        "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR100" (or the number of
        `max_detections`); "AP50_slow", "AP50_medium", "AP50_fast"; "AP/<class>" and "AP50/<class>"
        for classes that have targets; and the operating point of the best F1 at IoU .5: "F1",
        "precision", "recall", "threshold".
        """
        matches = self._joined([part.cells for part in parts])
        precision, recall = self._accumulate(matches)
        numbers = {"AP": _mean(precision[:, :, :, 0])}
        numbers["AP50"] = _mean(precision[0, :, :, 0])
        numbers["AP75"] = _mean(precision[5, :, :, 0])
        for a, area in enumerate(AREAS[1:], start=1):
            numbers[f"AP{area}"] = _mean(precision[:, :, :, a])
        numbers[f"AR{self._max_detections}"] = _mean(recall[:, :, 0])
        for group, name in enumerate(GROUPS):
            numbers[f"AP50_{name}"] = _ap([part.motion[group] for part in parts])[0]
        numbers |= best_f1(*_pooled(matches))
        for k, name in enumerate(self._classes):
            if (precision[0, :, k, 0] > -1).any():
                numbers[f"AP/{name}"] = _mean(precision[:, :, k, 0])
                numbers[f"AP50/{name}"] = _mean(precision[0, :, k, 0])
        return numbers

    def headline(self, parts: Sequence[_Part]) -> Numbers:
        """ "AP50" and "AP" alone."""
        by_iou = _ap([part.pools for part in parts])
        return {"AP50": by_iou[0], "AP": float(np.mean(by_iou))}

    def _joined(self, parts: Sequence[_Cells]) -> _Cells:
        """The cells of several videos as if they were one video."""
        return [
            [[m for part in parts for m in part[k][a]] for a in range(len(AREAS))]
            for k in range(len(self._classes))
        ]

    def _match_chunk(
        self, frames: Sequence[EvaluatedFrame], inside: Sequence[np.ndarray] | None = None
    ) -> _Matches:
        """pycocotools' results per frame, by class, then area, then frame.

        With `inside`, (G,) bool for each frame, the other targets are ignored as COCO ignores sizes
        out of range; there is then a single area, and the only IoU threshold is .5.
        """
        with contextlib.redirect_stdout(io.StringIO()):
            targets = self._coco([self._targets(frame) for frame in frames])
            detections = self._coco([(_xywh(f.boxes), f.labels, None, f.scores) for f in frames])
            evaluation = self._evaluation(len(frames), targets, detections)
            if inside is not None:
                evaluation.params.iouThrs = np.array([0.5])
                evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1]], ["group"]
                counted = [self._repeated(f, rows) for f, rows in zip(frames, inside, strict=True)]
                _set_areas(targets, np.where(np.concatenate(counted), 0.5, 2.0))
                _set_areas(detections, np.full(len(detections.anns), 0.5))
            evaluation.evaluate()
        return evaluation.evalImgs

    def _targets(self, frame: EvaluatedFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray, None]:
        """Boxes x y w h, labels, ignore flags; a region of no class is repeated for every class."""
        boxes, labels, ignore = _xywh(frame.target_boxes), frame.target_labels, frame.target_ignore
        if not (labels < 0).any():
            return boxes, labels, ignore, None
        regions = boxes[labels < 0]
        count = len(self._classes)
        boxes = np.concatenate([boxes[labels >= 0], np.repeat(regions, count, 0)])
        ignore = np.concatenate([ignore[labels >= 0], np.ones(len(regions) * count, bool)])
        all_labels = np.tile(np.arange(count), len(regions))
        return boxes, np.concatenate([labels[labels >= 0], all_labels]), ignore, None

    def _repeated(self, frame: EvaluatedFrame, inside: np.ndarray) -> np.ndarray:
        """`inside` in the order of `_targets`; regions of no class are in no group."""
        regions = int((frame.target_labels < 0).sum()) * len(self._classes)
        return np.concatenate([inside[frame.target_labels >= 0], np.zeros(regions, bool)])

    def _accumulate(self, cells: _Cells) -> tuple[np.ndarray, np.ndarray]:
        """Precision (10 IoU, 101 recall, K, 4 areas) and recall (10 IoU, K, 4 areas); -1: none."""
        count = len(cells[0][0])
        empty = self._coco([])
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = self._evaluation(count, empty, empty)
            evaluation._paramsEval = evaluation.params
            evaluation.evalImgs = [m for row in cells for cell in row for m in cell]
            evaluation.accumulate()
        return evaluation.eval["precision"][..., 0], evaluation.eval["recall"][..., 0]

    def _evaluation(self, count: int, targets: COCO, detections: COCO) -> COCOeval:
        evaluation = COCOeval(targets, detections, "bbox")
        evaluation.params.imgIds = list(range(count))
        evaluation.params.catIds = list(range(len(self._classes)))
        evaluation.params.maxDets = [self._max_detections]
        return evaluation

    def _coco(self, frames: Sequence[tuple[Any, ...]]) -> COCO:
        """pycocotools' index of boxes, labels, ignore flags and scores, by frame."""
        rows = []
        for image, (boxes, labels, ignore, scores) in enumerate(frames):
            for i, (box, label) in enumerate(zip(boxes.tolist(), labels.tolist(), strict=True)):
                rows.append(
                    {
                        "id": len(rows) + 1,  # pycocotools takes id 0 for "not matched"
                        "image_id": image,
                        "category_id": label,
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": 0 if ignore is None else int(ignore[i]),
                        "score": 0.0 if scores is None else float(scores[i]),
                    }
                )
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(len(frames))],
            "annotations": rows,
            "categories": [{"id": k, "name": name} for k, name in enumerate(self._classes)],
        }
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
        return coco


def best_f1(scores: np.ndarray, hits: np.ndarray, positives: int) -> dict[str, float]:
    """The score threshold with the highest F1: "F1", "precision", "recall", "threshold".

    scores (D,) of all detections that count, in any order; hits (D,) bool, those that match a
    target; positives: number of targets. A detection whose score equals the threshold is kept.
    NaN if there are no targets; zeros (and threshold NaN) if there are no hits.

    >>> best_f1(np.array([0.9, 0.7, 0.4]), np.array([True, True, False]), 2)["threshold"]
    0.7
    """
    if positives == 0:
        return dict.fromkeys(("F1", "precision", "recall", "threshold"), float("nan"))
    if not hits.any():
        return {"F1": 0.0, "precision": 0.0, "recall": 0.0, "threshold": float("nan")}
    order = np.argsort(-scores, kind="stable")
    scores, true_positives = scores[order], np.cumsum(hits[order])
    # A threshold cannot separate equal scores: use the last detection of each score.
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    precision, recall = true_positives[last] / (last + 1), true_positives[last] / positives
    f1 = 2 * true_positives[last] / (last + 1 + positives)
    best = int(f1.argmax())
    return {
        "F1": float(f1[best]),
        "precision": float(precision[best]),
        "recall": float(recall[best]),
        "threshold": float(scores[last[best]]),
    }


def _pooled(cells: _Cells) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores and hits at IoU .5 of all counted detections, and the number of targets."""
    results = [m for row in cells for m in row[0] if m is not None]
    scores = [m["dtScores"][~m["dtIgnore"][0]] for m in results]
    hits = [m["dtMatches"][0][~m["dtIgnore"][0]] for m in results]
    positives = sum(int((m["gtIgnore"] == 0).sum()) for m in results)
    if not results:
        return np.zeros(0), np.zeros(0, bool), 0
    return np.concatenate(scores), np.concatenate(hits), positives


def _slim(result: dict[str, Any] | None) -> dict[str, Any] | None:
    """The arrays that accumulation needs, with 1 byte instead of 8 for each match."""
    if result is None:
        return None
    return {
        "dtScores": np.asarray(result["dtScores"]),
        "dtMatches": result["dtMatches"] > 0,
        "dtIgnore": result["dtIgnore"].astype(bool),
        "gtIgnore": result["gtIgnore"],
    }


def _pool(matches: _Matches) -> _Pool:
    """The detections of one class in all frames."""
    present = [m for m in matches if m is not None]
    if not present:
        return _Pool(np.zeros(0), np.zeros((1, 0), np.int8), 0)
    scores = np.concatenate([m["dtScores"] for m in present])
    hits = [np.where(m["dtIgnore"], -1, m["dtMatches"]).astype(np.int8) for m in present]
    positives = sum(int((m["gtIgnore"] == 0).sum()) for m in present)
    return _Pool(scores, np.concatenate(hits, 1), positives)


def _ap(videos: Sequence[Sequence[_Pool]]) -> list[float]:
    """COCO's mean AP over the classes at each IoU threshold, without pycocotools' loops."""
    by_class = []
    for pools in zip(*videos, strict=True):
        positives = sum(pool.positives for pool in pools)
        if positives == 0:
            continue
        filled = [pool for pool in pools if len(pool.scores)]
        scores = np.concatenate([np.zeros(0), *(pool.scores for pool in filled)])
        order = np.argsort(-scores, kind="stable")
        hits = np.concatenate([pool.hits for pool in filled], 1)[:, order] if filled else [[]]
        by_class.append([_class_ap(np.asarray(row), positives) for row in hits])
    count = max((len(row) for row in by_class), default=1)
    # A class without detections has a single row, at AP 0.
    rows = [row if len(row) == count else [0.0] * count for row in by_class]
    return np.mean(rows, 0).tolist() if rows else [float("nan")]


def _class_ap(hits: np.ndarray, positives: int) -> float:
    """101-point AP; hits (D,) by descending score, -1 ignored."""
    return float(precision_at_recalls(hits[hits >= 0], positives).sum() / len(RECALLS))


def precision_at_recalls(hits: np.ndarray, positives: int) -> np.ndarray:
    """Interpolated precision at COCO's 101 recalls, (R,) for the R <= 101 that are reached.

    hits (D,) 0 or 1, by descending score; positives: number of targets, above 0.
    """
    true_positives = np.cumsum(hits)
    precision = true_positives / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    ranks = np.searchsorted(true_positives / positives, RECALLS, side="left")
    return precision[ranks[ranks < len(hits)]]


def _set_areas(coco: COCO, areas: np.ndarray) -> None:
    """Set the area of every box, in the order of the ids."""
    for number, annotation in coco.anns.items():
        annotation["area"] = float(areas[number - 1])


def _xywh(boxes: np.ndarray) -> np.ndarray:
    return xyxy_to_xywh(boxes).astype(np.float32)


def _mean(values: np.ndarray) -> float:
    """Mean of the defined values (-1 is undefined); NaN without any."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else float("nan")
