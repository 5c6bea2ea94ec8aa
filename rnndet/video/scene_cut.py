"""Where a video cuts to another scene: what was remembered does not belong to what follows."""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

SIZE = 16  # cells across and down that an image is reduced to
BLANK = 1.0  # an image whose cells have a smaller standard deviation (of 255) shows nothing
DARK = 0.3  # nor does one that is darker than this share of the last one that showed something
PAST = 0.7  # weight of what was before in the running mean of differences


class SceneCut:
    """Compares each frame with the last one that showed something; cheap, online, no look ahead.

    Both are reduced to 16 x 16 cells and scaled to one brightness (median 128). A cut is where the
    median over the cells of their difference is above `threshold`, and above `ratio` times its
    running mean, so a fast pan is one at most (the rule of PySceneDetect's AdaptiveDetector,
    without its frames from the future). The median leaves alone what changes less than half of the
    image, such as an object that comes near; blank and very dark frames are passed over, so a
    dropout is no cut either, and the memory lasts through it.

    A new scene with nearly the colours of the old one, cell by cell, is not noticed.
    """

    def __init__(self, *, threshold: float = 4.0, ratio: float = 3.0) -> None:
        self.threshold, self.ratio = threshold, ratio
        self.reset()

    def reset(self) -> None:
        """Forget the last frame: the next one is no cut."""
        self._last: np.ndarray | None = None
        self._mean = 0.0  # of the differences, the last ones most

    def state_dict(self) -> dict[str, Any]:
        """What the next frame is compared with, as plain data and an array."""
        last = None if self._last is None else self._last.copy()
        return {"last": last, "mean": self._mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._last = None if state["last"] is None else state["last"].copy()
        self._mean = state["mean"]

    def update(self, image: np.ndarray) -> bool:
        """True if image (H, W, 3) uint8 is the first of another scene; once per frame."""
        cells = reduced(image)
        brightness = cells.mean()
        last = self._last
        if cells.mean(-1).std() < BLANK:
            return False
        if last is not None and brightness < DARK * last.mean():
            return False
        self._last = cells
        if last is None:
            return False
        difference = float(np.median(np.abs(levelled(cells) - levelled(last)).mean(-1)))
        is_cut = difference > max(self.threshold, self.ratio * self._mean)
        past = 0.0 if is_cut else PAST  # the first frame of a fast pan is one cut, and then none
        self._mean = past * self._mean + (1 - past) * difference
        return is_cut


def reduced(image: np.ndarray) -> np.ndarray:
    """(SIZE, SIZE, 3) float32 means of the cells, of every n-th pixel of a large image."""
    step = max(1, min(image.shape[:2]) // 256)
    small = cv2.resize(image[::step, ::step], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32)


def levelled(cells: np.ndarray) -> np.ndarray:
    """The cells at a median brightness of 128."""
    return cells * (128 / (np.median(cells.mean(-1)) + 1))
