"""Convert weights between networks with and without batch norms folded into convolutions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d

PARTS = ("weight", "bias", "running_mean", "running_var")  # of a frozen batch norm


def convert_norms(own: nn.Module, start: nn.Module) -> tuple[dict[str, Tensor], int]:
    """The tensors of `start` in the form of `own`, and the number of converted batch norms.

    Where `own` has a convolution with a folded norm, the norm of `start` is folded; where only
    `start` has folded it, the norm becomes its bias. So both give the same features.
    """
    tensors, names = dict(start.state_dict()), own.state_dict().keys()
    count = 0
    for conv, norm, eps in _pairs(start):
        if f"{norm}.running_var" in names or f"{conv}.bias" not in names:
            continue
        weight, bias, mean, variance = (tensors.pop(f"{norm}.{part}") for part in PARTS)
        kernel, shift = fuse_conv_bn_weights(
            tensors[f"{conv}.weight"],
            tensors.get(f"{conv}.bias"),
            mean,
            variance,
            eps,
            weight,
            bias,
        )
        tensors |= {f"{conv}.weight": kernel.detach(), f"{conv}.bias": shift.detach()}
        count += 1
    for conv, norm, eps in _pairs(own):
        if f"{norm}.running_var" in tensors or f"{conv}.bias" not in tensors:
            continue
        if f"{conv}.bias" in names:
            continue
        bias = tensors.pop(f"{conv}.bias")
        ones = torch.ones_like(bias)
        parts = (ones, bias, torch.zeros_like(bias), ones - eps)
        tensors |= {f"{norm}.{part}": value for part, value in zip(PARTS, parts, strict=True)}
        count += 1
    return tensors, count


def _pairs(module: nn.Module) -> Iterator[tuple[str, str, float]]:
    """Names of each convolution and the frozen batch norm after it, and the norm's eps."""
    for prefix, parent in module.named_modules():
        for (name, child), (following, norm) in pairwise(parent.named_children()):
            if isinstance(child, nn.Conv2d) and isinstance(norm, FrozenBatchNorm2d):
                path = f"{prefix}." if prefix else ""
                yield f"{path}{name}", f"{path}{following}", norm.eps
