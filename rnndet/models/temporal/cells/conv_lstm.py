"""Convolutional long short-term memory (ConvLSTM)."""

import torch
from torch import Tensor, nn

from rnndet.errors import RnndetError
from rnndet.models.temporal.cells.conv_rnn import at_least_float32, convolution
from rnndet.models.temporal.gates import Gate


def check_clamp(clamp: float) -> None:
    """Raise `RnndetError` unless the limit of the internal state is above 0."""
    if not clamp > 0:
        raise RnndetError(f"clamp = {clamp} of a recurrent cell must be above 0; inf: no limit")


class ConvLSTMCell(nn.Module):
    """ConvLSTM: LSTM whose products with weights are convolutions.

    Names: input node g, input gate i, forget gate f, output gate o, internal state c (the cell's
    constant error carousel), hidden state h. With * a convolution, . an elementwise product, s the
    logistic sigmoid, and p the peephole weights:

        i_t = s(W_i * x_t + U_i * h_{t-1} + p_i . c_{t-1} + b_i)
        f_t = s(W_f * x_t + U_f * h_{t-1} + p_f . c_{t-1} + b_f)
        g_t = tanh(W_g * x_t + U_g * h_{t-1} + b_g)
        c_t = clamp(f_t . c_{t-1} + i_t . g_t)
        o_t = s(W_o * x_t + U_o * h_{t-1} + p_o . c_t + b_o)
        h_t = o_t . tanh(c_t)

    Sources: i, o, g, c from Hochreiter & Schmidhuber 1997, "Long short-term memory"; f from Gers,
    Schmidhuber & Cummins 2000, "Learning to forget"; p from Gers & Schmidhuber 2000, "Recurrent
    nets that time and count"; convolutions from Shi et al. 2015, arXiv 1506.04214, eq. 3; `coupled`
    from Greff et al. 2017, arXiv 1503.04069, variant CIFG.

    Differences: Shi et al. have peephole weights for each pixel, which ties the network to one
    image size; here they are (hidden, 1, 1). Greff et al. write f = 1 - i; here it is i = 1 - f,
    which is equivalent, so that `forget_bias` keeps its meaning. The clamp is new.

    - peephole: gates see the internal state, i and f c_{t-1}, o c_t; weights start at 0.
    - coupled: i = 1 - f; costs 3/4, and |c| <= 1.
    - forget_bias: initial b_f; all other biases start at 0. With 1, s(1) = 73 % is kept per frame
      (Jozefowicz et al. 2015, "An empirical exploration of recurrent network architectures").
    - clamp: limit of |c|. Trained on 8 frames and run on 1200, |c| grew past 400 without it; at 10
      tanh(c) is 1 to within float32. `inf`: no limit.
    - separable: depthwise and pointwise convolutions for input and hidden state.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        *,
        kernel_size: int = 3,
        peephole: bool = False,
        coupled: bool = False,
        forget_bias: float = 1.0,
        clamp: float = 10.0,
        separable: bool = False,
    ):
        super().__init__()
        check_clamp(clamp)
        self.out_channels = hidden_channels
        self.coupled = coupled
        self.clamp = clamp
        gates = (3 if coupled else 4) * hidden_channels  # f, o, g and, unless coupled, i
        self.input_conv = convolution(
            in_channels, gates, kernel_size, separable=separable, bias=True
        )
        self.hidden_conv = convolution(
            hidden_channels, gates, kernel_size, separable=separable, bias=False
        )
        nn.init.constant_(self.input_conv[-1].bias[:hidden_channels], forget_bias)
        names = ("f", "o") if coupled else ("f", "o", "i")
        self.gate = nn.ModuleDict({name: Gate(name) for name in names})
        self.peepholes = nn.ParameterDict(
            {n: nn.Parameter(torch.zeros(hidden_channels, 1, 1)) for n in names if peephole}
        )

    def init_state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(h, c) of zeros for x (B, C, H, W)."""
        zeros = x.new_zeros(x.shape[0], self.out_channels, *x.shape[-2:])
        return zeros, zeros.clone()

    def project(self, x: Tensor) -> Tensor:
        """W * x + b of every gate for all frames, (N, C, H, W) -> (N, 4 hidden, H, W)."""
        return self.input_conv(x)

    def forward(
        self, projected: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One time step: h (B, hidden, H, W) in [-1, 1], and the state (h, c); c is float32."""
        h, c = state
        hidden = self.hidden_conv(h.to(projected.dtype))
        gates = at_least_float32(projected) + hidden
        f, o, g, *i = gates.chunk(3 if self.coupled else 4, dim=1)  # each (B, hidden, H, W)
        f = self.gate["f"](self._peek("f", f, c))
        i = 1 - f if self.coupled else self.gate["i"](self._peek("i", i[0], c))
        c = (f * c + i * torch.tanh(g)).clamp(-self.clamp, self.clamp)
        o = self.gate["o"](self._peek("o", o, c))
        h = (o * torch.tanh(c)).to(projected.dtype)
        return h, (h, c)

    def _peek(self, gate: str, value: Tensor, c: Tensor) -> Tensor:
        return value + self.peepholes[gate] * c if gate in self.peepholes else value
