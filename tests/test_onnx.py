"""Exported graphs and the runtime without torch: detections equal those of the model."""

import builtins
import importlib.util
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conftest import SIZE_HW, TINY_OPTIONS, tiny_config, tiny_model
from rnndet.config import config_from_dict
from rnndet.errors import DeviceError, OutputError, RnndetError, WeightsError
from rnndet.inference.runtimes import open_runtime
from rnndet.inference.runtimes.batching import Batcher, Member
from rnndet.inference.runtimes.export_onnx import export_checked, export_onnx, parity
from rnndet.inference.runtimes.onnx_runtime import OnnxRuntime
from rnndet.inference.runtimes.openvino_runtime import OpenVinoRuntime
from rnndet.inference.runtimes.torch_runtime import TorchRuntime
from rnndet.inference.stream import Stream, run_video
from rnndet.inference.stream_state import Position, load_stream, save_stream
from rnndet.models.checkpoint import model_content, save_checkpoint
from rnndet.models.temporal.cells import CELLS
from rnndet.models.video_detector import build_model
from rnndet.models.zoo import file_sha256
from rnndet.structures import Frame
from rnndet.tracking import ByteTracker

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
ROOT = Path(__file__).resolve().parent.parent
HOLDING = {"gated_hold", "identity_lstm", "two_frame"}  # these need fusion "state"


def noise(count, *, size_hw=SIZE_HW, seed=0):
    """Frames that are all different."""
    random = np.random.default_rng(seed)
    for index in range(count):
        yield Frame(random.integers(0, 256, (*size_hw, 3), np.uint8), index, index / 25)


def spread(model):
    """The model with scores that differ from anchor to anchor, many above 0.05; none is cut off."""
    torch.manual_seed(1)
    for key, tensor in model.detector.net.head.named_parameters():
        if tensor.dim() == 4:
            nn.init.normal_(tensor, std=0.1 if "classification" in key else 0.2)
        elif "cls_logits" in key or key.startswith("outputs."):
            nn.init.constant_(tensor, -1)
    model.detector.head_spec = replace(model.detector.head_spec, most=300)
    return model


def with_cell(cell, **temporal):
    fusion = {"fusion": "state", "hidden": 0} if cell in HOLDING else {}
    return spread(tiny_model(cell=cell, **fusion, **temporal))


def exported(model, folder, **about):
    path = folder / "model.onnx"
    export_onnx(model, path, **about)
    return path


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """A tiny model with a temporal module, and its graph."""
    model = with_cell("conv_lstm")
    return model, exported(model, tmp_path_factory.mktemp("graph"))


