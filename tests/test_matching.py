"""Matching of targets to anchors, batched."""

import pytest
import torch
from torchvision.models.detection._utils import Matcher, SSDMatcher
from torchvision.ops import box_iou

from rnndet.models.detectors.matching import match_anchors, padded_targets


def boxes(count, seed):
    corner, size = torch.rand(2, count, 2, generator=torch.Generator().manual_seed(seed))
    return torch.cat([80 * corner, 80 * corner + 4 + 30 * size], 1)


def images():
    """Three images with 5, no and 2 boxes; and 300 anchors."""
    found = [boxes(5, 1), boxes(0, 2), boxes(2, 3)]
    return [{"boxes": b, "labels": torch.ones(len(b), dtype=torch.int64)} for b in found], boxes(
        300, 4
    )


def one_by_one(matcher, targets, anchors):
    rows = [t["boxes"] for t in targets]
    none = torch.full((len(anchors),), -1)
    return torch.stack([matcher(box_iou(b, anchors)) if len(b) else none for b in rows])


@pytest.mark.parametrize("low", [0.4, 0.05])
def test_ties_as_torchvision_matches_image_by_image(low):
    targets, anchors = images()
    padded, _, real = padded_targets(targets)
    found = match_anchors(padded, real, anchors, low=low, high=0.5, keep_ties=True)
    expected = one_by_one(Matcher(0.5, low, allow_low_quality_matches=True), targets, anchors)
    assert torch.equal(found, expected)


def test_best_as_torchvision_matches_image_by_image():
    targets, anchors = images()
    padded, _, real = padded_targets(targets)
    found = match_anchors(padded, real, anchors, low=0.5, high=0.5, keep_best=True)
    assert torch.equal(found, one_by_one(SSDMatcher(0.5), targets, anchors))


def test_images_without_any_box_match_nothing():
    empty = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 2
    padded, _, real = padded_targets(empty)
    found = match_anchors(padded, real, boxes(10, 1), low=0.5, high=0.5, keep_best=True)
    assert found.tolist() == [[-1] * 10] * 2
