"""Parameter groups, the learning-rate schedule, and averaged weights."""

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rnndet.config import TrainConfig
from rnndet.errors import RnndetError, WeightsError
from rnndet.messages import counted

logger = logging.getLogger(__name__)

PARTS = ("backbone", "neck", "head", "temporal")
# The setting that is the learning rate of a part.
RATES = {"backbone": "lr_backbone", "neck": "lr", "head": "lr", "temporal": "lr_temporal"}


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

    Weight decay applies to matrices and kernels only, not to biases and norms. Each group holds the
    `names` of its parameters, and is one of a setting and a kind, whatever the values of the
    settings are.
    """
    groups: dict[tuple[str, bool], dict[str, Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = RATES[part_of(name)], parameter.dim() > 1
            groups.setdefault(key, {})[name] = parameter
    if not groups:
        raise RnndetError("train.freeze leaves no parameter to train")
    return torch.optim.AdamW(
        {
            "params": list(members.values()),
            "names": list(members),
            "lr": getattr(config, rate),
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (rate, decays), members in groups.items()
    )


def load_optimizer(
    optimizer: torch.optim.Optimizer,
    saved: Mapping[str, Any],
    *,
    unnamed: Sequence[Sequence[str]] = (),
    where: str,
) -> None:
    """Load the state of each parameter by its name; rates and weight decay stay as they are.

    saved: `state_dict` of an optimiser of `adamw`. unnamed: the names of each group's parameters,
    for files of versions that did not store them, see `groups_by_rate`. Raises WeightsError: other
    parameters, or other shapes.
    """
    states = _states_by_name(saved, unnamed, where=where)
    groups = optimizer.state_dict()["param_groups"]
    own = {name: i for group in groups for name, i in _pairs(group)}
    without, others = [n for n in own if n not in states], [n for n in states if n not in own]
    if without or others:
        parts = []
        if without:
            parts.append(f"lacks {counted(len(without), 'parameter')} ({without[0]})")
        if others:
            parts.append(f"has {counted(len(others), 'parameter')} not trained now ({others[0]})")
        raise WeightsError(
            f"{where}: the optimiser's state {' and '.join(parts)}; set train.freeze and "
            "train.unfreeze as they were, or start a new run with train.init"
        )
    shapes = {
        name: parameter.shape
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
    }
    for name, state in states.items():
        _check_shapes(state, shapes[name], where=where, name=name)
    by_place = {own[name]: state for name, state in states.items() if state}
    optimizer.load_state_dict({"state": by_place, "param_groups": groups})


def groups_by_rate(
    model: nn.Module, trainable: Collection[str], settings: Mapping[str, Any]
) -> list[list[str]]:
    """The names in the groups of an optimiser of earlier versions: by the values of the settings.

    trainable: names of the parameters that train unless they are frozen; settings: [train].
    """
    frozen = () if settings["unfreeze"] else settings["freeze"]
    groups: dict[tuple[float, float], list[str]] = {}
    for name, parameter in model.named_parameters():
        if name in trainable and part_of(name) not in frozen:
            decay = settings["weight_decay"] if parameter.dim() > 1 else 0.0
            groups.setdefault((settings[RATES[part_of(name)]], decay), []).append(name)
    return list(groups.values())


def _states_by_name(
    saved: Mapping[str, Any], unnamed: Sequence[Sequence[str]], *, where: str
) -> dict[str, Mapping[str, Any]]:
    """The saved state of each parameter by its name; {} for one that has not trained yet."""
    try:
        groups, states = saved["param_groups"], saved["state"]
        if not any("names" in group for group in groups):
            sizes = [len(group["params"]) for group in groups]
            if sizes != [len(names) for names in unnamed]:
                raise WeightsError(
                    f"{where}: the optimiser's state has no names of parameters, and its groups "
                    f"{sizes} are not those of its settings, {[len(names) for names in unnamed]}; "
                    "start a new run with train.init"
                )
            groups = [
                {"params": group["params"], "names": names}
                for group, names in zip(groups, unnamed, strict=True)
            ]
        return {name: states.get(i, {}) for group in groups for name, i in _pairs(group)}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise WeightsError(f"{where}: the optimiser's state is damaged or incomplete") from None


def _pairs(group: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The name and the number of each parameter of a group."""
    return list(zip(group["names"], group["params"], strict=True))


def _check_shapes(state: Mapping[str, Any], shape: Sequence[int], *, where: str, name: str) -> None:
    for key, value in state.items():
        if isinstance(value, Tensor) and value.dim() and value.shape != shape:
            raise WeightsError(
                f"{where}: the optimiser's {key} of {name} is {tuple(value.shape)} instead of "
                f"{tuple(shape)}; start a new run with train.init"
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
