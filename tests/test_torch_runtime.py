"""TorchRuntime: optimisations leave the results unchanged."""

import json

import numpy as np
import pytest
import torch
from torchvision.ops import FrozenBatchNorm2d

from conftest import SIZE_HW, TINY_OPTIONS, error_line, tiny_config, tiny_model, write_coco_vid
from rnndet.cli.evaluate import main as evaluate
from rnndet.config import config_from_dict
from rnndet.errors import DeviceError, RnndetError
from rnndet.inference.runtimes import open_runtime
from rnndet.inference.runtimes.torch_runtime import TorchRuntime
from rnndet.models.checkpoint import content_sha256, load_model, model_content, save_checkpoint
from rnndet.models.video_detector import build_model


def unfolded():
    """A model with frozen batch norms that are not the identity."""
    options = {**TINY_OPTIONS, "fold_batch_norm": False}
    tree = {"model": {"options": options, "temporal": {"levels": ["0"], "hidden": 4}}}
    torch.manual_seed(0)
    model = build_model(config_from_dict(tree, where="test").model, ("a", "b")).eval()
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model


def noise(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*SIZE_HW, 3), np.uint8)


def looked(runtime):
    (found,), _ = runtime.detect([noise()], [SIZE_HW], None)
    return found


def test_folding_in_a_copy_gives_equal_scores():
    model = unfolded()
    model.score_threshold = 0.0
    pixels = torch.from_numpy(noise()).permute(2, 0, 1)[None, None]
    with torch.inference_mode():
        expected = model(pixels).detections[0][0]
    found = looked(TorchRuntime(model))
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


def test_original_model_keeps_its_norms():
    model = unfolded()
    before = content_sha256(model.state_dict())
    runtime = TorchRuntime(model)
    assert not any(isinstance(m, FrozenBatchNorm2d) for m in runtime.model.modules())
    assert content_sha256(model.state_dict()) == before == runtime.fingerprint()


def test_half_precision_gives_nearly_equal_scores():
    model = tiny_model()
    model.score_threshold = 0.0
    whole, half = (looked(TorchRuntime(model, half=half)) for half in (False, True))
    np.testing.assert_allclose(half.scores[:20], whole.scores[:20], atol=0.02)
    assert half.boxes.dtype == np.float32


def test_half_precision_equals_autocast_of_the_model():
    model = tiny_model()
    model.score_threshold = 0.0
    pixels = torch.from_numpy(noise()).permute(2, 0, 1)[None, None]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = model(pixels).detections[0][0]
    np.testing.assert_array_equal(looked(TorchRuntime(model, half=True)).scores, expected.scores)


def test_half_precision_casts_the_weights_once_and_in_a_copy():
    model = tiny_model()
    runtime = TorchRuntime(model, half=True)
    dtypes = [
        {m.weight.dtype for m in found.modules() if isinstance(m, torch.nn.Conv2d)}
        for found in (model, runtime.model)
    ]
    assert dtypes == [{torch.float32}, {torch.bfloat16}]


@pytest.fixture
def traced(monkeypatch):
    """Run torch.compile without a compiler, which would take a minute; records its options."""
    calls, compile_ = [], torch.compile

    def without_compiler(step, **options):
        calls.append(options)
        return compile_(step, backend="eager", fullgraph=True, dynamic=options["dynamic"])

    monkeypatch.setattr(torch, "compile", without_compiler)
    return calls


@pytest.mark.parametrize("videos", [1, 2])
def test_compiled_step_equals_the_model(traced, videos):
    model = tiny_model()
    model.score_threshold = 0.01
    plain, compiled = TorchRuntime(model), TorchRuntime(model, compiled=True)
    states = [None, None]
    for k in range(4):
        images, sizes = [noise(k + v) for v in range(videos)], [SIZE_HW] * videos
        a, states[0] = plain.detect(images, sizes, states[0])
        b, states[1] = compiled.detect(images, sizes, states[1])
        for one, other in zip(a, b, strict=True):
            assert len(one) > 0
            np.testing.assert_allclose(other.boxes, one.boxes, atol=1e-3)
            np.testing.assert_allclose(other.scores, one.scores, atol=1e-5)
    assert traced == [{"mode": "default", "dynamic": False}]


def test_compiled_step_computes_in_half_precision_on_request(traced):
    model = tiny_model()
    model.score_threshold = 0.001
    scores = []
    for options in ({}, {"half": True}, {"half": True, "compiled": True}):
        runtime, state = TorchRuntime(model, **options), None
        for k in range(2):
            (found,), state = runtime.detect([noise(k)], [SIZE_HW], state)
        scores.append(found.scores[:20])
    whole, half, compiled = scores
    np.testing.assert_allclose(compiled, half, atol=1e-6)
    assert np.abs(half - whole).max() > 1e-5


