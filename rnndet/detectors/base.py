"""A torchvision detector seen as four steps: prepare, trunk, neck, then losses or detect."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d

from rnndet.catalog import pick
from rnndet.errors import RnndetError, WeightsError
from rnndet.structures import Detections, Truth

log = logging.getLogger(__name__)

Features = dict[str, Tensor]  # level name -> (N, C, H, W), finest first


@dataclass(frozen=True, slots=True)
class Prepared:
    """N images as the network wants them, and what is needed to bring boxes back."""

    pixels: Tensor  # (N, 3, h, w) float32, normalised, resized, padded right and bottom
    image_sizes: list[tuple[int, int]]  # height, width of each image in `pixels`, without padding
    original_sizes: list[tuple[int, int]]  # height, width of each image before resizing
    # torchvision form, boxes at network scale, and ids, -1 where unknown
    targets: list[dict[str, Tensor] | None] | None

    def select(self, indices: Tensor) -> Prepared:
        """The images at `indices` (any device, int64), with the padding they already have."""
        chosen = indices.tolist()
        return Prepared(
            self.pixels[indices.to(self.pixels.device)],
            [self.image_sizes[i] for i in chosen],
            [self.original_sizes[i] for i in chosen],
            None if self.targets is None else [self.targets[i] for i in chosen],
        )

    def image_list(self) -> ImageList:
        """`pixels` in the type that torchvision's anchor generators take."""
        return ImageList(self.pixels, self.image_sizes)

    def first(self) -> ImageList:
        """The first picture, for anchors, which are the same in all of them."""
        return ImageList(self.pixels[:1], self.image_sizes[:1])

    @property
    def padded_hw(self) -> tuple[int, int]:
        """Height and width of `pixels`."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    def objects(self) -> tuple[list[Tensor], list[Tensor]]:
        """Boxes (D, 4) and ids (D,) of each image; an unlabelled one has none."""
        none = {"boxes": self.pixels.new_zeros(0, 4), "ids": self.pixels.new_zeros(0).long()}
        known = [none if target is None else target for target in self.targets or []]
        return [one["boxes"] for one in known], [one["ids"] for one in known]

    def known_targets(self) -> list[dict[str, Tensor]]:
        """The targets, of which none may be absent: losses need labelled frames only."""
        assert self.targets is not None, "losses need truths in prepare()"
        known = [target for target in self.targets if target is not None]
        assert len(known) == len(self.targets), "losses got unlabelled frames; select() the others"
        return known


@dataclass(frozen=True, slots=True)
class Losses:
    """Loss terms of some pictures, each a mean over `count` things."""

    terms: dict[str, Tensor]  # by name, scalars to be summed
    count: Tensor  # scalar: matched cells where terms are divided by those, else pictures


class FrameDetector(nn.Module, ABC):
    """One torchvision detection model, `net`, cut into steps so that a memory fits in between.

    Parts of `net` are reached from methods and never registered a second time, so `state_dict` keys
    are torchvision's under the prefix `net.` and no tensor appears twice.

    The steps equal `net(images, targets)`: `losses` in train mode, `detect` in eval mode. Labels
    are ours outside (0 is the first class) and torchvision's inside (0 is background).
    """

    def __init__(
        self, net: nn.Module, *, trunk_channels: dict[str, int], neck_channels: dict[str, int]
    ) -> None:
        super().__init__()
        self.net = net
        self.trunk_channels = trunk_channels  # level name -> channels, finest first
        self.neck_channels = neck_channels

    @property
    def score_threshold(self) -> float:
        """Detections with a lower score are dropped before non-maximum suppression; in [0, 1]."""
        return self.net.score_thresh

    @score_threshold.setter
    def score_threshold(self, value: float) -> None:
        self.net.score_thresh = value

    def prepare(
        self, images: Sequence[Tensor], truths: Sequence[Truth | None] | None = None
    ) -> Prepared:
        """Resize, normalise and batch; images are (3, H, W) uint8 RGB on the model's device.

        Truths marked `ignore` and boxes without area are left out. A truth of None stays an
        unlabelled frame: select it away before `losses`. In train mode frames keep their size if
        the detector was built with `resize_in_training=False`.
        """
        assert all(image.dtype == torch.uint8 for image in images), [i.dtype for i in images]
        targets = None
        if truths is not None:
            pairs = zip(truths, images, strict=True)
            targets = [_target(truth, image.device) for truth, image in pairs]
        batch, scaled = self.net.transform([image / 255 for image in images], targets)
        if scaled is not None:
            scaled = [
                None if truth is None else target
                for truth, target in zip(truths, scaled, strict=True)
            ]
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        return Prepared(batch.tensors, batch.image_sizes, sizes, scaled)

    def trunk(self, pixels: Tensor) -> Features:
        """Backbone features of (N, 3, h, w) pixels, levels as in `trunk_channels`."""
        return dict(self.net.backbone.body(pixels))

    def neck(self, features: Features) -> Features:
        """Pyramid features from trunk features, levels as in `neck_channels`."""
        return dict(self.net.backbone.fpn({name: features[name] for name in self.trunk_channels}))

    def losses(self, prepared: Prepared, features: Features) -> Losses:
        """What training minimises; needs train mode and neck features."""
        assert self.training, "losses() needs train mode"
        return self._losses(prepared, self._neck_levels(features), prepared.known_targets())

    def detect(self, prepared: Prepared, features: Features) -> list[Detections]:
        """Detections of each image in pixels of its original frame; needs eval mode."""
        assert not self.training, "detect() needs eval mode"
        found = self._detect(prepared, self._neck_levels(features))
        found = self.net.transform.postprocess(found, prepared.image_sizes, prepared.original_sizes)
        return [_detections(one) for one in found]

    def _neck_levels(self, features: Features) -> Features:
        return {name: features[name] for name in self.neck_channels}

    @abstractmethod
    def _losses(
        self, prepared: Prepared, features: Features, targets: list[dict[str, Tensor]]
    ) -> Losses:
        """torchvision's loss terms; features are in the order of `neck_channels`."""

    @abstractmethod
    def _detect(self, prepared: Prepared, features: Features) -> list[dict[str, Tensor]]:
        """torchvision's detections at network scale, labels with background."""


