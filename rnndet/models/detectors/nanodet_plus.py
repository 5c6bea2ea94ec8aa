"""NanoDet-Plus: a small one-stage detector of ShuffleNetV2, ghost PAN and a depthwise head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import box_iou, generalized_box_iou_loss

from rnndet.errors import RnndetError
from rnndet.models.detectors.backbones import backbone_names, build_backbone, finish_backbone
from rnndet.models.detectors.base import (
    Features,
    FrameDetector,
    Losses,
    Prepared,
    check_sizes,
)
from rnndet.models.detectors.class_rows import ClassRows
from rnndet.specs import HeadSpec

FAMILY = "shufflenet_v2_"  # of torchvision's backbones
MAX_HEAD_CONVS = 32
SLOPE = 0.1  # of LeakyReLU, which stands where ShuffleNetV2 has ReLU
REG_MAX = 7  # distances are distributions over 0 .. 7 strides
STRIDES = (8, 16, 32, 64)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Dynamic soft label assignment of NanoDet-Plus: candidates of a box, weight of the IoU's cost
CANDIDATES, IOU_WEIGHT = 13, 3.0
# Weights of quality focal loss, GIoU loss and distribution focal loss, as in NanoDet-Plus
QUALITY, GIOU, DISTRIBUTION = 1.0, 2.0, 0.25


class NanoDetPlus(FrameDetector):
    """NanoDet-Plus (RangiLyu, github.com/RangiLyu/nanodet) on torchvision's ShuffleNetV2.

    The backbone is a ShuffleNetV2 of any width (Ma et al. 2018, arXiv 1807.11164) to stage 4 with
    LeakyReLU(0.1). The neck is a PAN of ghost blocks (Han et al. 2020, arXiv 1911.11907) with
    levels of stride 8, 16, 32 and 64. The head has two depthwise-separable 5 x 5 blocks per level,
    shared by class logits and box distributions. Points lie at (column * stride, row * stride),
    without the half-cell offset of FCOS.

    Losses: quality focal loss and distribution focal loss (Li et al. 2020, arXiv 2006.04388) and
    GIoU loss, on points chosen by dynamic soft label assignment, see `assign_points`.

    Differs from the original: batch norm is folded into the convolutions of neck and head, so they
    have biases and no norms; points are assigned by the head's own predictions, for which
    NanoDet-Plus trains an auxiliary head. Both suit fine-tuning from published weights better than
    training from scratch.

    The other options are those of `OneStage`. Raises RnndetError for options that do not fit.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        size: Sequence[int],
        backbone: str = "shufflenet_v2_x1_0",
        backbone_weights: str | None = None,
        channels: int = 96,
        head_convs: int = 2,
        fold_batch_norm: bool = True,
        trainable_backbone_from: int = 0,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.6,
        detections_per_frame: int = 100,
        resize_in_training: bool = True,
    ) -> None:
        check_sizes(num_classes, size, channels)
        if not backbone.startswith(FAMILY):
            names = ", ".join(name for name in backbone_names() if name.startswith(FAMILY))
            raise RnndetError(
                f"model.detector.backbone = {backbone!r} is unknown to nanodet_plus; choose one "
                f"of: {names}"
            )
        if not 0 <= head_convs <= MAX_HEAD_CONVS:
            raise RnndetError(
                f"model.detector.head_convs = {head_convs} must be from 0 to {MAX_HEAD_CONVS}"
            )
        body, _, _ = build_backbone(backbone, weights=backbone_weights, strides=STRIDES[:3])
        layers = {"stage2": "0", "stage3": "1", "stage4": "2"}  # torchvision's conv5 is not used
        widths = body._stage_out_channels[1:4]
        replace_relu(body)
        finish_backbone(
            body, fold_batch_norm=fold_batch_norm, trainable_from=trainable_backbone_from
        )
        levels = list(layers.values())
        net = NanoDetNet(
            IntermediateLayerGetter(body, layers),
            GhostPAN(dict(zip(levels, widths, strict=True)), channels),
            NanoDetHead(channels, num_classes, levels=len(STRIDES), convs=head_convs),
            GeneralizedRCNNTransform(
                min(size), max(size), IMAGENET_MEAN, IMAGENET_STD, size_divisible=STRIDES[-1],
                _skip_resize=not resize_in_training,
            ),
            score_thresh=score_threshold,
        )  # fmt: skip
        half = [stride / 2 for stride in STRIDES]
        super().__init__(
            net,
            backbone_channels=dict(zip(levels, widths, strict=True)),
            neck_channels=dict.fromkeys([*levels, "extra"], channels),
            head_spec=HeadSpec(
                scores="sigmoid",
                boxes="sides",
                weights=(1.0, 1.0, 1.0, 1.0),
                cells=tuple(((-h, -h, h, h),) for h in half),
                relative=False,
                candidates=1000,
                per_class=False,
                nms_threshold=nms_threshold,
                most=detections_per_frame,
            ),
        )

    def backbone(self, pixels: Tensor) -> Features:
        """Backbone features in the memory format of the pixels, which the channel shuffle changes.

        Mixed formats would cost the layers that follow a tenth of their time on a CPU.
        """
        is_channels_last = pixels.is_contiguous(memory_format=torch.channels_last)
        order = torch.channels_last if is_channels_last else torch.contiguous_format
        features = super().backbone(pixels)
        return {name: feature.contiguous(memory_format=order) for name, feature in features.items()}

    def class_rows(self) -> dict[str, ClassRows]:
        """As in `FrameDetector`; the distributions are shared."""
        head = self.net.head
        every = torch.arange(head.num_classes + 4 * (REG_MAX + 1))
        rows = ClassRows(every[: head.num_classes, None], every[head.num_classes :])
        return {
            f"net.head.outputs.{level}.{kind}": rows
            for level in range(len(head.outputs))
            for kind in ("weight", "bias")
        }

    def head(self, features: Features) -> dict[str, Tensor]:
        """Raw outputs: "cls_logits" (N, A, K + 1) and "bbox_regression" (N, A, 4) in strides."""
        raw = self.raw_outputs(features)
        background = torch.full_like(raw["cls_logits"][..., :1], -20.0)  # no background class
        return {
            "cls_logits": torch.cat([background, raw["cls_logits"]], -1),
            "bbox_regression": distances(raw["distributions"]),
        }

    def raw_outputs(self, features: Features) -> dict[str, Tensor]:
        """Class logits (N, A, K) and distributions of the sides (N, A, 4, REG_MAX + 1)."""
        return self.net.head(list(self._neck_levels(features).values()))

    def raw_columns(self, num_classes: int) -> tuple[int, ...]:
        """As in `FrameDetector`; there is no background."""
        return tuple(range(num_classes))

    def _losses(
        self, prepared: Prepared, features: Features, targets: list[dict[str, Tensor]]
    ) -> Losses:
        raw = self.net.head(list(features.values()))
        points, strides = grid_points(list(features.values()))
        logits, distributions = raw["cls_logits"], raw["distributions"]
        boxes = to_boxes(points, strides, distances(distributions))  # (N, A, 4)
        with torch.no_grad():
            assigned = [
                assign_points(points, one, box, target["boxes"], target["labels"] - 1)
                for one, box, target in zip(logits, boxes, targets, strict=True)
            ]
        matched = torch.stack(assigned)  # (N, A), -1 none
        row, point = (matched >= 0).nonzero(as_tuple=True)  # P points
        first = torch.tensor([0, *(len(target["boxes"]) for target in targets[:-1])])
        at = matched[row, point] + first.cumsum(0).to(row.device)[row]
        goal = torch.cat([target["boxes"] for target in targets])[at]  # (P, 4)
        labels = torch.cat([target["labels"] for target in targets])[at] - 1
        positive = boxes[row, point]
        quality = torch.zeros_like(logits)
        if len(row):
            overlap = paired_iou(positive.detach(), goal)
            quality[row, point, labels] = overlap
        count = torch.tensor(float(max(1, len(row))), device=logits.device)
        weight = logits.detach().sigmoid().amax(-1)[row, point]  # (P,)
        total = weight.sum().clamp(min=1e-6)
        sides = to_sides(points[point], strides[point], goal)  # (P, 4) in strides
        terms = {
            "classification": QUALITY * quality_focal_loss(logits, quality).sum() / count,
            "bbox_regression": GIOU
            * (generalized_box_iou_loss(positive, goal) * weight).sum()
            / total,
            "bbox_distribution": DISTRIBUTION
            * (distribution_focal_loss(distributions[row, point], sides).mean(-1) * weight).sum()
            / total,
        }
        return Losses(terms, count)


