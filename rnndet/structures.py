"""The nouns that travel between the parts: frames, detections, truths, results.

Letters used in every docstring: T frames in a clip, B clips in a batch, N = T*B images, C channels,
H W pixels or cells, K classes, D detections in one frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # nothing that runs an exported model may import torch
    import torch
    from torch import Tensor

DEFAULT_FPS = Fraction(25)


@dataclass(frozen=True, slots=True)
class Frame:
    """One image of a video."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    index: int  # 0-based position in its source
    time: float  # seconds since the first frame
    gap: int = 0  # frames of the source lost or passed over just before this one
    restart: bool = False  # what came before does not go on here, as after a lost connection


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What is known of a source before it is read; counts and rates may be wrong or absent."""

    name: str  # short, safe as a folder name
    source: str  # what the user gave
    width: int
    height: int
    fps: Fraction | None  # None where the source has no rate
    length: int | None  # a hint for progress bars only; None when unknown (camera)
    rotation: int = 0  # degrees by which the source says to turn its images; it has been done


@dataclass(frozen=True, slots=True)
class Detections:
    """Boxes found in one frame, as numpy arrays; with `ids` they are tracks."""

    boxes: NDArray[np.float32]  # (D, 4) x1 y1 x2 y2, pixels of the original frame; x2, y2 exclusive
    scores: NDArray[np.float32]  # (D,) in [0, 1], descending
    labels: NDArray[np.int64]  # (D,) index into the model's classes; background is not a class
    ids: NDArray[np.int64] | None = None  # (D,) unique in a video, from 1; None before tracking

    def __len__(self) -> int:
        return self.boxes.shape[0]

    def __getitem__(self, keep: NDArray) -> Detections:
        """Select by mask (D,) bool or by indices; every field at once."""
        ids = None if self.ids is None else self.ids[keep]
        return Detections(self.boxes[keep], self.scores[keep], self.labels[keep], ids)

    @staticmethod
    def empty() -> Detections:
        """No detections, without ids."""
        return Detections(
            np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
        )


@dataclass(frozen=True, slots=True)
class Target:
    """What is known to be in one frame. An empty Truth is a labelled frame that holds nothing."""

    boxes: Tensor  # (D, 4) float32, as in Detections
    labels: Tensor  # (D,) int64; -1 for an ignored region that belongs to no class
    ids: Tensor | None  # (D,) int64, object identity across the video
    ignore: Tensor  # (D,) bool: neither reward nor punish (crowd, distractors)

    def __len__(self) -> int:
        return self.boxes.shape[0]

    def __getitem__(self, keep: Tensor) -> Target:
        """Select by mask (D,) bool or by indices; every field at once."""
        ids = None if self.ids is None else self.ids[keep]
        return Target(self.boxes[keep], self.labels[keep], ids, self.ignore[keep])

    def to(self, device: torch.device | str) -> Target:
        ids = None if self.ids is None else self.ids.to(device)
        return Target(self.boxes.to(device), self.labels.to(device), ids, self.ignore.to(device))

    @staticmethod
    def empty() -> Target:
        """A labelled frame that holds nothing."""
        import torch

        none = torch.zeros(0, dtype=torch.int64)
        return Target(torch.zeros(0, 4), none, none, torch.zeros(0, dtype=torch.bool))


@dataclass(frozen=True, slots=True)
class FrameResult:
    """What a stream found in one frame."""

    frame: Frame
    detections: Detections  # with ids where the stream has a tracker
    cut: bool = False  # the first frame of another scene: memory and tracks began anew
    smoothed: Detections | None = (
        None  # the same boxes with their tracks' class and score, for show
    )
    predicted: Detections | None = None  # tracks without a detection, where they are expected
    propagated: bool = False  # no key frame: the boxes of an earlier frame, moved with the image

    @property
    def shown(self) -> Detections:
        """The detections as they are shown to people."""
        return self.detections if self.smoothed is None else self.smoothed
