"""Frozen teacher for distillation: its features, head outputs and boxes on clean frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rnndet.errors import RnndetError
from rnndet.messages import listed
from rnndet.models.detectors.class_rows import pairs_by_name
from rnndet.models.temporal.state import Features
from rnndet.models.video_detector import VideoDetector

SURE = 0.4  # score from which a detection of the teacher counts as an object


@dataclass(frozen=True, slots=True)
class Teaching:
    """Results of the teacher for T*B clean frames, time-major."""

    features: Features  # at the temporal module's site
    outputs: dict[str, Tensor]  # see `FrameDetector.raw_outputs`; {} for a two-stage head
    boxes: list[Tensor]  # (D, 4) of its detections from SURE, in pixels of the prepared images


class CleanTeacher:
    """Runs a frozen model on single clean frames, without its temporal module.

    Not a module, so that its weights are not part of the trained model.

    - site: of the trained model's temporal module, where the features are compared; `model` may
      have another.
    - resizes: whether frames are resized to the input size; False: they have network scale.
    - classes: of the trained model, in whose order the class scores are returned; None: the
      teacher's order.

    Raises RnndetError if the teacher has other classes than `classes`.
    """

    def __init__(
        self,
        model: VideoDetector,
        *,
        site: str,
        resizes: bool,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.model = model.eval()
        self.model.site = site
        self.resizes = resizes
        # pairs of columns of "cls_logits": of the trained model, of the teacher
        self._moved: list[tuple[int, int]] = []
        if classes is not None and tuple(classes) != model.classes:
            check_classes(classes, model.classes)
            columns = model.detector.raw_columns(len(classes))
            pairs = pairs_by_name(classes, model.classes)
            self._moved = [(columns[own], columns[theirs]) for own, theirs in pairs]
        if not resizes:  # a detector that scales raw frames itself must not do so
            spec = replace(model.detector.input_spec, as_float=False)
            model.detector.input_spec = spec

    @torch.no_grad()
    def __call__(self, frames: Tensor) -> Teaching:
        """Frames (T, B, 3, H, W) uint8, as the model in training gets them."""
        detector = self.model.detector
        sizes = [(frames.shape[-2], frames.shape[-1])] * (frames.shape[0] * frames.shape[1])
        encoded = self.model.encode(frames, original_sizes=None if self.resizes else sizes)
        features = self.model.head_features(encoded.features)
        outputs = {} if detector.head_spec is None else detector.raw_outputs(features)
        if self._moved and outputs:
            outputs["cls_logits"] = self._in_order(outputs["cls_logits"])
        found = detector.detect(encoded.prepared, features)
        boxes = []
        for image, (height, width) in zip(found, encoded.prepared.image_sizes, strict=True):
            sure = torch.from_numpy(image.boxes[image.scores >= SURE])
            factor = (width / frames.shape[-1], height / frames.shape[-2])
            boxes.append((sure * sure.new_tensor(factor * 2)).to(frames.device))
        return Teaching(encoded.features, outputs, boxes)

    def _in_order(self, logits: Tensor) -> Tensor:
        """Class scores (N, A, outputs) in the order of the trained model's classes."""
        order = torch.arange(logits.shape[-1])
        own, theirs = torch.tensor(self._moved).unbind(1)
        order[own] = theirs
        return logits[..., order.to(logits.device)]


def check_classes(own: Sequence[str], teacher: Sequence[str]) -> None:
    """Raise RnndetError unless the teacher has the same classes, in any order."""
    lacks, more = Counter(own) - Counter(teacher), Counter(teacher) - Counter(own)
    if lacks or more:
        raise RnndetError(
            "train.teacher: has other classes than the model: "
            f"lacks {listed(list(lacks), 'class', 'classes')}; "
            f"has also {listed(list(more), 'class', 'classes')}; output distillation compares the "
            "scores of classes: use a teacher of the same classes, or set "
            "train.output_distillation = 0"
        )


def check_features(student: Features, teacher: Features) -> None:
    """Raise RnndetError unless the features of the teacher's levels have equal shapes."""
    for level, value in teacher.items():
        if student[level].shape != value.shape:
            raise RnndetError(
                f"train.teacher: its features of level {level!r} are {tuple(value.shape)}, the "
                f"model's {tuple(student[level].shape)}; feature distillation needs a teacher with "
                "the same backbone, neck and site"
            )


def check_outputs(student: dict[str, Tensor], teacher: dict[str, Tensor]) -> None:
    """Raise RnndetError unless the outputs can be compared."""
    for name, value in student.items():
        other = teacher.get(name)
        if other is None or other.shape != value.shape:
            shape = "no" if other is None else str(tuple(other.shape))
            raise RnndetError(
                f"train.teacher: its head gives {shape} {name}, the model's {tuple(value.shape)}; "
                "output distillation needs the same kind of head, classes and levels"
            )
