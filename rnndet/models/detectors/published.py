"""The COCO detectors that torchvision publishes, by name: its own networks and transforms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchvision import models
from torchvision.models import WeightsEnum, detection

from rnndet.errors import RnndetError, WeightsError
from rnndet.models.detectors.backbones import (
    finish_backbone,
    freeze_batch_norms,
    freeze_first,
    pyramid_channels,
)
from rnndet.models.detectors.base import Features, FrameDetector, Losses, Prepared, check_sizes
from rnndet.models.detectors.downloads import fetch, read_published
from rnndet.models.detectors.faster_rcnn import FasterRCNN
from rnndet.models.detectors.fcos import FCOS
from rnndet.models.detectors.retinanet import RetinaNet
from rnndet.models.detectors.ssdlite import SSDLite, extra_levels
from rnndet.models.zoo import TORCHVISION
from rnndet.registry import check_names, lookup
from rnndet.structures import DetectionLimits, Detections

OTHER_TASKS = ("keypointrcnn_", "maskrcnn_")  # their networks find more than boxes
NO_CLASS = ("__background__", "N/A")  # COCO numbers 80 classes from 1 to 90
# The names of the outputs of every published detector, after background.
COCO_OUTPUTS = tuple(detection.FCOS_ResNet50_FPN_Weights.DEFAULT.meta["categories"][1:])
# Of the batch norms, where it is not 1e-5: a state_dict does not hold it.
EPS = {
    "fasterrcnn_resnet50_fpn": 0.0,
    "retinanet_resnet50_fpn": 0.0,
    "ssdlite320_mobilenet_v3_large": 1e-3,
}


def published_names() -> list[str]:
    """torchvision's names of the detectors that it publishes with weights for COCO."""
    names = models.list_models(module=detection)
    return [name for name in names if not name.startswith(OTHER_TASKS)]


def published_file(name: str) -> str:
    """The path of the weights of a published detector; downloads them if they are not in the cache.

    Raises WeightsError for an unknown name, and as `downloads.read_published`.
    """
    return str(fetch(_weights(name)))


def published_classes(name: str) -> tuple[str, ...]:
    """The names of the 80 classes. Raises WeightsError for an unknown name."""
    categories = _weights(name).meta["categories"]
    return tuple(category for category in categories if category not in NO_CLASS)


def published_tensors(name: str) -> dict[str, Tensor]:
    """The state_dict of a `Published` detector with torchvision's weights.

    May download. Raises WeightsError for an unknown name, and as `downloads.read_published`.
    """
    eps = EPS.get(name, 1e-5)
    return {
        # see backbones.freeze_batch_norms
        f"net.{key}": tensor.detach() + eps if key.endswith(".running_var") else tensor.detach()
        for key, tensor in read_published(_weights(name)).items()
        if not key.endswith(".num_batches_tracked")
    }


def _weights(name: str) -> WeightsEnum:
    names = [f"{TORCHVISION}{known}" for known in published_names()]
    try:
        check_names([f"{TORCHVISION}{name}"], names, what="")
    except RnndetError as error:
        raise WeightsError(f"weights {error}") from None
    return models.get_model_weights(name).DEFAULT


