"""Gates that can be watched: each is a module of its own, so that a hook sees what it gives."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

SHUT, OPEN = 0.1, 0.9  # a gate below or above counts as decided


class Gate(nn.Module):
    """The logistic sigmoid under a name, (any) -> (any) in [0, 1]; has no parameters."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


@contextmanager
def watch_gates(memory: nn.Module) -> Iterator[Callable[[], dict[str, float]]]:
    """While the block runs, look at every gate of `memory`, which maps levels to cells and fusions.

    What is yielded gives, after the block, `<level>/<gate>`: the mean over frames, channels and
    places, and `.../shut` and `.../open`: the shares below 0.1 and above 0.9.
    """
    seen: dict[str, list[Tensor]] = defaultdict(list)
    hooks = []
    for path, module in memory.named_modules():
        if not isinstance(module, Gate):
            continue
        level = path.split(".")[1]  # cells.<level>. or fusions.<level>.

        def note(gate: Gate, _: object, value: Tensor, level: str = level) -> None:
            value = value.detach()
            figures = value.mean(), (value < SHUT).float().mean(), (value > OPEN).float().mean()
            seen[f"{level}/{gate.name}"].append(torch.stack(figures).float())

        hooks.append(module.register_forward_hook(note))

    def statistics() -> dict[str, float]:
        found = {}
        for name, values in seen.items():
            mean, shut, wide = torch.stack(values).mean(0).tolist()
            found |= {name: mean, f"{name}/shut": shut, f"{name}/open": wide}
        return found

    try:
        yield statistics
    finally:
        for hook in hooks:
            hook.remove()