def assert_parity(model, path, *, frames=100, runtime=OnnxRuntime):
    runtime = partial(runtime, threads=1)  # more would only wait for each other: tiny tensors
    close = parity(model, path, noise(frames), reset_at=frames // 2, runtime=runtime)
    assert close.detections > 5 * frames
    assert close.is_close, close


@pytest.mark.parametrize("cell", sorted(CELLS))
def test_graph_of_every_cell_equals_torch_over_100_frames(cell, tmp_path):
    model = with_cell(cell)
    path = exported(model, tmp_path)
    assert_parity(model, path)
    assert_parity(model, path, frames=20, runtime=OpenVinoRuntime)


@pytest.mark.parametrize("cell", ["gated_hold", "identity_lstm"])
def test_graph_of_a_light_cell_equals_torch(cell, tmp_path):
    model = with_cell(cell, options={"light": True})
    assert_parity(model, exported(model, tmp_path), frames=20)


@pytest.mark.parametrize("site", ["neck", "backbone"])
@pytest.mark.parametrize("detector", ["fcos", "nanodet_plus", "retinanet", "ssdlite"])
def test_graph_of_every_one_stage_detector_equals_torch(detector, site, tmp_path):
    options = {"size": list(SIZE_HW), "backbone": "mobilenet_v3_small"}
    options |= {} if detector == "ssdlite" else {"channels": 32, "head_convs": 1}
    options |= {"backbone": "shufflenet_v2_x0_5"} if detector == "nanodet_plus" else {}
    temporal = {"cell": "conv_gru", "levels": ["0", "1"], "hidden": 4, "site": site}
    tree = {"model": {"detector": detector, "options": options, "temporal": temporal}}
    torch.manual_seed(0)
    model = spread(build_model(config_from_dict(tree, where="test").model, ("a", "b")).eval())
    path = exported(model, tmp_path)
    assert_parity(model, path, frames=20)
    assert_parity(model, path, frames=10, runtime=OpenVinoRuntime)


@pytest.mark.parametrize("runtime", [OnnxRuntime, OpenVinoRuntime])
@pytest.mark.parametrize("size_hw", [(50, 90), (120, 70), (64, 200)])
def test_graph_takes_frames_of_any_size(graph, size_hw, runtime):
    model, path = graph
    close = parity(model, path, noise(4, size_hw=size_hw), reset_at=2, runtime=runtime)
    assert close.is_close and close.detections > 0


def test_openvino_goes_on_with_a_size_whose_graph_was_dropped(graph, monkeypatch):
    monkeypatch.setattr("rnndet.inference.runtimes.openvino_runtime.SIZES_KEPT", 1)
    runtime = OpenVinoRuntime(graph[1])
    frames = list(noise(2))

    def second_frame(between):
        _, state = runtime.detect([frames[0].image], [SIZE_HW], None)
        for image in between:
            runtime.detect([image], [image.shape[:2]], None)
        return runtime.detect([frames[1].image], [SIZE_HW], state)[0][0]

    other = np.zeros((96, 160, 3), np.uint8)
    assert np.array_equal(second_frame([]).scores, second_frame([other]).scores)
    assert len(runtime._requests) == 1


def test_state_of_an_earlier_frame_stays_as_it_was(graph):
    runtime = OpenVinoRuntime(graph[1])
    a, b, c = (frame.image for frame in noise(3))
    _, state = runtime.detect([a], [SIZE_HW], None)
    (first,), _ = runtime.detect([b], [SIZE_HW], state)
    runtime.detect([c], [SIZE_HW], state)
    (again,), _ = runtime.detect([b], [SIZE_HW], state)
    assert np.array_equal(first.scores, again.scores)


def test_state_of_one_runtime_is_continued_by_another(graph):
    ours, theirs = OnnxRuntime(graph[1]), OpenVinoRuntime(graph[1])
    a, b = (frame.image for frame in noise(2))
    _, state = ours.detect([a], [SIZE_HW], None)
    (expected,), _ = ours.detect([b], [SIZE_HW], state)
    carried = theirs.from_arrays(ours.to_arrays(state))
    (found,), new = theirs.detect([b], [SIZE_HW], carried)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    back = ours.to_arrays(ours.from_arrays(theirs.to_arrays(new)))
    assert [a.shape for a in back["0"]] == [a.shape for a in ours.to_arrays(state)["0"]]


@pytest.mark.parametrize("half", [False, True])
def test_openvino_gets_its_settings(graph, half):
    try:
        runtime = OpenVinoRuntime(graph[1], threads=1, half=half)
    except DeviceError as error:
        assert half and "bfloat16" in str(error)
        return
    compiled = runtime._compiled((1, 3, *SIZE_HW))
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    assert precision == ("bf16" if half else "f32")


def test_graph_without_a_temporal_module_has_no_state(tmp_path):
    path = exported(with_cell("none"), tmp_path)
    assert OnnxRuntime(path).spec.states == ()
    assert_parity(with_cell("none"), path, frames=10)


def test_state_matters_in_the_graph(graph):
    runtime = OnnxRuntime(graph[1])
    first, second = noise(2)
    _, state = runtime.detect([first.image], [SIZE_HW], None)
    (carried,), _ = runtime.detect([second.image], [SIZE_HW], state)
    (alone,), _ = runtime.detect([second.image], [SIZE_HW], None)
    assert not np.array_equal(carried.scores, alone.scores)


@pytest.mark.parametrize("kind", ["torch", "onnx", "openvino"])
def test_batched_videos_equal_separate_runs(graph, kind):
    model, path = graph
    kinds = {"onnx": OnnxRuntime, "openvino": OpenVinoRuntime}
    runtime = kinds[kind](path) if kind in kinds else TorchRuntime(model)
    videos = [list(noise(3, seed=seed)) for seed in (1, 2)]
    alone = []
    for video in videos:
        state, found = None, []
        for frame in video:
            (one,), state = runtime.detect([frame.image], [SIZE_HW], state)
            found.append(one)
        alone.append(found)
    states = [None, None]
    for k, frames in enumerate(zip(*videos, strict=True)):
        images = [frame.image for frame in frames]
        both, state = runtime.detect(images, [SIZE_HW] * 2, runtime.joined(states))
        states = runtime.rows_of(state, 2)
        for one, before in zip(both, alone, strict=True):
            np.testing.assert_allclose(one.scores, before[k].scores, atol=1e-5)


@pytest.mark.parametrize("kind", [OnnxRuntime, OpenVinoRuntime])
def test_graphs_are_called_for_one_video_at_a_time_and_none_waits(graph, kind, monkeypatch):
    runtime, shapes, running = kind(graph[1]), [], []

    def run_graph(self, pixels, state, run=kind.run_graph):
        shapes.append(pixels.shape[0])
        running.append(1)
        assert len(running) == 1
        try:
            return run(self, pixels, state)
        finally:
            running.pop()

    monkeypatch.setattr(kind, "run_graph", run_graph)
    batcher, both_joined = Batcher(runtime), threading.Barrier(2, timeout=20)

    def video(seed):
        with Member(batcher) as member:
            both_joined.wait()
            if seed == 2:  # sends no frame until the other video has ended
                assert ended.wait(20)
            found = [
                r.detections for r in run_video(Stream(member, min_score=0.01), noise(4, seed=seed))
            ]
            ended.set()
            return found

    ended = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(video, (1, 2)))
    assert shapes == [1] * 8
    for seed, found in zip((1, 2), together, strict=True):
        stream = Stream(runtime, min_score=0.01)
        for one, other in zip(found, run_video(stream, noise(4, seed=seed)), strict=True):
            np.testing.assert_array_equal(one.scores, other.detections.scores)


