"""Run a `VideoDetector` by torch."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import FrozenBatchNorm2d

from rnndet.errors import DeviceError, RnndetError
from rnndet.inference.runtimes.base import Image, StateArrays
from rnndet.models.checkpoint import content_sha256
from rnndet.models.detectors import DETECTORS
from rnndet.models.detectors.backbones import fold_batch_norms
from rnndet.models.detectors.base import Grids
from rnndet.models.detectors.published import Published
from rnndet.models.temporal.cells import CELLS
from rnndet.models.temporal.state import State, join_states, state_rows
from rnndet.models.video_detector import VideoDetector
from rnndet.structures import DetectionLimits, Detections
from rnndet.system.timing import NO_TIMER, Timer


class TorchRuntime:
    """A `Runtime` on torch.

    The model stays on its device; its weights are laid out channels last (the same numbers in
    another order, twice as fast in a CPU's convolutions). Frozen batch norms beside convolutions
    are folded into them, in a copy.

    half: convolutions in half precision (torch.autocast), float16 on a GPU, bfloat16 elsewhere.
    compiled: everything between the pixels and the raw outputs is compiled (torch.compile; on a GPU
    into a CUDA graph) at the second frame of a video, again for each frame size (torch gives up
    after eight) and number of videos, which takes a minute or more. Use it from one thread.

    Raises RnndetError for `compiled` with a detector of two stages, and in `detect` for a model in
    training mode; DeviceError where it cannot be compiled.
    """

    name = "torch"

    def __init__(self, model: VideoDetector, *, half: bool = False, compiled: bool = False) -> None:
        self._given = model
        first = next(model.parameters(), None)
        self._device = torch.device("cpu") if first is None else first.device
        if half or any(isinstance(module, FrozenBatchNorm2d) for module in model.modules()):
            model = copy.deepcopy(model)
            fold_batch_norms(model)
        self._half: torch.dtype | None = None
        if half:
            self._half = torch.float16 if self._device.type == "cuda" else torch.bfloat16
            cast_convolutions(model, self._half)
        self.model = model.to(memory_format=torch.channels_last)
        self.classes = model.classes
        self.input_spec = model.detector.input_spec
        self.track_classes = model.track_classes
        self.about = describe(model)
        self.device = str(self._device)
        self._compiled: Any = None  # `VideoDetector.raw_step`
        if compiled:
            if model.detector.head_spec is None:
                raise RnndetError(
                    f"{self.about['detector']} cannot be compiled: it has two stages; "
                    "one-stage detectors can: fcos, nanodet_plus, retinanet, ssdlite"
                )
            mode = "reduce-overhead" if self._device.type == "cuda" else "default"
            self._compiled = torch.compile(self.model.raw_step, mode=mode, dynamic=False)

    @property
    def score_threshold(self) -> float:
        return self.model.score_threshold

    @score_threshold.setter
    def score_threshold(self, value: float) -> None:
        self.model.score_threshold = value

    @property
    def is_half(self) -> bool:
        """Whether convolutions compute in half precision."""
        return self._half is not None

    def detect(
        self,
        images: Sequence[Image],
        original_sizes: Sequence[tuple[int, int]],
        state: State | None,
        *,
        limits: Sequence[DetectionLimits] | None = None,
        timer: Timer = NO_TIMER,
    ) -> tuple[list[Detections], State]:
        """See `Runtime.detect`; a compiled step is measured as network, its temporal part too."""
        if self._compiled is not None and state is not None:  # the first frame creates the state
            return self._detect_compiled(images, original_sizes, state, limits, timer)
        with timer.stage("preprocess"):
            frames = self.to_tensors(images)
        with self._precision():
            output = self.model.step(
                frames, state, original_sizes=original_sizes, limits=limits, timer=timer
            )
        assert output.detections is not None, "a model called without targets returns detections"
        return output.detections[0], output.state

    def _detect_compiled(
        self,
        images: Sequence[Image],
        original_sizes: Sequence[tuple[int, int]],
        state: State,
        limits: Sequence[DetectionLimits] | None,
        timer: Timer,
    ) -> tuple[list[Detections], State]:
        self.model.check_not_training()
        detector = self.model.detector
        with torch.inference_mode(), self._precision():
            with timer.stage("preprocess"):
                tensors = list(self.to_tensors(images)[0])
                prepared = detector.prepare(tensors, original_sizes=original_sizes)
            with timer.stage("network"):
                raw, state, grids = self._run_compiled(prepared.pixels, state)
            with timer.stage("head"):
                return detector.detections(prepared, raw, grids, limits), state

    def _run_compiled(self, pixels: Tensor, state: State) -> tuple[dict[str, Tensor], State, Grids]:
        """`VideoDetector.raw_step`, compiled."""
        try:
            raw, state, grids = self._compiled(pixels, state)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # of the compiler: no common base
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise DeviceError(
                f"`compiled=True`: {reason[0]}; omit it, or check that torch.compile works here"
            ) from error
        # the next run of a CUDA graph overwrites the output of this one
        state = {level: tuple(t.clone() for t in tensors) for level, tensors in state.items()}
        return raw, state, grids

    def to_tensors(self, images: Sequence[Image]) -> Tensor:
        """Return (1, B, 3, H, W) uint8 on the device, channels last."""
        stacked = images[0][None] if len(images) == 1 else np.stack(images)
        pixels = torch.from_numpy(np.require(stacked, requirements=["C", "W"]))
        if self._device.type == "cuda":
            pixels = pixels.pin_memory().to(self._device, non_blocking=True)
        return pixels.permute(0, 3, 1, 2)[None]

    def _precision(self) -> AbstractContextManager[Any]:
        if self._half is None:
            return nullcontext()
        return torch.autocast(self._device.type, self._half)

    def rows_of(self, state: State, count: int) -> list[State]:
        return [state_rows(state, range(row, row + 1)) for row in range(count)]

    def joined(self, states: Sequence[State | None]) -> State | None:
        known = next((state for state in states if state is not None), None)
        if known is None or len(states) == 1:
            return known
        empty = {level: tuple(map(torch.zeros_like, tensors)) for level, tensors in known.items()}
        return join_states([empty if state is None else state for state in states])

    def to_arrays(self, state: State | None) -> StateArrays | None:
        if state is None:
            return None
        return {name: [t.cpu().numpy().copy() for t in tensors] for name, tensors in state.items()}

    def from_arrays(self, arrays: StateArrays | None) -> State | None:
        if arrays is None:
            return None
        return {
            name: tuple(torch.from_numpy(a.copy()).to(self._device) for a in cell_arrays)
            for name, cell_arrays in arrays.items()
        }

    def fingerprint(self) -> str:
        return content_sha256(self._given.state_dict())


def cast_convolutions(model: VideoDetector, dtype: torch.dtype) -> None:
    """Convert the weights of convolutions, in place: autocast would cast them again at each frame.

    The results stay the same.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.to(dtype)


def describe(model: VideoDetector) -> dict[str, Any]:
    """Return `Runtime.about`: detector and cell by their names in `DETECTORS` and `CELLS`.

    A detector of torchvision has torchvision's name.
    """
    detector = model.detector
    cells = {type(cell) for cell in model.temporal.cells.values()}
    spec = model.detector.input_spec
    return {
        "detector": detector.name
        if isinstance(detector, Published)
        else _name_of(type(detector), DETECTORS),
        "cell": _name_of(cells.pop(), CELLS) if cells else "none",
        "input_sides": [spec.shorter, spec.longer],
    }


def _name_of(kind: type, table: Mapping[str, object]) -> str:
    return next((name for name, entry in table.items() if entry is kind), kind.__name__)
