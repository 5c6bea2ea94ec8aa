"""What runs a model frame by frame: the side that a stream sees, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rnndet.specs import InputSpec
from rnndet.structures import Detections
from rnndet.video.image import resize

Picture = NDArray[np.uint8]  # (H, W, 3) RGB
StateArrays = dict[str, list[NDArray]]  # level name -> the cell's arrays, each (B, C, H, W)


@runtime_checkable
class Runtime(Protocol):
    """A trained model, ready to run on one or more videos at once; keeps nothing between calls.

    A state is whatever `detect` returned, None where all videos begin; only `rows_of`, `joined`,
    `to_arrays` and `from_arrays` look into it.
    """

    name: str  # torch, onnx
    classes: tuple[str, ...]
    device: str
    about: Mapping[str, Any]  # what it is: detector, cell, input_sides
    input_spec: InputSpec
    score_threshold: float  # detections below it are not returned; may be set

    def detect(
        self, images: Sequence[Picture], original_sizes: Sequence[tuple[int, int]], state: Any
    ) -> tuple[list[Detections], Any]:
        """The detections of the next frame of each video, and the new state.

        images: of one size, as `scaled` gives them; original_sizes: height and width of the
        frames that they were, in whose pixels the boxes are.
        """
        ...

    def rows_of(self, state: Any, count: int) -> list[Any]:
        """The state of each of the `count` videos on its own."""
        ...

    def joined(self, states: Sequence[Any]) -> Any:
        """States of one video each as one of all; None stands for a video that begins."""
        ...

    def to_arrays(self, state: Any) -> StateArrays | None:
        """A copy of the state as plain data."""
        ...

    def from_arrays(self, arrays: StateArrays | None) -> Any:
        """The state that `to_arrays` gave."""
        ...

    def fingerprint(self) -> str:
        """Hexadecimal sha256 of the weights."""
        ...


def scaled(image: Picture, spec: InputSpec) -> Picture:
    """The frame at the size of the network, still bytes: nothing larger is ever converted.

    Bilinear in whole numbers, as OpenCV does it, on every device, so that all runtimes and devices
    see the same pixels.
    """
    height, width = spec.scaled_hw(*image.shape[:2])
    return image if image.shape[:2] == (height, width) else resize(image, (height, width))