class NanoDetNet(nn.Module):
    """The parts of NanoDet-Plus, named like torchvision's detectors."""

    def __init__(
        self,
        body: nn.Module,
        fpn: nn.Module,
        head: nn.Module,
        transform: nn.Module,
        *,
        score_thresh: float,
    ) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.body = body
        self.backbone.fpn = fpn
        self.head = head
        self.transform = transform
        self.score_thresh = score_thresh


def _conv(
    inside: int,
    outside: int,
    kernel: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
    linear: bool = False,
) -> nn.Sequential:
    conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups)
    return nn.Sequential(conv) if linear else nn.Sequential(conv, nn.LeakyReLU(SLOPE))


def _separable(
    inside: int, outside: int, *, stride: int = 1, linear: bool = False
) -> nn.Sequential:
    """A depthwise 5 x 5 and a pointwise convolution."""
    return nn.Sequential(
        _conv(inside, inside, 5, stride=stride, groups=inside, linear=linear),
        _conv(inside, outside, linear=linear),
    )


class GhostModule(nn.Module):
    """Half of the channels by a pointwise convolution, the others from those by a depthwise one.

    Han et al. 2020, arXiv 1911.11907, section 3.1, with ratio 2.
    """

    def __init__(self, inside: int, outside: int, *, linear: bool) -> None:
        super().__init__()
        half = outside // 2
        self.primary = _conv(inside, half, linear=linear)
        self.cheap = _conv(half, half, 3, groups=half, linear=linear)

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary(x)
        return torch.cat([x, self.cheap(x)], 1)


