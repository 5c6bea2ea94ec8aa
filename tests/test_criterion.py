"""Training losses of a window."""

from dataclasses import replace

import pytest
import torch
from windows import HOLD, criterion, head_input, losses, noise, target

from conftest import tiny_model
from rnndet.config import ModelConfig, TemporalConfig, TrainConfig
from rnndet.errors import RnndetError
from rnndet.models.temporal.losses import distillation_loss, object_cells
from rnndet.models.temporal.state import detach_state
from rnndet.models.video_detector import build_model
from rnndet.structures import Target
from rnndet.training.criterion import choose_supervised, weighted_sum
from rnndet.training.teacher import CleanTeacher


def test_losses_come_from_labelled_frames_only():
    model = tiny_model().train()
    frames = noise(2, 2)
    first = losses(model, frames, [[target(), None], [None, None]])
    assert all(torch.isfinite(loss) for loss in first.values())
    changed = frames.clone()
    changed[1] = 0  # later, unlabelled frames cannot matter
    second = losses(model, changed, [[target(), None], [None, None]])
    for name in first:
        torch.testing.assert_close(first[name], second[name])


def test_window_without_labels_only_moves_the_state():
    window = criterion(tiny_model().train(), noise(2), [[None], [None]])
    assert window.terms == {}
    assert set(window.state) == {"0", "1"}


def test_empty_frame_counts_as_labelled():
    assert losses(tiny_model().train(), noise(1), [[Target.empty()]])


def test_gradient_reaches_temporal_module_and_backbone():
    model = tiny_model().train()
    sum(losses(model, noise(2), [[target()], [target()]]).values()).backward()
    parts = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert parts == {"temporal", "detector"}


def test_frames_that_are_not_supervised_give_no_detector_loss():
    frames, targets = noise(2), [[target()], [target()]]
    supervised = torch.zeros(2, 1, dtype=torch.bool)
    terms = losses(tiny_model().train(), frames, targets, clean=frames, supervised=supervised)
    assert list(terms) == ["distillation"]


def test_a_supervised_frame_is_supervised_by_its_own_target():
    """Frame 0 of the second of three videos, each frame with a box of its own."""
    frames, model = noise(2, 3), tiny_model().train()
    targets = [
        [replace(target(), boxes=target().boxes + 6.0 * (3 * t + b)) for b in range(3)]
        for t in range(2)
    ]
    supervised = torch.tensor([[False, True, False], [False, False, False]])
    alone = [[targets[0][1] if (t, b) == (0, 1) else None for b in range(3)] for t in range(2)]
    found = losses(model, frames, targets, supervised=supervised)
    for name, loss in losses(model, frames, alone).items():
        torch.testing.assert_close(found[name], loss)


def test_distillation_is_measured_against_the_clean_frames():
    model, frames = tiny_model().train(), noise(2)
    same, other = (
        losses(model, frames, [[target()], [target()]], clean=clean)["distillation"]
        for clean in (frames, noise(2, seed=7))
    )
    assert same != other


def test_distillation_weighs_the_cells_of_the_objects():
    model, frames, clean = tiny_model().train(), noise(2), noise(2)
    clean[..., 10:40, 10:40] = 255  # the object differs from the teacher
    found = losses(model, frames, [[target()], [target()]], clean=clean)["distillation"]
    teacher = model.encode(clean).features
    cells = object_cells([target().boxes] * 2, teacher, size_hw=(64, 96))
    features, _ = head_input(model, frames)
    expected = distillation_loss(features, teacher, cells, spread=model.temporal.spread())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_model_without_temporal_module_has_no_distillation_loss():
    frames = noise(1)
    terms = losses(tiny_model(cell="none").train(), frames, [[target()]], clean=frames)
    assert "distillation" not in terms


def gradients(model, *, activation_checkpoints: int, window: int = 4) -> dict[str, torch.Tensor]:
    """Of two windows of four frames of two videos, the state handed on detached."""
    model.zero_grad()
    frames, clean, state = noise(8, 2, seed=1), noise(8, 2, seed=2), None
    targets = [[target(), target()] for _ in range(window)]
    for part, teacher in zip(frames.split(window), clean.split(window), strict=True):
        output = criterion(
            model, part, targets, state, clean=teacher, checkpoints=activation_checkpoints
        )
        sum(output.terms.values()).backward()
        state = detach_state(output.state)
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("activation_checkpoints", [1, 3, 8])
@pytest.mark.parametrize("options", [{}, HOLD, {"site": "backbone"}])
def test_gradients_are_the_same_when_activations_are_recomputed(activation_checkpoints, options):
    model = tiny_model(**options).train()
    kept, recomputed = (
        gradients(model, activation_checkpoints=0),
        gradients(model, activation_checkpoints=activation_checkpoints),
    )
    assert kept.keys() == recomputed.keys()
    whole = torch.cat([gradient.flatten() for gradient in kept.values()])
    other = torch.cat([recomputed[name].flatten() for name in kept])
    assert (whole - other).norm() <= 1e-5 * whole.norm()