def test_compiled_graph_of_the_cache_gives_the_same_detections(graph, tmp_path):
    def scores(cache):
        runtime, (frame,) = OpenVinoRuntime(graph[1], threads=1, cache=cache), noise(1)
        return runtime.detect([frame.image], [SIZE_HW], None)[0][0].scores

    expected, folder = scores(None), tmp_path / "cache"
    np.testing.assert_array_equal(scores(folder), expected)
    (blob,) = folder.glob("*.blob")
    written = blob.stat().st_mtime_ns
    np.testing.assert_array_equal(scores(folder), expected)
    assert blob.stat().st_mtime_ns == written  # read, not compiled again
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[:1000])
    np.testing.assert_array_equal(scores(folder), expected)  # damaged


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_cache_of_graphs_needs_openvino(kind, weights, tmp_path):
    with pytest.raises(DeviceError, match="only OpenVINO keeps compiled graphs"):
        open_runtime(weights, kind=kind, graph_cache=tmp_path)


@pytest.mark.parametrize("kind", [OnnxRuntime, OpenVinoRuntime])
def test_a_graph_runs_one_frame_at_a_time(graph, kind, monkeypatch):
    """Its threads are those of `threads`, however many videos there are."""
    runtime, running, most = kind(graph[1]), [], []

    def run_graph(self, pixels, state, run=kind.run_graph):
        running.append(1)
        most.append(len(running))
        time.sleep(0.02)
        running.pop()
        return run(self, pixels, state)

    monkeypatch.setattr(kind, "run_graph", run_graph)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda f: runtime.detect([f.image], [SIZE_HW], None), noise(9)))
    assert max(most) == 1


def test_video_that_joins_a_running_batch_has_an_empty_state(graph):
    runtime = OnnxRuntime(graph[1])
    a, b = noise(2)
    _, state = runtime.detect([a.image], [SIZE_HW], None)
    both, _ = runtime.detect([b.image] * 2, [SIZE_HW] * 2, runtime.joined([state, None]))
    (fresh,), _ = runtime.detect([b.image], [SIZE_HW], None)
    np.testing.assert_allclose(both[1].scores, fresh.scores, atol=1e-5)
    assert not np.allclose(both[0].scores[:5], fresh.scores[:5], atol=1e-5)


