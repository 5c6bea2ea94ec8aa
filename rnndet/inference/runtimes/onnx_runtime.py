"""Run an exported model by onnxruntime; imports no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnndet.errors import WeightsError
from rnndet.inference.runtimes.base import Image, StateArrays
from rnndet.models.postprocess import anchors_of, postprocess
from rnndet.specs import HeadSpec, InputSpec, TrackClassSpec
from rnndet.structures import DetectionLimits, Detections
from rnndet.system.timing import NO_TIMER, Timer
from rnndet.video.image import resize

FORMAT = 1  # version of the metadata
IMAGE = "image"  # the graph's first input; the states follow
PREFIX = "rnndet."  # of the metadata's keys

OnnxState = dict[str, NDArray[np.float32]]  # input name -> (B, C, H, W)


@dataclass(frozen=True, slots=True)
class StateSpec:
    """A tensor of the recurrent state: input `name` of the graph, and output "new_" + name."""

    name: str  # state.LEVEL.PLACE
    channels: int
    stride: int  # pixels of the padded image per cell


@dataclass(frozen=True, slots=True)
class ExportSpec:
    """The metadata of an exported graph."""

    classes: tuple[str, ...]
    input_spec: InputSpec
    head_spec: HeadSpec
    strides: tuple[int, ...]  # of the head's levels
    states: tuple[StateSpec, ...]
    about: dict[str, Any]
    weights: str  # sha256 of the weights' content, as `Runtime.fingerprint`
    weights_file: str  # sha256 of the checkpoint file, "" if there was none
    track_classes: TrackClassSpec | None = None

    def to_metadata(self) -> dict[str, str]:
        """Return text by key, as ONNX stores it."""
        tree = {
            "format": FORMAT,
            "classes": list(self.classes),
            "input": self.input_spec.to_dict(),
            "head": self.head_spec.to_dict(),
            "strides": list(self.strides),
            "states": [[s.name, s.channels, s.stride] for s in self.states],
            "about": self.about,
            "weights": self.weights,
            "weights_file": self.weights_file,
        }
        if self.track_classes is not None:
            tree["track_classes"] = self.track_classes.to_dict()
        return {PREFIX + key: json.dumps(value) for key, value in tree.items()}

    @staticmethod
    def from_metadata(metadata: dict[str, str], *, where: str) -> ExportSpec:
        """Read the output of `to_metadata`. Raises WeightsError for metadata of another program."""
        try:
            tree = {
                key.removeprefix(PREFIX): json.loads(value)
                for key, value in metadata.items()
                if key.startswith(PREFIX)
            }
            if tree["format"] != FORMAT:
                raise WeightsError(
                    f"{where}: format {tree['format']}, this version reads {FORMAT}; export again"
                )
            classes, named = tuple(tree["classes"]), tree.get("track_classes")
            return ExportSpec(
                classes,
                InputSpec.from_dict(tree["input"]),
                HeadSpec.from_dict(tree["head"]),
                tuple(tree["strides"]),
                tuple(StateSpec(*row) for row in tree["states"]),
                tree["about"],
                tree["weights"],
                tree["weights_file"],
                None
                if named is None
                else TrackClassSpec.from_dict(named, classes=classes, where=where),
            )
        except (KeyError, TypeError, ValueError):
            raise WeightsError(
                f"{where}: not a graph of rnndet (no metadata); create one with rnndet export"
            ) from None


class OnnxRuntime:
    """A `Runtime` on onnxruntime, on the CPU.

    path: a graph that rnndet export wrote. threads: of the session; None leaves it to
    onnxruntime.
    Raises WeightsError: onnxruntime is not installed; the file is missing, damaged or no graph of
    rnndet.
    """

    name = "onnx"
    device = "cpu"

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        self._session, self.version = _open(Path(path), threads)  # version: of onnxruntime
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.spec = spec = ExportSpec.from_metadata(metadata, where=str(path))
        self.classes, self.input_spec, self.about = spec.classes, spec.input_spec, spec.about
        self.track_classes = spec.track_classes
        self.score_threshold = 0.05
        self._heads = [o.name for o in self._session.get_outputs()][: -len(spec.states) or None]
        self._outputs = [*self._heads, *(f"new_{state.name}" for state in spec.states)]

    def detect(
        self,
        images: Sequence[Image],
        original_sizes: Sequence[tuple[int, int]],
        state: OnnxState | None,
        *,
        limits: Sequence[DetectionLimits] | None = None,
        timer: Timer = NO_TIMER,
    ) -> tuple[list[Detections], OnnxState]:
        """See `Runtime.detect`; the whole graph is measured as network, NMS is not part of it."""
        with timer.stage("preprocess"):
            if self.input_spec.as_float:
                images = [_scaled_as_float(image, self.input_spec) for image in images]
            pixels = normalised(images, self.input_spec)
        padded_hw = (pixels.shape[2], pixels.shape[3])
        if state is None:
            state = self._empty_state(len(images), padded_hw)
        with timer.stage("network"):
            values = self._session.run(self._outputs, {IMAGE: pixels, **state})
        outputs = dict(zip(self._heads, values[: len(self._heads)], strict=True))
        with timer.stage("head"):
            limits = limits or [DetectionLimits(self.score_threshold)] * len(images)
            detections = self._postprocessed(outputs, images, original_sizes, limits, padded_hw)
        names = (spec.name for spec in self.spec.states)
        return detections, dict(zip(names, values[len(self._heads) :], strict=True))

    def _empty_state(self, videos: int, padded_hw: tuple[int, int]) -> OnnxState:
        height, width = padded_hw
        shapes = {
            spec.name: (videos, spec.channels, -(-height // spec.stride), -(-width // spec.stride))
            for spec in self.spec.states
        }
        return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}

    def _postprocessed(
        self,
        outputs: dict[str, NDArray[np.float32]],
        images: Sequence[Image],
        original_sizes: Sequence[tuple[int, int]],
        limits: Sequence[DetectionLimits],
        padded_hw: tuple[int, int],
    ) -> list[Detections]:
        """Return the detections of each image from the raw outputs of the head."""
        height, width = padded_hw
        grids = tuple((-(-height // s), -(-width // s)) for s in self.spec.strides)
        anchors, level_of = anchors_of(self.spec.head_spec, padded_hw, grids)
        return [
            postprocess(
                {name: value[row] for name, value in outputs.items()},
                self.spec.head_spec,
                anchors,
                level_of,
                size_hw=image.shape[:2],
                original_hw=original,
                limits=limits[row],
            )
            for row, (image, original) in enumerate(zip(images, original_sizes, strict=True))
        ]

    def rows_of(self, state: OnnxState, count: int) -> list[OnnxState]:
        return [{n: a[row : row + 1] for n, a in state.items()} for row in range(count)]

    def joined(self, states: Sequence[OnnxState | None]) -> OnnxState | None:
        known = next((state for state in states if state is not None), None)
        if known is None or len(states) == 1:
            return known
        empty = {name: np.zeros_like(array) for name, array in known.items()}
        filled = [empty if state is None else state for state in states]
        return {name: np.concatenate([state[name] for state in filled]) for name in known}

    def to_arrays(self, state: OnnxState | None) -> StateArrays | None:
        if state is None:
            return None
        arrays: StateArrays = {}
        for spec in self.spec.states:
            arrays.setdefault(spec.name.split(".")[1], []).append(state[spec.name].copy())
        return arrays

    def from_arrays(self, arrays: StateArrays | None) -> OnnxState | None:
        if arrays is None:
            return None
        return {
            f"state.{level}.{place}": array.copy()
            for level, cell_arrays in arrays.items()
            for place, array in enumerate(cell_arrays)
        }

    def fingerprint(self) -> str:
        return self.spec.weights


def normalised(images: Sequence[Image], spec: InputSpec) -> NDArray[np.float32]:
    """Return (B, 3, H, W) float32 of scaled images of one size: normalised, padded with 0."""
    height, width = images[0].shape[:2]
    pixels = np.zeros((len(images), 3, *spec.padded_hw(height, width)), np.float32)
    mean, std = np.array(spec.mean), np.array(spec.std)
    factor, offset = (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)
    for row, image in enumerate(images):
        for channel in range(3):  # measured: a seventh of the time of a single expression
            out = pixels[row, channel, :height, :width]
            np.multiply(image[..., channel], factor[channel], out=out)
            out += offset[channel]
    return pixels


def _scaled_as_float(image: Image, spec: InputSpec) -> NDArray[np.float32]:
    """Return the frame at the size of the network without rounding, (h, w, 3), 0 to 255."""
    return resize(image.astype(np.float32), spec.scaled_hw(*image.shape[:2]))


def _open(path: Path, threads: int | None) -> tuple[Any, str]:
    try:
        import onnxruntime
    except ImportError:
        raise WeightsError(
            "onnxruntime is not installed; pip install 'rnndet[onnx]', or use `kind=torch`"
        ) from None
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; create it with rnndet export")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        return session, onnxruntime.__version__
    except Exception as error:  # onnxruntime's exceptions have no common base
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path}: onnxruntime cannot load the graph: {reason}") from None
