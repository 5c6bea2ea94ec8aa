"""Gated mix of the features of two consecutive frames, a baseline without recurrence."""

import torch
from torch import Tensor

from rnndet.models.temporal.cells.conv_rnn import at_least_float32
from rnndet.models.temporal.cells.gated_hold import GatedHoldCell


class TwoFrameCell(GatedHoldCell):
    """The gate of `gated_hold` between a frame and the one before it; older frames have no effect.

        a_t = relu(W_a * x_t + U_a * x_{t-1} + b_a)
        z_t = s(W_z a_t + b_z)
        h_t = x_{t-1} + z_t . (x_t - x_{t-1}),  h_1 = x_1

    Video detectors without recurrence fuse the features of neighbouring frames, for example
    flow-guided feature aggregation (Zhu et al. 2017, arXiv 1703.10025); here there is one
    neighbour, none from the future, and no flow. Parameters and cost equal `gated_hold`, so
    the two differ in the recurrence only.
    """

    def forward(
        self, projected: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One time step: h (B, C, H, W), of the features' amplitude; the state is (x, seen)."""
        last, seen = state
        x = projected[:, : self.out_channels]
        h, _ = super().forward(projected, (last, seen))
        return h, (at_least_float32(x), torch.ones_like(seen))