def test_little_is_kept_for_the_backward_pass_when_activations_are_recomputed():
    def kept(activation_checkpoints: int) -> int:
        sizes: dict[int, int] = {}

        def note(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        model, targets = tiny_model().train(), [[target()] for _ in range(8)]
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            criterion(model, noise(8), targets, checkpoints=activation_checkpoints)
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        return sum(size for at, size in sizes.items() if at not in weights)

    assert kept(8) <= kept(0) / 8


def test_a_share_of_the_labelled_frames_is_supervised_and_never_none():
    targets = [[Target.empty(), None] for _ in range(8)]
    for share, kept in ((1.0, 8), (0.5, 4), (0.01, 1)):
        supervised = choose_supervised(targets, share, seed=3)
        assert supervised.sum() == supervised[:, 0].sum() == kept


def test_detector_losses_have_their_weight():
    terms = {"classification": torch.tensor(2.0), "distillation": torch.tensor(3.0)}
    config = TrainConfig(detection=0.25, distillation=0.5)
    assert weighted_sum(terms, config, zero=torch.tensor(0.0)) == 0.25 * 2 + 0.5 * 3


def nanodet(seed=0, **temporal):
    """A tiny one-stage model whose boxes are distributions."""
    torch.manual_seed(seed)
    options = {"size": [64, 96], "backbone": "shufflenet_v2_x0_5", "channels": 32, "head_convs": 1}
    options |= {"resize_in_training": False}
    temporal = TemporalConfig(levels=("0", "1"), hidden=4, **temporal)
    return build_model(ModelConfig("nanodet_plus", options, temporal), ("a", "b"))


UNLABELLED = [[None], [None]]


@pytest.mark.parametrize("build", [tiny_model, nanodet])
def test_output_distillation_vanishes_at_the_outputs_of_the_teacher(build):
    model, frames = build(cell="none").train(), noise(2)
    same, other = (
        losses(model, frames, UNLABELLED, clean=clean, output_distillation=True)
        for clean in (frames, noise(2, seed=7))
    )
    assert set(same) == {"output_distillation"}
    assert same["output_distillation"] < other["output_distillation"]


def sure_teacher():
    """A teacher that finds an object at every point."""
    model = nanodet(seed=1)
    for output in model.detector.net.head.outputs:
        torch.nn.init.constant_(output.bias[:2], 5.0)
    return CleanTeacher(model, site="neck", resizes=False)


def test_teacher_sees_the_clean_frames_and_gives_the_objects_of_unlabelled_ones():
    model, frames, clean = nanodet().train(), noise(2), noise(2, seed=7)
    teacher = sure_teacher()
    given = {"clean": clean, "teacher": teacher}
    found = losses(model, frames, UNLABELLED, **given)["distillation"]
    features, _ = head_input(model, frames)
    goal = {level: teacher(clean).features[level] for level in ("0", "1")}
    cells = object_cells(teacher(clean).boxes, goal, size_hw=(64, 128))
    expected = distillation_loss(features, goal, cells, spread=model.temporal.spread())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_objects_of_unlabelled_frames_are_those_of_the_teacher():
    boxes = sure_teacher()(noise(2)).boxes
    assert len(boxes) == 2 and all(len(image) for image in boxes)


def test_features_of_the_teacher_are_those_of_the_site():
    model = nanodet(site="backbone").train()
    given = {
        "clean": noise(2),
        "teacher": CleanTeacher(nanodet(seed=1), site="backbone", resizes=False),
    }
    assert losses(model, noise(2), UNLABELLED, **given)["distillation"] > 0


def test_teacher_is_not_trained():
    model, teacher = nanodet().train(), sure_teacher()
    given = {"clean": noise(2), "teacher": teacher, "output_distillation": True}
    sum(losses(model, noise(2), UNLABELLED, **given).values()).backward()
    assert all(p.grad is None for p in teacher.model.parameters())


def test_teacher_with_other_classes_is_refused():
    model = nanodet().train()
    torch.manual_seed(0)
    other = build_model(
        ModelConfig("nanodet_plus", {"size": [64, 96], "channels": 32,
                    "backbone": "shufflenet_v2_x0_5", "resize_in_training": False}), ("a",)
    )  # fmt: skip
    given = {
        "clean": noise(2),
        "teacher": CleanTeacher(other, site="neck", resizes=False),
        "output_distillation": True,
    }
    with pytest.raises(RnndetError, match=r"train\.teacher: its head gives"):
        losses(model, noise(2), UNLABELLED, **given)


def test_output_distillation_of_a_two_stage_detector_is_refused():
    options = {"size": [64, 96], "backbone": "mobilenet_v3_small", "channels": 32}
    model = build_model(ModelConfig("faster_rcnn", options, TemporalConfig(cell="none")), ("a",))
    with pytest.raises(RnndetError, match="needs a one-stage detector"):
        losses(model.train(), noise(2), UNLABELLED, clean=noise(2), output_distillation=True)
