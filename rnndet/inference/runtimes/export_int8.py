"""Quantise the convolutions of an exported graph to int8, calibrated on frames with their state.

Post-training quantisation by onnxruntime's quantiser (QDQ format, which onnxruntime and OpenVINO
run): weights int8 with a scale per output channel, inputs and outputs of convolutions uint8, see
`_rounded`, in the range that rounds the calibration frames with the least squared error, see
`best_range`. The temporal module stays in float32, since errors of its state add up over time.
Then biases are corrected, see `_corrected`: without that a MobileNetV2 loses about a point of AP50.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnndet.errors import InputError, RnndetError
from rnndet.inference.runtimes.base import scaled
from rnndet.inference.runtimes.graph import IMAGE, PREFIX, GraphState, normalised
from rnndet.inference.runtimes.onnx_runtime import OnnxRuntime
from rnndet.system.files import atomic_file
from rnndet.video.sources.open import open_source

TEMPORAL = "/temporal/"  # in the names of the temporal module's nodes
ACTIVATIONS = ("Clip", "LeakyRelu", "Relu")
BINS = 4096  # of a histogram
SHARES = np.linspace(0.2, 1, 33)  # of the lowest and of the highest value: ends of a range to try

Inputs = dict[str, NDArray[np.float32]]  # of the graph: the image and the state
Ranges = dict[str, tuple[float, float]]  # by the name of a tensor


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a graph was quantised: the record that rnndet export writes beside it."""

    graph: str  # sha256 of the float graph
    clips: tuple[str, ...]  # file names
    frames: int
    convolutions: int  # in int8
    float_convolutions: int
    quantiser: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def quantise(
    graph: str | Path, out: str | Path, clips: Sequence[str], *, per_clip: int = 8
) -> Calibration:
    """Write the graph with its convolutions in int8.

    graph: a file of rnndet export. clips: videos or picture folders like those that the model will
    see; `per_clip` frames of each, evenly spaced, calibrate, with the state that the frames before
    them left. Raises RnndetError: a package is missing or no convolution is left to quantise;
    InputError: a clip cannot be read or has no frames. After an error an existing file is
    unchanged.
    """
    onnx, quantisation = _packages()
    graph, out = Path(graph), Path(out)
    inputs = [item for clip in clips for item in calibration_inputs(graph, clip, count=per_clip)]
    with TemporaryDirectory(prefix="rnndet-int8-") as folder, _quiet():
        plain = Path(folder) / "plain.onnx"
        quantisation.shape_inference.quant_pre_process(
            str(graph), str(plain), skip_symbolic_shape=True
        )
        model = onnx.load(plain)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    kept = [node.name for node in convolutions if TEMPORAL in node.name]
    if len(kept) == len(convolutions):
        raise RnndetError(f"{graph}: has no convolution outside its temporal module")
    ranges = _ranges(onnx, model, inputs, _rounded(model, kept))
    first = _quantised(quantisation, model, ranges, kept=kept)
    better = _corrected(onnx, model, first, inputs)
    result = _quantised(quantisation, better, ranges, kept=kept)
    record = Calibration(
        graph=hashlib.sha256(graph.read_bytes()).hexdigest(),
        clips=tuple(Path(clip).name for clip in clips),
        frames=len(inputs),
        convolutions=len(convolutions) - len(kept),
        float_convolutions=len(kept),
        quantiser=f"onnxruntime {_version()}, ranges of least squared error, bias correction",
    )
    _set_metadata(onnx, onnx.load(graph), result, record)
    with atomic_file(out, durable=True) as part:
        part.write_bytes(result.SerializeToString(deterministic=True))
    return record


def calibration_inputs(graph: Path, clip: str, *, count: int) -> Iterator[Inputs]:
    """Run the float graph over a clip; yields the inputs of `count` frames, evenly spaced.

    Raises InputError for a clip without frames.
    """
    runtime = OnnxRuntime(graph)
    with open_source(clip) as source:
        length = sum(1 for _ in source)  # what a file states is often wrong
        if not length:
            raise InputError(f"{clip}: has no frames to calibrate on")
        wanted = set(((np.arange(count) + 0.5) * length / count).astype(int).tolist())
        state: GraphState | None = None
        for position, frame in enumerate(source):
            image = scaled(frame.image, runtime.input_spec)
            pixels = normalised([image], runtime.input_spec)
            if state is None:
                state = runtime.empty_state(1, (pixels.shape[2], pixels.shape[3]))
            if position in wanted:
                yield {IMAGE: pixels, **state}
            _, state = runtime.run_graph(pixels, state)


