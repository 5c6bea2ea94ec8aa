"""Specifications that travel with a model as plain data: its input, its head, its track classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from numbers import Integral
from typing import Any

from rnndet.errors import RnndetError, WeightsError
from rnndet.messages import counted

Box = tuple[float, float, float, float]

LARGEST = 4096  # pixels: a larger input is a mistake, and would need gigabytes

FIT_AGAIN = "fit it again: rnndet fit_track_classes"


@dataclass(frozen=True, slots=True)
class InputSpec:
    """Resizing, padding and normalisation of a frame for the network.

    >>> spec = InputSpec(320, 480, None, 32, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    >>> spec.scaled_hw(1080, 1920)
    (270, 480)
    >>> spec.padded_hw(270, 480)
    (288, 480)
    """

    shorter: int  # pixels: a frame is scaled until its shorter edge reaches this ...
    longer: int  # ... or its longer edge, whichever is reached first
    fixed_hw: tuple[int, int] | None  # or scaled to exactly this size, with any aspect ratio
    divisor: int  # then padded with 0 at the right and bottom to a multiple of this
    mean: tuple[float, ...]  # normalised as (x / 255 - mean) / std, RGB
    std: tuple[float, ...]
    # Frames arrive at their own size, and the model scales them as float32, as torchvision does;
    # False: they arrive scaled, as bytes, which is faster.
    as_float: bool = False

    def scaled_hw(self, height: int, width: int) -> tuple[int, int]:
        """The size of a frame after scaling, before padding."""
        if self.fixed_hw is not None:
            return self.fixed_hw
        factor = min(self.shorter / min(height, width), self.longer / max(height, width))
        return max(1, int(height * factor)), max(1, int(width * factor))

    def padded_hw(self, height: int, width: int) -> tuple[int, int]:
        """The input size of the network for a scaled frame."""
        step = self.divisor
        return -(-height // step) * step, -(-width // step) * step

    def resized(self, longer: int) -> InputSpec:
        """The specification with another longer edge, and the shorter in proportion.

        Raises RnndetError for an impossible size and for a model with one fixed size.

        >>> InputSpec(320, 400, None, 32, mean=(0.5,), std=(0.2,)).resized(200).shorter
        160
        """
        if self.fixed_hw is not None or self.as_float:
            raise RnndetError(
                f"size = {longer}: this model takes no other size than its own, since it "
                + ("scales every frame itself" if self.as_float else "has a fixed input size")
            )
        if not isinstance(longer, Integral) or not self.divisor <= longer <= LARGEST:
            raise RnndetError(
                f"size = {longer!r}; expected the longer edge of the model's input in pixels, "
                f"{self.divisor} to {LARGEST}"
            )
        return replace(self, shorter=round(self.shorter * longer / self.longer), longer=longer)

    def to_dict(self) -> dict[str, Any]:
        return _without(asdict(self), {"as_float": False})

    @staticmethod
    def from_dict(tree: Mapping[str, Any]) -> InputSpec:
        fixed = tree["fixed_hw"]
        return InputSpec(
            tree["shorter"], tree["longer"], None if fixed is None else (fixed[0], fixed[1]),
            tree["divisor"], tuple(tree["mean"]), tuple(tree["std"]), tree.get("as_float", False),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """Decoding of the raw outputs of a one-stage head into detections.

    Outputs for A anchors and K classes: "cls_logits" (A, K + 1), class 0 is background;
    "bbox_regression" (A, 4); with centre-ness "bbox_ctrness" (A, 1).
    """

    scores: str  # sigmoid; softmax; centre: sqrt(sigmoid(class) * sigmoid(centre-ness))
    # sides: distances of the four sides, in units of the anchor's sides; deltas: centre and log
    # size, divided by `weights` (Faster R-CNN, arXiv 1506.01497, eq. 2)
    boxes: str
    weights: Box
    # Per level, x1 y1 x2 y2 of each anchor of a cell: in pixels from the corner of the cell, or,
    # if `relative`, in fractions of the image from the centre of the cell.
    cells: tuple[tuple[Box, ...], ...]
    relative: bool
    candidates: int  # limit before NMS, for each level, or for each class if `per_class`
    per_class: bool
    nms_threshold: float
    most: int  # limit of detections in a frame
    # Column of "cls_logits" of each class, if other columns besides the first are of no class;
    # empty: all columns but the first.
    columns: tuple[int, ...] = ()
    # Pixels per cell of each level; empty: the image's size divided by the number of cells.
    steps: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return _without(asdict(self), {"columns": (), "steps": ()})

    @staticmethod
    def from_dict(tree: Mapping[str, Any]) -> HeadSpec:
        cells = tuple(tuple(tuple(box) for box in level) for level in tree["cells"])
        lists = {key: tuple(tree.get(key, ())) for key in ("weights", "columns", "steps")}
        return HeadSpec(**{**tree, **lists, "cells": cells})


@dataclass(frozen=True, slots=True)
class TrackClassSpec:
    """A linear read-out that names a track by its shape and motion, F features to K classes.

    The probabilities of a track are softmax(clip((features - mean) / std, -LIMIT, LIMIT) @ weight +
    bias); `rnndet.tracking.track_classes` says how they change the scores of detections.
    """

    classes: tuple[str, ...]  # those of the model, in its order
    features: tuple[str, ...]  # names, see `rnndet.tracking.shape_motion.FEATURES`
    mean: tuple[float, ...]  # (F,)
    std: tuple[float, ...]  # (F,)
    weight: tuple[tuple[float, ...], ...]  # (F, K)
    bias: tuple[float, ...]  # (K,)
    wait: float = 0.1  # seconds: the age of a track from which on its class counts
    power: float = 0.12  # exponent of the probabilities beside the scores
    floor: float = 0.02  # smallest evidence: added to a probability, and to a share of the scores

    def to_dict(self) -> dict[str, Any]:
        """The fields as numbers, text and lists."""
        return {
            key: [list(row) for row in value] if key == "weight"
            else list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }  # fmt: skip

    @staticmethod
    def from_dict(tree: Any, *, classes: Sequence[str], where: str) -> TrackClassSpec:
        """Read the output of `to_dict`; classes: of the model. Raises WeightsError."""
        try:
            spec = TrackClassSpec(
                tuple(tree["classes"]), tuple(tree["features"]), _numbers(tree["mean"]),
                _numbers(tree["std"]), tuple(_numbers(row) for row in tree["weight"]),
                _numbers(tree["bias"]), *_numbers((tree["wait"], tree["power"], tree["floor"])),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError):
            raise WeightsError(f"{where}: track_classes: malformed; {FIT_AGAIN}") from None
        width, count = len(spec.features), len(spec.classes)
        shapes = (len(spec.mean), len(spec.std), len(spec.bias), {len(r) for r in spec.weight})
        is_fitting = shapes == (width, width, count, {count}) and len(spec.weight) == width
        if spec.classes != tuple(classes) or not is_fitting:
            raise WeightsError(
                f"{where}: track_classes: not for {counted(len(classes), 'class', 'classes')} "
                f"{', '.join(classes[:9])}, "
                f"or its shapes do not agree; {FIT_AGAIN}"
            )
        numbers = (*spec.mean, *spec.std, *spec.bias, spec.wait, spec.power, spec.floor)
        every = (*numbers, *(value for row in spec.weight for value in row))
        if not all(map(math.isfinite, every)) or min(*spec.std, spec.floor) <= 0:
            raise WeightsError(
                f"{where}: track_classes: NaN, infinite or impossible values; refused"
            )
        return spec


def _numbers(row: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in row)


def _without(tree: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """`tree` without newer keys that have their default, so that older versions can read it."""
    return {key: v for key, v in tree.items() if key not in defaults or v != defaults[key]}