class Published(FrameDetector):
    """Base of the published detectors: builds the network by torchvision's function `name`.

    - size: as in the other detectors; None: as published.
    - score_threshold: None: as published.
    - trainable_backbone_from, resize_in_training: as in `OneStage`.

    With 80 classes, the outputs have COCO's numbers, 1 to 90, as in torchvision's weights; those
    without a class are not used. Frames are scaled as float32, see `InputSpec.as_float`. The one
    difference from torchvision: all batch norms are frozen. Subclasses inherit the steps and the
    losses of a family of rnndet, but not its constructor.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        name: str,
        size: Sequence[int] | None = None,
        score_threshold: float | None = None,
        trainable_backbone_from: int = 0,
        resize_in_training: bool = True,
    ) -> None:
        numbers = _class_numbers(name, num_classes)
        net = models.get_model(
            name, weights=None, weights_backbone=None, num_classes=numbers[-1] + 1
        )
        freeze_batch_norms(net)
        if size is not None:
            check_sizes(num_classes, size)
            _set_size(net.transform, size)
        net.transform._skip_resize = not resize_in_training
        self.freeze_parts(net, trainable_backbone_from)
        backbone_channels, neck_channels = self.channels_of(net)
        spec = self.spec_of(net)
        if spec is not None and len(numbers) < numbers[-1]:
            spec = replace(spec, columns=numbers)
        FrameDetector.__init__(
            self,
            net,
            backbone_channels=backbone_channels,
            neck_channels=neck_channels,
            head_spec=spec,
        )
        self.input_spec = replace(self.input_spec, as_float=True)
        self.name = name
        self.numbers = numbers  # torchvision's label of each class
        if score_threshold is not None:
            self.score_threshold = score_threshold

    @classmethod
    def channels_of(cls, net: nn.Module) -> tuple[dict[str, int], dict[str, int]]:
        """Backbone and neck channels by level."""
        return pyramid_channels(net.backbone)

    @classmethod
    def freeze_parts(cls, net: nn.Module, count: int) -> None:
        """Stop the gradients of the first `count` parts of the backbone."""
        finish_backbone(net.backbone.body, fold_batch_norm=False, trainable_from=count)

    def _losses(
        self, prepared: Prepared, features: Features, targets: list[dict[str, Tensor]]
    ) -> Losses:
        numbers = torch.tensor((0, *self.numbers), device=prepared.pixels.device)
        numbered = [target | {"labels": numbers[target["labels"]]} for target in targets]
        return super()._losses(prepared, features, numbered)


class PublishedFCOS(Published, FCOS):
    """fcos_resnet50_fpn."""


class PublishedRetinaNet(Published, RetinaNet):
    """retinanet_resnet50_fpn and its second version."""


class PublishedFasterRCNN(Published, FasterRCNN):
    """fasterrcnn_resnet50_fpn, its second version, and two with MobileNetV3."""

    def detect(
        self,
        prepared: Prepared,
        features: Features,
        limits: Sequence[DetectionLimits] | None = None,
    ) -> list[Detections]:
        """As in `FasterRCNN`, without detections of no class."""
        label_of = torch.full((self.numbers[-1],), -1).numpy()
        label_of[[number - 1 for number in self.numbers]] = range(len(self.numbers))
        found = super().detect(prepared, features, limits)
        renamed = [Detections(one.boxes, one.scores, label_of[one.labels]) for one in found]
        return [one[one.labels >= 0] for one in renamed]


class PublishedSSDLite(Published, SSDLite):
    """ssdlite320_mobilenet_v3_large."""

    @classmethod
    def channels_of(cls, net: nn.Module) -> tuple[dict[str, int], dict[str, int]]:
        """Backbone and neck channels by level: what the head's first layers take."""
        branches = net.head.classification_head.module_list
        layers = [next(m for m in b.modules() if isinstance(m, nn.Conv2d)) for b in branches]
        by_level = {str(level): layer.in_channels for level, layer in enumerate(layers)}
        return {level: by_level[level] for level in "01"}, by_level

    @classmethod
    def freeze_parts(cls, net: nn.Module, count: int) -> None:
        """As in `Published`; the parts are those of `SSDLite`."""
        freeze_first([[part] for part in chain(*net.backbone.features)], count)


class PublishedSSD(PublishedSSDLite):
    """ssd300_vgg16: level 1 is the end of VGG, and level 0 is normalised in the neck."""

    @classmethod
    def freeze_parts(cls, net: nn.Module, count: int) -> None:
        """As in `Published`; the parts are the layers of VGG up to level 0."""
        freeze_first([[part] for part in net.backbone.features], count)

    def backbone(self, pixels: Tensor) -> Features:
        """Backbone features of (N, 3, h, w) pixels, levels as in `backbone_channels`."""
        fine = self.net.backbone.features(pixels)
        return {"0": fine, "1": self.net.backbone.extra[0](fine)}

    def neck(self, features: Features) -> Features:
        """Level 0 with a learned length in each channel, level 1, and the extra levels."""
        extractor = self.net.backbone
        lengths = extractor.scale_weight[:, None, None]
        levels = {"0": lengths * normalize(features["0"]), "1": features["1"]}
        return levels | extra_levels(features["1"], extractor.extra[1:])


FAMILIES: dict[str, type[Published]] = {
    "fasterrcnn": PublishedFasterRCNN,
    "fcos": PublishedFCOS,
    "retinanet": PublishedRetinaNet,
    "ssd300": PublishedSSD,
    "ssdlite320": PublishedSSDLite,
}


def build_published(
    num_classes: int,
    *,
    name: str,
    size: Sequence[int] | None = None,
    score_threshold: float | None = None,
    trainable_backbone_from: int = 0,
    resize_in_training: bool = True,
) -> Published:
    """The detector `torchvision`: a published network `name` with random weights; see `Published`.

    Raises RnndetError for an unknown name and options that do not fit together.
    """
    check_names([name], published_names(), what="model.options.name")
    build = lookup(name.split("_")[0], FAMILIES, what="model.options.name")
    return build(
        num_classes,
        name=name,
        size=size,
        score_threshold=score_threshold,
        trainable_backbone_from=trainable_backbone_from,
        resize_in_training=resize_in_training,
    )


def _class_numbers(name: str, num_classes: int) -> tuple[int, ...]:
    """torchvision's label of each class; 0 is background."""
    categories = models.get_model_weights(name).DEFAULT.meta["categories"]
    numbers = tuple(n for n, category in enumerate(categories) if category not in NO_CLASS)
    return numbers if num_classes == len(numbers) else tuple(range(1, num_classes + 1))


def _set_size(transform: nn.Module, size: Sequence[int]) -> None:
    transform.min_size, transform.max_size = (min(size),), max(size)
    if transform.fixed_size is not None:
        transform.fixed_size = (size[1], size[0])  # width, height
