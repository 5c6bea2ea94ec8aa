"""Recurrent cells over feature maps, independent of detection.

To add a cell: one file with a class like `RecurrentCell`, and one line in `CELLS`.
"""

from typing import Protocol

from torch import Tensor

from rnndet.models.temporal.cells.bottleneck_lstm import BottleneckLSTMCell
from rnndet.models.temporal.cells.conv_gru import ConvGRUCell
from rnndet.models.temporal.cells.conv_lstm import ConvLSTMCell
from rnndet.models.temporal.cells.conv_rnn import ConvRNNCell
from rnndet.models.temporal.cells.gated_hold import GatedHoldCell
from rnndet.models.temporal.cells.identity_lstm import IdentityLSTMCell
from rnndet.models.temporal.cells.min_gru import MinGRUCell
from rnndet.models.temporal.cells.two_frame import TwoFrameCell


class RecurrentCell(Protocol):
    """Interface of a cell, which is built as `Cell(in_channels, hidden_channels, **options)`.

    A cell keeps no state itself. Its state is a tuple of tensors, each (B, any, H, W); the initial
    state is all zeros, so that `reset_state` works for every cell. Two members are optional:
    `holds_features = True` of a class whose state is features, and `calibrate(spread)`, which gets
    the standard deviation of the features before training.
    """

    out_channels: int

    def init_state(self, x: Tensor) -> tuple[Tensor, ...]:
        """Zeros for a batch like x (B, C, H, W), on its device and of its dtype."""
        ...

    def project(self, x: Tensor) -> Tensor:
        """The part without recurrence, for all frames at once: (N, C, H, W) -> (N, any, H, W)."""
        ...

    def forward(
        self, projected: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One time step: projected (B, any, H, W) -> h (B, out_channels, H, W), new state."""
        ...


CELLS: dict[str, type] = {
    "bottleneck_lstm": BottleneckLSTMCell,
    "conv_gru": ConvGRUCell,
    "conv_lstm": ConvLSTMCell,
    "conv_rnn": ConvRNNCell,
    "gated_hold": GatedHoldCell,
    "identity_lstm": IdentityLSTMCell,
    "min_gru": MinGRUCell,
    "two_frame": TwoFrameCell,
}