def _rounded(model: Any, kept: Sequence[str]) -> list[str]:
    """The tensors to round: what convolutions outside `kept` read, and what they give.

    But not what an activation reads, which runtimes compute with the convolution: rounding before
    a LeakyReLU spends half of the range on negative values, which have little effect.
    """
    convolutions = [n for n in model.graph.node if n.op_type == "Conv" and n.name not in kept]
    activated = {x for node in model.graph.node if node.op_type in ACTIVATIONS for x in node.input}
    read = [node.input[0] for node in convolutions]
    given = [node.output[0] for node in convolutions if node.output[0] not in activated]
    return list(dict.fromkeys(read + given))


def best_range(low: float, high: float, counts: NDArray[np.float64]) -> tuple[float, float]:
    """The range for which rounding to uint8 has the least mean squared error.

    counts: a histogram of the values, in bins of one width from `low` to `high`, low <= 0 <= high.
    Values outside the range are clipped: a few large ones cost less than coarse steps for all.
    """
    if low == high:
        return low, high
    centres = low + (np.arange(len(counts)) + 0.5) * (high - low) / len(counts)
    centres, counts = centres[counts > 0], counts[counts > 0]
    best = (np.inf, low, high)
    for start in low * SHARES if low < 0 else (low,):
        for end in high * SHARES if high > 0 else (high,):
            step = (end - start) / 255
            zero = np.rint(-start / step)
            levels = np.clip(np.rint(centres / step) + zero, 0, 255) - zero
            error = float((counts * (levels * step - centres) ** 2).sum())
            if error < best[0]:
                best = (error, float(start), float(end))
    return best[1:]


def _ranges(onnx: Any, model: Any, inputs: Sequence[Inputs], names: list[str]) -> Ranges:
    """The best range of each tensor; the memory that it takes does not grow with the frames."""
    values = _probe(onnx, model, names)
    low, high = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for item in inputs:
        for name, x in values(item).items():
            low[name] = min(low[name], float(x.min()))
            high[name] = max(high[name], float(x.max()))
    counts = {name: np.zeros(BINS) for name in names}
    for item in inputs:
        for name, x in values(item).items():
            ends = (low[name], high[name])
            counts[name] += (
                np.histogram(x, BINS, ends)[0] / x.size
            )  # frames of any size count alike
    return {name: best_range(low[name], high[name], counts[name]) for name in names}


def _probe(
    onnx: Any, model: Any, names: list[str]
) -> Callable[[Inputs], dict[str, NDArray[np.float32]]]:
    """A function that runs the model and returns these tensors."""
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    given = {value.name for value in model.graph.input}
    made = [name for name in names if name not in given]
    kind = onnx.TensorProto.FLOAT
    probe.graph.output.extend(onnx.helper.make_tensor_value_info(n, kind, None) for n in made)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def values(item: Inputs) -> dict[str, NDArray[np.float32]]:
        found = dict(zip(made, session.run(made, item), strict=True)) if made else {}
        return {name: item[name] if name in given else found[name] for name in names}

    return values


def _quantised(quantisation: Any, model: Any, ranges: Ranges, *, kept: list[str]) -> Any:
    """The model with the tensors of `ranges` and the weights of its convolutions rounded."""

    class Quantiser(quantisation.QDQQuantizer):  # type: ignore[misc,name-defined]
        def quantize_activation_tensor(self, tensor_name: str) -> None:
            if tensor_name in ranges:
                super().quantize_activation_tensor(tensor_name)

    data = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    method = quantisation.CalibrationMethod.MinMax
    copy = type(model)()
    copy.CopyFrom(model)
    with _quiet():
        quantiser = Quantiser(
            copy,
            per_channel=True,
            reduce_range=False,
            weight_qType=quantisation.QuantType.QInt8,
            activation_qType=quantisation.QuantType.QUInt8,
            tensors_range=quantisation.TensorsData(method, data),
            nodes_to_quantize=[],  # all
            nodes_to_exclude=kept,
            op_types_to_quantize=["Conv"],
            extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
        )
        return quantiser.quantize_model()


