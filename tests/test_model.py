from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import tiny_model
from rnndet.config import ModelConfig, TemporalConfig
from rnndet.models.temporal.cells import CELLS
from rnndet.models.temporal.distillation import distillation_loss, object_cells
from rnndet.models.temporal.state import detach_state
from rnndet.models.video_detector import build_model
from rnndet.structures import Target

HOLD = {"cell": "gated_hold", "fusion": "state", "hidden": 0}
HOLDING = ("gated_hold", "two_frame")
OPTIONS = [{"cell": cell} for cell in ("none", *sorted(CELLS)) if cell not in HOLDING]
OPTIONS += [HOLD, HOLD | {"cell": "two_frame"}]
OPTIONS += [{"cell": "conv_lstm", "options": {"peephole": True}}]
OPTIONS += [{"cell": "conv_lstm", "options": {"coupled": True}}]
OPTIONS += [{"cell": "conv_lstm", "site": "backbone"}]


def noise(length, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (length, batch, 3, 64, 96), generator=generator, dtype=torch.uint8)


def target():
    return Target(
        torch.tensor([[10.0, 10, 40, 40]]), torch.tensor([1]), None, torch.tensor([False])
    )


def seen_by_head(model, frames, state=None):
    """What the detection head gets, (T*B, C, H, W) by level, and the new state."""
    encoded = model.encode(frames)
    features, state = model.temporal(encoded.features, state, encoded.length)
    return (model.detector.neck(features) if model.site == "backbone" else features), state