class GhostBottleneck(nn.Module):
    """Two ghost modules and a separable shortcut, arXiv 1911.11907, section 3.2, stride 1."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.ghost1 = GhostModule(inside, outside, linear=False)
        self.ghost2 = GhostModule(outside, outside, linear=True)
        self.shortcut = _separable(inside, outside, linear=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.ghost2(self.ghost1(x)) + self.shortcut(x)


class GhostPAN(nn.Module):
    """Path aggregation network of ghost blocks: top-down, bottom-up, and one more level.

    PAN: Liu et al. 2018, arXiv 1803.01534. widths: channels by level, finest first; the output has
    the same levels with `channels` each, and "extra" at twice the stride of the last.
    """

    def __init__(self, widths: dict[str, int], channels: int) -> None:
        super().__init__()
        steps = len(widths) - 1
        self.levels = tuple(widths)
        self.reduce = nn.ModuleList(_conv(width, channels) for width in widths.values())
        self.top_down = nn.ModuleList(GhostBottleneck(2 * channels, channels) for _ in range(steps))
        self.down = nn.ModuleList(_separable(channels, channels, stride=2) for _ in range(steps))
        self.bottom_up = nn.ModuleList(
            GhostBottleneck(2 * channels, channels) for _ in range(steps)
        )
        self.extra_in = _separable(channels, channels, stride=2)
        self.extra_out = _separable(channels, channels, stride=2)

    def forward(self, features: Features) -> Features:
        lateral = [r(features[name]) for r, name in zip(self.reduce, self.levels, strict=True)]
        inner = [lateral[-1]]
        for block, finer in zip(self.top_down, lateral[-2::-1], strict=True):
            up = functional.interpolate(inner[0], scale_factor=2.0, mode="bilinear")
            inner.insert(0, block(torch.cat([up, finer], 1)))
        out = [inner[0]]
        for down, block, coarser in zip(self.down, self.bottom_up, inner[1:], strict=True):
            out.append(block(torch.cat([down(out[-1]), coarser], 1)))
        extra = self.extra_in(lateral[-1]) + self.extra_out(out[-1])
        return dict(zip([*self.levels, "extra"], [*out, extra], strict=True))


class NanoDetHead(nn.Module):
    """Class logits and box distributions of every point, from one tower per level."""

    def __init__(self, channels: int, num_classes: int, *, levels: int, convs: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.towers = nn.ModuleList(
            nn.Sequential(*(_separable(channels, channels) for _ in range(convs)))
            for _ in range(levels)
        )
        outputs = num_classes + 4 * (REG_MAX + 1)
        self.outputs = nn.ModuleList(nn.Conv2d(channels, outputs, 1) for _ in range(levels))
        for output in self.outputs:
            nn.init.normal_(output.weight, std=0.01)
            nn.init.constant_(output.bias, -4.595)  # probability 0.01, as in focal loss

    def forward(self, levels: Sequence[Tensor]) -> dict[str, Tensor]:
        """Levels (N, C, H, W) -> "cls_logits" (N, A, K), "distributions" (N, A, 4, REG_MAX + 1)."""
        raw = torch.cat(
            [
                output(tower(level)).flatten(2).transpose(1, 2)  # (N, H * W, K + 32)
                for tower, output, level in zip(self.towers, self.outputs, levels, strict=True)
            ],
            1,
        )
        logits, distributions = raw.split([self.num_classes, 4 * (REG_MAX + 1)], -1)
        return {
            "cls_logits": logits,
            "distributions": distributions.unflatten(-1, (4, REG_MAX + 1)),
        }


def distances(distributions: Tensor) -> Tensor:
    """Mean of each side's distribution, (..., 4, REG_MAX + 1) logits -> (..., 4) strides.

    Generalized focal loss, arXiv 2006.04388, eq. 3 to 5.
    """
    bins = torch.arange(REG_MAX + 1, dtype=distributions.dtype, device=distributions.device)
    return (distributions.softmax(-1) * bins).sum(-1)


def grid_points(levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Points (A, 2) in pixels, x y, and the stride (A,) of each, of levels (N, C, H, W)."""
    points, strides = [], []
    for level, stride in zip(levels, STRIDES, strict=True):
        y, x = torch.meshgrid(
            *(torch.arange(n, device=level.device) * float(stride) for n in level.shape[-2:]),
            indexing="ij",
        )
        points.append(torch.stack([x, y], -1).flatten(0, 1))
        strides.append(torch.full((len(points[-1]),), float(stride), device=level.device))
    return torch.cat(points), torch.cat(strides)


