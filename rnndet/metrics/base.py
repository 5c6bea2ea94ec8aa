"""What every metric offers."""

from typing import Protocol, Self

from rnndet.structures import Detections, Truth


class Evaluator(Protocol):
    """Accumulates frames in any order; a frame is named by its video and its index."""

    def update(self, video: str, index: int, predicted: Detections, truth: Truth) -> None:
        """Add one labelled frame. Unlabelled frames are never given."""
        ...

    def merge(self, other: Self) -> None:
        """Add the frames of another evaluator; exact, because no frame is in both."""
        ...

    def compute(self) -> dict[str, float]:
        """The numbers of all frames so far; NaN where the truths do not define one."""
        ...
