"""Detect scene cuts online, so that recurrent state and tracks can be reset there."""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

SIZE = 16  # cells across and down that an image is reduced to
BLANK = 1.0  # standard deviation of the cells (of 255) below which an image is blank
DARK = 0.3  # brightness, relative to the last frame that was compared, below which it is dark
PAST = 0.7  # weight of past differences in their running mean


class SceneCut:
    """Scene cut detector that compares each frame with the one before; online and cheap.

    Both frames are reduced to 16 x 16 cells and scaled to a median brightness of 128. A cut is
    where the median difference of the cells is above `threshold`, and above `ratio` times its
    running mean, so that a fast pan gives a single cut at most (the rule of PySceneDetect's
    AdaptiveDetector, without its future frames). The median ignores changes in less than half of
    the image, such as an object that comes near. Blank and very dark frames are not compared, so
    a dropout is not a cut and the recurrent state survives it.

    A new scene with nearly the same colours in each cell is not detected.

    >>> cuts = SceneCut()
    >>> left = np.zeros((64, 64, 3), np.uint8)
    >>> left[:, :32] = 255
    >>> [cuts.update(image) for image in (left, left, 255 - left)]
    [False, False, True]
    """

    def __init__(self, *, threshold: float = 4.0, ratio: float = 3.0) -> None:
        self.threshold, self.ratio = threshold, ratio
        self.reset()

    def reset(self) -> None:
        """Forget the last frame; the next frame is not a cut."""
        self._last: np.ndarray | None = None
        self._mean = 0.0  # running mean of the differences

    def state_dict(self) -> dict[str, Any]:
        """The state that the next frame is compared with, as plain data and an array."""
        last = None if self._last is None else self._last.copy()
        return {"last": last, "mean": self._mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of `state_dict`."""
        self._last = None if state["last"] is None else state["last"].copy()
        self._mean = state["mean"]

    def reduced(self, image: np.ndarray) -> np.ndarray:
        """What `update` compares of an image; does not change the state."""
        return reduce_to_cells(image)

    def update(self, image: np.ndarray, cells: np.ndarray | None = None) -> bool:
        """Whether an image, (H, W, 3) uint8, is the first of a new scene; call once per frame.

        cells: the result of `reduced`, if it was computed before.
        """
        cells = self.reduced(image) if cells is None else cells
        brightness = cells.mean()
        last = self._last
        if cells.mean(-1).std() < BLANK:
            return False
        if last is not None and brightness < DARK * last.mean():
            return False
        self._last = cells
        if last is None:
            return False
        difference = float(np.median(np.abs(normalise(cells) - normalise(last)).mean(-1)))
        is_cut = difference > max(self.threshold, self.ratio * self._mean)
        past = 0.0 if is_cut else PAST  # a fast pan is a cut at its first frame only
        self._mean = past * self._mean + (1 - past) * difference
        return is_cut


def reduce_to_cells(image: np.ndarray) -> np.ndarray:
    """(SIZE, SIZE, 3) float32 means of the cells; of every n-th pixel of a large image."""
    step = max(1, min(image.shape[:2]) // 256)
    whole = np.ascontiguousarray(image).view("V3")  # copying pixels takes half of copying bytes
    chosen = np.ascontiguousarray(whole[::step, ::step]).view(np.uint8)
    small = cv2.resize(chosen, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32)


def normalise(cells: np.ndarray) -> np.ndarray:
    """Scale the cells to a median brightness of 128."""
    return cells * (128 / (np.median(cells.mean(-1)) + 1))
