"""RetinaNet: one stage, nine anchor shapes per cell, focal loss."""

from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import one_hot
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from rnndet.errors import RnndetError
from rnndet.models.detectors.base import Losses, Prepared, per_image
from rnndet.models.detectors.matching import (
    BETWEEN,
    match_anchors,
    matched_boxes,
    matched_labels,
    padded_targets,
)
from rnndet.models.detectors.one_stage import OneStage


class RetinaNet(OneStage):
    """torchvision's RetinaNet (Lin et al. 2017, arXiv 1708.02002) on any backbone; see `OneStage`.

    `head_convs` is at most 4.
    """

    published = RetinaNet_ResNet50_FPN_Weights
    eps = 0.0
    outputs: ClassVar = {"scores": "sigmoid", "boxes": "deltas", "weights": (1.0, 1.0, 1.0, 1.0)}

    @staticmethod
    def build_net(
        pyramid: nn.Module, outputs: int, strides: list[int], convs: int, **options: Any
    ) -> nn.Module:
        """As in `OneStage`."""
        anchors = _anchors(strides)
        return TorchvisionRetinaNet(
            pyramid,
            outputs,
            anchor_generator=anchors,
            head=_head(pyramid.out_channels, anchors, outputs, convs=convs),
            **options,
        )

    def _compute_loss(
        self,
        prepared: Prepared,
        targets: list[dict[str, Tensor]],
        outputs: dict[str, Tensor],
        anchors: Tensor,
        levels: list[Tensor],
    ) -> Losses:
        """torchvision's `compute_loss`, batched: as many operations as for one image."""
        boxes, labels, real = padded_targets(targets)
        matcher = self.net.proposal_matcher
        low, high = matcher.low_threshold, matcher.high_threshold
        matched = match_anchors(boxes, real, anchors, low=low, high=high, keep_ties=True)  # (N, A)
        row, anchor = (matched >= 0).nonzero(as_tuple=True)  # of the P matched anchors
        share = 1 / (matched >= 0).sum(1).clamp(min=1) / len(targets)  # (N,), weight per anchor
        logits = outputs["cls_logits"]
        classes = one_hot(matched_labels(labels, matched), logits.shape[-1]).to(logits.dtype)
        classes = classes * (matched >= 0)[..., None]
        focal = sigmoid_focal_loss(logits, classes).sum(2) * (matched != BETWEEN)
        coder = self.net.head.regression_head.box_coder
        aims, offsets = matched_boxes(boxes, matched), outputs["bbox_regression"][row, anchor]
        if self.net.head.regression_head._loss_type == "giou":  # retinanet_resnet50_fpn_v2
            error = generalized_box_iou_loss(coder.decode_single(offsets, anchors[anchor]), aims)
        else:
            error = (offsets - coder.encode_single(aims, anchors[anchor])).abs().sum(1)
        terms = {
            "classification": (focal.sum(1) * share).sum(),
            "bbox_regression": (error * share[row]).sum(),
        }
        return per_image(terms, prepared)


def _anchors(strides: list[int]) -> AnchorGenerator:
    """Three scales from 4 strides up and three aspect ratios, section 4 of the paper."""
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
