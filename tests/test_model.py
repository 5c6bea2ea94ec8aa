"""VideoDetector: clips, steps and state."""

import numpy as np
import pytest
import torch
from windows import HOLD, criterion, head_input, noise, target

from conftest import tiny_model
from rnndet.config import ModelConfig, TemporalConfig
from rnndet.models.temporal.cells import CELLS
from rnndet.models.video_detector import build_model

HOLDING = ("gated_hold", "identity_lstm", "two_frame")
OPTIONS = [{"cell": cell} for cell in ("none", *sorted(CELLS)) if cell not in HOLDING]
OPTIONS += [HOLD | {"cell": cell} for cell in HOLDING]
OPTIONS += [{"cell": "conv_lstm", "options": {"peephole": True}}]
OPTIONS += [{"cell": "conv_lstm", "options": {"coupled": True}}]
OPTIONS += [{"cell": "conv_lstm", "site": "backbone"}]


@pytest.mark.parametrize("temporal", OPTIONS, ids=str)
def test_clip_of_16_frames_equals_16_steps(temporal):
    """Compared before the detection head: suppression of equal scores may flip on rounding."""
    model, frames, state = tiny_model(**temporal), noise(16), None
    with torch.inference_mode():
        whole, last = head_input(model, frames)
        for t in range(16):
            step, state = head_input(model, frames[t : t + 1], state)
            for name, feature in step.items():
                torch.testing.assert_close(feature[0], whole[name][t], atol=1e-4, rtol=1e-4)
    for name, tensors in last.items():
        for a, b in zip(tensors, state[name], strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


FAMILIES = {
    "fcos": {"channels": 32, "head_convs": 1, "strides": [8, 16]},
    "retinanet": {"channels": 32, "head_convs": 1, "strides": [8, 16]},
    "faster_rcnn": {"channels": 32, "strides": [8, 16]},
    "nanodet_plus": {"backbone": "shufflenet_v2_x0_5", "channels": 32, "head_convs": 1},
    "ssdlite": {"backbone": "mobilenet_v3_small"},
}


@pytest.mark.parametrize("site", ["neck", "backbone"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_detector_trains_and_streams_with_a_temporal_module(family, site):
    options = {"size": [64, 96], "backbone": "mobilenet_v3_small"} | FAMILIES[family]
    config = ModelConfig(family, options, TemporalConfig(levels=("0", "1"), hidden=4, site=site))
    torch.manual_seed(0)
    model = build_model(config, ("a", "b"))
    window = criterion(model.train(), noise(2), [[target()], [target()]])
    sum(window.terms.values()).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.temporal.parameters())
    with torch.inference_mode():
        output = model.eval()(noise(1))
        assert set(model(noise(1), output.state).state) == {"0", "1"}


def test_without_temporal_module_the_state_is_empty():
    with torch.inference_mode():
        assert tiny_model(cell="none")(noise(2)).state == {}


def test_past_frames_change_the_detections():
    model = tiny_model()
    model.score_threshold = 0.0
    with torch.inference_mode():
        fresh = model(noise(1, seed=5)).detections[0][0]
        state = model(noise(4, seed=9)).state
        later = model(noise(1, seed=5), state).detections[0][0]
    assert not np.allclose(fresh.scores, later.scores)


def test_videos_of_a_batch_do_not_mix():
    model, a, b = tiny_model(), noise(3, seed=1), noise(3, seed=2)
    with torch.inference_mode():
        both, _ = head_input(model, torch.cat([a, b], 1))
        for name, feature in head_input(model, a)[0].items():
            torch.testing.assert_close(both[name][0::2], feature, atol=1e-4, rtol=1e-4)
        for name, feature in head_input(model, b)[0].items():
            torch.testing.assert_close(both[name][1::2], feature, atol=1e-4, rtol=1e-4)


def test_model_without_temporal_module_accepts_the_settings_of_any():
    assert not tiny_model(cell="none", fusion="state", hidden=0).temporal.cells
