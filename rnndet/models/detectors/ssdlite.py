"""SSDLite: one stage, small and fast, with its own extra levels above a MobileNet V3."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, smooth_l1_loss
from torchvision import models
from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights
from torchvision.models.detection._utils import retrieve_out_channels
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteFeatureExtractorMobileNet, SSDLiteHead
from torchvision.ops import FrozenBatchNorm2d

from rnndet.errors import RnndetError
from rnndet.models.detectors.backbones import (
    classifier_state,
    fold_batch_norms,
    freeze_batch_norms,
    freeze_first,
)
from rnndet.models.detectors.base import (
    Features,
    FrameDetector,
    Losses,
    Prepared,
    check_sizes,
    load_published,
    lookup_published,
)
from rnndet.models.detectors.class_rows import ClassRows, output_rows
from rnndet.models.detectors.matching import (
    match_anchors,
    matched_boxes,
    matched_labels,
    padded_targets,
)
from rnndet.registry import lookup
from rnndet.specs import Box, HeadSpec

NUM_LEVELS = 6  # two in the backbone, four extra

# torchvision's published SSDLite halves the channels of the last stage and takes pixels in [-1, 1];
# the others are torchvision's classifiers with their mean and standard deviation.
REDUCED = "mobilenet_v3_large_reduced"
BACKBONES: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v3_large": models.mobilenet_v3_large,
    "mobilenet_v3_small": models.mobilenet_v3_small,
    REDUCED: partial(models.mobilenet_v3_large, reduced_tail=True),
}

# No trained batch norm: the last level is 1 x 1, so a single labelled frame has no statistics.
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "group": partial(nn.GroupNorm, 16),
    "frozen": partial(FrozenBatchNorm2d, eps=0.0),  # see backbones.freeze_batch_norms
}


class SSDLite(FrameDetector):
    """torchvision's SSDLite (Sandler et al. 2018, arXiv 1801.04381) on MobileNet V3.

    Frames of any aspect ratio are scaled to exactly `size`, height and width. `head_norm` is the
    norm of the extra levels and the head: "group" (trained) or "frozen" (constant batch norm, for
    weights that come with one). `weights="COCO_V1"` needs backbone "mobilenet_v3_large_reduced" and
    head_norm "frozen", and was trained at size [320, 320]. `backbone_weights` as in
    `backbones.build_backbone`. `trainable_backbone_from` counts the entries of `features`. The
    other options are as in `OneStage`. Differences from torchvision: the backbone's batch norm is
    frozen, and backbones other than the reduced one take pixels normalised as for classification.
    Raises `RnndetError` for options that do not fit together.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        size: Sequence[int],
        backbone: str = "mobilenet_v3_large",
        backbone_weights: str | None = None,
        weights: str | None = None,
        head_norm: str = "group",
        fold_batch_norm: bool = False,
        trainable_backbone_from: int = 0,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        detections_per_frame: int = 100,
        resize_in_training: bool = True,
    ) -> None:
        check_sizes(num_classes, size)
        if weights is not None:
            structure = {
                "backbone": backbone,
                "backbone_weights": backbone_weights,
                "head_norm": head_norm,
            }
            published = lookup_published(
                weights, SSDLite320_MobileNet_V3_Large_Weights, options=structure, needed=PUBLISHED
            )
        norm = lookup(head_norm, NORMS, what="model.detector.head_norm")
        extractor = _extractor(backbone, backbone_weights, norm)
        width_height = (size[1], size[0])  # SSD's order, unlike the rest of torchvision
        channels = retrieve_out_channels(extractor, width_height)
        # shapes and scales of ssdlite320_mobilenet_v3_large
        boxes = DefaultBoxGenerator([[2, 3]] * NUM_LEVELS, min_ratio=0.2, max_ratio=0.95)
        half = [0.5, 0.5, 0.5] if backbone == REDUCED else None  # None is ImageNet's
        net = SSD(
            extractor,
            boxes,
            width_height,
            num_classes + 1,
            image_mean=half,
            image_std=half,
            head=SSDLiteHead(channels, boxes.num_anchors_per_location(), num_classes + 1, norm),
            score_thresh=score_threshold,
            nms_thresh=nms_threshold,
            detections_per_img=detections_per_frame,
            topk_candidates=300,
            _skip_resize=not resize_in_training,
        )
        if weights is not None:
            load_published(
                net,
                published,
                num_classes=num_classes,
                class_parts=("head.classification_head.",),
                eps=1e-3,
            )
        if fold_batch_norm:
            fold_batch_norms(extractor.features)
        freeze_first([[part] for part in chain(*extractor.features)], trainable_backbone_from)
        by_level = {str(level): count for level, count in enumerate(channels)}
        super().__init__(
            net,
            backbone_channels={name: by_level[name] for name in "01"},
            neck_channels=by_level,
            head_spec=self.spec_of(net),
        )

    @classmethod
    def spec_of(cls, net: nn.Module) -> HeadSpec:
        """As in `FrameDetector`."""
        return HeadSpec(
            scores="softmax",
            boxes="deltas",
            weights=net.box_coder.weights,
            cells=_level_cells(net.anchor_generator),
            relative=True,
            candidates=net.topk_candidates,
            per_class=True,
            nms_threshold=net.nms_thresh,
            most=net.detections_per_img,
            steps=tuple(net.anchor_generator.steps or ()),
        )

    def class_rows(self) -> dict[str, ClassRows]:
        """As in `FrameDetector`; the last convolution of each level's branch."""
        head = self.net.head.classification_head
        outputs, labels = head.num_columns, self.labels(head.num_columns)
        found = {}
        for level, branch in enumerate(head.module_list):
            convs = [item for item in branch.named_modules() if isinstance(item[1], nn.Conv2d)]
            name, conv = convs[-1]  # SSD's branch is a convolution itself, with the name ""
            rows = output_rows(labels, outputs, anchors=conv.out_channels // outputs)
            layer = f"net.head.classification_head.module_list.{level}.{name}".rstrip(".")
            found |= {f"{layer}.weight": rows, f"{layer}.bias": rows}
        return found

    def backbone(self, pixels: Tensor) -> Features:
        """Backbone features of (N, 3, h, w) pixels, levels as in `backbone_channels`."""
        lower, upper = self.net.backbone.features
        fine = lower(pixels)
        return {"0": fine, "1": upper(fine)}

    def neck(self, features: Features) -> Features:
        """The unchanged levels of the backbone, and the extra levels above them."""
        levels = {name: features[name] for name in self.backbone_channels}
        return levels | extra_levels(levels["1"], self.net.backbone.extra)

    def _losses(
        self, prepared: Prepared, features: Features, targets: list[dict[str, Tensor]]
    ) -> Losses:
        levels = list(features.values())
        (anchors,) = self.net.anchor_generator(prepared.first(), levels)  # the same for all images
        outputs = self.net.head(levels)
        boxes, labels, real = padded_targets(targets)
        threshold = self.net.proposal_matcher.high_threshold
        matched = match_anchors(boxes, real, anchors, low=threshold, high=threshold, keep_best=True)
        row, anchor = (matched >= 0).nonzero(as_tuple=True)
        offsets = self.net.box_coder.encode_single(matched_boxes(boxes, matched), anchors[anchor])
        error = smooth_l1_loss(outputs["bbox_regression"][row, anchor], offsets, reduction="sum")
        scores = self._classification(outputs["cls_logits"], matched_labels(labels, matched))
        count = (matched >= 0).sum()
        terms = {"bbox_regression": error, "classification": scores}
        return Losses({n: x / count.clamp(min=1) for n, x in terms.items()}, count)

    def _classification(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy with hard negative mining; logits (N, A, K + 1), labels (N, A).

        Sum over the matched anchors and, in each image, over the background anchors with the
        highest loss, neg_to_pos_ratio of them per matched anchor.
        """
        loss = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        loss = loss.view(labels.shape)
        is_object = labels > 0
        negatives = torch.where(is_object, -torch.inf, loss.detach())
        rank = negatives.sort(1, descending=True)[1].sort(1)[1]
        is_chosen = rank < self.net.neg_to_pos_ratio * is_object.sum(1, keepdim=True)
        return loss[is_object].sum() + loss[is_chosen].sum()


def extra_levels(x: Tensor, blocks: Iterable[nn.Module]) -> Features:
    """The levels above level 1, `x`: one for each block, on the output of the block before."""
    levels = {}
    for position, block in enumerate(blocks, start=2):
        x = block(x)
        levels[str(position)] = x
    return levels


# Options of torchvision's ssdlite320_mobilenet_v3_large.
PUBLISHED = {
    "backbone": REDUCED,
    "backbone_weights": None,
    "head_norm": "frozen",
}


def _level_cells(boxes: DefaultBoxGenerator) -> tuple[tuple[Box, ...], ...]:
    """torchvision's default boxes as `HeadSpec.cells`: relative offsets from the centre."""
    sides = [pairs.clamp(min=0, max=1).tolist() for pairs in boxes._wh_pairs]
    return tuple(tuple((-w / 2, -h / 2, w / 2, h / 2) for w, h in level) for level in sides)


def _extractor(
    backbone: str, weights: str | None, norm: Callable[[int], nn.Module]
) -> SSDLiteFeatureExtractorMobileNet:
    """Build the backbone with frozen batch norm and extra levels; level 0 is inside a block."""
    classifier = lookup(backbone, BACKBONES, what="model.detector.backbone")()
    if weights is not None:
        if backbone == REDUCED:
            raise RnndetError(
                f"model.detector.backbone = {REDUCED!r} has no backbone_weights; "
                "use weights or another backbone"
            )
        classifier.load_state_dict(classifier_state(backbone, weights, classifier))
    freeze_batch_norms(classifier.features)
    strided = [i for i, block in enumerate(classifier.features) if getattr(block, "_is_cn", False)]
    return SSDLiteFeatureExtractorMobileNet(classifier.features, strided[-1], norm)
