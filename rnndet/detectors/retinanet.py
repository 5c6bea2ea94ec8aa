"""RetinaNet: one stage, nine anchor shapes per cell, focal loss."""

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.retinanet import RetinaNetHead

from rnndet.detectors.base import (
    Features,
    FrameDetector,
    Prepared,
    check_sizes,
    load_published,
    pick_published,
    split_levels,
)
from rnndet.detectors.trunks import build_pyramid, finish_trunk, level_strides
from rnndet.errors import RnndetError


class RetinaNet(FrameDetector):
    """torchvision's RetinaNet (Lin et al. 2017, arXiv 1708.02002) on any trunk.

    The options are those of `FCOS`; `head_convs` is at most 4. `weights="COCO_V1"` needs backbone
    "resnet50" and two extra levels. Raises `RnndetError` for options that do not fit together.
    """

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
        trainable_trunk_from: int = 0,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        detections_per_frame: int = 100,
        resize_in_training: bool = True,
    ) -> None:
        check_sizes(num_classes, size, channels)
        if weights is not None:
            structure = {
                "backbone": backbone,
                "backbone_weights": backbone_weights,
                "strides": list(strides),
                "extra_levels": extra_levels,
                "channels": channels,
                "head_convs": head_convs,
            }
            published = pick_published(
                weights, RetinaNet_ResNet50_FPN_Weights, found=structure, needed=PUBLISHED
            )
        pyramid, trunk_channels, neck_channels = build_pyramid(
            backbone,
            weights=backbone_weights,
            strides=strides,
            extra_levels=extra_levels,
            channels=channels,
        )
        anchors = _anchors(level_strides(strides, extra_levels))
        net = TorchvisionRetinaNet(
            pyramid,
            num_classes + 1,
            min_size=min(size),
            max_size=max(size),
            anchor_generator=anchors,
            head=_head(channels, anchors, num_classes + 1, convs=head_convs),
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
                eps=0.0,
            )
        finish_trunk(
            pyramid.body, fold_batch_norm=fold_batch_norm, trainable_from=trainable_trunk_from
        )
        super().__init__(net, trunk_channels=trunk_channels, neck_channels=neck_channels)

    def _losses(
        self, prepared: Prepared, features: Features, targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        levels = list(features.values())
        anchors = self.net.anchor_generator(prepared.image_list(), levels)
        return self.net.compute_loss(targets, self.net.head(levels), anchors)

    def _detect(self, prepared: Prepared, features: Features) -> list[dict[str, Tensor]]:
        levels = list(features.values())
        anchors = self.net.anchor_generator(prepared.image_list(), levels)
        outputs, split_anchors = split_levels(self.net.head(levels), anchors, features)
        return self.net.postprocess_detections(outputs, split_anchors, prepared.image_sizes)


# What torchvision's retinanet_resnet50_fpn is built of.
PUBLISHED = {
    "backbone": "resnet50",
    "backbone_weights": None,
    "strides": [8, 16, 32],
    "extra_levels": 2,
    "channels": 256,
    "head_convs": 4,
}


def _anchors(strides: list[int]) -> AnchorGenerator:
    """Three scales and three shapes from 4 strides up, section 4 of the paper."""
    sizes = tuple(
        tuple(int(4 * stride * 2 ** (octave / 3)) for octave in range(3)) for stride in strides
    )
    return AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))


def _head(
    channels: int, anchors: AnchorGenerator, num_outputs: int, *, convs: int
) -> RetinaNetHead:
    if not 0 <= convs <= 4:
        raise RnndetError(f"model.detector.head_convs = {convs} must be from 0 to 4")
    head = RetinaNetHead(channels, anchors.num_anchors_per_location()[0], num_outputs)
    for branch in (head.classification_head, head.regression_head):
        branch.conv = nn.Sequential(*list(branch.conv)[:convs])
    return head
