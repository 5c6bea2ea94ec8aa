"""Shared by the tests of VideoDetector and Criterion: random windows, a target, their losses."""

import torch

from rnndet.data.clips.dataset import ClipBatch
from rnndet.structures import Target
from rnndet.training.criterion import Criterion

HOLD = {"cell": "gated_hold", "fusion": "state", "hidden": 0}


def noise(length, batch=1, seed=0):
    """Random frames, (length, batch, 3, 64, 96) uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (length, batch, 3, 64, 96), generator=generator, dtype=torch.uint8)


def target():
    """One box of class 1 in the upper left."""
    return Target(
        torch.tensor([[10.0, 10, 40, 40]]), torch.tensor([1]), None, torch.tensor([False])
    )


def head_input(model, frames, state=None):
    """The features that the detection head gets, (T*B, C, H, W) by level, and the new state."""
    encoded = model.encode(frames)
    features, state = model.temporal(encoded.features, state, encoded.length)
    return model.head_features(features), state


def criterion(
    model, frames, targets, state=None, *, clean=None, supervised=None, checkpoints=0, **options
):
    """What `Criterion` returns for a window; the model must be in train mode."""
    rows = frames.shape[1]
    begins = torch.zeros(rows, dtype=torch.bool)
    batch = ClipBatch(frames, targets, begins, ["test"] * rows, clean)
    measure = Criterion(model, activation_checkpoints=checkpoints, **options)
    return measure(batch, state, supervised)


def losses(model, frames, targets, **given):
    """The terms of `criterion` by name."""
    return criterion(model, frames, targets, **given).terms
