"""Decode the raw outputs of a one-stage head into detections, the same for every runtime.

Logits are compared with the threshold first; scores and boxes are computed for the candidates only,
and anchors once per image size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rnndet.boxes import clip, nms, scale
from rnndet.specs import HeadSpec
from rnndet.structures import DetectionLimits, Detections

Array = NDArray[np.float32]
Rows = NDArray[np.int64]

MARGIN = 1e-3  # of logits: includes candidates that rounding could move over the threshold
MAX_LOG_SIZE = math.log(1000 / 16)  # of box deltas, as in torchvision: bounds exp()


@lru_cache(maxsize=32)
def anchors_of(
    spec: HeadSpec, padded_hw: tuple[int, int], grids: tuple[tuple[int, int], ...]
) -> tuple[Array, Rows]:
    """The anchors (A, 4) of all levels, x1 y1 x2 y2 in pixels, and the level of each (A,).

    grids: height and width of each level's feature map. In torchvision's order: rows, columns, then
    the anchors of a cell. The arrays are read-only.
    """
    boxes, levels = [], []
    for level, ((rows, columns), cell) in enumerate(zip(grids, spec.cells, strict=True)):
        size_hw = np.array(padded_hw, np.float64)
        step = size_hw / (rows, columns) if spec.relative else size_hw // (rows, columns)
        if spec.steps:
            step = np.array([spec.steps[level]] * 2)
        start = 0.5 if spec.relative else 0.0
        y, x = ((np.arange(n) + start) * s for n, s in zip((rows, columns), step, strict=True))
        grid = np.stack(np.broadcast_arrays(x[None, :], y[:, None], x[None, :], y[:, None]), -1)
        offsets = np.array(cell, np.float64).reshape(-1, 4)
        if spec.relative:
            offsets = offsets * np.tile(size_hw[::-1], 2)
        boxes.append((grid[:, :, None] + offsets).reshape(-1, 4).astype(np.float32))
        levels.append(np.full(len(boxes[-1]), level))
    anchors, level_of = np.concatenate(boxes), np.concatenate(levels)
    anchors.setflags(write=False)
    level_of.setflags(write=False)
    return anchors, level_of


def postprocess(
    outputs: Mapping[str, Array],
    spec: HeadSpec,
    anchors: Array,
    level_of: Rows,
    *,
    size_hw: tuple[int, int],
    original_hw: tuple[int, int],
    limits: DetectionLimits,
) -> Detections:
    """Detections of an image with scores above limits.min_score, best first, in original pixels.

    outputs: see `HeadSpec`, float32. anchors, level_of: from `anchors_of`. size_hw: of the input
    image without padding; original_hw: of the original frame. As torchvision's
    `postprocess_detections`, except that background does not count towards the limit of
    detections, and boxes of different classes never suppress each other.
    """
    anchor, label, scores = _candidates(outputs, spec, limits.min_score)
    group = label if spec.per_class else level_of[anchor]
    order = _top_per_group(scores, group, spec.candidates)
    anchor, label, scores = anchor[order], label[order], scores[order]
    boxes = _decode(outputs["bbox_regression"][anchor], anchors[anchor], spec)
    boxes = clip(boxes, size_hw=size_hw)
    overlap = spec.nms_threshold if limits.nms_threshold is None else limits.nms_threshold
    keep = nms(boxes, label, limit=overlap, most=spec.most)
    factor = original_hw[1] / size_hw[1], original_hw[0] / size_hw[0]
    return Detections(scale(boxes[keep], factor_xy=factor), scores[keep], label[keep])


def _candidates(
    outputs: Mapping[str, Array], spec: HeadSpec, threshold: float
) -> tuple[Rows, Rows, Array]:
    """Anchor, label (0: first class) and score of the candidates above the threshold, (M,) each."""
    logits = outputs["cls_logits"]
    label_of = _label_of(spec.columns, logits.shape[1])
    if spec.scores == "softmax":
        top = logits.max(1)
        near = logits > (top + _log(threshold) - MARGIN)[:, None]
    else:
        minimum = threshold**2 if spec.scores == "centre" else threshold
        near = logits > _logit(minimum) - MARGIN
    near &= label_of >= 0
    anchor, column = np.divmod(np.flatnonzero(near), logits.shape[1])
    chosen = logits[anchor, column]
    if spec.scores == "softmax":
        rows, index = np.unique(anchor, return_inverse=True)
        total = np.exp(logits[rows] - top[rows, None]).sum(1)
        scores = np.exp(chosen - top[anchor]) / total[index]
    elif spec.scores == "centre":
        scores = np.sqrt(_sigmoid(chosen) * _sigmoid(outputs["bbox_ctrness"][anchor, 0]))
    else:
        scores = _sigmoid(chosen)
    above = scores > threshold
    return anchor[above], label_of[column[above]], scores[above]


@lru_cache(maxsize=32)
def _label_of(columns: tuple[int, ...], count: int) -> Rows:
    """The label of each of `count` columns of the logits, see `HeadSpec`; -1: of no class."""
    labels = np.full(count, -1)
    chosen = list(columns or range(1, count))
    labels[chosen] = np.arange(len(chosen))
    labels.setflags(write=False)
    return labels


def _top_per_group(scores: Array, group: Rows, limit: int) -> Rows:
    """Rows in descending order of scores, at most `limit` of each group."""
    order = np.argsort(-scores, kind="stable")
    if len(order) <= limit:
        return order
    sorted_groups = group[order]
    keep = np.zeros(len(order), bool)
    for value in np.unique(sorted_groups):  # levels or classes
        keep[np.flatnonzero(sorted_groups == value)[:limit]] = True
    return order[keep]


def _decode(offsets: Array, anchors: Array, spec: HeadSpec) -> Array:
    """Boxes (M, 4) of offsets (M, 4) from their anchors (M, 4)."""
    low, high = anchors[:, :2], anchors[:, 2:]
    sides = high - low
    if spec.boxes == "sides":
        centre = (low + high) / 2
        return np.concatenate([centre - offsets[:, :2] * sides, centre + offsets[:, 2:] * sides], 1)
    deltas = offsets / np.array(spec.weights, offsets.dtype)
    centre = low + sides / 2 + deltas[:, :2] * sides
    half = np.exp(np.minimum(deltas[:, 2:], MAX_LOG_SIZE)) * sides / 2
    return np.concatenate([centre - half, centre + half], 1)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-np.maximum(x, -80)))  # exp(80) is still a float32


def _logit(p: float) -> float:
    return -math.inf if p <= 0 else math.inf if p >= 1 else math.log(p / (1 - p))


def _log(p: float) -> float:
    return -math.inf if p <= 0 else math.log(p)
