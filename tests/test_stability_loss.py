"""Stability loss."""

import pytest
import torch

from rnndet.models.temporal.losses import same_objects, stability_loss


def ids(*rows):
    return [torch.tensor(row, dtype=torch.int64) for row in rows]


def loss(features, boxes, tracks, *, spread=1.0):
    """Of one level of two frames of one video, 8 x 8 cells of 10 pixels."""
    return stability_loss(
        {"0": features},
        [torch.tensor(each, dtype=torch.float32).reshape(-1, 4) for each in boxes],
        ids(*tracks),
        length=2,
        size_hw=(80, 80),
        spread={"0": torch.tensor(spread)},
    )


def test_objects_are_paired_by_id_within_their_row():
    # T = 2, B = 2: the images are (t0, row 0), (t0, row 1), (t1, row 0), (t1, row 1)
    pairs = same_objects(ids([1, 2], [1], [2, 3], [1]), length=2)
    assert pairs.tolist() == [[1, 3], [2, 5]]


def test_unknown_ids_are_not_paired():
    assert not len(same_objects(ids([-1], [-1]), length=2))


def test_object_that_moves_with_its_features_costs_nothing():
    features = torch.zeros(2, 1, 8, 8)
    features[0, 0, 2:4, 2:4] = 1.0
    features[1, 0, 2:4, 4:6] = 1.0
    assert loss(features, [[20, 20, 40, 40], [40, 20, 60, 40]], [[7], [7]]) == 0


def test_change_is_squared_in_units_of_the_spread():
    features = torch.zeros(2, 1, 8, 8)
    features[1] = 3.0
    boxes = [[20, 20, 40, 40]] * 2
    assert loss(features, boxes, [[7], [7]], spread=2.0) == pytest.approx(9 / 4)


def test_window_without_tracks_costs_nothing_and_has_a_gradient():
    features = torch.ones(2, 1, 8, 8, requires_grad=True)
    found = loss(features, [[], []], [[], []])
    found.backward()
    assert found == 0
    assert features.grad is not None
