"""ConvLSTM that starts as the identity: its internal state is a weighted mean of features."""

import torch
from torch import Tensor, nn

from rnndet.errors import RnndetError
from rnndet.models.temporal.cells.conv_rnn import (
    at_least_float32,
    check_feature_state,
    convolution,
)
from rnndet.models.temporal.gates import Gate

# Smallest value of the input gate. The state depends on ratios of gates, and runtimes compute a
# sigmoid to 1e-7: below 1e-4 the ratios of two runtimes would differ visibly. A sigmoid also
# underflows to 0, in onnxruntime from -16 on, and the first c would be 0 / 0.
LEAST_INPUT = 1e-3


class IdentityLSTMCell(nn.Module):
    """ConvLSTM as wide as the features, whose first output is the frame's own features.

    Names: input node g, input gate i, forget gate f, output gate o, internal state c, normaliser n,
    hidden state h. With * a convolution, . an elementwise product, s the logistic sigmoid:

        a_t = relu((W_a * x_t + U_a * c_{t-1}) / r + b_a)
        i_t = max(s(V_i a_t + b_i), 1e-3),  f_t = s(V_f a_t + b_f),  o_t = s(V_o a_t + b_o)
        g_t = x_t + r V_g a_t
        n_t = min(f_t . n_{t-1} + i_t, limit)
        c_t = c_{t-1} + min(i_t / n_t, 1) . (g_t - c_{t-1})
        h_t = x_t + o_t . (c_t - x_t)

    Below the limit, n_t . c_t = f_t . n_{t-1} . c_{t-1} + i_t . g_t: the LSTM's equation of the
    internal state, divided by the sum of its weights. So c is a weighted mean of the input nodes
    and is bounded by them without tanh. V_g starts at 0, so g_1 = c_1 = h_1 = x_1. r is the
    standard deviation of the features, see `calibrate`: their amplitude differs a hundredfold
    between detectors, and gates that see numbers near 0 do not learn.

    Sources: gates and internal state as in `ConvLSTMCell`; normaliser from the sLSTM of Beck et al.
    2024, arXiv 2405.04517, eq. 8 to 10, with sigmoid gates, as there for f; the shared hidden layer
    a, the identity in g and the output gate between frame and state are new. An LSTM of `hidden`
    channels with tanh passes all it remembers through that bottleneck; this one does not.

    - width: channels of a.
    - input_bias, forget_bias, output_bias: initial b_i, b_f, b_o.
    - limit: largest n. The larger it is, the less a frame can change a state that is kept long.
    - separable: depthwise and pointwise convolutions for W_a and U_a.
    - light: W_a and U_a are 1x1, K_a is a convolution over their sum: a_t = relu(K_a * ((W_a x_t +
      U_a c_{t-1}) / r) + b_a); the gates have one value per position, for all channels, so n has
      one channel; and V_g is left out, g_t = x_t. Then the work per channel is two weighted means.

    h has the amplitude of the features already, so it needs `fusion = "state"`, and `hidden` equal
    to the channels of the level.
    """

    holds_features = True
    spread: Tensor  # scalar, r

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        *,
        kernel_size: int = 3,
        width: int = 32,
        input_bias: float = 2.0,
        forget_bias: float = 0.0,
        output_bias: float = 2.0,
        limit: float = 30.0,
        separable: bool = True,
        light: bool = False,
    ):
        super().__init__()
        check_feature_state(in_channels, hidden_channels, width=width)
        if not limit >= 1:
            raise RnndetError(f"limit = {limit} of this cell must be at least 1")
        self.out_channels = hidden_channels
        self.width = width
        self.limit = limit
        self.register_buffer("spread", torch.tensor(1.0))
        self.light = light
        first = 1 if light else kernel_size
        self.input_conv = convolution(
            in_channels, width, first, separable=separable and not light, bias=False
        )
        self.hidden_conv = convolution(
            hidden_channels, width, first, separable=separable and not light, bias=False
        )
        if light:
            self.mix_conv = convolution(width, width, kernel_size, separable=False, bias=False)
        self.bias = nn.Parameter(torch.zeros(width, 1, 1))  # b_a
        self.gates = nn.Conv2d(width, 3 if light else 3 * hidden_channels, 1)  # i, f, o
        for bias, start in zip(
            self.gates.bias.data.chunk(3), (input_bias, forget_bias, output_bias), strict=True
        ):
            bias.fill_(start)
        if not light:
            self.change = nn.Conv2d(width, hidden_channels, 1, bias=False)  # V_g
            nn.init.zeros_(self.change.weight)
        self.gate = nn.ModuleDict({name: Gate(name) for name in ("i", "f", "o")})

    def calibrate(self, spread: float) -> None:
        """Set r to the standard deviation of the features; before training only."""
        self.spread.fill_(spread)

    def init_state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(c, n) of zeros for x (B, C, H, W)."""
        return torch.zeros_like(x), torch.zeros_like(x[:, :1] if self.light else x)

    def project(self, x: Tensor) -> Tensor:
        """x and W_a * x of all frames, (N, C, H, W) -> (N, C + width, H, W); light: x alone.

        W_a * x of the light form is cheaper than the copy of x.
        """
        return x if self.light else torch.cat([x, self.input_conv(x)], dim=1)

    def forward(
        self, projected: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One time step: h (B, C, H, W), of the features' amplitude, and the state (c, n)."""
        c, n = state
        if self.light:
            x, a = projected, self.input_conv(projected)
        else:
            x, a = projected.split([self.out_channels, self.width], dim=1)
        a = a + self.hidden_conv(c.to(projected.dtype))
        a = a / self.spread
        a = torch.relu((self.mix_conv(a) if self.light else a) + self.bias)
        i, f, o = at_least_float32(self.gates(a)).chunk(3, dim=1)
        i, f, o = self.gate["i"](i), self.gate["f"](f), self.gate["o"](o)
        i = i.clamp(min=LEAST_INPUT)
        x = at_least_float32(x)
        n = torch.addcmul(i, f, n).clamp(max=self.limit)
        share = (i / n).clamp(max=1)
        if self.light:  # g = x, so c_t - x_t = (1 - share) . (c_{t-1} - x_t)
            kept, difference = 1 - share, c - x
            c = torch.addcmul(x, kept, difference)
            h = torch.addcmul(x, o * kept, difference)
        else:
            g = torch.addcmul(x, self.spread, at_least_float32(self.change(a)))
            c = torch.addcmul(c, share, g - c)  # torch.lerp is slow in onnxruntime
            h = torch.addcmul(x, o, c - x)
        return h.to(projected.dtype), (c, n)
