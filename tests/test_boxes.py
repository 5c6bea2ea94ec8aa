"""Boxes: IoU and areas in the precision of the boxes or of a given dtype."""

import numpy as np

from rnndet.boxes import area, iou, pairwise_iou, pairwise_share

LARGE = np.array([[0, 0, 4097, 4097]], np.float32)  # its area has 25 bits, float32 holds 24


def test_area_is_exact_in_float64():
    assert area(LARGE, dtype=np.float64).tolist() == [4097.0**2]
    assert area(LARGE).tolist() != [4097.0**2]


def test_iou_has_the_dtype_of_the_boxes_unless_another_is_requested():
    for function in (iou, pairwise_iou, pairwise_share):
        assert function(LARGE, LARGE).dtype == np.float32
        assert function(LARGE, LARGE, dtype=np.float64).dtype == np.float64


def test_iou_in_float64_differs_where_float32_rounds():
    half = np.array([[0, 0, 4097, 2049]], np.float32)
    assert iou(half, LARGE, dtype=np.float64).tolist() == [2049 / 4097]
    assert pairwise_iou(half, LARGE, dtype=np.float64).tolist() == [[2049 / 4097]]


def test_iou_broadcasts():
    boxes = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10]])
    assert iou(boxes[0], boxes).tolist() == [1.0, 1 / 3]


def test_pairs_without_boxes_have_no_iou():
    assert pairwise_iou(LARGE[:0], LARGE).shape == (0, 1)
    assert pairwise_iou(LARGE, LARGE[:0]).shape == (1, 0)
