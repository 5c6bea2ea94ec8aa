"""Distillation of a detector's outputs: its class scores and boxes on a frame, from a teacher's."""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional


def output_distillation_loss(
    student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], *, scores: str
) -> Tensor:
    """Difference of raw head outputs from the teacher's, a scalar: classes + boxes.

    student, teacher: outputs of `FrameDetector.raw_outputs` for the same N images; the teacher's
    get no gradient. scores: "sigmoid" or "softmax", see `HeadSpec`.

    Classes: with sigmoid the quality focal loss (Li et al. 2020, arXiv 2006.04388, eq. 6, beta 2)
    whose label y is the teacher's probability; with softmax the Kullback-Leibler divergence
    (Hinton et al. 2015, arXiv 1503.02531, at temperature 1). Boxes: the divergence of the
    distributions of the sides where a head has them (Zheng et al. 2022, arXiv 2102.12252, eq. 2, at
    temperature 1), else the smooth L1 distance of the encodings; the centre-ness of FCOS counts
    as a score. The terms are sums over the anchors, those of boxes weighted by the teacher's
    confidence, divided by the sum of this confidence, at least 1.
    """
    logits, goal = student["cls_logits"].float(), teacher["cls_logits"].detach().float()
    if scores == "sigmoid":
        probabilities = goal.sigmoid()
        confidence = probabilities.amax(-1)  # (N, A)
        error = (probabilities - logits.sigmoid()).square()
        classes = error * _cross_entropy(logits, probabilities)
    else:
        probabilities = goal.softmax(-1)
        confidence = 1 - probabilities[..., 0]  # 0 is background
        classes = _divergence(logits, goal)
    total = confidence.sum().clamp(min=1)
    loss = classes.sum() / total
    if "distributions" in student:
        apart = _divergence(student["distributions"].float(), teacher["distributions"].float())
        boxes = apart.sum(-1).mean(-1)
    else:
        apart = functional.smooth_l1_loss(
            student["bbox_regression"].float(),
            teacher["bbox_regression"].detach().float(),
            reduction="none",
        )
        boxes = apart.mean(-1)
    loss = loss + (boxes * confidence).sum() / total
    if "bbox_ctrness" in student:
        centre = teacher["bbox_ctrness"].detach().float().sigmoid()
        apart = _cross_entropy(student["bbox_ctrness"].float(), centre)[..., 0]
        loss = loss + (apart * confidence).sum() / total
    return loss


def _cross_entropy(logits: Tensor, probabilities: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, probabilities, reduction="none")


def _divergence(logits: Tensor, goal: Tensor) -> Tensor:
    """KL(goal || student) over the last dimension, before its sum: (..., K) -> (..., K)."""
    return functional.kl_div(
        logits.log_softmax(-1), goal.detach().log_softmax(-1), reduction="none", log_target=True
    )
