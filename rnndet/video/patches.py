"""Cut square grey patches of a fixed size out of a frame, one around each box."""

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 24  # pixels of a patch
CONTEXT = 1.25  # side of the square in the frame, in units of the longer side of the box
ANTIALIAS = 2.0  # frame pixels per patch pixel above which the frame is smoothed first
MARGIN = 2  # frame pixels around the square that bilinear sampling may read


def grey_patches(
    image: np.ndarray, boxes: NDArray[np.floating]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Patches (D, SIDE, SIDE) uint8, and the sides (D,) of their squares in pixels of the frame.

    image: (H, W, 3) uint8 RGB. The square of a box has its centre and CONTEXT times its longer
    side. Outside the frame, the pixels of its edge are repeated. Only the pixels around the boxes
    are converted to grey.

    >>> image = np.full((48, 64, 3), 90, np.uint8)
    >>> patches, sides = grey_patches(image, np.array([[20.0, 20, 36, 28]]))
    >>> patches.shape, int(patches[0, 12, 12]), sides.tolist()
    ((1, 24, 24), 90, [20.0])
    """
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    centres = (corners[:, :2] + corners[:, 2:]) / 2
    sides = CONTEXT * (corners[:, 2:] - corners[:, :2]).max(1, initial=1.0)  # 1 pixel at least
    patches = np.empty((len(corners), SIDE, SIDE), np.uint8)
    rows = zip(centres.tolist(), sides.tolist(), strict=True)
    for row, ((x, y), side) in enumerate(rows):  # few: the tracked objects of a frame
        patches[row] = _patch(image, x, y, side)
    return patches, sides


def _patch(image: np.ndarray, x: float, y: float, side: float) -> NDArray[np.uint8]:
    """The patch of the square with this centre and side."""
    step = side / SIDE  # frame pixels per patch pixel
    width = int(step) | 1 if step > ANTIALIAS else 1  # of the smoothing; odd keeps the centre
    reach = side / 2 + MARGIN + width
    left, right = _interval(x - reach, x + reach, image.shape[1])
    top, bottom = _interval(y - reach, y + reach, image.shape[0])
    grey = cv2.cvtColor(image[top:bottom, left:right], cv2.COLOR_RGB2GRAY)
    if width > 1:
        grey = cv2.blur(grey, (width, width), borderType=cv2.BORDER_REPLICATE)
    # the centre of patch pixel i lies at x - side / 2 + (i + .5) step; pixel centres are at + .5
    first_x, first_y = (at - side / 2 + step / 2 - 0.5 for at in (x - left, y - top))
    matrix = np.array([[step, 0, first_x], [0, step, first_y]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(grey, matrix, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _interval(low: float, high: float, length: int) -> tuple[int, int]:
    """The whole pixels of [low, high] inside the frame, at least one."""
    first = min(max(int(np.floor(low)), 0), length - 1)
    return first, min(max(int(np.ceil(high)), first + 1), length)
