"""The recall task and the reach of the gradient."""

import pytest
import torch

from rnndet.benchmarks.recall import gradient_reach, recall_task, recalled, train_to_recall
from rnndet.errors import RnndetError


def test_only_the_first_frame_has_the_cue():
    frames, _ = recall_task(5, batch=2, generator=torch.Generator().manual_seed(0))
    assert (frames[0, :, 1] == 2).all() and frames[1:, :, 1].abs().max() < 1


def test_target_is_the_pattern_of_the_first_frame():
    frames, expected = recall_task(5, batch=2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(frames[0, :, 0], expected)


def test_gradient_reaches_the_last_frame_whole_and_every_frame_has_its_number():
    reach = gradient_reach(train_to_recall("conv_lstm", steps=0), 7)
    assert len(reach) == 8 and reach[0] == 1


def test_gradient_of_the_fresh_standard_rnn_vanishes_and_that_of_the_lstm_does_not():
    rnn = gradient_reach(train_to_recall("conv_rnn", steps=0), 20)
    lstm = gradient_reach(train_to_recall("conv_lstm", steps=0), 20)
    assert rnn[20] < 1e-3 < 1e-2 < lstm[20]


def test_untrained_cell_recalls_nothing_and_a_trained_lstm_recalls_across_a_gap():
    assert recalled(train_to_recall("conv_lstm", steps=0), 4) < 0.1
    assert recalled(train_to_recall("conv_lstm", steps=150, longest=6), 4) > 0.5


def test_training_repeats_with_its_seed():
    first, second = (recalled(train_to_recall("conv_gru", steps=5), 3) for _ in range(2))
    assert first == second


def test_unknown_cell_is_named():
    with pytest.raises(RnndetError, match="cell = 'lstm'"):
        train_to_recall("lstm", steps=0)