def test_graph_returns_detections_above_the_current_threshold(graph):
    runtime, (frame,) = OnnxRuntime(graph[1]), noise(1)
    (low,), _ = runtime.detect([frame.image], [SIZE_HW], None)
    threshold = runtime.score_threshold = float(np.median(low.scores))
    (high,), _ = runtime.detect([frame.image], [SIZE_HW], None)
    assert 0 < len(high) < len(low)
    assert high.scores.min() > threshold


def test_ids_are_those_of_torch(graph):
    model, path = graph
    ids = [
        [r.detections.ids.tolist() for r in run_video(Stream(r, ByteTracker()), noise(20))]
        for r in (TorchRuntime(model), OnnxRuntime(path))
    ]
    assert ids[0] == ids[1]


def test_state_of_torch_continues_in_the_graph(graph, tmp_path):
    model, path = graph
    before, after = Stream(TorchRuntime(model)), Stream(OnnxRuntime(path))
    frames = list(noise(4))
    for frame in frames[:3]:
        before.step(frame)
    save_stream(tmp_path / "state", before, Position(2, 0.08))
    load_stream(tmp_path / "state", after)
    expected, found = (s.step(frames[3]).detections.scores for s in (before, after))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_export_twice_gives_the_same_bytes(graph, tmp_path):
    assert exported(graph[0], tmp_path).read_bytes() == graph[1].read_bytes()


def test_two_stage_detector_is_refused_by_name(tmp_path):
    options = {**TINY_OPTIONS}
    options.pop("head_convs")
    tree = {"model": {"detector": "faster_rcnn", "options": options}}
    tree["model"]["temporal"] = {"cell": "none"}
    model = build_model(config_from_dict(tree, where="test").model, ("a",))
    with pytest.raises(RnndetError, match="faster_rcnn cannot be exported"):
        export_onnx(model, tmp_path / "x.onnx")


@pytest.mark.parametrize("runtime", [OnnxRuntime, OpenVinoRuntime])
def test_graph_that_one_runtime_computes_differently_is_not_kept(runtime, tmp_path, monkeypatch):
    run_graph = runtime.run_graph

    def wrong(self, pixels, state):
        outputs, state = run_graph(self, pixels, state)
        return {name: output + 1 for name, output in outputs.items()}, state

    monkeypatch.setattr(runtime, "run_graph", wrong)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"before")
    with pytest.raises(RnndetError, match=f"by {runtime.name}.* differs from the model"):
        export_checked(with_cell("conv_rnn"), path, frames=2)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [True, False])
def test_exported_model_keeps_its_mode(mode, tmp_path):
    model = with_cell("conv_rnn").train(mode)
    export_checked(model, tmp_path / "model.onnx", frames=2)
    assert model.training == mode


def test_folder_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"):
        export_checked(with_cell("conv_rnn"), tmp_path / "file" / "x.onnx", frames=2)


# which runtime is opened


