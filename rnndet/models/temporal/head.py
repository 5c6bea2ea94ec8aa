"""TemporalHead: a recurrent cell per feature level, the time loop, and fusion with the features."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rnndet.errors import RnndetError
from rnndet.models.temporal.cells import CELLS, RecurrentCell
from rnndet.models.temporal.cells.conv_rnn import at_least_float32
from rnndet.models.temporal.gates import Gate
from rnndet.models.temporal.state import Features, State
from rnndet.registry import check_options, lookup

# m = scale * conv1x1(h) with h in [-1, 1] has about the spread of the features if scale is this
# many times their standard deviation; measured on two pyramids (std 2 needed a scale of 8).
SCALE_PER_STD = 4.0
GATE_STD = 0.02  # of the gate's weights: small, so that the bias alone decides the start


class Fusion(nn.Module):
    """Base of the fusions: projects the state to features, m = scale * conv1x1(h).

    The layers after the fusion ignore an m that is far smaller than the features, and a frame
    detector's features do not have amplitude 1: `scale`, a buffer, brings h in [-1, 1] to their
    amplitude. `gate_bias` is used by `Blend` only.
    """

    scale: Tensor  # scalar

    def __init__(self, channels: int, hidden: int, *, scale: float, gate_bias: float):
        super().__init__()
        self.read = nn.Conv2d(hidden, channels, 1)
        self.register_buffer("scale", torch.tensor(float(scale)))

    def readout(self, h: Tensor) -> Tensor:
        """m (N, C, H, W), at least float32, from h (N, hidden, H, W)."""
        return self.scale * at_least_float32(self.read(h))


class Blend(Fusion):
    """P + g . (m - P) with g = sigmoid(conv1x1([P, h])): on a bad frame m replaces P.

    The gate starts at sigmoid(gate_bias) everywhere; 2 gives m a weight of 88 %, so that the cell
    is trained from the first step.
    """

    def __init__(self, channels: int, hidden: int, *, scale: float, gate_bias: float):
        super().__init__(channels, hidden, scale=scale, gate_bias=gate_bias)
        self.gate = nn.Conv2d(channels + hidden, channels, 1)
        self.opened = Gate("blend")
        nn.init.normal_(self.gate.weight, std=GATE_STD)
        nn.init.constant_(self.gate.bias, gate_bias)

    def forward(self, frame: Tensor, h: Tensor) -> Tensor:
        """frame P (N, C, H, W) and h (N, hidden, H, W) -> (N, C, H, W)."""
        g = self.opened(at_least_float32(self.gate(torch.cat([frame, h], dim=1))))
        return (frame + g * (self.readout(h) - frame)).to(frame.dtype)


class Residual(Fusion):
    """P + m with m = 0 at the start: starts exactly as the frame detector, learns slowly."""

    def __init__(self, channels: int, hidden: int, *, scale: float, gate_bias: float):
        super().__init__(channels, hidden, scale=scale, gate_bias=gate_bias)
        nn.init.zeros_(self.read.weight)
        nn.init.zeros_(self.read.bias)

    def forward(self, frame: Tensor, h: Tensor) -> Tensor:
        """frame P (N, C, H, W) and h (N, hidden, H, W) -> (N, C, H, W)."""
        return (frame + self.readout(h)).to(frame.dtype)


class Replace(Fusion):
    """m alone: the longest recall, the worst localisation; all passes `hidden` channels."""

    def forward(self, frame: Tensor, h: Tensor) -> Tensor:
        """frame P (N, C, H, W) and h (N, hidden, H, W) -> (N, C, H, W)."""
        return self.readout(h).to(frame.dtype)


class Direct(nn.Module):
    """h itself, for cells that hold features, see `holds_features`."""

    scale: Tensor  # scalar; records what `calibrate` measured

    def __init__(self, channels: int, hidden: int, *, scale: float, gate_bias: float):
        super().__init__()
        self.register_buffer("scale", torch.tensor(float(scale)))

    def forward(self, frame: Tensor, h: Tensor) -> Tensor:
        """h (N, C, H, W), which has the amplitude of the features already."""
        return h


FUSIONS: dict[str, type[nn.Module]] = {
    "blend": Blend,
    "replace": Replace,
    "residual": Residual,
    "state": Direct,
}


class TemporalHead(nn.Module):
    """Maps features and state to features and new state on some levels; stateless itself.

    - channels: C of every level of the frame detector at this site.
    - cell: a name in `CELLS`; options: its keyword arguments. Each level has its own cell.
    - levels: the levels with a cell; all other levels pass through unchanged.
    - hidden: channels of the state; 0: the same as the level.
    - fusion: a name in `FUSIONS`; "state" is for cells that hold features, and they need it.
      gate_bias and memory_scale initialise it, see `calibrate`.

    Raises `RnndetError` if a level, cell, fusion or option is unknown or an option's type is wrong.

    >>> head = TemporalHead({"0": 32, "1": 32}, levels=("0",), cell="conv_gru", hidden=8)
    >>> features = {"0": torch.rand(2, 32, 8, 12), "1": torch.rand(2, 32, 4, 6)}
    >>> fused, state = head(features, None, 2)  # two frames of one video
    >>> fused["0"].shape, state["0"][0].shape
    (torch.Size([2, 32, 8, 12]), torch.Size([1, 8, 8, 12]))
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        *,
        levels: tuple[str, ...],
        cell: str = "conv_lstm",
        hidden: int = 32,
        fusion: str = "blend",
        gate_bias: float = 2.0,
        memory_scale: float = 8.0,
        options: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        build_cell = lookup(cell, CELLS, what="model.temporal.cell")
        build_fusion = lookup(fusion, FUSIONS, what="model.temporal.fusion")
        options = dict(options or {})
        check_options(
            build_cell,
            options,
            what="model.temporal.options",
            given=("in_channels", "hidden_channels"),
        )
        if hidden < 0:
            raise RnndetError(f"model.temporal.hidden = {hidden} must be at least 1, or 0")
        if (fusion == "state") != holds_features(build_cell):
            names = ", ".join(name for name, known in CELLS.items() if holds_features(known))
            raise RnndetError(
                f"model.temporal: cell {cell!r} and fusion {fusion!r} do not fit: {names} need "
                'fusion = "state" and hidden = 0, the other cells another fusion'
            )
        self.levels = tuple(levels)
        self.cells = nn.ModuleDict()
        self.fusions = nn.ModuleDict()
        for level in self.levels:
            width = lookup(level, channels, what="model.temporal.levels")
            state_width = hidden or width
            self.cells[level] = build_cell(width, state_width, **options)
            self.fusions[level] = build_fusion(
                width, state_width, scale=memory_scale, gate_bias=gate_bias
            )

    def forward(
        self, features: Features, state: State | None, length: int
    ) -> tuple[Features, State]:
        """Run the cells over `length` = T frames of B videos.

        features: level -> (T*B, C, H, W), time-major: frame t of video b is at t*B + b. state: what
        the previous call returned, None at the start of the videos. A clip gives the same result as
        its frames one by one. Raises `RnndetError` if the state has another batch or image size.
        """
        features, new_state = dict(features), {}
        for level in self.levels:
            frame, cell = features[level], self.cells[level]
            assert frame.shape[0] % length == 0, (level, tuple(frame.shape), length)
            before = cell.init_state(frame[: frame.shape[0] // length])
            if state is not None:
                before = _checked_state(state, level, like=before)
            h, new_state[level] = run_cell(cell, frame, before, length=length)
            features[level] = self.fusions[level](frame, h)
        return features, new_state

    def spread(self) -> Features:
        """The standard deviation of each level's features, as measured by `calibrate`; scalars."""
        return {level: self.fusions[level].scale / SCALE_PER_STD for level in self.levels}

    @torch.no_grad()
    def calibrate(self, features: Features) -> None:
        """Fit each level to the features of one batch: scale = 4 * std(P), and the cell.

        The trainer calls it once before the first step, with features as `forward` gets them.
        Changes these buffers only. Do not call it on a trained head. Raises `RnndetError` if the
        features are constant or not finite.
        """
        for level in self.levels:
            std = features[level].float().std().item()
            if not (math.isfinite(std) and std > 0):
                raise RnndetError(
                    f"features of level {level!r} have standard deviation {std}; "
                    "calibrate on real frames with finite detector weights"
                )
            self.fusions[level].scale.fill_(SCALE_PER_STD * std)
            if hasattr(self.cells[level], "calibrate"):
                self.cells[level].calibrate(std)


def holds_features(cell: type) -> bool:
    """Whether the state of this class of cells is features themselves; see `Direct`."""
    return getattr(cell, "holds_features", False)


def run_cell(
    cell: RecurrentCell, x: Tensor, state: tuple[Tensor, ...], *, length: int
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run a cell over T frames: (T*B, C, H, W) -> h (T*B, hidden, H, W) and the last state."""
    if length == 1:  # a stream: no copy by torch.cat
        return cell(cell.project(x), state)
    hidden = []
    for projected in cell.project(x).chunk(length):  # (B, any, H, W)
        h, state = cell(projected, state)
        hidden.append(h)
    return torch.cat(hidden), state


def _checked_state(state: State, level: str, *, like: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    shapes = [tuple(t.shape) for t in state.get(level, ())]
    expected = [tuple(t.shape) for t in like]
    if shapes == expected:
        return state[level]
    raise RnndetError(
        f"state of level {level!r} is {shapes or 'missing'} but these frames need {expected} "
        "(batch, channels, height, width); reset the state where frame size, batch or model change"
    )