def _corrected(onnx: Any, model: Any, quantised: Any, inputs: Sequence[Inputs]) -> Any:
    """A float model with biases that make up for the mean error of quantisation.

    Rounding shifts the mean output of a convolution. With W, x the weights and input, W', x' their
    quantised values, the bias gets the mean over the calibration frames of W x - W' x' (Nagel et
    al. 2019, arXiv 1906.04721, section 4.2, by data; borders are neglected).
    """
    values = {t.name: onnx.numpy_helper.to_array(t) for t in quantised.graph.initializer}
    floats = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    maker = {name: node for node in quantised.graph.node for name in node.output}
    twins = {node.name: node for node in quantised.graph.node if node.op_type == "Conv"}
    rounded, scale_of = {}, {}
    for node in model.graph.node:
        source = maker.get(twins[node.name].input[1]) if node.op_type == "Conv" else None
        if source is None or source.op_type != "DequantizeLinear":
            continue
        weights, scale = (values[name] for name in source.input[:2])
        rounded[node.name] = weights.astype(np.float32) * scale.reshape(-1, 1, 1, 1)
        scale, zero = (values[name] for name in maker[twins[node.name].input[0]].input[1:3])
        scale_of[node.input[0]] = (float(scale), int(zero))
    means = _means(onnx, model, inputs, scale_of)
    for node in model.graph.node:
        if node.name not in rounded:
            continue
        exact, inexact = floats[node.input[1]].sum((2, 3)), rounded[node.name].sum((2, 3))
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        group = np.arange(len(exact)) * groups // len(exact)  # of each output channel
        mean, rounded_mean = (m.reshape(groups, -1)[group] for m in means[node.input[0]])
        shift = (exact * mean).sum(1) - (inexact * rounded_mean).sum(1)
        bias = floats[node.input[2]] if len(node.input) > 2 else np.zeros(len(exact), np.float32)
        name = f"{node.name}.corrected_bias"  # levels may share a bias, but not its correction
        model.graph.initializer.append(
            onnx.numpy_helper.from_array((bias + shift).astype(np.float32), name)
        )
        del node.input[2:]
        node.input.append(name)
    used = {name for node in model.graph.node for name in node.input}
    unused = [t for t in model.graph.initializer if t.name not in used]
    for tensor in unused:
        model.graph.initializer.remove(tensor)
    return model


def _means(
    onnx: Any, model: Any, inputs: Sequence[Inputs], scale_of: dict[str, tuple[float, int]]
) -> dict[str, tuple[NDArray, NDArray]]:
    """The mean of each channel of each tensor in `scale_of`, exact and rounded to uint8."""
    values = _probe(onnx, model, list(scale_of))
    sums: dict[str, tuple[Any, Any]] = {name: (0.0, 0.0) for name in scale_of}
    for item in inputs:
        for name, x in values(item).items():
            scale, zero = scale_of[name]
            levels = np.clip(np.rint(x / scale) + zero, 0, 255)
            exact, rounded = sums[name]
            sums[name] = (
                exact + x.mean((0, 2, 3)),
                rounded + scale * (levels.mean((0, 2, 3)) - zero),
            )
    return {name: (a / len(inputs), b / len(inputs)) for name, (a, b) in sums.items()}


def _set_metadata(onnx: Any, source: Any, result: Any, record: Calibration) -> None:
    """The metadata of the float graph, with the record and a fingerprint of the int8 weights."""
    metadata = {entry.key: entry.value for entry in source.metadata_props}
    digest = hashlib.sha256()
    for tensor in sorted(result.graph.initializer, key=lambda t: t.name):
        digest.update(tensor.SerializeToString(deterministic=True))
    metadata[PREFIX + "weights"] = json.dumps(digest.hexdigest())
    about = json.loads(metadata[PREFIX + "about"])
    metadata[PREFIX + "about"] = json.dumps(about | {"convolutions": "int8"})
    metadata[PREFIX + "calibration"] = json.dumps(record.to_dict())
    onnx.helper.set_model_props(result, metadata)


def _packages() -> tuple[Any, Any]:
    try:
        import onnx
        import onnx.numpy_helper
        import onnxruntime.quantization as quantisation
    except ImportError as error:
        raise RnndetError(
            f"int8 needs the package {error.name}: pip install 'rnndet[onnx]'"
        ) from None
    return onnx, quantisation


def _version() -> str:
    import onnxruntime

    return onnxruntime.__version__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantiser, which advises and reports on stdout and by logging."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(previous)
