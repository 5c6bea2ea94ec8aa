"""FCOS: one stage, anchor-free, with class scores and a centre-ness per cell."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS_ResNet50_FPN_Weights
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS as TorchvisionFCOS
from torchvision.models.detection.fcos import FCOSHead

from rnndet.models.detectors.base import Losses, Prepared
from rnndet.models.detectors.matching import padded_targets
from rnndet.models.detectors.one_stage import OneStage


class FCOS(OneStage):
    """torchvision's FCOS (Tian et al. 2019, arXiv 1904.01355) on any backbone; see `OneStage`."""

    published = FCOS_ResNet50_FPN_Weights
    eps = 1e-5
    outputs: ClassVar = {"scores": "centre", "boxes": "sides", "weights": (1.0, 1.0, 1.0, 1.0)}

    @staticmethod
    def build_net(
        pyramid: nn.Module, outputs: int, strides: list[int], convs: int, **options: Any
    ) -> nn.Module:
        """As in `OneStage`."""
        # torchvision represents FCOS's points as squares with the level's stride.
        squares = tuple((stride,) for stride in strides)
        return TorchvisionFCOS(
            pyramid,
            outputs,
            anchor_generator=AnchorGenerator(squares, ((1.0,),) * len(squares)),
            head=FCOSHead(pyramid.out_channels, 1, outputs, convs),
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
        """torchvision's `compute_loss`, batched: as many operations as for one image.

        The images are treated as one image with the cells and boxes of all: every loss of FCOS is a
        sum over cells, divided by the number of matched cells.
        """
        cells = [level.shape[-2] * level.shape[-1] for level in levels]
        boxes = [target["boxes"] for target in targets]
        padded, _, _ = padded_targets(targets)  # padding boxes contain no point
        radius = self.net.center_sampling_radius
        matched = match_points(anchors, padded, cells, radius=radius)  # (N, A)
        before = torch.tensor([0, *(len(image) for image in boxes[:-1])], device=matched.device)
        joined = torch.where(matched >= 0, matched + before.cumsum(0)[:, None], matched).flatten()
        target = {
            "boxes": torch.cat(boxes),
            "labels": torch.cat([target["labels"] for target in targets]),
        }
        output = {name: value.flatten(0, 1)[None] for name, value in outputs.items()}
        terms = self.net.head.compute_loss(
            [target], output, [anchors.repeat(len(targets), 1)], [joined]
        )
        return Losses(terms, (joined >= 0).sum())


def match_points(points: Tensor, boxes: Tensor, cells: Sequence[int], *, radius: float) -> Tensor:
    """The index of the box that each point of each image is matched to, (N, A) int64, -1 for none.

    points: (A, 4), squares of the level's stride around the points, the same in every image.
    boxes: (N, M, 4), padded with empty boxes. cells: number of points of each level. A point is
    matched to the smallest box that contains it, has its centre within `radius` strides, and has
    its farthest side in the level's range, as in torchvision and FCOS section 3.2.
    """
    if boxes.shape[1] == 0:
        return torch.full((len(boxes), len(points)), -1, device=points.device)
    centre = (points[:, :2] + points[:, 2:]) / 2  # (A, 2)
    stride = points[:, 2] - points[:, 0]  # (A,)
    x, y = centre[:, 0, None], centre[:, 1, None]  # (A, 1)
    x0, y0, x1, y1 = boxes[:, None].unbind(-1)  # (N, 1, M)
    off = torch.maximum((x - (x0 + x1) / 2).abs(), (y - (y0 + y1) / 2).abs())  # (N, A, M)
    sides = torch.stack([x - x0, y - y0, x1 - x, y1 - y], -1)  # (N, A, M, 4)
    low, high = stride * 4, stride * 8
    low[: cells[0]] = 0
    high[len(points) - cells[-1] :] = float("inf")
    farthest = sides.amax(-1)
    fits = (off < radius * stride[:, None]) & (sides.amin(-1) > 0)
    fits &= (farthest > low[:, None]) & (farthest < high[:, None])
    area = (x1 - x0) * (y1 - y0)  # (N, 1, M)
    best, index = (fits * (1e8 - area)).max(-1)
    return torch.where(best < 1e-5, -1, index)
