"""Average precision by the COCO rule, computed by pycocotools.

IoU thresholds .50:.05:.95, 101-point interpolated precision, exclusive box edges, at most 100
detections per class and frame. Not comparable with ILSVRC's AP, which relaxes small boxes.
"""

import contextlib
import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rnndet.structures import Detections, Truth

CHUNK = 256  # frames that exist as pycocotools' dicts at a time: 100 boxes each are about 25 MB
AREAS = ("", "_small", "_medium", "_large")  # COCO's order: all, < 32**2, < 96**2, larger

_Matches = list[dict[str, Any] | None]  # one frame each; None where class and frame hold nothing


class _Kept(NamedTuple):
    """One frame as numpy arrays."""

    boxes: np.ndarray  # (D, 4) float32, x y w h
    scores: np.ndarray  # (D,) float32
    labels: np.ndarray  # (D,) int32
    truth_boxes: np.ndarray  # (G, 4) float32, x y w h
    truth_labels: np.ndarray  # (G,) int32
    truth_ignore: np.ndarray  # (G,) bool


class CocoAP:
    """Evaluator of AP over classes and IoU thresholds.

    - classes: names by label. A class without truths has no numbers and is in no mean.
    - max_detections: the best so many per class and frame count.
    - frames: takes a video's name and a frame's index and says whether the frame is scored; None
      scores all. Several evaluators with different `frames` score one run in subsets.

    An ignored truth is a COCO crowd: it may absorb any number of detections, and is not missed.
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        max_detections: int = 100,
        frames: Callable[[str, int], bool] | None = None,
    ):
        self._classes = tuple(classes)
        self._max_detections = max_detections
        self._frames = frames
        self._kept: dict[tuple[str, int], _Kept] = {}

    def __len__(self) -> int:
        """Frames so far."""
        return len(self._kept)

    def update(self, video: str, index: int, predicted: Detections, truth: Truth) -> None:
        """Add one labelled frame, unless it is not of this evaluator's subset."""
        if self._frames is not None and not self._frames(video, index):
            return
        assert (video, index) not in self._kept, f"frame {index} of {video} was scored already"
        self._kept[video, index] = _Kept(
            _xywh(predicted.boxes.cpu().numpy()),
            predicted.scores.cpu().numpy().astype(np.float32),
            predicted.labels.cpu().numpy().astype(np.int32),
            _xywh(truth.boxes.cpu().numpy()),
            truth.labels.cpu().numpy().astype(np.int32),
            truth.ignore.cpu().numpy().astype(bool),
        )

    def merge(self, other: "CocoAP") -> None:
        """Add the frames of another evaluator of the same classes."""
        assert self._classes == other._classes, (self._classes, other._classes)
        both = self._kept.keys() & other._kept.keys()
        assert not both, f"{len(both)} frames were scored twice, one of them {min(both)}"
        self._kept.update(other._kept)

    def compute(self) -> dict[str, float]:
        """All numbers in 0..1; NaN where there are no truths to define one.

        "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR100" (or the number of
        `max_detections`); "AP/<class>" and "AP50/<class>" for classes that have truths; and the
        working point of the best F1 at IoU .5: "F1", "precision", "recall", "threshold".
        """
        frames = [self._kept[key] for key in sorted(self._kept)]  # order does not change numbers
        matches = self._match(frames)
        precision, recall = self._accumulate(matches, len(frames))
        numbers = {"AP": _mean(precision[:, :, :, 0])}
        numbers["AP50"] = _mean(precision[0, :, :, 0])
        numbers["AP75"] = _mean(precision[5, :, :, 0])
        for a, area in enumerate(AREAS[1:], start=1):
            numbers[f"AP{area}"] = _mean(precision[:, :, :, a])
        numbers[f"AR{self._max_detections}"] = _mean(recall[:, :, 0])
        numbers |= best_f1(*_pooled(matches))
        for k, name in enumerate(self._classes):
            if (precision[0, :, k, 0] > -1).any():
                numbers[f"AP/{name}"] = _mean(precision[:, :, k, 0])
                numbers[f"AP50/{name}"] = _mean(precision[0, :, k, 0])
        return numbers

    def _match(self, frames: list[_Kept]) -> list[list[_Matches]]:
        """Greedy matching of every frame: [class][area][frame]."""
        cells: list[list[_Matches]] = [[[] for _ in AREAS] for _ in self._classes]
        for first in range(0, len(frames), CHUNK):
            chunk = frames[first : first + CHUNK]
            results = iter(self._match_chunk(chunk))
            for row in cells:
                for cell in row:
                    cell += [_slim(next(results)) for _ in chunk]
        return cells

    def _match_chunk(self, frames: list[_Kept]) -> _Matches:
        """pycocotools' per-frame results, by class, then area, then frame."""
        with contextlib.redirect_stdout(io.StringIO()):
            truths = [(f.truth_boxes, f.truth_labels, f.truth_ignore, None) for f in frames]
            found = [(f.boxes, f.labels, None, f.scores) for f in frames]
            evaluation = self._evaluation(len(frames), self._coco(truths), self._coco(found))
            evaluation.evaluate()
        return evaluation.evalImgs

    def _accumulate(self, cells: list[list[_Matches]], count: int) -> tuple[np.ndarray, np.ndarray]:
        """Precision (10 IoU, 101 recall, K, 4 areas) and recall (10 IoU, K, 4 areas); -1: none."""
        empty = self._coco([])
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = self._evaluation(count, empty, empty)
            evaluation._paramsEval = evaluation.params
            evaluation.evalImgs = [m for row in cells for cell in row for m in cell]
            evaluation.accumulate()
        return evaluation.eval["precision"][..., 0], evaluation.eval["recall"][..., 0]

    def _evaluation(self, count: int, truths: COCO, found: COCO) -> COCOeval:
        evaluation = COCOeval(truths, found, "bbox")
        evaluation.params.imgIds = list(range(count))
        evaluation.params.catIds = list(range(len(self._classes)))
        evaluation.params.maxDets = [self._max_detections]
        return evaluation

    def _coco(self, frames: Sequence[tuple[Any, ...]]) -> COCO:
        """An index of boxes, labels, ignore and scores of some frames."""
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
    """The score threshold whose F1 is highest, with its "F1", "precision", "recall", "threshold".

    scores (D,) of all detections that count, in any order; hits (D,) bool, those that match a
    truth; positives: number of truths. A detection with the threshold's own score is kept.
    NaN if there are no truths; zeros (and threshold NaN) if nothing was found.
    """
    if positives == 0:
        return dict.fromkeys(("F1", "precision", "recall", "threshold"), float("nan"))
    if not hits.any():
        return {"F1": 0.0, "precision": 0.0, "recall": 0.0, "threshold": float("nan")}
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], np.cumsum(hits[order])
    # A threshold cannot cut between equal scores: look only at the last of each.
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    precision, recall = right[last] / (last + 1), right[last] / positives
    f1 = 2 * right[last] / (last + 1 + positives)
    best = int(f1.argmax())
    return {
        "F1": float(f1[best]),
        "precision": float(precision[best]),
        "recall": float(recall[best]),
        "threshold": float(scores[last[best]]),
    }


