"""ShuffleNetV2 without channel shuffles: the outputs stay the same."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models.shufflenetv2 import InvertedResidual, ShuffleNetV2

from rnndet.models.detectors.backbones import fold_batch_norms, freeze_batch_norms
from rnndet.models.detectors.channel_shuffle import (
    StageWithoutShuffles,
    channels_read,
    remove_shuffles,
)


def stage_of(units, *, width=6):
    """A stage whose batch norms are folded."""
    torch.manual_seed(0)
    others = (InvertedResidual(2 * width, 2 * width, 1) for _ in range(units))
    stage = nn.Sequential(InvertedResidual(4, 2 * width, 2), *others).eval()
    for module in stage.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.bias.data.normal_(0, 0.1)
    freeze_batch_norms(stage)
    fold_batch_norms(stage)
    return stage


@pytest.mark.parametrize("units", [1, 2, 3, 7])
def test_outputs_of_a_stage_without_shuffles_are_equal(units):
    stage = stage_of(units)
    x = torch.randn(2, 4, 8, 6)
    with torch.no_grad():
        expected = stage(x)
        found = StageWithoutShuffles(copy.deepcopy(stage)).eval()(x)
    assert torch.allclose(found, expected, atol=1e-6)


def test_no_shuffle_is_left():
    stage = nn.Sequential(stage_of(3))
    remove_shuffles(stage)
    kinds = operators(stage)
    assert "aten.transpose.int" in operators(stage_of(3))
    assert "aten.transpose.int" not in kinds and kinds.count("aten.index.Tensor") == 2


def operators(module):
    program = torch.export.export(module.eval(), (torch.randn(1, 4, 8, 6),))
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


def test_last_channels_of_each_source_are_read_by_the_end_of_the_stage():
    inputs, outputs = channels_read(8, 3)
    channels = [c for read in inputs for c in read] + outputs
    assert sorted(channels) == [(source, i) for source in range(5) for i in range(8)]


def test_stage_with_batch_norms_is_left_as_it_is():
    net = ShuffleNetV2([2, 2, 2], [8, 8, 16, 32, 32]).eval()
    before = net.stage2
    remove_shuffles(net)
    assert net.stage2 is before
