"""Gates as modules, so that hooks can record their values."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

SHUT, OPEN = 0.1, 0.9  # limits below and above which a gate counts as closed and open


class Gate(nn.Module):
    """The logistic sigmoid as a named module, (any) -> (any) in [0, 1]; has no parameters."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


@contextmanager
def watch_gates(temporal: nn.Module) -> Iterator[Callable[[], dict[str, float]]]:
    """Record every gate of a TemporalHead while the block runs.

    Yields a function that returns the statistics afterwards: `<level>/<gate>` is the mean over
    frames, channels and positions, `.../shut` and `.../open` the shares below 0.1 and above 0.9.
    """
    values: dict[str, list[Tensor]] = defaultdict(list)
    hooks = []
    for path, module in temporal.named_modules():
        if not isinstance(module, Gate):
            continue
        level = path.split(".")[1]  # cells.<level>. or fusions.<level>.

        def record(gate: Gate, _: object, value: Tensor, level: str = level) -> None:
            value = value.detach()
            shares = (value < SHUT).float().mean(), (value > OPEN).float().mean()
            values[f"{level}/{gate.name}"].append(torch.stack((value.mean(), *shares)).float())

        hooks.append(module.register_forward_hook(record))

    def statistics() -> dict[str, float]:
        figures = {}
        for name, steps in values.items():
            mean, shut, opened = torch.stack(steps).mean(0).tolist()
            figures |= {name: mean, f"{name}/shut": shut, f"{name}/open": opened}
        return figures

    try:
        yield statistics
    finally:
        for hook in hooks:
            hook.remove()
