"""The interface of runtimes, which run a model frame by frame; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rnndet.specs import InputSpec, TrackClassSpec
from rnndet.structures import DetectionLimits, Detections
from rnndet.system.timing import NO_TIMER, Timer
from rnndet.video.image import resize

Image = NDArray[np.uint8]  # (H, W, 3) RGB
StateArrays = dict[str, list[NDArray]]  # level name -> the cell's arrays, each (B, C, H, W)


@runtime_checkable
class Runtime(Protocol):
    """A trained model, ready to run on one or more videos at once; stateless between calls.

    A state is the value that `detect` returned, None at the start of all videos; only
    `rows_of`, `joined`, `to_arrays` and `from_arrays` access its contents.
    """

    name: str  # torch, onnx
    classes: tuple[str, ...]
    device: str
    about: Mapping[str, Any]  # detector, cell, input_sides
    input_spec: InputSpec
    track_classes: TrackClassSpec | None  # for the stream; the runtime does not use it
    score_threshold: float  # minimum score of calls without limits; a stream always gives them

    def detect(
        self,
        images: Sequence[Image],
        original_sizes: Sequence[tuple[int, int]],
        state: Any,
        *,
        limits: Sequence[DetectionLimits] | None = None,
        timer: Timer = NO_TIMER,
    ) -> tuple[list[Detections], Any]:
        """Return the detections of the next frame of each video, and the new state.

        images: of one size, as `scaled` returns them; original_sizes: height and width of the
        original frames, in whose pixels the boxes are; limits: of each image, so that streams with
        other thresholds share a runtime; timer: measures the stages preprocess, network, temporal
        and head, as far as the runtime separates them.
        """
        ...

    def rows_of(self, state: Any, count: int) -> list[Any]:
        """Split the state of `count` videos into one state for each."""
        ...

    def joined(self, states: Sequence[Any]) -> Any:
        """Join single-video states into one state; None is the initial state of a video."""
        ...

    def to_arrays(self, state: Any) -> StateArrays | None:
        """Return a copy of the state as plain data."""
        ...

    def from_arrays(self, arrays: StateArrays | None) -> Any:
        """Return the state that `to_arrays` was called with."""
        ...

    def fingerprint(self) -> str:
        """Return the hexadecimal sha256 of the weights."""
        ...


def scaled(image: Image, spec: InputSpec) -> Image:
    """Return the frame at the size of the network, still as bytes.

    Nothing larger is ever converted to floats. Bilinear in integer arithmetic, as OpenCV does it,
    on every device, so that all runtimes and devices get the same pixels. Returns the frame itself
    if the runtime scales it, see `InputSpec.as_float`.
    """
    if spec.as_float:
        return image
    height, width = spec.scaled_hw(*image.shape[:2])
    return image if image.shape[:2] == (height, width) else resize(image, (height, width))
