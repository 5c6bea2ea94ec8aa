"""What goes into a detector and what its raw outputs mean, as plain data that exports carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """How a frame becomes the pixels of a network."""

    shorter: int  # a frame is scaled to fit a shorter edge of this and a longer one of `longer`
    longer: int
    fixed_hw: tuple[int, int] | None  # or to exactly this, whatever its shape
    divisor: int  # then padded right and bottom with 0 to a multiple of this
    mean: tuple[float, ...]  # normalised as (x / 255 - mean) / std, RGB
    std: tuple[float, ...]

    def scaled_hw(self, height: int, width: int) -> tuple[int, int]:
        """The size of a frame for the network, before padding."""
        if self.fixed_hw is not None:
            return self.fixed_hw
        factor = min(self.shorter / min(height, width), self.longer / max(height, width))
        return max(1, int(height * factor)), max(1, int(width * factor))

    def padded_hw(self, height: int, width: int) -> tuple[int, int]:
        """The size of the network's input for a scaled frame."""
        step = self.divisor
        return -(-height // step) * step, -(-width // step) * step

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(tree: Mapping[str, Any]) -> InputSpec:
        fixed = tree["fixed_hw"]
        return InputSpec(
            tree["shorter"], tree["longer"], None if fixed is None else (fixed[0], fixed[1]),
            tree["divisor"], tuple(tree["mean"]), tuple(tree["std"]),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """How scores and boxes follow from the raw outputs of a one-stage head, and which are kept.

    Outputs of A anchors and K classes: "cls_logits" (A, K + 1), class 0 is background;
    "bbox_regression" (A, 4); with centre-ness "bbox_ctrness" (A, 1).
    """

    scores: str  # sigmoid; softmax; centre: root of sigmoid(class) * sigmoid(centre-ness)
    # distances of the four sides, in units of the anchor's; or centre and log size, divided by
    # `weights` (Faster R-CNN, arXiv 1506.01497, eq. 2)
    boxes: str  # sides, deltas
    weights: Box
    # Per level, x1 y1 x2 y2 of each anchor around its cell: in pixels from the cell's corner, or,
    # if relative, in shares of the image from the cell's centre.
    cells: tuple[tuple[Box, ...], ...]
    relative: bool
    candidates: int  # at most so many of each level, or of each class if `per_class`
    per_class: bool
    nms_threshold: float
    most: int  # detections of a frame

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(tree: Mapping[str, Any]) -> HeadSpec:
        cells = tuple(tuple(tuple(box) for box in level) for level in tree["cells"])
        return HeadSpec(**{**tree, "weights": tuple(tree["weights"]), "cells": cells})