@pytest.mark.parametrize("temporal", OPTIONS, ids=str)
def test_clip_of_16_frames_gives_what_16_steps_give(temporal):
    """Compared before the detection head: suppression of equal scores may flip on rounding."""
    model, frames, state = tiny_model(**temporal), noise(16), None
    with torch.inference_mode():
        whole, last = seen_by_head(model, frames)
        for t in range(16):
            step, state = seen_by_head(model, frames[t : t + 1], state)
            for name, feature in step.items():
                torch.testing.assert_close(feature[0], whole[name][t], atol=1e-4, rtol=1e-4)
    for name, tensors in last.items():
        for a, b in zip(tensors, state[name], strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


FAMILIES = {
    "fcos": {"channels": 32, "head_convs": 1, "strides": [8, 16]},
    "retinanet": {"channels": 32, "head_convs": 1, "strides": [8, 16]},
    "faster_rcnn": {"channels": 32, "strides": [8, 16]},
    "ssdlite": {"backbone": "mobilenet_v3_small"},
}


@pytest.mark.parametrize("site", ["neck", "backbone"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_detector_trains_and_streams_with_memory(family, site):
    options = {"size": [64, 96], "backbone": "mobilenet_v3_small"} | FAMILIES[family]
    config = ModelConfig(family, options, TemporalConfig(levels=("0", "1"), hidden=4, site=site))
    torch.manual_seed(0)
    model = build_model(config, ("a", "b"))
    sum(model.train()(noise(2), targets=[[target()], [target()]]).losses.values()).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.temporal.parameters())
    with torch.inference_mode():
        output = model.eval()(noise(1))
        assert set(model(noise(1), output.state).state) == {"0", "1"}


def test_without_memory_the_state_is_empty():
    with torch.inference_mode():
        assert tiny_model(cell="none")(noise(2)).state == {}


def test_past_frames_change_what_is_found():
    model = tiny_model()
    model.score_threshold = 0.0
    with torch.inference_mode():
        fresh = model(noise(1, seed=5)).detections[0][0]
        state = model(noise(4, seed=9)).state
        later = model(noise(1, seed=5), state).detections[0][0]
    assert not np.allclose(fresh.scores, later.scores)


def test_losses_come_from_labelled_frames_only():
    model = tiny_model().train()
    frames = noise(2, 2)
    one = model(frames, targets=[[target(), None], [None, None]]).losses
    assert all(torch.isfinite(loss) for loss in one.values())
    changed = frames.clone()
    changed[1] = 0  # later, unlabelled frames cannot matter
    two = model(changed, targets=[[target(), None], [None, None]]).losses
    for name in one:
        torch.testing.assert_close(one[name], two[name])


def test_window_without_labels_only_moves_the_state():
    output = tiny_model().train()(noise(2), targets=[[None], [None]])
    assert output.losses == {}
    assert set(output.state) == {"0", "1"}


def test_empty_frame_counts_as_labelled():
    assert tiny_model().train()(noise(1), targets=[[Target.empty()]]).losses


def test_gradient_reaches_memory_and_backbone():
    model = tiny_model().train()
    sum(model(noise(2), targets=[[target()], [target()]]).losses.values()).backward()
    parts = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert parts == {"temporal", "detector"}


def test_videos_of_a_batch_do_not_mix():
    model, a, b = tiny_model(), noise(3, seed=1), noise(3, seed=2)
    with torch.inference_mode():
        both, _ = seen_by_head(model, torch.cat([a, b], 1))
        for name, feature in seen_by_head(model, a)[0].items():
            torch.testing.assert_close(both[name][0::2], feature, atol=1e-4, rtol=1e-4)
        for name, feature in seen_by_head(model, b)[0].items():
            torch.testing.assert_close(both[name][1::2], feature, atol=1e-4, rtol=1e-4)


def test_frames_that_are_not_supervised_give_no_detector_loss():
    frames, targets = noise(2), [[target()], [target()]]
    supervised = torch.zeros(2, 1, dtype=torch.bool)
    losses = (
        tiny_model().train()(frames, targets=targets, clean=frames, supervised=supervised).losses
    )
    assert list(losses) == ["distillation"]


def test_a_supervised_frame_is_supervised_by_its_own_target():
    """Frame 0 of the second of three videos, each frame with a box of its own."""
    frames, model = noise(2, 3), tiny_model().train()
    targets = [
        [replace(target(), boxes=target().boxes + 6.0 * (3 * t + b)) for b in range(3)]
        for t in range(2)
    ]
    supervised = torch.tensor([[False, True, False], [False, False, False]])
    alone = [[targets[0][1] if (t, b) == (0, 1) else None for b in range(3)] for t in range(2)]
    found = model(frames, targets=targets, supervised=supervised).losses
    for name, loss in model(frames, targets=alone).losses.items():
        torch.testing.assert_close(found[name], loss)


def test_restoration_is_measured_against_the_clean_frames():
    model, frames = tiny_model().train(), noise(2)
    one, other = (
        model(frames, targets=[[target()], [target()]], clean=clean).losses["distillation"]
        for clean in (frames, noise(2, seed=7))
    )
    assert one != other


def test_restoration_weighs_the_cells_of_the_objects():
    model, frames, clean = tiny_model().train(), noise(2), noise(2)
    clean[..., 10:40, 10:40] = 255  # the object is what is to be restored
    found = model(frames, targets=[[target()], [target()]], clean=clean).losses["distillation"]
    wanted = model.encode(clean).features
    cells = object_cells([target().boxes] * 2, wanted, size_hw=(64, 96))
    features, _ = seen_by_head(model, frames)
    expected = distillation_loss(features, wanted, cells, spread=model.temporal.spread())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_model_without_memory_takes_the_settings_of_any_memory():
    assert not tiny_model(cell="none", fusion="state", hidden=0).temporal.cells


def test_model_without_memory_has_nothing_to_restore():
    frames = noise(1)
    losses = tiny_model(cell="none").train()(frames, targets=[[target()]], clean=frames).losses
    assert "distillation" not in losses


def gradients(model, *, activation_checkpoints: int, window: int = 4) -> dict[str, torch.Tensor]:
    """Of two windows of four frames of two videos, the state handed on detached."""
    model.zero_grad()
    frames, clean, state = noise(8, 2, seed=1), noise(8, 2, seed=2), None
    targets = [[target(), target()] for _ in range(window)]
    for part, wanted in zip(frames.split(window), clean.split(window), strict=True):
        out = model(
            part,
            state,
            targets=targets,
            clean=wanted,
            activation_checkpoints=activation_checkpoints,
        )
        sum(out.losses.values()).backward()
        state = detach_state(out.state)
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("activation_checkpoints", [1, 3, 8])
@pytest.mark.parametrize("options", [{}, HOLD, {"site": "backbone"}])
def test_gradients_are_the_same_when_activations_are_computed_again(
    activation_checkpoints, options
):
    model = tiny_model(**options).train()
    kept, again = (
        gradients(model, activation_checkpoints=0),
        gradients(model, activation_checkpoints=activation_checkpoints),
    )
    assert kept.keys() == again.keys()
    whole = torch.cat([gradient.flatten() for gradient in kept.values()])
    other = torch.cat([again[name].flatten() for name in kept])
    assert (whole - other).norm() <= 1e-5 * whole.norm()


def test_little_is_kept_for_the_backward_pass_when_activations_are_computed_again():
    def kept(activation_checkpoints: int) -> int:
        sizes: dict[int, int] = {}

        def note(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        model, targets = tiny_model().train(), [[target()] for _ in range(8)]
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            model(noise(8), targets=targets, activation_checkpoints=activation_checkpoints)
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        return sum(size for at, size in sizes.items() if at not in weights)

    assert kept(8) <= kept(0) / 8