def per_picture(terms: dict[str, Tensor], prepared: Prepared) -> Losses:
    """Terms that are means over the pictures."""
    return Losses(terms, prepared.pixels.new_tensor(float(len(prepared.image_sizes))))


def _target(truth: Truth | None, device: torch.device) -> dict[str, Tensor]:
    if truth is None:
        truth = Truth.empty()
    has_area = (truth.boxes[:, 2:] > truth.boxes[:, :2]).all(1)  # torchvision refuses the others
    kept = truth[has_area & ~truth.ignore]
    ids = torch.full_like(kept.labels, -1) if kept.ids is None else kept.ids
    # torchvision numbers classes from 1, 0 is background
    labels = kept.labels + 1
    return {
        "boxes": kept.boxes.float().to(device),
        "labels": labels.to(device),
        "ids": ids.to(device),
    }


def _detections(found: dict[str, Tensor]) -> Detections:
    scores, order = found["scores"].float().sort(descending=True, stable=True)
    labels = found["labels"][order] - 1
    every = Detections(found["boxes"][order].float(), scores, labels)
    # FCOS and RetinaNet have an output for background as well, which is trained towards 0
    return every[labels >= 0]


def split_levels(
    head_outputs: dict[str, Tensor], anchors: list[Tensor], features: Features
) -> tuple[dict[str, list[Tensor]], list[list[Tensor]]]:
    """Cut one-stage head outputs (N, sum of HWA, ...) and anchors per image into their levels."""
    cells = [level.shape[-2] * level.shape[-1] for level in features.values()]
    per_cell = anchors[0].shape[0] // sum(cells)
    counts = [count * per_cell for count in cells]
    outputs = {key: list(value.split(counts, dim=1)) for key, value in head_outputs.items()}
    return outputs, [list(each.split(counts)) for each in anchors]


def check_sizes(num_classes: int, size: Sequence[int], channels: int | None = None) -> None:
    """Raise `RnndetError` unless the numbers every detector takes make sense."""
    if num_classes < 1:
        raise RnndetError(f"a detector needs at least one class; got {num_classes}")
    is_pair = isinstance(size, Sequence) and len(size) == 2
    if not is_pair or not all(isinstance(edge, int) and edge > 0 for edge in size):
        raise RnndetError(
            f"model.detector.size = {size!r} must be [height, width] in pixels, both above 0"
        )
    if channels is not None and (channels < 32 or channels % 32):
        raise RnndetError(f"model.detector.channels = {channels} must be a multiple of 32")


def check_structure(found: dict[str, object], needed: dict[str, object], *, what: str) -> None:
    """Raise `RnndetError` that names the options in `found` that are not as `what` needs them."""
    wrong = {key: value for key, value in needed.items() if found[key] != value}
    if wrong:
        need = ", ".join(f"{key} = {value!r}" for key, value in wrong.items())
        have = ", ".join(f"{key} = {found[key]!r}" for key in wrong)
        raise RnndetError(f"model.detector.{what} needs {need}; this model has {have}")


def pick_published(
    name: str,
    published: type[WeightsEnum],
    *,
    found: dict[str, object],
    needed: dict[str, object],
) -> WeightsEnum:
    """torchvision's weights called `name`, for a model with the options that they need.

    Raises `RnndetError` for an unknown name and for options that differ.
    """
    member = pick(name, dict(published.__members__), what="model.detector.weights")
    check_structure(found, needed, what=f"weights = {name!r}")
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

    `class_parts` are the prefixes of what depends on the classes: it keeps its fresh values, with a
    warning, where the published classes are not as many as ours. `eps` is the one that torchvision
    gives the frozen batch norms of this model. May download. Raises `WeightsError` if that fails or
    if the weights do not fit.
    """
    try:
        state = dict(weights.get_state_dict(progress=True, check_hash=True))
    except OSError as error:
        raise WeightsError(f"cannot fetch {weights} from {weights.url}: {error}") from error
    published_classes = len(weights.meta["categories"]) - 1  # without background
    has_our_classes = published_classes == num_classes
    if not has_our_classes:
        log.warning(
            "%s knows %d classes and the model has %d: the classification head starts untrained",
            weights,
            published_classes,
            num_classes,
        )
        state = {key: value for key, value in state.items() if not key.startswith(class_parts)}
    missing, unexpected = net.load_state_dict(state, strict=False)
    missing = [key for key in missing if has_our_classes or not key.startswith(class_parts)]
    if missing or unexpected:
        raise WeightsError(f"{weights} does not fit: missing {missing}, unexpected {unexpected}")
    for module in net.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.running_var += eps  # see trunks.freeze_batch_norms
