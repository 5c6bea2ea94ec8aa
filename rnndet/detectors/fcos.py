"""FCOS: one stage, no anchor shapes, one score per class and cell and a centre-ness."""

from typing import Any

from torch import Tensor, nn
from torchvision.models.detection import FCOS_ResNet50_FPN_Weights
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS as TorchvisionFCOS
from torchvision.models.detection.fcos import FCOSHead

from rnndet.detectors.one_stage import OneStage


class FCOS(OneStage):
    """torchvision's FCOS (Tian et al. 2019, arXiv 1904.01355) on any trunk; see `OneStage`."""

    published = FCOS_ResNet50_FPN_Weights
    eps = 1e-5

    @staticmethod
    def build_net(
        pyramid: nn.Module, outputs: int, strides: list[int], convs: int, **options: Any
    ) -> nn.Module:
        """As in `OneStage`."""
        # One square of the level's stride per cell is torchvision's way to write FCOS's points.
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
        targets: list[dict[str, Tensor]],
        outputs: dict[str, Tensor],
        anchors: list[Tensor],
        levels: list[Tensor],
    ) -> dict[str, Tensor]:
        cells = [level.shape[-2] * level.shape[-1] for level in levels]
        return self.net.compute_loss(targets, outputs, anchors, cells)
