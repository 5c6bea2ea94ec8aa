"""Two frames: the features of this frame and of the last one, mixed; the rival of recurrence."""

import torch
from torch import Tensor

from rnndet.models.temporal.cells.conv_rnn import at_least_float32
from rnndet.models.temporal.cells.gated_hold import GatedHoldCell


class TwoFrameCell(GatedHoldCell):
    """The gate of `gated_hold` between the frame and the one before it; nothing older is known.

        a_t = relu(W_a * x_t + U_a * x_{t-1} + b_a)
        z_t = s(W_z a_t + b_z)
        h_t = x_{t-1} + z_t . (x_t - x_{t-1}),  h_1 = x_1

    Fusing the features of neighbouring frames is what detectors for video without recurrence do,
    for example flow-guided feature aggregation (Zhu et al. 2017, arXiv 1703.10025), here with one
    neighbour, none from the future, and no flow. It has the parameters and the cost of
    `gated_hold`, so what differs is the recurrence alone.
    """

    def forward(
        self, projected: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One time step: h (B, C, H, W), as large as the features; the state is (x, seen)."""
        last, seen = state
        x = projected[:, : self.out_channels]
        h, _ = super().forward(projected, (last, seen))
        return h, (at_least_float32(x), torch.ones_like(seen))
