"""Minimal gated recurrent unit (minGRU) over feature maps, the cheapest cell."""

import torch
from torch import Tensor, nn

from rnndet.models.temporal.cells.conv_gru import KEEP_BIAS
from rnndet.models.temporal.cells.conv_rnn import at_least_float32, convolution
from rnndet.models.temporal.gates import Gate


class MinGRUCell(nn.Module):
    """minGRU: gate and candidate depend on the frame only; the state is a gated mean over time.

    With 1x1 convolutions W, . an elementwise product and s the logistic sigmoid:

        z_t = s(W_z x_t + b_z)
        n_t = tanh(W_n x_t + b_n)
        h_t = (1 - z_t) . S(h_{t-1}) + z_t . n_t

    Source: Feng et al. 2024, "Were RNNs all we needed?", arXiv 2410.01201, section 3.1.

    Differences: tanh in n (theirs is linear), so that h stays in [-1, 1] as in the other cells;
    b_z starts at -1, which keeps 73 % per frame; and S.

    - spread: S is a depthwise convolution that starts as the identity, clamped to [-1, 1], so that
      the state can follow motion; without it S(h) = h, and the state of a pixel stays in place.
    - kernel_size: of S; the gates are 1x1.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        *,
        kernel_size: int = 3,
        spread: bool = True,
    ):
        super().__init__()
        self.out_channels = hidden_channels
        self.input_conv = convolution(
            in_channels, 2 * hidden_channels, 1, separable=False, bias=True
        )
        nn.init.constant_(self.input_conv[-1].bias[:hidden_channels], KEEP_BIAS)
        self.gate = Gate("z")
        self.spread = _identity_depthwise(hidden_channels, kernel_size) if spread else None

    def init_state(self, x: Tensor) -> tuple[Tensor]:
        """(h,) of zeros for x (B, C, H, W)."""
        return (x.new_zeros(x.shape[0], self.out_channels, *x.shape[-2:]),)

    def project(self, x: Tensor) -> Tensor:
        """Gate and candidate before their nonlinearity, (N, C, H, W) -> (N, 2 hidden, H, W)."""
        return self.input_conv(x)

    def forward(self, projected: Tensor, state: tuple[Tensor]) -> tuple[Tensor, tuple[Tensor]]:
        """One time step: h (B, hidden, H, W) in [-1, 1], and the state (h,), which is float32."""
        (h,) = state
        z, n = at_least_float32(projected).chunk(2, dim=1)  # each (B, hidden, H, W)
        if self.spread is not None:
            h = at_least_float32(self.spread(h.to(projected.dtype))).clamp(-1, 1)
        h = h + self.gate(z) * (torch.tanh(n) - h)
        return h.to(projected.dtype), (h,)


def _identity_depthwise(channels: int, kernel_size: int) -> nn.Conv2d:
    depthwise = convolution(channels, channels, kernel_size, separable=True, bias=False)[0]
    nn.init.zeros_(depthwise.weight)
    centre = kernel_size // 2
    nn.init.ones_(depthwise.weight[:, :, centre, centre])
    return depthwise