@pytest.fixture(scope="module")
def shared_weights(tmp_path_factory, graph):
    """A checkpoint with its graph beside it."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    save_checkpoint(path, model_content(graph[0], tiny_config(cell="conv_lstm"), step=0))
    export_onnx(graph[0], path.with_suffix(".onnx"), weights_file=file_sha256(path))
    return path


@pytest.fixture
def weights(tmp_path, shared_weights):
    """A copy, which a test may change."""
    for path in (shared_weights, shared_weights.with_suffix(".onnx")):
        shutil.copy(path, tmp_path)
    return tmp_path / shared_weights.name


@pytest.mark.parametrize(
    "kind, name",
    [("torch", "torch"), ("onnx", "onnx"), ("openvino", "openvino"), ("auto", "openvino")],
)
def test_requested_runtime_is_used(weights, kind, name):
    assert open_runtime(weights, kind=kind)[0].name == name


@pytest.mark.parametrize(
    "kind, cls", [("onnx", OnnxRuntime), ("openvino", OpenVinoRuntime), ("auto", OpenVinoRuntime)]
)
def test_graph_uses_the_requested_threads(weights, kind, cls, monkeypatch):
    asked = []

    class Spied(cls):
        def __init__(self, path, *, threads=None, **options):
            asked.append(threads)
            super().__init__(path, threads=threads, **options)

    monkeypatch.setattr(f"{cls.__module__}.{cls.__name__}", Spied)
    open_runtime(weights, kind=kind, threads=1)
    assert asked == [1]


def test_torch_uses_the_requested_threads(weights):
    open_runtime(weights, kind="torch", device="cpu", threads=2)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("missing, name", [("", "openvino"), ("openvino", "onnx")])
def test_graph_file_is_run_by_the_fastest_runtime_that_is_installed(
    weights, missing, name, monkeypatch
):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "rnndet.inference.runtimes.find_spec", lambda n: None if n == missing else found(n)
    )
    for path, kind in ((weights.with_suffix(".onnx"), "torch"), (weights, "auto")):
        runtime, why = open_runtime(path, kind=kind)
        assert runtime.name == name
        assert "tiny.onnx" in why


def test_graph_file_is_run_by_the_requested_runtime(weights):
    assert open_runtime(weights.with_suffix(".onnx"), kind="onnx")[0].name == "onnx"


def test_auto_without_a_graph_reports_why_it_chose_torch(weights):
    weights.with_suffix(".onnx").unlink()
    runtime, why = open_runtime(weights, kind="auto")
    assert runtime.name == "torch"
    assert "no tiny.onnx; create it with rnndet export" in why


def test_missing_graph_names_the_command(weights):
    weights.with_suffix(".onnx").unlink()
    with pytest.raises(WeightsError, match=r"make it: rnndet export"):
        open_runtime(weights, kind="onnx")


def test_graph_of_other_weights_is_refused(weights):
    save_checkpoint(weights, model_content(tiny_model(seed=9), tiny_config(), step=0))
    with pytest.raises(WeightsError, match="exported from other weights"):
        open_runtime(weights, kind="onnx")


def test_graph_on_a_gpu_is_refused(weights):
    with pytest.raises(RnndetError, match="use `kind=torch`"):
        open_runtime(weights, kind="onnx", device="cuda")


def test_unknown_runtime_lists_the_choices(weights):
    with pytest.raises(RnndetError, match="auto, onnx, openvino, torch"):
        open_runtime(weights, kind="tensorrt")


@pytest.mark.parametrize("kind, package", [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_package_that_is_missing_names_the_extra(weights, kind, package, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == package:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(WeightsError, match=rf"pip install 'rnndet\[{kind}\]'"):
        open_runtime(weights, kind=kind)


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_other_files_are_refused(kind, tmp_path):
    import onnx

    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    with pytest.raises(WeightsError, match=r"broken\.onnx: (onnxruntime|OpenVINO) cannot load"):
        open_runtime(broken, kind=kind)
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [value], [other])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(WeightsError, match="not a graph of rnndet"):
        open_runtime(tmp_path / "foreign.onnx", kind=kind)


def test_inference_imports_no_solver_and_no_xml_before_they_are_needed():
    """scipy.optimize takes 0.36 s of processor time and 45 MiB."""
    program = (
        "import sys\n"
        "import rnndet.inference.run, rnndet.inference.batch.run, rnndet.cli.infer\n"
        "import rnndet.inference.runtimes.openvino_runtime\n"
        "import rnndet.inference.runtimes.onnx_runtime\n"
        "print(*{'scipy', 'xml.sax', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_inference_of_a_graph_imports_no_torch(kind, weights, tmp_path):
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['infer.py', '--weights', {str(weights)!r}, '--runtime', {kind!r},\n"
        f"  '--quiet', '--max-frames', '3', '--tracker', 'byte',\n"
        f"  '--out', {str(tmp_path / 'out')!r}]\n"
        "try:\n"
        "    runpy.run_path('tools/infer.py', run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    sys.exit(stop.code or 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "demo" / "detections.jsonl").exists()
