"""A torchvision detector run as its documentation shows it: what our own path is compared with."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch

from rnndet.inference.runtimes.base import Picture
from rnndet.inference.runtimes.torch_runtime import TorchRuntime, describe
from rnndet.models.detectors.base import detections_of
from rnndet.models.temporal.state import State
from rnndet.models.video_detector import VideoDetector
from rnndet.specs import InputSpec
from rnndet.structures import Detections


class _AsItComes(InputSpec):
    """torchvision scales the frame itself, as float32."""

    def scaled_hw(self, height: int, width: int) -> tuple[int, int]:
        return height, width


class TorchvisionRuntime(TorchRuntime):
    """`net([frame / 255])` for each frame: torchvision's own transform, anchors and postprocessing,
    memory format and all, on the same weights, and no memory. A `Runtime`, for benchmarks.

    device: auto, cpu or cuda. Sets nothing for the process, as `choose_device` does.
    """

    name = "stock"

    def __init__(self, model: VideoDetector, *, device: str = "cpu") -> None:
        self._given = model
        self.model = copy.deepcopy(model).eval()
        self.model.temporal.cells.clear()  # not run, not counted
        self.net = self.model.detector.net.to(memory_format=torch.contiguous_format)
        self.classes = model.classes
        self.about = {**describe(model), "cell": "none"}
        spec = model.detector.input_spec
        self.input_spec = _AsItComes(**spec.to_dict())
        has_gpu = device != "cpu" and torch.cuda.is_available()
        self._device = torch.device("cuda" if has_gpu else "cpu")
        self.net.to(self._device)
        self.device = str(self._device)

    def detect(
        self,
        images: Sequence[Picture],
        original_sizes: Sequence[tuple[int, int]],
        state: State | None,
    ) -> tuple[list[Detections], State]:
        tensors = [
            torch.from_numpy(np.ascontiguousarray(p)).permute(2, 0, 1).to(self._device) / 255
            for p in images
        ]
        with torch.no_grad():
            found = [detections_of(one) for one in self.net(tensors)]
        return [one[one.labels >= 0] for one in found], {}