def test_state_of_a_compiled_step_is_not_overwritten_by_the_next(traced):
    compiled = TorchRuntime(tiny_model(), compiled=True)
    _, state = compiled.detect([noise()], [SIZE_HW], None)
    _, state = compiled.detect([noise(1)], [SIZE_HW], state)
    before = {level: tuple(t.clone() for t in each) for level, each in state.items()}
    compiled.detect([noise(2)], [SIZE_HW], state)
    for level, each in state.items():
        assert all(map(torch.equal, each, before[level]))


def test_compiled_model_in_training_mode_is_refused(traced):
    compiled = TorchRuntime(tiny_model(), compiled=True)
    _, state = compiled.detect([noise()], [SIZE_HW], None)
    compiled.model.train()
    with pytest.raises(RnndetError, match=r"eval\(\)"):
        compiled.detect([noise()], [SIZE_HW], state)


def test_fault_of_the_compiler_is_one_line(monkeypatch):
    def compile_(step, **options):
        def fails(*inputs):
            raise RuntimeError("No working C++ compiler\nand much more")

        return fails

    monkeypatch.setattr(torch, "compile", compile_)
    compiled = TorchRuntime(tiny_model(), compiled=True)
    _, state = compiled.detect([noise()], [SIZE_HW], None)
    with pytest.raises(DeviceError, match=r"`compiled=True`: No working C\+\+ compiler; omit it"):
        compiled.detect([noise()], [SIZE_HW], state)


def test_image_that_is_scaled_already_is_not_scaled_again():
    """Scaling may lose a pixel: 240 x 1552 becomes 61 x 399, which would become 61 x 400."""
    detector = tiny_model().detector
    image = torch.zeros(3, 30, 50, dtype=torch.uint8)
    prepared = detector.prepare([image], original_sizes=[(90, 150)])
    assert prepared.image_sizes == [(30, 50)]
    assert prepared.original_sizes == [(90, 150)]


def test_two_stages_are_not_compiled():
    options = {"size": list(SIZE_HW), "backbone": "mobilenet_v3_small", "strides": [8, 16]}
    tree = {"model": {"detector": "faster_rcnn", "options": {**options, "channels": 32}}}
    tree["model"]["temporal"] = {"cell": "none"}
    model = build_model(config_from_dict(tree, where="test").model, ("a",)).eval()
    with pytest.raises(RnndetError, match=r"faster_rcnn.*fcos"):
        TorchRuntime(model, compiled=True)


def test_graph_is_not_compiled():
    with pytest.raises(RnndetError, match="`compiled=True`"):
        open_runtime("aerial", kind="onnx", compiled=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_half_precision_on_a_cpu_is_refused():
    with pytest.raises(RnndetError, match="`half=True`"):
        open_runtime("aerial", half=True)


def test_half_precision_of_a_graph_is_refused():
    with pytest.raises(RnndetError, match="`half=True`"):
        open_runtime("aerial", kind="onnx", half=True)


# rnndet evaluate --half


@pytest.fixture
def evaluation(tmp_path) -> list[str]:
    """The arguments that evaluate small weights on a small set."""
    weights = tmp_path / "tiny.pt"
    save_checkpoint(weights, model_content(tiny_model(), tiny_config(), step=0))
    write_coco_vid(tmp_path)
    given = [weights, "--data", tmp_path, "--split", "train", "--out", tmp_path / "out"]
    return [str(argument) for argument in given]


@pytest.fixture
def half_on_a_cpu(monkeypatch):
    """Let half precision run by torch on a CPU, which is slow and so refused."""

    def opened(weights, *, half, **options):
        assert half
        return TorchRuntime(load_model(weights), half=True), "test"

    monkeypatch.setattr("rnndet.inference.runtimes.open_runtime", opened)


def test_evaluate_in_half_precision_with_other_uses_of_the_memory_is_refused(
    evaluation, half_on_a_cpu, capsys
):
    assert evaluate([*evaluation, "--half", "--ablate-memory"]) == 2
    assert "--half: not with other uses of the memory" in error_line(capsys)


def test_evaluate_at_another_size_with_other_uses_of_the_memory_names_the_flag(evaluation, capsys):
    assert evaluate([*evaluation, "--size", "64", "--ablate-memory"]) == 2
    assert "--size: not with other uses of the memory; leave it out" in error_line(capsys)


def test_evaluate_computes_in_half_precision_and_records_it(evaluation, half_on_a_cpu, tmp_path):
    assert evaluate([*evaluation, "--half"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["protocol"]["precision"] == "half"


def test_evaluate_in_half_precision_by_torch_on_a_cpu_is_refused(evaluation, capsys):
    assert evaluate([*evaluation, "--half", "--device", "cpu"]) == 6
    message = error_line(capsys)
    assert "--half: needs a GPU" in message and "--runtime openvino" in message


def test_half_precision_of_stored_predictions_is_refused(capsys):
    assert evaluate(["--predictions", "p.npz", "--half"]) == 2
    assert "--half: only while weights are run" in error_line(capsys)