def to_boxes(points: Tensor, strides: Tensor, sides: Tensor) -> Tensor:
    """Boxes (..., A, 4) of left, top, right, bottom distances (..., A, 4) in strides."""
    sides = sides * strides[:, None]
    return torch.cat([points - sides[..., :2], points + sides[..., 2:]], -1)


def to_sides(points: Tensor, strides: Tensor, boxes: Tensor) -> Tensor:
    """The inverse of `to_boxes` for P points, limited to what the distributions can express."""
    sides = torch.cat([points - boxes[:, :2], boxes[:, 2:] - points], -1) / strides[:, None]
    return sides.clamp(0, REG_MAX - 0.1)


def quality_focal_loss(logits: Tensor, quality: Tensor) -> Tensor:
    """|y - s|^2 * BCE(s, y), elementwise; y is the IoU at the labelled class, 0 elsewhere.

    Li et al. 2020, arXiv 2006.04388, eq. 6, with beta 2.
    """
    error = (quality - logits.sigmoid()).abs()
    return functional.binary_cross_entropy_with_logits(logits, quality, reduction="none") * error**2


def distribution_focal_loss(distributions: Tensor, sides: Tensor) -> Tensor:
    """Cross entropy to the two bins around each distance, weighted by nearness, (P, 4).

    distributions (P, 4, REG_MAX + 1) logits, sides (P, 4) in strides. arXiv 2006.04388, eq. 7.
    """
    low = sides.floor().long()  # (P, 4), at most REG_MAX - 1
    logs = distributions.log_softmax(-1)
    left = logs.gather(-1, low[..., None])[..., 0]
    right = logs.gather(-1, low[..., None] + 1)[..., 0]
    share = sides - low
    return -(left * (1 - share) + right * share)


