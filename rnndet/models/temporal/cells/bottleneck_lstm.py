"""Bottleneck ConvLSTM, a cheap cell for light detectors."""

import torch
from torch import Tensor, nn

from rnndet.models.temporal.cells.conv_lstm import check_clamp
from rnndet.models.temporal.cells.conv_rnn import at_least_float32, convolution
from rnndet.models.temporal.gates import Gate


class BottleneckLSTMCell(nn.Module):
    """ConvLSTM whose gates read a bottleneck b of input and h; all convolutions are separable.

    With * a depthwise separable convolution, . an elementwise product and s the logistic sigmoid:

        b_t = tanh(W_b * [x_t, h_{t-1}])
        f_t = s(W_f * b_t + b_f),  i_t = s(W_i * b_t),  o_t = s(W_o * b_t)
        c_t = clamp(f_t . c_{t-1} + i_t . tanh(W_g * b_t))
        h_t = o_t . tanh(c_t)

    Source: Liu & Zhu 2018, "Mobile video object detection with temporally-aware feature maps",
    arXiv 1711.06368, section 3.3. W_b * [x, h] is computed as W_bx * x + W_bh * h, which is the
    same function, so that the first term can be projected for all frames at once.

    Differences: tanh everywhere, where published codes have ReLU or ReLU6, so that h stays in
    [-1, 1] as in the other cells; `forget_bias` is the start of a learned bias and not a
    constant added in the gate; c is clamped (see `ConvLSTMCell`); b is not part of the output.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        *,
        kernel_size: int = 3,
        forget_bias: float = 1.0,
        clamp: float = 10.0,
    ):
        super().__init__()
        check_clamp(clamp)
        self.out_channels = hidden_channels
        self.clamp = clamp
        self.input_conv = convolution(
            in_channels, hidden_channels, kernel_size, separable=True, bias=True
        )
        self.hidden_conv = convolution(
            hidden_channels, hidden_channels, kernel_size, separable=True, bias=False
        )
        self.gate_conv = convolution(
            hidden_channels, 4 * hidden_channels, kernel_size, separable=True, bias=True
        )
        nn.init.constant_(self.gate_conv[-1].bias[:hidden_channels], forget_bias)
        self.gate = nn.ModuleDict({name: Gate(name) for name in ("f", "i", "o")})

    def init_state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(h, c) of zeros for x (B, C, H, W)."""
        zeros = x.new_zeros(x.shape[0], self.out_channels, *x.shape[-2:])
        return zeros, zeros.clone()

    def project(self, x: Tensor) -> Tensor:
        """The input's share of the bottleneck for all frames, (N, C, H, W) -> (N, hidden, H, W)."""
        return self.input_conv(x)

    def forward(
        self, projected: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One time step: h (B, hidden, H, W) in [-1, 1], and the state (h, c); c is float32."""
        h, c = state
        bottleneck = torch.tanh(projected + self.hidden_conv(h.to(projected.dtype)))
        gates = at_least_float32(self.gate_conv(bottleneck))
        f, i, o, g = gates.chunk(4, dim=1)  # each (B, hidden, H, W)
        c = self.gate["f"](f) * c + self.gate["i"](i) * torch.tanh(g)
        c = c.clamp(-self.clamp, self.clamp)
        h = (self.gate["o"](o) * torch.tanh(c)).to(projected.dtype)
        return h, (h, c)
