"""Parameter groups, the learning-rate schedule, and averaged weights."""

import logging
import math

import torch
from torch import Tensor, nn

from rnndet.config import TrainConfig
from rnndet.errors import RnndetError

logger = logging.getLogger(__name__)

PARTS = ("backbone", "neck", "head", "temporal")


def part_of(name: str) -> str:
    """Which of PARTS a parameter of a VideoDetector belongs to, by its name.

    >>> part_of("detector.net.backbone.fpn.inner_blocks.0.0.weight")
    'neck'
    """
    if name.startswith("temporal."):
        return "temporal"
    if ".backbone.body." in name or ".backbone.features." in name:
        return "backbone"
    return "neck" if ".backbone." in name else "head"


def build_optimizer(
    model: nn.Module, config: TrainConfig
) -> tuple[torch.optim.Optimizer, list[Tensor]]:
    """AdamW over the trained parameters, and the frozen ones; freezes the parts in `train.freeze`.

    Parts that are unfrozen later have their place in the optimiser from the start. Raises
    RnndetError if no parameter is left.
    """
    if config.unfreeze:
        optimizer = adamw(model, config)
        return optimizer, freeze_parts(model, config.freeze)
    frozen = freeze_parts(model, config.freeze)
    return adamw(model, config), frozen


def freeze_parts(model: nn.Module, parts: tuple[str, ...]) -> list[Tensor]:
    """Turn off gradients of the named parts. Returns the parameters that trained before."""
    frozen: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if part_of(name) in parts and parameter.requires_grad:
            frozen.append(parameter.requires_grad_(False))
    return frozen


def adamw(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW with separate rates for the backbone, for neck and head, and for the temporal module.

    Weight decay applies to matrices and kernels only, not to biases and norms.
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


class Schedule:
    """The learning rates of each step, and the step from which frozen parameters train.

    optimizer: with the full rates; frozen: see `build_optimizer`.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, frozen: list[Tensor], config: TrainConfig
    ) -> None:
        self._optimizer, self._frozen, self._config = optimizer, frozen, config
        self._rates = [group["lr"] for group in optimizer.param_groups]

    def begin_step(self, step: int) -> bool:
        """Set the rates of a 0-based step; True if parameters have just been unfrozen."""
        factor = rate_factor(step, self._config)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        if not self._frozen or not 0 < self._config.unfreeze <= step:
            return False
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._frozen = []
        logger.info("step %d: unfroze %s", step, ", ".join(self._config.freeze))
        return True


def rate_factor(step: int, config: TrainConfig) -> float:
    """Factor on the learning rates at a 0-based step: linear warm-up, then the schedule.

    >>> rate_factor(0, TrainConfig(warmup=9))
    0.1
    """
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
        """Move towards the model; the decay is at most (1 + n) / (10 + n) after n updates."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(tensor, 1 - decay)
            else:
                self.tensors[name].copy_(tensor)

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor], *, steps: int) -> None:
        """Load a saved average of `steps` updates."""
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor)
        self.steps = steps
