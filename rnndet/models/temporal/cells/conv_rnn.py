"""Convolutional form of the standard recurrent network, and functions that all cells use."""

import torch
from torch import Tensor, nn

from rnndet.errors import RnndetError


def convolution(
    in_channels: int, out_channels: int, kernel_size: int, *, separable: bool, bias: bool
) -> nn.Sequential:
    """A convolution that keeps H and W; its last layer, `[-1]`, holds the bias, which starts at 0.

    `separable` is one filter per channel (depthwise) followed by a 1x1 convolution (pointwise):
    about kernel_size^2 times fewer operations. Raises `RnndetError` unless kernel_size is odd.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise RnndetError(
            f"kernel_size = {kernel_size} of a recurrent cell must be odd: 1, 3, 5, ..."
        )
    padding = kernel_size // 2
    if separable:
        layers = nn.Sequential(
            nn.Conv2d(
                in_channels,
                in_channels,
                kernel_size,
                padding=padding,
                groups=in_channels,
                bias=False,
            ),
            nn.Conv2d(in_channels, out_channels, 1, bias=bias),
        )
    else:
        layers = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=bias)
        )
    if bias:
        nn.init.zeros_(layers[-1].bias)
    return layers


def check_feature_state(in_channels: int, hidden_channels: int, *, width: int) -> None:
    """Raise `RnndetError` unless a cell whose state is features can have these channels.

    width: channels of the hidden layer of its gates.
    """
    if hidden_channels != in_channels:
        raise RnndetError(
            f"hidden = {hidden_channels} of this cell must be {in_channels}, the channels of "
            "the features that are its state"
        )
    if width < 1:
        raise RnndetError(f"width = {width} of this cell must be at least 1")


def at_least_float32(x: Tensor) -> Tensor:
    """Convert half precision to float32; other types stay.

    In half precision, sums over time and gates near 0 or 1 cannot hold a slowly changing state:
    next to 1 the spacing of bfloat16 is 2^-8, so a forget gate of .999 would round to 1.
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


class ConvRNNCell(nn.Module):
    """h_t = tanh(W_x * x_t + W_h * h_{t-1} + b), with * a convolution.

    The standard recurrent network (Elman 1990, "Finding structure in time"), the simplest
    cell to compare with. It has no gates: each step multiplies the gradient by W_h and by tanh',
    so the gradient vanishes over a few frames (Hochreiter 1991; Bengio et al. 1994).
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
            in_channels, hidden_channels, kernel_size, separable=separable, bias=True
        )
        self.hidden_conv = convolution(
            hidden_channels, hidden_channels, kernel_size, separable=separable, bias=False
        )

    def init_state(self, x: Tensor) -> tuple[Tensor]:
        """(h,) of zeros for x (B, C, H, W)."""
        return (x.new_zeros(x.shape[0], self.out_channels, *x.shape[-2:]),)

    def project(self, x: Tensor) -> Tensor:
        """W_x * x + b for all frames, (N, C, H, W) -> (N, hidden, H, W)."""
        return self.input_conv(x)

    def forward(self, projected: Tensor, state: tuple[Tensor]) -> tuple[Tensor, tuple[Tensor]]:
        """One time step: h (B, hidden, H, W) in [-1, 1], and the state (h,)."""
        (h,) = state
        hidden = self.hidden_conv(h.to(projected.dtype))
        h = torch.tanh(at_least_float32(projected) + hidden).to(projected.dtype)
        return h, (h,)
