"""What of a window is judged, and what is minimised."""

import torch
from torch import Tensor

from rnndet.config import TrainConfig
from rnndet.structures import Target

# Losses of the features that the memory gives, each weighted by the setting of its name; means over
# the images, and not over the matched cells as the detector's are.
TEMPORAL_LOSSES = ("distillation", "stability")


def weighted_sum(losses: dict[str, Tensor], config: TrainConfig, *, zero: Tensor) -> Tensor:
    """What is minimised: the detector's losses and those of the memory, each with its weight."""
    weights = {name: getattr(config, name) for name in TEMPORAL_LOSSES}
    total = zero
    for name, loss in losses.items():
        total = total + weights.get(name, config.detection) * loss
    return total


def supervised_frames(targets: list[list[Target | None]], share: float, *, seed: int) -> Tensor:
    """A random share of the labelled frames (one per window at least, if any), (T, B) bool.

    Fewer frames pass through the detection head while the memory still sees all of them.
    """
    known = torch.tensor([[target is not None for target in row] for row in targets])
    places = known.nonzero()
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
    kept = places[order[: max(1, round(share * len(places)))]]
    supervised = torch.zeros_like(known)
    supervised[kept[:, 0], kept[:, 1]] = True
    return supervised
