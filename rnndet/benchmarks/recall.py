"""Measure how long a cell remembers: recall across a gap, and the gradient back over it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnndet.models.temporal.cells import CELLS, RecurrentCell
from rnndet.models.temporal.head import run_cell
from rnndet.registry import lookup

SIZE = 8  # height and width of the maps
CHANNELS = 8  # of the input: the pattern, the cue, and noise
CUE = 2.0  # of the cue channel in the frame with the pattern to recall

# Name -> cell and its options.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "conv_rnn": ("conv_rnn", {}),
    "conv_lstm": ("conv_lstm", {}),
    "peephole": ("conv_lstm", {"peephole": True}),
    "coupled": ("conv_lstm", {"coupled": True}),
    "conv_gru": ("conv_gru", {}),
    "bottleneck_lstm": ("bottleneck_lstm", {}),
    "min_gru": ("min_gru", {}),
    "gated_hold": ("gated_hold", {}),
}


class RecallModel(nn.Module):
    """A cell and a 1x1 readout, after the last frame, of the pattern in the first frame."""

    def __init__(self, cell: RecurrentCell, *, hidden: int) -> None:
        super().__init__()
        self.cell = cell
        self.read = nn.Conv2d(hidden, 1, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """Map frames (T, B, C, H, W) to the first pattern, (B, H, W)."""
        state = self.cell.init_state(frames[0])
        h, _ = run_cell(self.cell, frames.flatten(0, 1), state, length=len(frames))
        return self.read(h[-frames.shape[1] :])[:, 0]


def recall_task(gap: int, *, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a pattern that a cue marks, followed by `gap` >= 1 frames of other patterns.

    The latch problem of Bengio, Simard & Frasconi 1994, "Learning long-term dependencies with
    gradient descent is difficult", with a number instead of a bit for each pixel: features are
    numbers. -> frames (gap + 1, B, C, H, W): patterns, uniform in [-1, 1], in channel 0, the cue in
    1, noise of spread 0.1 in the rest; target (B, H, W), the first pattern.
    """
    frames = 0.1 * torch.randn((gap + 1, batch, CHANNELS, SIZE, SIZE), generator=generator)
    frames[:, :, 0] = 2 * torch.rand((gap + 1, batch, SIZE, SIZE), generator=generator) - 1
    frames[0, :, 1] = CUE
    return frames, frames[0, :, 0].clone()


def train_to_recall(
    name: str,
    *,
    steps: int = 400,
    longest: int = 30,
    seed: int = 0,
    after_step: Callable[[], object] = lambda: None,
) -> RecallModel:
    """Train a cell of VARIANTS on gaps of 1 to `longest` frames, uniformly distributed.

    The loss is on the last frame alone, so its gradient reaches the first frame only through every
    frame between. Adam, rate 0.01, down to 0 by a cosine; gradients clipped at norm 1. 0 steps
    give an untrained cell. Raises RnndetError for an unknown name.
    """
    cell, options = lookup(name, VARIANTS, what="cell")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = RecallModel(CELLS[cell](CHANNELS, CHANNELS, **options), hidden=CHANNELS)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    for _ in range(steps):
        gap = int(torch.randint(1, longest + 1, (), generator=generator))
        frames, target = recall_task(gap, batch=16, generator=generator)
        loss = functional.mse_loss(model(frames), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        after_step()
    return model.eval()


@torch.no_grad()
def recalled(model: RecallModel, gap: int) -> float:
    """Return the share of the pattern's variance recalled across a gap: 1 all, 0 or less none."""
    generator = torch.Generator().manual_seed(1000 + gap)
    frames, target = recall_task(gap, batch=64, generator=generator)
    return 1 - ((model(frames) - target).square().mean() / target.square().mean()).item()


def gradient_reach(model: RecallModel, gap: int) -> list[float]:
    """Return the norm of the gradient 0 to `gap` frames back, relative to the last frame's.

    The gradient of the loss with respect to the input of each frame; gap + 1 ratios, latest first.
    """
    generator = torch.Generator().manual_seed(2)
    frames, target = recall_task(gap, batch=16, generator=generator)
    frames.requires_grad_(True)
    (gradient,) = torch.autograd.grad(functional.mse_loss(model(frames), target), frames)
    norms = gradient.flatten(1).norm(dim=1).flip(0)
    return (norms / norms[0]).tolist()
