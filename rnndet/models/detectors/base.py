"""Base class of the frame detectors: prepare, backbone, neck, then losses or detect."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import WeightsEnum
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FrozenBatchNorm2d

from rnndet.errors import RnndetError, WeightsError
from rnndet.messages import counted
from rnndet.models.detectors.class_rows import ClassRows
from rnndet.models.detectors.downloads import read_published
from rnndet.models.postprocess import anchors_of, postprocess
from rnndet.registry import lookup
from rnndet.specs import Box, HeadSpec, InputSpec
from rnndet.structures import DetectionLimits, Detections, Target

log = logging.getLogger(__name__)

Grids = tuple[tuple[int, int], ...]  # height and width of each level, finest first
Features = dict[str, Tensor]  # level name -> (N, C, H, W), finest first


@dataclass(frozen=True, slots=True)
class Prepared:
    """N images as network input, and the sizes that map boxes back to the original frames."""

    pixels: Tensor  # (N, 3, h, w) float32, normalised, resized, padded right and bottom
    image_sizes: list[tuple[int, int]]  # height, width of each image in `pixels`, without padding
    original_sizes: list[tuple[int, int]]  # height, width of each image before resizing
    # in torchvision's form with boxes at network scale; ids are -1 where unknown
    targets: list[dict[str, Tensor] | None] | None

    def select(self, indices: Tensor) -> Prepared:
        """The images at `indices` (any device, int64), with the same padding."""
        chosen = indices.tolist()
        return Prepared(
            self.pixels[indices.to(self.pixels.device)],
            [self.image_sizes[i] for i in chosen],
            [self.original_sizes[i] for i in chosen],
            None if self.targets is None else [self.targets[i] for i in chosen],
        )

    def image_list(self) -> ImageList:
        """`pixels` in the type of torchvision's anchor generators."""
        return ImageList(self.pixels, self.image_sizes)

    def first(self) -> ImageList:
        """The first image, to generate anchors, which are the same for all images."""
        return ImageList(self.pixels[:1], self.image_sizes[:1])

    @property
    def padded_hw(self) -> tuple[int, int]:
        """Height and width of `pixels`."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    def objects(self) -> tuple[list[Tensor], list[Tensor]]:
        """Boxes (D, 4) and ids (D,) of each image; none for unlabelled images."""
        none = {"boxes": self.pixels.new_zeros(0, 4), "ids": self.pixels.new_zeros(0).long()}
        targets = [none if target is None else target for target in self.targets or []]
        return [target["boxes"] for target in targets], [target["ids"] for target in targets]

    def known_targets(self) -> list[dict[str, Tensor]]:
        """The targets; every image must be labelled."""
        assert self.targets is not None, "losses need targets in prepare()"
        known = [target for target in self.targets if target is not None]
        assert len(known) == len(self.targets), "losses need labelled images only; use select()"
        return known


@dataclass(frozen=True, slots=True)
class Losses:
    """Loss terms of some images, each a mean over `count` items."""

    terms: dict[str, Tensor]  # name -> scalar, to be summed
    count: Tensor  # scalar: matched cells if the terms are divided by their number, else images


class FrameDetector(nn.Module, ABC):
    """A torchvision detection model, `net`, in steps, so that a temporal module fits in between.

    Parts of `net` are not registered a second time, so `state_dict` has torchvision's keys with the
    prefix `net.`, and each tensor once.

    The steps give the same as `net(images, targets)`: `losses` in train mode, `detect` in eval
    mode. In arguments and results, label 0 is the first class; inside, as in torchvision, 0 is
    background.

    head_spec: how to decode the raw outputs of `head`; None for a head with two stages.
    """

    numbers: tuple[int, ...] = ()  # torchvision's label of each class, if not 1, 2, ...

    def __init__(
        self,
        net: nn.Module,
        *,
        backbone_channels: dict[str, int],
        neck_channels: dict[str, int],
        head_spec: HeadSpec | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.head_spec = head_spec
        self.input_spec = _input_spec(net.transform)
        self.backbone_channels = backbone_channels  # level name -> channels, finest first
        self.neck_channels = neck_channels

    @classmethod
    def spec_of(cls, net: nn.Module) -> HeadSpec | None:
        """How to decode the raw outputs of torchvision's `net`; None for a head with two stages."""
        return None

    @property
    def score_threshold(self) -> float:
        """The `DetectionLimits.min_score` of calls without limits; in [0, 1]."""
        return self.net.score_thresh

    @score_threshold.setter
    def score_threshold(self, value: float) -> None:
        self.net.score_thresh = value

    def prepare(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Target | None] | None = None,
        *,
        original_sizes: Sequence[tuple[int, int]] | None = None,
    ) -> Prepared:
        """Resize, normalise and batch; images are (3, H, W) uint8 RGB on the model's device.

        Targets marked `ignore` and boxes without area are left out. A target of None marks an
        unlabelled frame: remove it with `select` before `losses`. In train mode frames keep their
        size if the detector was built with `resize_in_training=False`; in eval mode targets are not
        used. original_sizes: height and width of the original frames if the images are scaled
        already (unless `input_spec.as_float`); boxes will be in their pixels.
        """
        assert all(image.dtype == torch.uint8 for image in images), [i.dtype for i in images]
        if not self.training:
            return self._prepare_to_detect(images, original_sizes)
        given = None
        if targets is not None:
            pairs = zip(targets, images, strict=True)
            given = [_torchvision_target(target, image.device) for target, image in pairs]
        batch, scaled = self.net.transform([image / 255 for image in images], given)
        if scaled is not None:
            scaled = [
                None if target is None else entry
                for target, entry in zip(targets, scaled, strict=True)
            ]
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        return Prepared(batch.tensors, batch.image_sizes, sizes, scaled)

    def _prepare_to_detect(
        self, images: Sequence[Tensor], original_sizes: Sequence[tuple[int, int]] | None
    ) -> Prepared:
        """As torchvision's transform, but batched over images of one size, and in channels-last
        order, with which convolutions on a CPU are faster."""
        spec = self.input_spec
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        scaled_sizes = sizes
        if original_sizes is None or spec.as_float:
            scaled_sizes = [spec.scaled_hw(*size) for size in sizes]
        if len(set(sizes)) == 1:
            batch = images[0][None] if len(images) == 1 else torch.stack(list(images))
            scaled = [_normalised(batch, scaled_sizes[0], spec)]
        else:
            scaled = [
                _normalised(image[None], size, spec)
                for image, size in zip(images, scaled_sizes, strict=True)
            ]
        heights, widths = zip(*scaled_sizes, strict=True)
        height, width = spec.padded_hw(max(heights), max(widths))
        if len(scaled) == 1 and scaled[0].shape[-2:] == (height, width):
            pixels = scaled[0]
        else:
            pixels = scaled[0].new_zeros(len(images), 3, height, width)
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            for view, part in zip(pixels.split([len(p) for p in scaled]), scaled, strict=True):
                view[..., : part.shape[-2], : part.shape[-1]] = part
        return Prepared(pixels, scaled_sizes, list(original_sizes or sizes), None)

    def backbone(self, pixels: Tensor) -> Features:
        """Backbone features of (N, 3, h, w) pixels, levels as in `backbone_channels`."""
        return dict(self.net.backbone.body(pixels))

    def neck(self, features: Features) -> Features:
        """Pyramid features from backbone features, levels as in `neck_channels`."""
        return dict(
            self.net.backbone.fpn({name: features[name] for name in self.backbone_channels})
        )

    def losses(self, prepared: Prepared, features: Features) -> Losses:
        """Training losses from neck features; needs train mode."""
        assert self.training, "losses() needs train mode"
        return self._losses(prepared, self._neck_levels(features), prepared.known_targets())

    def head(self, features: Features) -> dict[str, Tensor]:
        """Raw outputs (N, A, ...) of a one-stage head, see `head_spec`, from neck features."""
        assert self.head_spec is not None, "the head of this detector has two stages"
        return self.net.head(list(self._neck_levels(features).values()))

    def raw_outputs(self, features: Features) -> dict[str, Tensor]:
        """Outputs of a one-stage head before decoding, for `output_distillation_loss`."""
        return self.head(features)

    def raw_columns(self, num_classes: int) -> tuple[int, ...]:
        """The column of each class in "cls_logits" of `raw_outputs`."""
        return self.labels(num_classes + 1)

    def detect(
        self,
        prepared: Prepared,
        features: Features,
        limits: Sequence[DetectionLimits] | None = None,
    ) -> list[Detections]:
        """Detections of each image in pixels of its original frame; needs eval mode.

        limits: of each image; None: `score_threshold` and the detector's own NMS for all.
        """
        assert not self.training, "detect() needs eval mode"
        return self.detections(prepared, self.head(features), self.grids(features), limits)

    def grids(self, features: Features) -> Grids:
        """Height and width of each level of neck features."""
        levels = self._neck_levels(features).values()
        return tuple((level.shape[-2], level.shape[-1]) for level in levels)

    def limits_of(
        self, prepared: Prepared, limits: Sequence[DetectionLimits] | None
    ) -> Sequence[DetectionLimits]:
        """The limits of each image; those of the detector if None are given."""
        if limits is None:
            return [DetectionLimits(self.score_threshold)] * len(prepared.image_sizes)
        return limits

    def detections(
        self,
        prepared: Prepared,
        raw: dict[str, Tensor],
        grids: Grids,
        limits: Sequence[DetectionLimits] | None = None,
    ) -> list[Detections]:
        """The last part of `detect`: decode the outputs of `head` for levels of these sizes.

        Runs on the CPU, since few candidates are left, see rnndet.models.postprocess.
        """
        spec = self.head_spec
        assert spec is not None, "a head with two stages overrides detect()"
        outputs = {name: value.detach().float().cpu().numpy() for name, value in raw.items()}
        anchors, level_of = anchors_of(spec, prepared.padded_hw, grids)
        return [
            postprocess(
                {name: value[row] for name, value in outputs.items()},
                spec,
                anchors,
                level_of,
                size_hw=size,
                original_hw=original,
                limits=limits_of_image,
            )
            for row, (size, original, limits_of_image) in enumerate(
                zip(
                    prepared.image_sizes,
                    prepared.original_sizes,
                    self.limits_of(prepared, limits),
                    strict=True,
                )
            )
        ]

    @abstractmethod
    def class_rows(self) -> dict[str, ClassRows]:
        """The rows of each class in all parameters whose shape depends on the classes, by name.

        Weights are carried over to other classes by them, see rnndet.training.checkpoints.
        """

    def labels(self, outputs: int) -> tuple[int, ...]:
        """torchvision's label of each class, for a head with `outputs` classes and background."""
        return self.numbers or tuple(range(1, outputs))

    def _neck_levels(self, features: Features) -> Features:
        return {name: features[name] for name in self.neck_channels}

    @abstractmethod
    def _losses(
        self, prepared: Prepared, features: Features, targets: list[dict[str, Tensor]]
    ) -> Losses:
        """torchvision's loss terms; features are in the order of `neck_channels`."""


