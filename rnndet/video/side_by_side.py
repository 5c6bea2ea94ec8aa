"""Join two annotated frames side by side, each under a bar with its caption."""

from collections.abc import Sequence

import cv2
import numpy as np

from rnndet.video.names import opencv_text

DARK, RED, WHITE = (40, 40, 40), (190, 30, 30), (255, 255, 255)
LONGEST = "corrupted: motion blur"  # the font leaves room for it in every frame
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def side_by_side(
    images: Sequence[np.ndarray], captions: Sequence[str], *, corruption: str | None = None
) -> np.ndarray:
    """The images in a row, (H + `bar_height(H)`, sum of widths, 3) uint8 RGB.

    images: (H, W, 3) uint8 RGB each, of one size. captions: one for each image, on the left of the
    bar above it. corruption: the kind of a corrupted frame; the bars turn red and name it.

    >>> side_by_side([np.zeros((60, 80, 3), np.uint8)] * 2, ["left", "right"]).shape
    (84, 160, 3)
    """
    mark = "" if corruption is None else f"corrupted: {corruption.replace('_', ' ')}"
    captions = [opencv_text(caption) for caption in captions]
    font = min(_font(image.shape, text) for image, text in zip(images, captions, strict=True))
    halves = [
        np.concatenate([_bar(image.shape, caption, mark, font), image])
        for image, caption in zip(images, captions, strict=True)
    ]
    return np.concatenate(halves, axis=1)


def bar_height(height: int) -> int:
    """The height in pixels of the bar above an image."""
    return max(24, height // 10)


def _font(shape: Sequence[int], caption: str) -> float:
    """The largest font, up to half the bar, with which a caption and the longest mark fit."""
    height, width = bar_height(shape[0]), shape[1]
    font = height / 50
    while font > 0.1 and sum(_size(text, font)[0] for text in (caption, LONGEST)) + height > width:
        font *= 0.95  # widths do not grow in proportion to the font
    return font


def _bar(shape: Sequence[int], caption: str, mark: str, font: float) -> np.ndarray:
    """A bar as wide as an image of `shape`, with the caption on the left, the mark on the right."""
    height, width = bar_height(shape[0]), shape[1]
    bar = np.full((height, width, 3), RED if mark else DARK, np.uint8)
    gap = height // 3
    baseline = (height + _size(LONGEST, font)[1]) // 2
    right = width - gap - _size(mark, font)[0]
    for text, left in ((caption, gap), (mark, right)):
        cv2.putText(bar, text, (left, baseline), _FONT, font, WHITE, 1, cv2.LINE_AA)
    return bar


def _size(text: str, font: float) -> tuple[int, int]:
    """Width and height of a text in pixels."""
    (width, height), _ = cv2.getTextSize(text, _FONT, font, 1)
    return width, height
