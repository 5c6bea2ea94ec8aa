"""FCOS: one stage, no anchor shapes, one score per class and cell and a centre-ness."""

from collections.abc import Sequence

from torch import Tensor
from torchvision.models.detection import FCOS_ResNet50_FPN_Weights
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS as TorchvisionFCOS
from torchvision.models.detection.fcos import FCOSHead

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


class FCOS(FrameDetector):
    """torchvision's FCOS (Tian et al. 2019, arXiv 1904.01355) on any trunk.

    `num_classes` is without background. `size` is height, width: frames are scaled to fit a shorter
    edge of min(size) and a longer one of max(size). `weights="COCO_V1"` loads what torchvision
    published, which needs backbone "resnet50" and two extra levels; `backbone_weights` is for the
    trunk alone (see `trunks.build_trunk`). `extra_levels`, `fold_batch_norm` and
    `trainable_trunk_from` are explained in `trunks`. With `resize_in_training=False` frames must
    come at network scale in train mode. Raises `RnndetError` for options that do not fit together.
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
                weights, FCOS_ResNet50_FPN_Weights, found=structure, needed=PUBLISHED
            )
        pyramid, trunk_channels, neck_channels = build_pyramid(
            backbone,
            weights=backbone_weights,
            strides=strides,
            extra_levels=extra_levels,
            channels=channels,
        )
        # One square of the level's stride per cell is torchvision's way to write FCOS's points.
        squares = tuple((stride,) for stride in level_strides(strides, extra_levels))
        net = TorchvisionFCOS(
            pyramid,
            num_classes + 1,
            min_size=min(size),
            max_size=max(size),
            anchor_generator=AnchorGenerator(squares, ((1.0,),) * len(squares)),
            head=FCOSHead(channels, 1, num_classes + 1, head_convs),
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
                eps=1e-5,
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
        cells = [level.shape[-2] * level.shape[-1] for level in levels]
        return self.net.compute_loss(targets, self.net.head(levels), anchors, cells)

    def _detect(self, prepared: Prepared, features: Features) -> list[dict[str, Tensor]]:
        levels = list(features.values())
        anchors = self.net.anchor_generator(prepared.image_list(), levels)
        outputs, split_anchors = split_levels(self.net.head(levels), anchors, features)
        return self.net.postprocess_detections(outputs, split_anchors, prepared.image_sizes)


# What torchvision's fcos_resnet50_fpn is built of.
PUBLISHED = {
    "backbone": "resnet50",
    "backbone_weights": None,
    "strides": [8, 16, 32],
    "extra_levels": 2,
    "channels": 256,
    "head_convs": 4,
}
