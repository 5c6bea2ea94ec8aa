"""Exported graphs: their metadata, and the steps before and after the graph; imports no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rnndet.errors import WeightsError
from rnndet.inference.runtimes.base import Image, StateArrays
from rnndet.models.postprocess import anchors_of, postprocess
from rnndet.specs import HeadSpec, InputSpec, TrackClassSpec
from rnndet.structures import DetectionLimits, Detections
from rnndet.system.timing import NO_TIMER, Timer
from rnndet.video.image import planes, resize

FORMAT = 1  # version of the metadata
IMAGE = "image"  # the graph's first input; the states follow
PREFIX = "rnndet."  # of the metadata's keys

GraphState = dict[str, NDArray[np.float32]]  # input name -> see `GraphRuntime.channels_last`


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


class GraphRuntime:
    """A `Runtime` that runs an exported graph: the base of those on onnxruntime and OpenVINO.

    spec: the graph's metadata. outputs: the names of the graph's outputs, in its order. Subclasses
    set `name` and `channels_last`, and run the graph in `run_graph`.
    """

    name: str
    device = "cpu"
    channels_last: ClassVar[bool] = False  # the state is (B, H, W, C), not (B, C, H, W)

    def __init__(self, spec: ExportSpec, outputs: Sequence[str]) -> None:
        self.spec = spec
        self.classes, self.input_spec, self.about = spec.classes, spec.input_spec, spec.about
        self.track_classes = spec.track_classes
        self.score_threshold = 0.05
        self.heads = tuple(outputs[: len(outputs) - len(spec.states)])
        self._lock = Lock()

    def run_graph(
        self, pixels: NDArray[np.float32], state: GraphState
    ) -> tuple[dict[str, NDArray[np.float32]], GraphState]:
        """Return the raw outputs of the head, and the new state; called by one thread at a time.

        pixels: (B, 3, H, W), normalised and padded.
        """
        raise NotImplementedError

    def detect(
        self,
        images: Sequence[Image],
        original_sizes: Sequence[tuple[int, int]],
        state: GraphState | None,
        *,
        limits: Sequence[DetectionLimits] | None = None,
        timer: Timer = NO_TIMER,
    ) -> tuple[list[Detections], GraphState]:
        """See `Runtime.detect`; the whole graph is measured as network, NMS is not part of it."""
        with timer.stage("preprocess"):
            if self.input_spec.as_float:
                images = [_scaled_as_float(image, self.input_spec) for image in images]
            pixels = normalised(images, self.input_spec)
        padded_hw = (pixels.shape[2], pixels.shape[3])
        if state is None:
            state = self.empty_state(len(images), padded_hw)
        with timer.stage("network"), self._lock:  # one call at a time has all threads
            outputs, state = self.run_graph(pixels, state)
        with timer.stage("head"):
            limits = limits or [DetectionLimits(self.score_threshold)] * len(images)
            detections = self._postprocessed(outputs, images, original_sizes, limits, padded_hw)
        return detections, state

    def state_shapes(self, videos: int, padded_hw: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor of the state, by name, as the graph takes it."""
        height, width = padded_hw
        shapes = {}
        for spec in self.spec.states:
            cells = -(-height // spec.stride), -(-width // spec.stride)
            shapes[spec.name] = (
                (videos, *cells, spec.channels)
                if self.channels_last
                else (videos, spec.channels, *cells)
            )
        return shapes

    def empty_state(self, videos: int, padded_hw: tuple[int, int]) -> GraphState:
        """The state before the first frame: zeros."""
        shapes = self.state_shapes(videos, padded_hw)
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

    def rows_of(self, state: GraphState, count: int) -> list[GraphState]:
        return [{n: a[row : row + 1] for n, a in state.items()} for row in range(count)]

    def joined(self, states: Sequence[GraphState | None]) -> GraphState | None:
        known = next((state for state in states if state is not None), None)
        if known is None or len(states) == 1:
            return known
        empty = {name: np.zeros_like(array) for name, array in known.items()}
        filled = [empty if state is None else state for state in states]
        return {name: np.concatenate([state[name] for state in filled]) for name in known}

    def to_arrays(self, state: GraphState | None) -> StateArrays | None:
        if state is None:
            return None
        arrays: StateArrays = {}
        for spec in self.spec.states:
            array = state[spec.name]
            array = array.transpose(0, 3, 1, 2) if self.channels_last else array
            arrays.setdefault(spec.name.split(".")[1], []).append(np.array(array, order="C"))
        return arrays

    def from_arrays(self, arrays: StateArrays | None) -> GraphState | None:
        if arrays is None:
            return None
        return {
            f"state.{level}.{place}": np.array(
                array.transpose(0, 2, 3, 1) if self.channels_last else array, order="C"
            )
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
        # measured: separate planes take a tenth of the time of a single expression
        for channel, plane in enumerate(planes(image)):
            out = pixels[row, channel, :height, :width]
            np.multiply(plane, factor[channel], out=out)
            out += offset[channel]
    return pixels


def _scaled_as_float(image: Image, spec: InputSpec) -> NDArray[np.float32]:
    """Return the frame at the size of the network without rounding, (h, w, 3), 0 to 255."""
    return resize(image.astype(np.float32), spec.scaled_hw(*image.shape[:2]))
