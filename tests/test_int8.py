"""The int8 form of an exported graph: what is quantised, its calibration, what it loses."""

import json

import numpy as np
import pytest
from test_onnx import noise, with_cell

from conftest import SIZE_HW
from rnndet.cli import export
from rnndet.data.records import VideoSet
from rnndet.errors import InputError, RnndetError
from rnndet.evaluation import graph_loss
from rnndet.evaluation.graph_loss import GraphLoss
from rnndet.inference.runtimes import export_int8, open_runtime
from rnndet.inference.runtimes.export_int8 import best_range, calibration_inputs, quantise
from rnndet.inference.runtimes.export_onnx import export_onnx
from rnndet.inference.runtimes.onnx_runtime import OnnxRuntime
from rnndet.video.sink import VideoSink

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    path = tmp_path_factory.mktemp("float") / "tiny.onnx"
    export_onnx(with_cell("conv_lstm"), path)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with VideoSink(path, size_hw=SIZE_HW, fps=25) as sink:
        for frame in noise(20):
            sink.write(frame.image)
    return str(path)


@pytest.fixture(scope="module")
def int8(graph, clip):
    path = graph.with_name("tiny.int8.onnx")
    return path, quantise(graph, path, [clip], per_clip=4)


def convolutions(path):
    """The convolutions of a graph by whether their weights are int8."""
    model = onnx.load(path)
    maker = {name: node.op_type for node in model.graph.node for name in node.output}
    nodes = [node for node in model.graph.node if node.op_type == "Conv"]
    return {node.name: maker.get(node.input[1]) == "DequantizeLinear" for node in nodes}


def raw(runtime, count=6):
    """The raw outputs of the head over some frames, with the state."""
    state, rows = None, []
    for frame in noise(count, seed=3):
        pixels = export_int8.normalised([frame.image], runtime.input_spec)
        state = state or runtime.empty_state(1, pixels.shape[2:])
        outputs, state = runtime.run_graph(pixels, state)
        rows.append(outputs["cls_logits"])
    return np.stack(rows)


def test_all_convolutions_but_those_of_the_temporal_module_are_int8(int8):
    found = convolutions(int8[0])
    assert sum("/temporal/" in name for name in found) > 2
    assert all(is_int8 == ("/temporal/" not in name) for name, is_int8 in found.items())
    assert (int8[1].convolutions, int8[1].float_convolutions) == (
        sum(found.values()),
        len(found) - sum(found.values()),
    )


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_int8_graph_answers_nearly_as_the_float_graph(graph, int8, kind):
    if kind == "openvino":
        pytest.importorskip("openvino")
    exact, found = raw(OnnxRuntime(graph)), raw(open_runtime(int8[0], kind=kind)[0])
    assert np.corrcoef(exact.ravel(), found.ravel())[0, 1] > 0.98
    assert not np.array_equal(exact, found)


def rounded(path):
    """The tensors of a graph that are rounded to uint8."""
    nodes = onnx.load(path).graph.node
    return {node.input[0] for node in nodes if node.op_type == "QuantizeLinear"}


def test_what_int8_convolutions_read_is_rounded(int8):
    nodes = onnx.load(int8[0]).graph.node
    maker = {name: node.op_type for node in nodes for name in node.output}
    is_int8 = convolutions(int8[0])
    read = [maker[node.input[0]] for node in nodes if is_int8.get(node.name)]
    assert len(read) > 9 and set(read) == {"DequantizeLinear"}


def test_output_is_rounded_after_its_activation_if_it_has_one(tmp_path):
    path = tmp_path / "residual.onnx"
    make = onnx.helper.make_node
    nodes = [
        make("Conv", ["image", "w"], ["a"], name="/first/Conv"),
        make("LeakyRelu", ["a"], ["b"], name="/LeakyRelu"),
        make("Conv", ["b", "w"], ["c"], name="/second/Conv"),
        make("Add", ["b", "c"], ["d"], name="/Add"),
        make("Conv", ["d", "w"], ["out"], name="/third/Conv"),
    ]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 8, 8])
        for name in ("image", "out")
    ]
    weights = np.random.default_rng(0).normal(size=(3, 3, 1, 1)).astype(np.float32)
    start = [onnx.numpy_helper.from_array(weights, "w")]
    model = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], start)
    model = onnx.shape_inference.infer_shapes(onnx.helper.make_model(model))
    ranges = dict.fromkeys(export_int8._rounded(model, []), (-1.0, 2.0))
    result = export_int8._quantised(export_int8._packages()[1], model, ranges, kept=[])
    onnx.save(result, path)
    assert rounded(path) == {"image", "b", "c", "d", "out_QuantizeLinear_Input"}


