"""Faster R-CNN: two stages, proposals, then a class and a box for each proposal."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.models import WeightsEnum
from torchvision.models.detection import (
    FasterRCNN_MobileNet_V3_Large_320_FPN_Weights,
    FasterRCNN_MobileNet_V3_Large_FPN_Weights,
    FasterRCNN_ResNet50_FPN_Weights,
)
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import MultiScaleRoIAlign

from rnndet.models.detectors.backbones import build_pyramid, finish_backbone, level_strides
from rnndet.models.detectors.base import (
    Features,
    FrameDetector,
    Losses,
    Prepared,
    check_sizes,
    check_structure,
    detections_of,
    load_published,
    lookup_published,
    per_image,
)
from rnndet.models.detectors.class_rows import ClassRows, output_rows
from rnndet.registry import lookup
from rnndet.structures import DetectionLimits, Detections

PARTS = ("boxes", "scores", "labels")  # of torchvision's detections


@dataclass(frozen=True, slots=True)
class Published:
    """A model that torchvision published: its weights and its settings."""

    weights: type[WeightsEnum]
    backbone: str
    strides: list[int]
    eps: float  # of the frozen batch norms
    has_all_sizes: bool  # five anchor sizes on every level instead of one per level
    proposals: int  # per frame in eval mode
    proposal_threshold: float


# By the value of `backbone`. The mobilenet models have two levels of stride 32: the first and the
# last layer at it.
PUBLISHED = {
    "resnet50": Published(
        FasterRCNN_ResNet50_FPN_Weights, "resnet50", [4, 8, 16, 32], 0.0, False, 1000, 0.0
    ),
    "mobilenet_v3_large_fpn": Published(
        FasterRCNN_MobileNet_V3_Large_FPN_Weights,
        "mobilenet_v3_large",
        [32, 32],
        1e-5,
        True,
        1000,
        0.05,
    ),
    "mobilenet_v3_large_320_fpn": Published(
        FasterRCNN_MobileNet_V3_Large_320_FPN_Weights,
        "mobilenet_v3_large",
        [32, 32],
        1e-5,
        True,
        150,
        0.05,
    ),
}


class FasterRCNN(FrameDetector):
    """torchvision's Faster R-CNN (Ren et al. 2015, arXiv 1506.01497) with a feature pyramid.

    Options as for `OneStage`. `backbone` is a name for `backbones.build_backbone`,
    "mobilenet_v3_large_fpn" or "mobilenet_v3_large_320_fpn", which are torchvision's published
    structures and need strides [32, 32]. `weights="COCO_V1"` exists for those two and "resnet50".
    Raises `RnndetError` for options that do not fit together.
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
        fold_batch_norm: bool = False,
        trainable_backbone_from: int = 0,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        detections_per_frame: int = 100,
        resize_in_training: bool = True,
    ) -> None:
        check_sizes(num_classes, size, channels)
        published = _published(backbone, weights)
        if published is not None:
            options = {
                "strides": list(strides),
                "extra_levels": extra_levels,
                "channels": channels,
            }
            needed = {"strides": published.strides, "extra_levels": 1, "channels": 256}
            check_structure(options, needed, what=f"backbone = {backbone!r}")
        pyramid, backbone_channels, neck_channels = build_pyramid(
            published.backbone if published else backbone,
            weights=backbone_weights,
            strides=strides,
            extra_levels=extra_levels,
            channels=channels,
        )
        proposals = published.proposals if published else 1000
        has_all_sizes = published is not None and published.has_all_sizes
        net = TorchvisionFasterRCNN(
            pyramid,
            num_classes + 1,
            min_size=min(size),
            max_size=max(size),
            rpn_anchor_generator=_anchors(
                level_strides(strides, extra_levels), has_all_sizes=has_all_sizes
            ),
            rpn_pre_nms_top_n_test=proposals,
            rpn_post_nms_top_n_test=proposals,
            rpn_score_thresh=published.proposal_threshold if published else 0.0,
            box_roi_pool=MultiScaleRoIAlign(
                list(backbone_channels), output_size=7, sampling_ratio=2
            ),
            box_score_thresh=score_threshold,
            box_nms_thresh=nms_threshold,
            box_detections_per_img=detections_per_frame,
            _skip_resize=not resize_in_training,
        )
        if weights is not None:
            load_published(
                net,
                lookup_published(
                    weights,
                    published.weights,
                    options={"backbone_weights": backbone_weights},
                    needed={"backbone_weights": None},
                ),
                num_classes=num_classes,
                class_parts=("roi_heads.box_predictor.",),
                eps=published.eps,
            )
        finish_backbone(
            pyramid.body, fold_batch_norm=fold_batch_norm, trainable_from=trainable_backbone_from
        )
        super().__init__(net, backbone_channels=backbone_channels, neck_channels=neck_channels)

    @property
    def score_threshold(self) -> float:
        """As in `FrameDetector`."""
        return self.net.roi_heads.score_thresh

    @score_threshold.setter
    def score_threshold(self, value: float) -> None:
        self.net.roi_heads.score_thresh = value

    def class_rows(self) -> dict[str, ClassRows]:
        """As in `FrameDetector`: a score of each class, and the four numbers of its own box."""
        outputs = self.net.roi_heads.box_predictor.cls_score.out_features
        scores = output_rows(self.labels(outputs), outputs)
        boxes = ClassRows(
            (4 * scores.classes + torch.arange(4)), (4 * scores.shared + torch.arange(4))
        )
        layers = {"cls_score": scores, "bbox_pred": boxes}
        return {
            f"net.roi_heads.box_predictor.{layer}.{kind}": rows
            for layer, rows in layers.items()
            for kind in ("weight", "bias")
        }

    def _losses(
        self, prepared: Prepared, features: Features, targets: list[dict[str, Tensor]]
    ) -> Losses:
        proposals, first = self.net.rpn(prepared.image_list(), features, targets)
        _, second = self.net.roi_heads(features, proposals, prepared.image_sizes, targets)
        return per_image({**second, **first}, prepared)

    def detect(
        self,
        prepared: Prepared,
        features: Features,
        limits: Sequence[DetectionLimits] | None = None,
    ) -> list[Detections]:
        """As in `FrameDetector`, with torchvision's second stage."""
        assert not self.training, "detect() needs eval mode"
        levels, sizes = self._neck_levels(features), prepared.image_sizes
        proposals, _ = self.net.rpn(prepared.image_list(), levels)
        heads = self.net.roi_heads
        pooled = heads.box_head(heads.box_roi_pool(levels, proposals, sizes))
        logits, offsets = heads.box_predictor(pooled)
        every = self.limits_of(prepared, limits)
        decoded = {
            one: _limited(heads, one).postprocess_detections(logits, offsets, proposals, sizes)
            for one in set(every)
        }
        scaled = [
            {key: part[row] for key, part in zip(PARTS, decoded[one], strict=True)}
            for row, one in enumerate(every)
        ]
        results = self.net.transform.postprocess(scaled, sizes, prepared.original_sizes)
        return [detections_of(image) for image in results]


def _limited(heads: RoIHeads, limits: DetectionLimits) -> RoIHeads:
    """torchvision's second stage with these thresholds: the same layers, `heads` is unchanged."""
    limited = copy.copy(heads)
    limited.score_thresh = limits.min_score
    if limits.nms_threshold is not None:
        limited.nms_thresh = limits.nms_threshold
    return limited


def _published(backbone: str, weights: str | None) -> Published | None:
    """The published model that the options select, or None."""
    if weights is not None:
        return lookup(
            backbone, PUBLISHED, what=f"with weights = {weights!r} model.detector.backbone"
        )
    if backbone == "resnet50":
        return None  # an ordinary backbone; its levels can be chosen
    return PUBLISHED.get(backbone)


def _anchors(strides: list[int], *, has_all_sizes: bool) -> AnchorGenerator:
    """Three aspect ratios per level at a size of 8 strides, as in the FPN paper (1612.03144)."""
    sizes = tuple((8 * stride,) for stride in strides)
    if has_all_sizes:
        sizes = ((32, 64, 128, 256, 512),) * len(strides)
    return AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
