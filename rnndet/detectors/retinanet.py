"""RetinaNet: one stage, nine anchor shapes per cell, focal loss."""

from typing import Any

from torch import Tensor, nn
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.retinanet import RetinaNetHead

from rnndet.detectors.base import Losses, Prepared, per_picture
from rnndet.detectors.one_stage import OneStage
from rnndet.errors import RnndetError


class RetinaNet(OneStage):
    """torchvision's RetinaNet (Lin et al. 2017, arXiv 1708.02002) on any trunk; see `OneStage`.

    `head_convs` is at most 4.
    """

    published = RetinaNet_ResNet50_FPN_Weights
    eps = 0.0

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
        anchors: list[Tensor],
        levels: list[Tensor],
    ) -> Losses:
        return per_picture(self.net.compute_loss(targets, outputs, anchors), prepared)


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