# ranges


def squared_error(values, start, end):
    step = (end - start) / 255
    zero = np.rint(-start / step)
    return np.mean(((np.clip(np.rint(values / step) + zero, 0, 255) - zero) * step - values) ** 2)


def histogram(values):
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    return low, high, np.histogram(values, 4096, (low, high))[0].astype(float)


def with_outlier():
    return np.append(np.random.default_rng(0).uniform(-1, 1, 1_000_000), 5.0)


@pytest.mark.parametrize("sign", [1, -1])
def test_range_leaves_out_a_rare_large_value_at_either_end(sign):
    values = sign * with_outlier()
    ends = best_range(*histogram(values))
    assert squared_error(values, *ends) < 0.5 * squared_error(values, values.min(), values.max())
    near, far = ends[::sign]
    assert near == -sign * max(-sign * values) and 1 <= sign * far < 3


def test_range_of_values_without_a_tail_is_all_of_them():
    values = np.random.default_rng(0).uniform(-1, 3, 100_000)
    assert best_range(*histogram(values)) == (values.min(), values.max())


@pytest.mark.parametrize("value", [-2.0, 0.0, 3.0])
def test_range_of_a_constant_holds_it(value):
    start, end = best_range(*histogram(np.full(100, value)))
    assert start <= min(0, value) and end >= max(0, value)


def test_ranges_of_the_graph_are_those_of_the_calibration_frames(graph, clip, int8):
    inputs = list(calibration_inputs(graph, clip, count=4))
    start, end = best_range(*histogram(np.concatenate([x["image"].ravel() for x in inputs])))
    model = onnx.load(int8[0])
    values = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    node = next(node for node in model.graph.node if list(node.input)[:1] == ["image"])
    assert values[node.input[1]] == pytest.approx((end - start) / 255, rel=1e-5)


def test_ranges_come_from_the_values_of_all_frames(graph):
    values = with_outlier()[::-1]  # the outlier is in the first frame only
    frames = [{"image": part} for part in np.array_split(values, 4)]
    found = export_int8._ranges(onnx, onnx.load(graph), frames, ["image"])
    assert found["image"] == pytest.approx(best_range(*histogram(values)), rel=1e-6)


FIRST = "/body/body.0/body.0.0/Conv"


def first_layer(path, inputs):
    """The mean of each channel of the first convolution, whose input is the image."""
    import onnxruntime

    model = onnx.load(path)
    node = next(node for node in model.graph.node if node.name == FIRST)
    kind = onnx.TensorProto.FLOAT
    model.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], kind, None))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.mean([session.run([node.output[0]], x)[0].mean((0, 2, 3)) for x in inputs], 0)


def test_corrected_biases_keep_the_mean_of_a_layer(graph, clip, int8, tmp_path, monkeypatch):
    inputs = list(calibration_inputs(graph, clip, count=4))
    exact = first_layer(graph, inputs)
    corrected = np.abs(first_layer(int8[0], inputs) - exact).mean()
    monkeypatch.setattr(export_int8, "_corrected", lambda _, model, *rest: model)
    quantise(graph, tmp_path / "plain.onnx", [clip], per_clip=4)
    plain = np.abs(first_layer(tmp_path / "plain.onnx", inputs) - exact).mean()
    assert corrected < 0.5 * plain


def test_calibration_frames_are_spread_and_have_the_state_of_the_frames_before(graph, clip):
    inputs = list(calibration_inputs(graph, clip, count=4))
    runtime, state = OnnxRuntime(graph), None
    with export_int8.open_source(clip) as source:
        frames = list(source)
    expected = []
    for position, frame in enumerate(frames):
        pixels = export_int8.normalised([frame.image], runtime.input_spec)
        state = state or runtime.empty_state(1, pixels.shape[2:])
        if position in (2, 7, 12, 17):
            expected.append({"image": pixels, **state})
        _, state = runtime.run_graph(pixels, state)
    for found, item in zip(inputs, expected, strict=True):
        assert all(np.array_equal(found[name], item[name]) for name in item)
    assert np.abs(inputs[0]["state.0.0"]).max() > 0


