"""Distillation of a detector's outputs."""

import math

import pytest
import torch

from rnndet.models.detectors.distillation import output_distillation_loss


def outputs(logits, *, boxes=(0.0, 0.0, 0.0, 0.0), **others):
    """Raw outputs of one anchor of one image."""
    return {
        "cls_logits": torch.tensor([[logits]]),
        "bbox_regression": torch.tensor([[boxes]]),
    } | {name: torch.tensor([[value]]) for name, value in others.items()}


def logit(p):
    return math.log(p / (1 - p))


def test_sigmoid_scores_are_compared_by_quality_focal_loss():
    found, goal = 0.25, 0.5
    loss = output_distillation_loss(
        outputs([logit(found)]), outputs([logit(goal)]), scores="sigmoid"
    )
    entropy = -goal * math.log(found) - (1 - goal) * math.log(1 - found)
    assert loss.item() == pytest.approx((goal - found) ** 2 * entropy, abs=1e-6)


def test_softmax_scores_are_compared_by_divergence():
    loss = output_distillation_loss(
        outputs([math.log(0.5), math.log(0.5)]),
        outputs([math.log(0.2), math.log(0.8)]),
        scores="softmax",
    )
    expected = 0.2 * math.log(0.2 / 0.5) + 0.8 * math.log(0.8 / 0.5)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("scores", "logits", "confidence"),
    [("sigmoid", [logit(0.25)], 0.25), ("softmax", [math.log(0.6), math.log(0.4)], 0.4)],
)
def test_boxes_weigh_by_the_confidence_of_the_teacher(scores, logits, confidence):
    """An anchor whose four sides are off by 2: smooth L1 gives 1.5."""
    loss = output_distillation_loss(
        outputs(logits, boxes=(2.0, 2.0, 2.0, 2.0)), outputs(logits), scores=scores
    )
    assert loss.item() == pytest.approx(1.5 * confidence, abs=1e-5)


def test_terms_are_divided_by_the_confidence_of_all_anchors():
    """Ten equal anchors give the same as one once their confidence exceeds 1."""
    goal, found = (
        {name: value.repeat(1, 10, 1) for name, value in outputs([0.0], boxes=boxes).items()}
        for boxes in [(0.0,) * 4, (2.0,) * 4]
    )
    assert output_distillation_loss(found, goal, scores="sigmoid").item() == pytest.approx(1.5)


def test_distributions_of_the_sides_are_compared_by_divergence():
    even, sure = [[0.0, 0.0]] * 4, [[math.log(0.2), math.log(0.8)]] * 4
    confident = [20.0]
    loss = output_distillation_loss(
        outputs(confident, distributions=even),
        outputs(confident, distributions=sure),
        scores="sigmoid",
    )
    expected = 0.2 * math.log(0.2 / 0.5) + 0.8 * math.log(0.8 / 0.5)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_teacher_gets_no_gradient():
    teacher = {name: value.requires_grad_() for name, value in outputs([0.3]).items()}
    student = {name: value.requires_grad_() for name, value in outputs([0.1]).items()}
    output_distillation_loss(student, teacher, scores="sigmoid").backward()
    assert all(value.grad is None for value in teacher.values())
