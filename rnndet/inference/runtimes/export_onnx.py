"""Export a trained model as an ONNX graph: image and state in, raw outputs and new state out.

Sizes and batch are dynamic: the graph accepts every frame size of the model. Its metadata describes
the steps before it (scaling, normalisation) and after it (scores, boxes, suppression), which
rnndet.inference.runtimes.graph does; the graph itself is plain convolutions.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from rnndet.errors import RnndetError
from rnndet.inference.runtimes.base import scaled
from rnndet.inference.runtimes.graph import IMAGE, ExportSpec, GraphRuntime, StateSpec
from rnndet.inference.runtimes.onnx_runtime import OnnxRuntime
from rnndet.inference.runtimes.openvino_runtime import OpenVinoRuntime
from rnndet.inference.runtimes.torch_runtime import TorchRuntime
from rnndet.models.detectors.backbones import fold_batch_norms
from rnndet.models.detectors.channel_shuffle import remove_shuffles
from rnndet.models.temporal.state import State
from rnndet.models.video_detector import VideoDetector
from rnndet.structures import Detections, Frame
from rnndet.system.files import atomic_file
from rnndet.video.synthetic.clip import SyntheticClip

OPSET = 17
TRACED_HW = (270, 480)  # of the frame that the graph is traced with
BOX_LIMIT, SCORE_LIMIT = 0.01, 1e-4  # pixels; largest differences of the two runtimes
ALONE_LIMIT = 1e-3  # of all detections
FAR = 1.0  # pixels: boxes further apart are two objects
FLOOR = 0.05  # minimum score of the compared detections
CLIP_SEED = 7  # the clip of rnndet infer
CHECKED = {"onnxruntime": OnnxRuntime, "openvino": OpenVinoRuntime}  # by the name of the package


@dataclass(frozen=True, slots=True)
class Parity:
    """Differences of torch and a graph over some frames, each with its own carried state."""

    frames: int
    detections: int
    alone: int  # of one runtime only: two boxes overlap by exactly the threshold of the suppression
    box: float  # pixels, the largest difference of the matched ones
    score: float

    @property
    def is_close(self) -> bool:
        few_alone = self.alone <= ALONE_LIMIT * self.detections
        return few_alone and self.box <= BOX_LIMIT and self.score <= SCORE_LIMIT


class _Step(nn.Module):
    """One step with flat inputs and outputs, as a graph has them."""

    def __init__(self, model: VideoDetector, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, pixels: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        outputs, state, _ = self.model.raw_step(pixels, _nested(self.names, states))
        return (*outputs.values(), *(t for level in state.values() for t in level))


def export_checked(
    model: VideoDetector, path: str | Path, *, weights_file: str = "", frames: int = 100
) -> tuple[ExportSpec, dict[str, Parity]]:
    """Write the graph if its detections by each installed runtime equal the model's, see `parity`.

    weights_file: sha256 of the file of the model. Returns the parity of each runtime by its name.
    Raises RnndetError where they differ, for a detector with a second stage and where a package is
    missing; OutputError if the file cannot be written. After an error an existing file is
    unchanged.

    >>> spec, parities = export_checked(load_model("aerial"), "aerial.onnx")  # doctest: +SKIP
    """
    model = copy.deepcopy(model).eval()
    installed = [name for name in CHECKED if find_spec(name)] or ["onnxruntime"]
    parities = {}
    with atomic_file(path, durable=True) as part:
        spec = export_onnx(model, part, weights_file=weights_file)
        for name in installed:
            clip = SyntheticClip(CLIP_SEED, length=frames)
            close = parity(model, part, clip, reset_at=frames // 2, runtime=CHECKED[name])
            parities[name] = close
            if not close.is_close:
                raise RnndetError(
                    f"{path}: the graph by {name} differs from the model: boxes by "
                    f"{close.box:.3g} px, scores by {close.score:.3g}, {close.alone} of "
                    f"{close.detections} are detected by one of them only; nothing was written"
                )
    return spec, parities


def export_onnx(model: VideoDetector, path: Path, *, weights_file: str = "") -> ExportSpec:
    """Write the graph, unchecked. Raises as `export_checked`, and OSError."""
    try:
        import onnx
    except ImportError:
        raise RnndetError("export needs the package onnx: pip install 'rnndet[onnx]'") from None
    runtime = TorchRuntime(model)
    if model.detector.head_spec is None:
        raise RnndetError(
            f"{runtime.about['detector']} cannot be exported: it has two stages; one-stage "
            "detectors can: fcos, nanodet_plus, retinanet, ssdlite"
        )
    traced = copy.deepcopy(model).eval()
    fold_batch_norms(traced)
    remove_shuffles(traced)
    spec, example = _described(traced, runtime, weights_file)
    inputs = [IMAGE, *(state.name for state in spec.states)]
    with torch.no_grad():
        outputs, _, _ = traced.raw_step(example[0], _nested(inputs[1:], example[1:]))
    names = [*outputs, *(f"new_{state.name}" for state in spec.states)]
    axes = {name: {0: "batch", 2: f"{name}.height", 3: f"{name}.width"} for name in inputs}
    axes |= {name: {0: "batch", 1: "anchors"} for name in outputs}
    buffer = io.BytesIO()
    with torch.no_grad(), _quiet():
        torch.onnx.export(
            _Step(traced, inputs[1:]), tuple(example), buffer, input_names=inputs,
            output_names=names, dynamic_axes=axes, opset_version=OPSET, dynamo=False,
        )  # fmt: skip
    graph = onnx.load_from_string(buffer.getvalue())
    onnx.helper.set_model_props(graph, spec.to_metadata())
    onnx.checker.check_model(graph)
    path.write_bytes(graph.SerializeToString(deterministic=True))
    return spec


def parity(
    model: VideoDetector,
    path: str | Path,
    video: Iterable[Frame],
    *,
    reset_at: int,
    runtime: Callable[[str | Path], GraphRuntime] = OnnxRuntime,
) -> Parity:
    """Run a video through torch and `runtime`; compare the detections from a score of FLOOR on.

    Each runtime carries its own state, which is reset at frame `reset_at`.
    """
    ours, theirs = TorchRuntime(model), runtime(path)
    ours.score_threshold = theirs.score_threshold = FLOOR
    frames, count, alone, box, score = 0, 0, 0, 0.0, 0.0
    states = [None, None]
    for frame in video:
        frames += 1
        if frame.index == reset_at:
            states = [None, None]
        image, size = scaled(frame.image, ours.input_spec), frame.image.shape[:2]
        (a,), states[0] = ours.detect([image], [size], states[0])
        (b,), states[1] = theirs.detect([image], [size], states[1])
        count += len(a)
        a, b, unmatched = _matched(a, b)
        alone += unmatched
        box = max(box, float(np.abs(a.boxes - b.boxes).max(initial=0)))
        score = max(score, float(np.abs(a.scores - b.scores).max(initial=0)))
    return Parity(frames, count, alone, box, score)


def _matched(a: Detections, b: Detections) -> tuple[Detections, Detections, int]:
    """Match the detections of both runtimes; returns the pairs, and the number of unmatched ones.

    Detections with a score at the floor are ignored: only one of the runtimes may have them.
    """
    edge = FLOOR + 2 * SCORE_LIMIT
    a, b = (found[found.scores > edge] for found in (a, b))
    apart = np.abs(a.boxes[:, None] - b.boxes[None]).max(-1)  # equal scores may change places
    apart = np.minimum(apart, FAR) + FAR * (a.labels[:, None] != b.labels[None])
    rows, columns = linear_sum_assignment(apart + np.abs(a.scores[:, None] - b.scores[None]))
    near = apart[rows, columns] < FAR
    return a[rows[near]], b[columns[near]], len(a) + len(b) - 2 * int(near.sum())


def _described(
    model: VideoDetector, runtime: TorchRuntime, weights_file: str
) -> tuple[ExportSpec, list[Tensor]]:
    """Return the metadata, and inputs to trace with: the image, and a state of two videos."""
    detector = model.detector
    assert detector.head_spec is not None
    height, width = runtime.input_spec.padded_hw(*runtime.input_spec.scaled_hw(*TRACED_HW))
    pixels = torch.zeros(2, 3, height, width)
    with torch.no_grad():
        backbone = detector.backbone(pixels)
        neck = detector.neck(backbone)
        _, state = model.temporal(neck if model.site == "neck" else backbone, None, 1)
    states, example = [], [pixels]
    for level, tensors in state.items():
        for place, tensor in enumerate(tensors):
            stride = _stride(tensor, (height, width))
            states.append(StateSpec(f"state.{level}.{place}", tensor.shape[1], stride))
            example.append(torch.zeros_like(tensor))
    strides = tuple(_stride(neck[name], (height, width)) for name in detector.neck_channels)
    spec = ExportSpec(
        classes=model.classes,
        input_spec=detector.input_spec,
        head_spec=detector.head_spec,
        strides=strides,
        states=tuple(states),
        about=dict(runtime.about),
        weights=runtime.fingerprint(),
        weights_file=weights_file,
        track_classes=model.track_classes,
    )
    return spec, example


def _stride(feature: Tensor, padded_hw: tuple[int, int]) -> int:
    """Return pixels per cell, a power of two: a map of n cells comes from one of 2n or 2n - 1."""
    for power in range(12):
        if all(
            -(-side // 2**power) == cells
            for side, cells in zip(padded_hw, feature.shape[-2:], strict=True)
        ):
            return 2**power
    raise RnndetError(f"a level of {tuple(feature.shape[-2:])} cells for {padded_hw} pixels")


def _nested(names: Sequence[str], tensors: Sequence[Tensor]) -> State:
    """Return the tensors as the state that the model takes."""
    state: dict[str, list[Tensor]] = {}
    for name, tensor in zip(names, tensors, strict=True):
        state.setdefault(name.split(".")[1], []).append(tensor)
    return {level: tuple(level_tensors) for level, level_tensors in state.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings of tracing about shapes in Python code: `parity` checks the graph.

    The tracing exporter is deprecated, but its successor takes 50 times as long.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