def per_image(terms: dict[str, Tensor], prepared: Prepared) -> Losses:
    """Losses with terms that are means over the images."""
    return Losses(terms, prepared.pixels.new_tensor(float(len(prepared.image_sizes))))


def _torchvision_target(target: Target | None, device: torch.device) -> dict[str, Tensor]:
    if target is None:
        target = Target.empty()
    has_area = (target.boxes[:, 2:] > target.boxes[:, :2]).all(1)  # torchvision refuses empty boxes
    kept = target[has_area & ~target.ignore]
    ids = torch.full_like(kept.labels, -1) if kept.ids is None else kept.ids
    # torchvision numbers classes from 1, 0 is background
    labels = kept.labels + 1
    return {
        "boxes": kept.boxes.float().to(device),
        "labels": labels.to(device),
        "ids": ids.to(device),
    }


def detections_of(result: dict[str, Tensor]) -> Detections:
    """Convert torchvision's detections of an image, whose labels count from 1."""
    scores, order = result["scores"].float().sort(descending=True, stable=True)
    boxes, labels = result["boxes"][order].float(), result["labels"][order] - 1
    return Detections(*(t.detach().cpu().numpy() for t in (boxes, scores, labels)))


def _input_spec(transform: GeneralizedRCNNTransform) -> InputSpec:
    fixed = transform.fixed_size  # width, height
    return InputSpec(
        shorter=min(transform.min_size),
        longer=transform.max_size,
        fixed_hw=None if fixed is None else (fixed[1], fixed[0]),
        divisor=transform.size_divisible,
        mean=tuple(transform.image_mean),
        std=tuple(transform.image_std),
    )