def assign_points(
    points: Tensor, logits: Tensor, boxes: Tensor, target_boxes: Tensor, labels: Tensor
) -> Tensor:
    """Dynamic soft label assignment: the target of each point, (A,) int64, -1 for none.

    points (A, 2), logits (A, K), boxes (A, 4): the head's own predictions; target_boxes (G, 4),
    labels (G,) from 0. A point can take a box that it lies in. The cost of a pair is

        BCE(s, y) * |y - s|^2 + 3 * -log(IoU)

    summed over the classes, with y the IoU at the target's class and 0 elsewhere. Each box takes
    its k cheapest points, k the sum of its 13 highest IoUs (at least 1); a point that several boxes
    want goes to the cheapest. NanoDet-Plus, `dsl_assigner.py`; after SimOTA (Ge et al. 2021, YOLOX,
    arXiv 2107.08430).
    """
    assigned = torch.full((len(points),), -1, dtype=torch.int64, device=points.device)
    if not len(target_boxes):
        return assigned
    low, high = target_boxes[:, :2], target_boxes[:, 2:]
    inside = ((points[:, None] > low) & (points[:, None] < high)).all(-1)  # (A, G)
    rows = inside.any(1).nonzero().flatten()
    if not len(rows):
        return assigned
    overlap = box_iou(boxes[rows], target_boxes)  # (V, G)
    overlap = torch.where(inside[rows], overlap, 0.0)
    own = logits[rows][:, None]  # (V, 1, K)
    quality = functional.one_hot(labels, logits.shape[1]) * overlap[..., None]  # (V, G, K)
    cost = quality_focal_loss(own.expand_as(quality), quality).sum(-1)
    cost = cost - IOU_WEIGHT * (overlap + 1e-7).log()
    cost = torch.where(inside[rows], cost, torch.inf)
    counts = overlap.topk(min(CANDIDATES, len(rows)), 0).values.sum(0).int().clamp(min=1)
    chosen = torch.zeros_like(inside[rows])
    for place, count in enumerate(counts.tolist()):
        cheapest = cost[:, place].topk(min(count, len(rows)), largest=False).indices
        chosen[cheapest, place] = True
    chosen &= inside[rows]
    cost = torch.where(chosen, cost, torch.inf)
    assigned[rows] = torch.where(chosen.any(1), cost.argmin(1), -1)
    return assigned


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of each box with its partner, (P, 4) and (P, 4) -> (P,)."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    area = (a[:, 2:] - a[:, :2]).clamp(min=0).prod(1) + (b[:, 2:] - b[:, :2]).prod(1)
    return shared / (area - shared).clamp(min=1e-9)


def replace_relu(module: nn.Module) -> None:
    """Put LeakyReLU(0.1) where ShuffleNetV2 has ReLU, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU):
            setattr(module, name, nn.LeakyReLU(SLOPE))
        else:
            replace_relu(child)
