"""Base class of FCOS and RetinaNet: a backbone with a pyramid, and one head for all levels."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torchvision.models import WeightsEnum

from rnndet.errors import RnndetError
from rnndet.models.detectors.backbones import build_pyramid, finish_backbone, level_strides
from rnndet.models.detectors.base import (
    Features,
    FrameDetector,
    Losses,
    Prepared,
    check_sizes,
    level_cells,
    load_published,
    lookup_published,
)
from rnndet.models.detectors.class_rows import ClassRows, output_rows
from rnndet.specs import HeadSpec

# Options of torchvision's fcos_resnet50_fpn and retinanet_resnet50_fpn.
PUBLISHED = {
    "backbone": "resnet50",
    "backbone_weights": None,
    "strides": [8, 16, 32],
    "extra_levels": 2,
    "channels": 256,
    "head_convs": 4,
}

MAX_HEAD_CONVS = 32  # of each branch; the published models have 4


class OneStage(FrameDetector):
    """A one-stage detector of torchvision on any backbone.

    - num_classes: without background.
    - size: height, width; frames are scaled to fit a shorter edge of min(size) and a longer edge of
      max(size).
    - weights: "COCO_V1" loads torchvision's published weights, which need backbone "resnet50" and
      two extra levels.
    - backbone_weights: for the backbone alone, see `backbones.build_backbone`; extra_levels: see
      `build_pyramid` there; fold_batch_norm, trainable_backbone_from: see `finish_backbone`.
    - resize_in_training: if False, frames must have network scale in train mode.

    Raises `RnndetError` for options that do not fit together.
    """

    published: ClassVar[type[WeightsEnum]]
    eps: ClassVar[float]  # of the frozen batch norms in torchvision's published model
    outputs: ClassVar[dict[str, Any]]  # scores, boxes and weights of `HeadSpec`

    def __init__(
        self,
        num_classes: int,
        *,
        size: Sequence[int],
        backbone: str = "mobilenet_v2",
        backbone_weights: str | None = None,
        weights: str | None = None,
        strides: Sequence[int] = (8, 16, 32),
        extra_levels: int = 1,
        channels: int = 256,
        head_convs: int = 4,
        fold_batch_norm: bool = False,
        trainable_backbone_from: int = 0,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        detections_per_frame: int = 100,
        resize_in_training: bool = True,
    ) -> None:
        check_sizes(num_classes, size, channels)
        if not 0 <= head_convs <= MAX_HEAD_CONVS:
            raise RnndetError(
                f"model.detector.head_convs = {head_convs} must be from 0 to {MAX_HEAD_CONVS}"
            )
        if weights is not None:
            structure = {
                "backbone": backbone,
                "backbone_weights": backbone_weights,
                "strides": list(strides),
                "extra_levels": extra_levels,
                "channels": channels,
                "head_convs": head_convs,
            }
            published = lookup_published(
                weights, self.published, options=structure, needed=PUBLISHED
            )
        pyramid, backbone_channels, neck_channels = build_pyramid(
            backbone,
            weights=backbone_weights,
            strides=strides,
            extra_levels=extra_levels,
            channels=channels,
        )
        net = self.build_net(
            pyramid,
            num_classes + 1,
            level_strides(strides, extra_levels),
            head_convs,
            min_size=min(size),
            max_size=max(size),
            score_thresh=score_threshold,
            nms_thresh=nms_threshold,
            detections_per_img=detections_per_frame,
            _skip_resize=not resize_in_training,
        )
        if weights is not None:
            load_published(
                net,
                published,
                num_classes=num_classes,
                class_parts=("head.classification_head.cls_logits.",),
                eps=self.eps,
            )
        finish_backbone(
            pyramid.body, fold_batch_norm=fold_batch_norm, trainable_from=trainable_backbone_from
        )
        super().__init__(
            net,
            backbone_channels=backbone_channels,
            neck_channels=neck_channels,
            head_spec=self.spec_of(net),
        )

    @classmethod
    def spec_of(cls, net: nn.Module) -> HeadSpec:
        """As in `FrameDetector`."""
        return HeadSpec(
            **cls.outputs,
            cells=level_cells(net.anchor_generator),
            relative=False,
            candidates=net.topk_candidates,
            per_class=False,
            nms_threshold=net.nms_thresh,
            most=net.detections_per_img,
        )

    def class_rows(self) -> dict[str, ClassRows]:
        """As in `FrameDetector`."""
        head = self.net.head.classification_head
        outputs = head.num_classes
        rows = output_rows(self.labels(outputs), outputs, anchors=head.num_anchors)
        layer = "net.head.classification_head.cls_logits"
        return {f"{layer}.weight": rows, f"{layer}.bias": rows}

    @staticmethod
    @abstractmethod
    def build_net(
        pyramid: nn.Module, outputs: int, strides: list[int], convs: int, **options: Any
    ) -> nn.Module:
        """Build torchvision's model with `outputs` classes, including background, on a pyramid.

        strides: of its levels; convs: depth of the head's branches.
        """

    def _losses(
        self, prepared: Prepared, features: Features, targets: list[dict[str, Tensor]]
    ) -> Losses:
        levels = list(features.values())
        (anchors,) = self.net.anchor_generator(prepared.first(), levels)  # the same for all images
        return self._compute_loss(prepared, targets, self.net.head(levels), anchors, levels)

    @abstractmethod
    def _compute_loss(
        self,
        prepared: Prepared,
        targets: list[dict[str, Tensor]],
        outputs: dict[str, Tensor],
        anchors: Tensor,
        levels: list[Tensor],
    ) -> Losses:
        """torchvision's `compute_loss` of this model; anchors: (A, 4), the same for all images.

        The number of operations does not depend on the batch size.
        """