def _normalised(images: Tensor, size_hw: tuple[int, int], spec: InputSpec) -> Tensor:
    """(N, 3, H, W) uint8 -> (N, 3, h, w) float32, scaled and normalised, channels last."""
    pixels = images.to(torch.float32, memory_format=torch.channels_last)
    if pixels.shape[-2:] != size_hw:
        pixels = functional.interpolate(pixels, size_hw, mode="bilinear", align_corners=False)
    mean, std = np.array(spec.mean), np.array(spec.std)
    factor = torch.tensor(1 / (255 * std), dtype=torch.float32, device=pixels.device)
    offset = torch.tensor(-mean / std, dtype=torch.float32, device=pixels.device)
    return torch.addcmul(offset[:, None, None], pixels, factor[:, None, None])


def level_cells(anchors: AnchorGenerator) -> tuple[tuple[Box, ...], ...]:
    """The anchors of torchvision's generator as `HeadSpec.cells`."""
    return tuple(tuple(tuple(box) for box in cell.tolist()) for cell in anchors.cell_anchors)


def check_sizes(num_classes: int, size: Sequence[int], channels: int | None = None) -> None:
    """Raise `RnndetError` unless the options that all detectors have are valid."""
    if num_classes < 1:
        raise RnndetError(f"a detector needs at least one class; got {num_classes}")
    is_pair = isinstance(size, Sequence) and len(size) == 2
    if not is_pair or not all(isinstance(edge, int) and edge > 0 for edge in size):
        raise RnndetError(
            f"model.detector.size = {size!r} must be [height, width] in pixels, both above 0"
        )
    if channels is not None and (channels < 32 or channels % 32):
        raise RnndetError(f"model.detector.channels = {channels} must be a multiple of 32")


