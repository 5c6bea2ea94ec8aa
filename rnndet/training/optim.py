"""Parameter groups, the learning-rate schedule, and averaged weights."""

import math

import torch
from torch import Tensor, nn

from rnndet.config import TrainConfig
from rnndet.errors import RnndetError

PARTS = ("backbone", "neck", "head", "temporal")


def part_of(name: str) -> str:
    """Which of PARTS a parameter of a VideoDetector belongs to, by its name."""
    if name.startswith("temporal."):
        return "temporal"
    if ".backbone.body." in name or ".backbone.features." in name:
        return "backbone"
    return "neck" if ".backbone." in name else "head"


def freeze_parts(model: nn.Module, parts: tuple[str, ...]) -> list[Tensor]:
    """Take the named parts out of training: no gradient. Returns what was trained before."""
    frozen: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if part_of(name) in parts and parameter.requires_grad:
            frozen.append(parameter.requires_grad_(False))
    return frozen


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW with one rate for the backbone, one for neck and head, one for the memory.

    Weight decay falls on matrices and kernels only, not on biases and norms.
    """
    rates = {"backbone": config.lr_backbone, "neck": config.lr, "head": config.lr}
    rates["temporal"] = config.lr_temporal
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = config.weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((rates[part_of(name)], decay), []).append(parameter)
    if not groups:
        raise RnndetError("train.freeze leaves no parameter to train")
    return torch.optim.AdamW(
        [{"params": params, "lr": lr, "weight_decay": d} for (lr, d), params in groups.items()]
    )


def rate_factor(step: int, config: TrainConfig) -> float:
    """What the rates are multiplied with at a 0-based step: linear warm-up, then the schedule."""
    if step < config.warmup:
        return (step + 1) / (config.warmup + 1)
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "step":
        return 0.1 ** sum(step >= milestone for milestone in config.milestones)
    done = min(1.0, (step - config.warmup) / max(1, config.steps - config.warmup))
    return 0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2


class AveragedWeights:
    """Exponential moving average of a model's floating-point state; starts as a copy of it."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.tensors = {n: t.detach().clone() for n, t in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the model; early on the decay is short, (1 + n) / (10 + n) at most."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(tensor, 1 - decay)
            else:
                self.tensors[name].copy_(tensor)