def test_every_frame_of_a_short_clip_calibrates_once(graph, tmp_path):
    path = tmp_path / "short.mp4"
    with VideoSink(path, size_hw=SIZE_HW, fps=25) as sink:
        for frame in noise(3):
            sink.write(frame.image)
    assert len(list(calibration_inputs(graph, str(path), count=8))) == 3


def test_a_second_run_writes_the_same_bytes(graph, clip, int8, tmp_path):
    quantise(graph, tmp_path / "again.onnx", [clip], per_clip=4)
    assert (tmp_path / "again.onnx").read_bytes() == int8[0].read_bytes()


def test_int8_graph_tells_what_it_is(graph, int8):
    exact, found = OnnxRuntime(graph), OnnxRuntime(int8[0])
    assert found.about == exact.about | {"convolutions": "int8"}
    assert found.fingerprint() != exact.fingerprint()
    metadata = {entry.key: entry.value for entry in onnx.load(int8[0]).metadata_props}
    assert json.loads(metadata["rnndet.calibration"])["clips"] == ["clip.mp4"]


def test_clip_that_cannot_be_read_leaves_the_old_graph(graph, tmp_path):
    out = tmp_path / "old.onnx"
    out.write_bytes(b"old")
    with pytest.raises(InputError, match=r"none\.mp4"):
        quantise(graph, out, ["none.mp4"])
    assert out.read_bytes() == b"old"


# the command

INT8 = ["tiny", "--int8", "--calibrate", "x"]


def run(graph, clip, out, *more):
    order = [str(graph), "--int8", "--calibrate", clip, "--per-clip", "2", "--out", str(out)]
    return export.main([*order, *map(str, more)])


@pytest.fixture
def loses(monkeypatch):
    """Sets what the int8 graph loses on the set of --data, and on its corrupted frames."""

    def set_loss(points, corrupted=0.0):
        rows = [
            GraphLoss("set", "all frames", 9, 70.0, 70.0 - points),
            GraphLoss("set", "corrupted frames", 4, 50.0, 50.0 - corrupted),
        ]
        monkeypatch.setattr(graph_loss, "graph_losses", lambda *a, **b: rows)
        monkeypatch.setattr("rnndet.data.formats.read_set", lambda *a, **b: None)
        monkeypatch.setattr(
            "rnndet.evaluation.videos.match_classes", lambda data, classes, **remedy: data
        )

    return set_loss


@pytest.mark.parametrize("more", [[], ["--max-loss", 0.8]])
def test_graph_that_loses_more_than_allowed_is_not_written(
    graph, clip, tmp_path, loses, capsys, more
):
    loses(0.9)
    assert run(graph, clip, tmp_path / "a.onnx", "--data", "set", *more) == 2
    assert "loses 0.9 points of AP50 on set, more than" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "loss, more", [(0.4, []), (0.9, ["--max-loss", 1]), (0.9, ["--unchecked"]), (-3.0, [])]
)
def test_graph_within_the_allowed_loss_is_written_with_its_record(
    graph, clip, tmp_path, loses, loss, more
):
    loses(loss)
    assert run(graph, clip, tmp_path / "a.onnx", "--data", "set", *more) == 0
    record = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert record["measured"][0]["loss"] == pytest.approx(loss)
    assert record["clips"] == ["clip.mp4"] and record["frames"] == 2
    assert record["size_ratio"] < 0.6


def test_loss_on_a_part_of_a_set_is_recorded_and_not_judged(graph, clip, tmp_path, loses):
    loses(0.4, corrupted=5.0)
    assert run(graph, clip, tmp_path / "a.onnx", "--data", "set") == 0
    record = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert [row["loss"] for row in record["measured"]] == pytest.approx([0.4, 5.0])