def check_structure(options: dict[str, object], needed: dict[str, object], *, what: str) -> None:
    """Raise `RnndetError` that names the options that differ from `needed`."""
    wrong = {key: value for key, value in needed.items() if options[key] != value}
    if wrong:
        need = ", ".join(f"{key} = {value!r}" for key, value in wrong.items())
        have = ", ".join(f"{key} = {options[key]!r}" for key in wrong)
        raise RnndetError(f"model.detector.{what} needs {need}; this model has {have}")


def lookup_published(
    name: str,
    published: type[WeightsEnum],
    *,
    options: dict[str, object],
    needed: dict[str, object],
) -> WeightsEnum:
    """torchvision's published weights `name`, if the model has the options that they need.

    Raises `RnndetError` for an unknown name and for options that differ.
    """
    member = lookup(name, dict(published.__members__), what="model.detector.weights")
    check_structure(options, needed, what=f"weights = {name!r}")
    return member


def load_published(
    net: nn.Module,
    weights: WeightsEnum,
    *,
    num_classes: int,
    class_parts: tuple[str, ...],
    eps: float,
) -> None:
    """Load torchvision's published weights into `net`, which has the published structure.

    class_parts: prefixes of the tensors that depend on the classes; they keep their fresh values,
    with a warning, if the number of classes differs. eps: of the frozen batch norms in this
    published model. May download. Raises `WeightsError` if that fails or
    if the weights do not fit.
    """
    state = read_published(weights)
    published_classes = len(weights.meta["categories"]) - 1  # without background
    same_classes = published_classes == num_classes
    if not same_classes:
        log.warning(
            "%s has %s and the model has %d: the classification head starts untrained",
            weights,
            counted(published_classes, "class", "classes"),
            num_classes,
        )
        state = {key: value for key, value in state.items() if not key.startswith(class_parts)}
    missing, unexpected = net.load_state_dict(state, strict=False)
    missing = [key for key in missing if same_classes or not key.startswith(class_parts)]
    if missing or unexpected:
        raise WeightsError(f"{weights} does not fit: missing {missing}, unexpected {unexpected}")
    for module in net.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.running_var += eps  # see backbones.freeze_batch_norms
