"""Data types shared by all packages: frames, detections, targets and results.

Shape letters in every docstring: T frames in a clip, B clips in a batch, N = T*B images,
C channels, H W pixels or cells, K classes, D detections in one frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rnndet.errors import RnndetError

if TYPE_CHECKING:  # nothing that runs an exported model may import torch
    import torch
    from torch import Tensor

DEFAULT_FPS = Fraction(25)  # of a source that reports no frame rate


@dataclass(frozen=True, slots=True)
class Frame:
    """One image of a video."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    index: int  # 0-based position in its source
    time: float  # seconds since the first frame
    gap: int = 0  # frames of the source lost or skipped just before this frame
    restart: bool = False  # not a continuation of the frames before, as after a lost connection


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Metadata of a source before it is read; counts and rates may be wrong or absent."""

    name: str  # short, safe as a folder name
    source: str  # the path, URL or number that the user gave, without passwords
    width: int
    height: int
    fps: Fraction | None  # None where the source has no rate
    length: int | None  # a hint for progress bars only; None if unknown (camera)
    rotation: int = 0  # degrees, from the metadata of the source; already applied to its frames
    # width / height of a pixel of the upright frames; None: square, or not stated
    sample_aspect: Fraction | None = None


@dataclass(frozen=True, slots=True)
class Detections:
    """Detected boxes of one frame as numpy arrays; with `ids` they are tracks.

    >>> import numpy as np
    >>> detections = Detections(
    ...     boxes=np.array([[0, 0, 8, 4], [2, 2, 6, 6]], np.float32),
    ...     scores=np.array([0.9, 0.4], np.float32),
    ...     labels=np.array([1, 0]),
    ... )
    >>> detections[detections.scores > 0.5].labels
    array([1])
    """

    boxes: NDArray[np.float32]  # (D, 4) x1 y1 x2 y2, pixels of the original frame; x2, y2 exclusive
    scores: NDArray[np.float32]  # (D,) in [0, 1], descending
    labels: NDArray[np.int64]  # (D,) index into the classes of the model, without a background
    # (D,) unique in a video, from 1; 0 for a detection without a track; None before tracking
    ids: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self.boxes.shape[0]

    def __getitem__(self, keep: NDArray[np.bool_ | np.integer]) -> Detections:
        """Select by mask (D,) bool or by indices; every field at once."""
        ids = None if self.ids is None else self.ids[keep]
        return Detections(self.boxes[keep], self.scores[keep], self.labels[keep], ids)

    def to_supervision(self, classes: Sequence[str] | None = None) -> Any:
        """The same boxes as `supervision.Detections`; a detection without a track has id 0.

        classes: of the model; adds "class_name" to its data. Raises RnndetError without the
        package supervision.
        """
        try:
            import supervision
        except ImportError as error:
            raise RnndetError(
                f"to_supervision: needs supervision; pip install 'rnndet[supervision]' ({error})"
            ) from None
        data = {}
        if classes is not None:
            if len(self) and self.labels.max() >= len(classes):
                raise RnndetError(
                    f"to_supervision: classes has {len(classes)} names, and a detection has the "
                    f"label {self.labels.max()}; pass the classes of the model"
                )
            data["class_name"] = np.array([classes[label] for label in self.labels.tolist()], str)
        return supervision.Detections(
            xyxy=self.boxes, confidence=self.scores, class_id=self.labels,
            tracker_id=self.ids, data=data,
        )  # fmt: skip

    @staticmethod
    def empty() -> Detections:
        """No detections, without ids."""
        return Detections(
            np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
        )


class Role(IntEnum):
    """What a labelled box does in tracking metrics."""

    COUNTED = 0  # an object of its class
    DISTRACTOR = 1  # matched together with the counted; its detection is removed with it
    UNCOUNTED = 2  # matched together with the counted and removed; its detection stays
    REGION = 3  # removes every unmatched detection of which more than half lies inside


@dataclass(frozen=True, slots=True)
class TrackingTarget:
    """Ground truth of one frame for tracking metrics: G boxes as labelled, not clipped.

    It has the objects of the `Target` and others that only take part in matching: those outside
    the image and those of other classes.
    """

    boxes: NDArray[np.float64]  # (G, 4) as in Detections; may leave the image
    labels: NDArray[np.int64]  # (G,); -1: applies to all classes
    ids: NDArray[np.int64]  # (G,) identity; -1 = unknown
    roles: NDArray[np.int8]  # (G,) of `Role`
    rows: NDArray[np.int64]  # (G,) row of the same box in the `Target`; -1: not there
    min_height: float = 0.0  # unmatched detections of at most this height are removed


@dataclass(frozen=True, slots=True)
class DetectionLimits:
    """Which detections of an image a model returns; a stream has its own, the model keeps none."""

    min_score: float  # only higher scores, in [0, 1]
    nms_threshold: float | None = None  # IoU in [0, 1], see `HeadSpec`; None: that of the model


@dataclass(frozen=True, slots=True)
class Target:
    """Ground truth of one frame. An empty target is a labelled frame without objects."""

    boxes: Tensor  # (D, 4) float32, as in Detections
    labels: Tensor  # (D,) int64; -1 for an ignored region that belongs to no class
    ids: Tensor | None  # (D,) int64, identity of the object across the video
    ignore: Tensor  # (D,) bool: neither positive nor negative (crowds, distractors)
    tracking: TrackingTarget | None = None  # where tracking metrics need other boxes than these

    def __len__(self) -> int:
        return self.boxes.shape[0]

    def __getitem__(self, keep: Tensor) -> Target:
        """Select by mask (D,) bool or by indices; every field at once, without `tracking`."""
        ids = None if self.ids is None else self.ids[keep]
        return Target(self.boxes[keep], self.labels[keep], ids, self.ignore[keep])

    def to(self, device: torch.device | str) -> Target:
        """The same target with its tensors on a device."""
        ids = None if self.ids is None else self.ids.to(device)
        boxes, labels, ignore = (x.to(device) for x in (self.boxes, self.labels, self.ignore))
        return Target(boxes, labels, ids, ignore, self.tracking)

    @staticmethod
    def empty() -> Target:
        """The target of a labelled frame without objects."""
        import torch

        empty = torch.zeros(0, dtype=torch.int64)
        return Target(torch.zeros(0, 4), empty, empty, torch.zeros(0, dtype=torch.bool))


@dataclass(frozen=True, slots=True)
class RegionCount:
    """Tracks in a region, by class; `rnndet.inference.counting` has the rules."""

    inside: dict[str, int]  # in this frame
    outside: dict[str, int]  # in this frame, but not in the region
    entered: dict[str, int]  # so far
    left: dict[str, int]  # so far


@dataclass(frozen=True, slots=True)
class LineCount:
    """Crossings of a line so far, by class."""

    to_left: dict[str, int]
    to_right: dict[str, int]


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of a frame, by the names of regions and lines."""

    regions: dict[str, RegionCount]
    lines: dict[str, LineCount]


@dataclass(frozen=True, slots=True)
class FrameResult:
    """Output of a stream for one frame."""

    frame: Frame
    detections: Detections  # with ids where the stream has a tracker
    cut: bool = False  # the first frame of a new scene: recurrent state and tracks were reset
    # the same boxes with the class and score of their tracks, for display
    smoothed: Detections | None = None
    predicted: Detections | None = None  # tracks without a detection, at their predicted boxes
    propagated: bool = False  # not a key frame: boxes of an earlier frame, moved with the image
    counts: Counts | None = None  # of the regions and lines, if the stream has any
    source: str | None = None  # path or URL of the video, as given; None for frames from elsewhere

    @property
    def shown(self) -> Detections:
        """The detections to display: smoothed if the stream smooths tracks."""
        return self.detections if self.smoothed is None else self.smoothed
