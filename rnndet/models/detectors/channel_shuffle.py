"""ShuffleNetV2 stages without channel shuffles, for inference; the outputs stay the same.

A channel shuffle copies all channels of a stage after each of its units, for the next unit to read
half of them. Which unit reads a channel is known beforehand: the outputs of each unit are sorted by
it, by a permutation of the weights, so that a unit reads whole runs of channels. Only the order of
the outputs of the stage is restored by a copy.
"""

import torch
from torch import Tensor, nn
from torchvision.models.shufflenetv2 import InvertedResidual

Channel = tuple[int, int]  # a source, and its output: 0 and 1 the branches of the first unit


class StageWithoutShuffles(nn.Module):
    """What a stage of ShuffleNetV2 computes, its units' weights permuted; shares no weights.

    stage: torchvision's units, the first with stride 2, batch norms folded into convolutions.
    """

    order: Tensor  # (2c,) the position of each output of the stage

    def __init__(self, stage: nn.Sequential) -> None:
        super().__init__()
        first, *others = stage
        # source s is branches[s]; from 2 on it is the unit whose outputs are numbered so
        branches = [first.branch1, first.branch2, *(unit.branch2 for unit in others)]
        width = _convolutions(first.branch2)[-1].out_channels
        inputs, outputs = channels_read(width, len(others))
        reader = {c: len(branches) for c in outputs}
        reader |= {c: unit for unit, read in enumerate(inputs, 2) for c in read}
        ranks: dict[Channel, int] = {}  # of a channel among the sorted outputs of its source
        self.splits: list[list[tuple[int, int]]] = []  # per source: (reader, channels), in order
        for source, branch in enumerate(branches):
            kept = sorted(range(width), key=lambda i, s=source: (reader[s, i], i))
            ranks |= {(source, i): rank for rank, i in enumerate(kept)}
            readers = [reader[source, i] for i in kept]
            self.splits.append([(r, readers.count(r)) for r in dict.fromkeys(readers)])
            _select_outputs(_convolutions(branch)[-1], kept)
        for branch, read in zip(branches[2:], inputs, strict=True):
            _select_inputs(_convolutions(branch)[0], _sorted(read, ranks))
        self.branches = nn.ModuleList(branches)
        position = {c: i for i, c in enumerate(outputs[j] for j in _sorted(outputs, ranks))}
        self.register_buffer("order", torch.tensor([position[c] for c in outputs]))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 2c, H/2, W/2)."""
        last = len(self.branches)
        waiting: dict[int, list[Tensor]] = {reader: [] for reader in range(2, last + 1)}
        for source, branch in enumerate(self.branches):
            y = branch(x if source < 2 else torch.cat(waiting.pop(source), dim=1))
            runs = y.split([count for _, count in self.splits[source]], dim=1)
            for (reader, _), run in zip(self.splits[source], runs, strict=True):
                waiting[reader].append(run)
        y = torch.cat(waiting[last], dim=1)
        # in halves: OpenVINO moves a permutation of all channels into the next convolution, the
        # wrong way round (2026.4, its fusion of reversed input channels)
        return torch.cat([y[:, half] for half in self.order.chunk(2)], dim=1)


def channels_read(width: int, units: int) -> tuple[list[list[Channel]], list[Channel]]:
    """What each unit after the first reads, and the outputs of the stage, in torchvision's order.

    width: outputs of a branch.

    >>> channels_read(2, 1)
    ([[(0, 1), (1, 1)]], [(0, 0), (2, 0), (1, 0), (2, 1)])
    """
    inputs = []
    channels = [(source, i) for i in range(width) for source in (0, 1)]
    for unit in range(2, units + 2):
        passed, read = channels[:width], channels[width:]
        inputs.append(read)
        channels = [c for i in range(width) for c in (passed[i], (unit, i))]
    return inputs, channels


def remove_shuffles(model: nn.Module) -> None:
    """Replace the stages of ShuffleNetV2, in place; all other modules stay as they are.

    The weights of the stages are permuted. A stage with batch norms that are not folded stays.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if _is_stage(child):
                setattr(module, name, StageWithoutShuffles(child))


def _is_stage(module: nn.Module) -> bool:
    units = list(module.children())
    return (
        isinstance(module, nn.Sequential)
        and len(units) > 1
        and all(isinstance(unit, InvertedResidual) for unit in units)
        and [unit.stride for unit in units] == [2] + [1] * (len(units) - 1)
        and not any("BatchNorm" in type(m).__name__ for m in module.modules())
    )


def _convolutions(branch: nn.Module) -> list[nn.Conv2d]:
    return [m for m in branch.modules() if isinstance(m, nn.Conv2d)]


def _sorted(channels: list[Channel], ranks: dict[Channel, int]) -> list[int]:
    """The positions of the channels in the order in which the runs of all sources are joined."""
    return sorted(range(len(channels)), key=lambda j: (channels[j][0], ranks[channels[j]]))


def _select_outputs(convolution: nn.Conv2d, outputs: list[int]) -> None:
    convolution.weight = nn.Parameter(convolution.weight.detach()[outputs])
    if convolution.bias is not None:
        convolution.bias = nn.Parameter(convolution.bias.detach()[outputs])


def _select_inputs(convolution: nn.Conv2d, inputs: list[int]) -> None:
    convolution.weight = nn.Parameter(convolution.weight.detach()[:, inputs])
