"""Gated hold: the GRU's update gate with an identity candidate."""

import torch
from torch import Tensor, nn

from rnndet.models.temporal.cells.conv_rnn import (
    at_least_float32,
    check_feature_state,
    convolution,
)
from rnndet.models.temporal.gates import Gate


class GatedHoldCell(nn.Module):
    """The GRU's update gate with an identity candidate: the state is a gated mean of features.

    With * a convolution, . an elementwise product and s the logistic sigmoid:

        a_t = relu(W_a * x_t + U_a * h_{t-1} + b_a)
        z_t = s(W_z a_t + b_z)
        h_t = h_{t-1} + z_t . (x_t - h_{t-1}),  h_1 = x_1

    Source: the update gate of Cho et al. 2014, arXiv 1406.1078, eq. 6 and 7 (their z is our
    1 - z), with the candidate of eq. 8 replaced by x_t; the combination is new. The gates learn
    only which of two features is better, which takes a few hundred steps, and h is a mean of
    observed features, so it cannot drift. It cannot move its content to another position.

    - width: channels of a.
    - update_bias: initial b_z; with 2 a frame replaces 88 % of the state.
    - light: W_a and U_a are 1x1, K_a is a convolution over their sum: a_t = relu(K_a * (W_a x_t +
      U_a h_{t-1} + b_a)), and z has one value per position, for all channels.

    h has the amplitude of the features already, so it needs `fusion = "state"`, and `hidden` equal
    to the channels of the level.
    """

    holds_features = True

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        *,
        kernel_size: int = 3,
        width: int = 32,
        update_bias: float = 2.0,
        light: bool = False,
    ):
        super().__init__()
        check_feature_state(in_channels, hidden_channels, width=width)
        self.out_channels = hidden_channels
        self.width = width
        self.light = light
        first = 1 if light else kernel_size
        self.input_conv = convolution(in_channels, width, first, separable=False, bias=True)
        self.hidden_conv = convolution(hidden_channels, width, first, separable=False, bias=False)
        if light:
            self.mix_conv = convolution(width, width, kernel_size, separable=False, bias=True)
        self.update = nn.Conv2d(width, 1 if light else hidden_channels, 1)
        nn.init.constant_(self.update.bias, update_bias)
        self.gate = Gate("z")

    def init_state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(h, seen) of zeros for x (B, C, H, W); seen (B, 1, H, W) is 1 after the first frame."""
        return torch.zeros_like(x), x.new_zeros(x.shape[0], 1, *x.shape[-2:])

    def project(self, x: Tensor) -> Tensor:
        """x and W_a * x + b_a of all frames, (N, C, H, W) -> (N, C + width, H, W)."""
        return torch.cat([x, self.input_conv(x)], dim=1)

    def forward(
        self, projected: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One time step: h (B, C, H, W), of the features' amplitude, and the state (h, seen)."""
        h, seen = state
        x, a = projected.split([self.out_channels, self.width], dim=1)
        a = a + self.hidden_conv(h.to(projected.dtype))
        a = torch.relu(self.mix_conv(a) if self.light else a)
        keep = seen * (1 - self.gate(at_least_float32(self.update(a))))
        h = at_least_float32(x) + keep * (h - at_least_float32(x))
        return h.to(projected.dtype), (h, torch.ones_like(seen))
