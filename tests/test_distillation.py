"""Feature distillation loss."""

import pytest
import torch

from rnndet.models.temporal.losses import distillation_loss, object_cells


def levels(*values):
    """One level of one image, one channel, a row of cells."""
    return {"0": torch.tensor([[[list(values)]]], dtype=torch.float32)}


def objects(*values):
    return {"0": torch.tensor([[list(values)]], dtype=torch.bool)}


def loss(found, clean, shown, *, spread=1.0):
    return distillation_loss(found, clean, shown, spread={"0": torch.tensor(spread)})


def test_features_of_the_clean_frame_cost_nothing():
    clean = levels(1, 2, 3, 4)
    assert loss(clean, clean, objects(0, 0, 1, 1)) == 0


def test_error_is_squared_in_units_of_the_spread():
    # errors 1 and -1, spread 2: 1 / 4
    assert loss(levels(1, 1), levels(0, 2), objects(0, 0), spread=2.0) == pytest.approx(1 / 4)


def test_objects_weigh_as_much_as_all_the_rest():
    # object error 4, background error 0: (4 + 0) / 2
    clean, found = levels(0, 0, 0, 2), levels(0, 0, 0, 0)
    assert loss(found, clean, objects(0, 0, 0, 1)) == pytest.approx(2.0)


def test_images_weigh_alike_whatever_their_objects_are():
    clean, found = {"0": torch.zeros(2, 1, 1, 4)}, {"0": torch.zeros(2, 1, 1, 4)}
    found["0"][0] = 1.0  # all of the first image, which has no object, is wrong by 1
    shown = {"0": torch.tensor([[[0, 0, 0, 0]], [[0, 0, 1, 1]]], dtype=torch.bool)}
    assert loss(found, clean, shown) == pytest.approx((1 + 0) / 2)


def test_clean_features_get_no_gradient():
    clean = levels(0, 2)
    found = levels(1, 1)
    clean["0"].requires_grad_()
    found["0"].requires_grad_()
    loss(found, clean, objects(0, 1)).backward()
    assert clean["0"].grad is None
    assert found["0"].grad is not None


def test_object_covers_its_cells_and_the_next_ones():
    # 8 cells of 10 pixels; the centres between 30 - 10 and 40 + 10 are 25, 35, 45
    cells = object_cells(
        [torch.tensor([[30.0, 0.0, 40.0, 10.0]])], {"0": torch.zeros(1, 3, 1, 8)}, size_hw=(10, 80)
    )
    assert cells["0"][0, 0].tolist() == [False, False, True, True, True, False, False, False]


def test_frame_without_objects_has_no_object_cells():
    cells = object_cells([torch.zeros(0, 4)], {"0": torch.zeros(1, 3, 2, 2)}, size_hw=(20, 20))
    assert not cells["0"].any()
