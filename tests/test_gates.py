"""Records of gate activations."""

import pytest
import torch

from rnndet.models.temporal.cells import CELLS
from rnndet.models.temporal.gates import watch_gates
from rnndet.models.temporal.head import TemporalHead

GATES = {
    "bottleneck_lstm": {"f", "i", "o"},
    "conv_gru": {"z", "r"},
    "conv_lstm": {"f", "i", "o"},
    "conv_rnn": set(),
    "gated_hold": {"z"},
    "identity_lstm": {"f", "i", "o"},
    "min_gru": {"z"},
    "two_frame": {"z"},
}


def head(cell, **options):
    holds = getattr(CELLS[cell], "holds_features", False)
    settings = {"hidden": 0, "fusion": "state"} if holds else {"hidden": 4}
    return TemporalHead({"0": 8}, levels=("0",), cell=cell, **settings, **options)


def watched(module):
    with watch_gates(module) as statistics:
        module({"0": torch.randn(6, 8, 4, 4)}, None, 3)
    return statistics()


@pytest.mark.parametrize("cell", sorted(CELLS))
def test_every_gate_of_a_cell_is_recorded(cell):
    found = {name.split("/")[1] for name in watched(head(cell))}
    assert found - {"blend"} == GATES[cell]


def test_gate_of_the_fusion_starts_at_its_bias():
    module = head("conv_rnn", gate_bias=2.0)
    assert watched(module)["0/blend"] == pytest.approx(0.88, abs=0.01)


def test_shares_of_decided_gates():
    module = head("gated_hold", options={"update_bias": -30.0})
    assert {k: round(v, 3) for k, v in watched(module).items()} == {
        "0/z": 0.0,
        "0/z/shut": 1.0,
        "0/z/open": 0.0,
    }


def test_nothing_is_recorded_after_the_block():
    module = head("conv_gru")
    watched(module)
    assert not any(part._forward_hooks for part in module.modules())