@pytest.mark.parametrize(
    "order, what",
    [
        ([*INT8, "--data", "x", "--format", "coco_vid", "bdd100k_mot"], "one for each"),
        ([*INT8, "--data", "x", "--format", "unlabelled"], "which need one"),
        ([*INT8, "--data", "x", "--teacher", "t"], "for sets of --format unlabelled"),
        (
            [*INT8, "--data", "x", "y", "--format", "mot", "yolo", "--option", "a=1"],
            "only where all labelled sets have one format",
        ),
        (["tiny", "--int8", "--data", "x"], "needs --calibrate"),
        (["tiny", "--int8", "--calibrate", "x"], "--data ROOT to measure what it loses"),
        (["tiny", "--calibrate", "x"], "only with --int8"),
    ],
)
def test_impossible_orders_are_usage_errors(order, what, capsys):
    with pytest.raises(SystemExit):
        export.main(order)
    assert what in capsys.readouterr().err


def test_a_class_that_the_model_lacks_names_an_option_of_this_tool(
    graph, clip, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("rnndet.data.formats.read_set", lambda *a, **b: VideoSet(("zebra",), ()))
    assert run(graph, clip, tmp_path / "a.onnx", "--data", "set") == 2
    message = capsys.readouterr().err
    assert "does not know: zebra" in message and "--option classes=NAMES" in message
    assert "--classes" not in message and "--map-classes" not in message


def test_each_set_has_its_format_and_only_unlabelled_ones_the_teacher(
    graph, clip, tmp_path, monkeypatch
):
    asked, read = [], []

    def losses(*runtimes, name, teacher, degrade, **options):
        asked.append((name, degrade, teacher and teacher.name))
        return [GraphLoss(name, "all frames", 9, 70.0, 70.0)]

    def read_set(form, root, split, **options):
        read.append((form, root, options))
        return VideoSet((), ())

    monkeypatch.setattr(graph_loss, "graph_losses", losses)
    monkeypatch.setattr("rnndet.data.formats.read_set", read_set)
    monkeypatch.setattr("rnndet.models.checkpoint.load_model", lambda name: None)
    order = ["--data", "a", "b", "--format", "coco_vid", "unlabelled"]
    more = ["--teacher", "start", "--degrade", "standard", "--option", "images_dir=x"]
    assert run(graph, clip, tmp_path / "a.onnx", *order, *more) == 0
    assert read == [("coco_vid", "a", {"images_dir": "x"}), ("unlabelled", "b", {})]
    assert asked == [
        ("a", None, None),
        ("a", "standard", None),
        ("b", None, "start"),
        ("b", "standard", "start"),
    ]


def test_losses_are_those_of_both_graphs_on_all_subsets(monkeypatch):
    class Run:
        videos = ()

    def evaluated(runtime, data, **options):
        assert (options["degrade"], options["teacher"]) == ("standard", Named)
        return {"": Run()}

    rows = {
        graph_loss_key(run, subset): {"AP50": value}
        for (run, subset), value in {
            ("float", "all frames"): 0.8,
            ("int8", "all frames"): 0.79,
            ("float", "corrupted frames"): 0.5,
            ("int8", "corrupted frames"): 0.52,
        }.items()
    }
    monkeypatch.setattr(graph_loss, "evaluate_set", evaluated)
    monkeypatch.setattr(graph_loss, "score", lambda runs, metrics: (rows, {}))

    class Runtime:
        classes = ("a",)

    class Named:
        name = "start"

    found = graph_loss.graph_losses(
        Runtime(), Runtime(), None, name="val", degrade="standard", teacher=Named
    )
    assert [(row.subset, round(row.loss, 6)) for row in found] == [
        ("all frames", 1.0),
        ("corrupted frames", -2.0),
    ]
    assert found[0].data == "val, standard, agreement with start"


def graph_loss_key(run, subset):
    from rnndet.evaluation.score import RowKey

    return RowKey(run, subset)


def test_graph_without_convolutions_outside_the_temporal_module_is_refused(
    graph, clip, tmp_path, monkeypatch
):
    monkeypatch.setattr(export_int8, "TEMPORAL", "/")
    with pytest.raises(RnndetError, match="no convolution outside"):
        quantise(graph, tmp_path / "a.onnx", [clip], per_clip=1)
