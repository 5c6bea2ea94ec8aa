"""Run a torchvision detector as its documentation shows it: the baseline of our inference path."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch

from rnndet.inference.runtimes.base import Image, StateArrays
from rnndet.inference.runtimes.torch_runtime import describe
from rnndet.models.checkpoint import content_sha256
from rnndet.models.detectors.base import detections_of
from rnndet.models.video_detector import VideoDetector
from rnndet.specs import InputSpec
from rnndet.structures import DetectionLimits, Detections
from rnndet.system.timing import NO_TIMER, Timer

NoState = dict[str, tuple[()]]


class _Unscaled(InputSpec):
    """torchvision scales the frame itself, as float32."""

    def scaled_hw(self, height: int, width: int) -> tuple[int, int]:
        return height, width


class TorchvisionRuntime:
    """A `Runtime` that calls `net([frame / 255])` for each frame, for benchmarks.

    With torchvision's own transform, anchors, postprocessing and memory format, on the same
    weights, and without a temporal module: its state is empty.

    device: auto, cpu or cuda. Sets nothing for the process, as `choose_device` does. torchvision
    has thresholds on the network only: one stream at a time, and NMS as in the model.
    """

    name = "stock"

    def __init__(self, model: VideoDetector, *, device: str = "cpu") -> None:
        self._sha256 = content_sha256(model.state_dict())
        self.classes = model.classes
        self.about = {**describe(model), "cell": "none"}
        self.input_spec = _Unscaled(**model.detector.input_spec.to_dict())
        self.track_classes = None
        has_gpu = device != "cpu" and torch.cuda.is_available()
        self._device = torch.device("cuda" if has_gpu else "cpu")
        self.device = str(self._device)
        self.model = copy.deepcopy(model).eval()
        self.model.temporal.cells.clear()  # not run, not counted
        self.net = self.model.detector.net.to(memory_format=torch.contiguous_format)
        self.net.to(self._device)

    @property
    def score_threshold(self) -> float:
        return self.model.score_threshold

    @score_threshold.setter
    def score_threshold(self, value: float) -> None:
        self.model.score_threshold = value

    def detect(
        self,
        images: Sequence[Image],
        original_sizes: Sequence[tuple[int, int]],
        state: NoState | None,
        *,
        limits: Sequence[DetectionLimits] | None = None,
        timer: Timer = NO_TIMER,
    ) -> tuple[list[Detections], NoState]:
        """See `Runtime.detect`; everything that torchvision does is measured as network."""
        if limits is not None:
            self.score_threshold = min(one.min_score for one in limits)
        with timer.stage("network"), torch.no_grad():
            tensors = [
                torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).to(self._device)
                / 255
                for image in images
            ]
            detections = [detections_of(output) for output in self.net(tensors)]
            return [found[found.labels >= 0] for found in detections], {}

    def rows_of(self, state: NoState, count: int) -> list[NoState]:
        return [{} for _ in range(count)]

    def joined(self, states: Sequence[NoState | None]) -> NoState:
        return {}

    def to_arrays(self, state: NoState | None) -> StateArrays | None:
        return None if state is None else {}

    def from_arrays(self, arrays: StateArrays | None) -> NoState | None:
        return None if arrays is None else {}

    def fingerprint(self) -> str:
        return self._sha256