def _pooled(cells: list[list[_Matches]]) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores and hits at IoU .5 of all classes' detections that count, and the number of truths."""
    results = [m for row in cells for m in row[0] if m is not None]
    scores = [m["dtScores"][~m["dtIgnore"][0]] for m in results]
    hits = [m["dtMatches"][0][~m["dtIgnore"][0]] for m in results]
    positives = sum(int((m["gtIgnore"] == 0).sum()) for m in results)
    if not results:
        return np.zeros(0), np.zeros(0, bool), 0
    return np.concatenate(scores), np.concatenate(hits), positives


def _slim(result: dict[str, Any] | None) -> dict[str, Any] | None:
    """What accumulation needs, with 1 byte instead of 8 for each match."""
    if result is None:
        return None
    return {
        "dtScores": np.asarray(result["dtScores"]),
        "dtMatches": result["dtMatches"] > 0,
        "dtIgnore": result["dtIgnore"].astype(bool),
        "gtIgnore": result["gtIgnore"],
    }


def _xywh(boxes: np.ndarray) -> np.ndarray:
    """x1 y1 x2 y2 -> x y w h, float32; a copy."""
    size = boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([boxes[:, :2], size], 1).astype(np.float32)


def _mean(values: np.ndarray) -> float:
    """Mean of what is defined (-1: not); NaN if nothing is."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else float("nan")
