"""Convolutional gated recurrent unit (ConvGRU)."""

import torch
from torch import Tensor, nn

from rnndet.models.temporal.cells.conv_rnn import at_least_float32, convolution
from rnndet.models.temporal.gates import Gate

KEEP_BIAS = -1.0  # initial bias of the update gate: s(1) = 73 % of the state is kept per frame


class ConvGRUCell(nn.Module):
    """ConvGRU: a single state h, an update gate z and a reset gate r.

    With * a convolution, . an elementwise product and s the logistic sigmoid:

        z_t = s(W_z * x_t + U_z * h_{t-1} + b_z)
        r_t = s(W_r * x_t + U_r * h_{t-1} + b_r)
        n_t = tanh(W_n * x_t + U_n * (r_t . h_{t-1}) + b_n)
        h_t = (1 - z_t) . h_{t-1} + z_t . n_t

    Sources: Cho et al. 2014, arXiv 1406.1078; with convolutions, Ballas et al. 2016, arXiv
    1511.06432, eq. 5-8, whose z writes (in Cho et al. it keeps). b_z starts at -1 and the other
    biases at 0. h is a mean of values in [-1, 1], so it cannot drift and needs no clamp.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        *,
        kernel_size: int = 3,
        separable: bool = False,
    ):
        super().__init__()
        self.out_channels = hidden_channels
        self.input_conv = convolution(
            in_channels, 3 * hidden_channels, kernel_size, separable=separable, bias=True
        )
        self.gate_conv = convolution(
            hidden_channels, 2 * hidden_channels, kernel_size, separable=separable, bias=False
        )
        self.candidate_conv = convolution(
            hidden_channels, hidden_channels, kernel_size, separable=separable, bias=False
        )
        nn.init.constant_(self.input_conv[-1].bias[:hidden_channels], KEEP_BIAS)
        self.gate = nn.ModuleDict({name: Gate(name) for name in ("z", "r")})

    def init_state(self, x: Tensor) -> tuple[Tensor]:
        """(h,) of zeros for x (B, C, H, W)."""
        return (x.new_zeros(x.shape[0], self.out_channels, *x.shape[-2:]),)

    def project(self, x: Tensor) -> Tensor:
        """W * x + b of z, r and n for all frames, (N, C, H, W) -> (N, 3 hidden, H, W)."""
        return self.input_conv(x)

    def forward(self, projected: Tensor, state: tuple[Tensor]) -> tuple[Tensor, tuple[Tensor]]:
        """One time step: h (B, hidden, H, W) in [-1, 1], and the state (h,), which is float32."""
        (h,) = state
        half = projected.dtype  # the convolutions' precision; float32 without autocast
        x_z, x_r, x_n = at_least_float32(projected).chunk(3, dim=1)  # each (B, hidden, H, W)
        h_z, h_r = self.gate_conv(h.to(half)).chunk(2, dim=1)
        z = self.gate["z"](x_z + h_z)
        r = self.gate["r"](x_r + h_r)
        n = torch.tanh(x_n + self.candidate_conv((r * h).to(half)))
        h = h + z * (n - h)
        return h.to(half), (h,)
