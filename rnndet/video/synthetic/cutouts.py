"""Cut labelled objects out of photographs."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

MIN_SIDES = (20, 40)  # pixels, of the shorter and the longer side of an object to cut out
EDGE = 3  # pixels; an object nearer to the edge of its photograph may be cut off there
OVERLAP = 0.1  # largest part of the box that may be covered by the box of another object
WORKING_SIDE = 200  # pixels; the outline is found on a smaller image of the object
STEPS = 4  # of GrabCut
MIN_BACKGROUND = 50  # pixels around the box, from which GrabCut learns the background
MIN_IOU, MIN_SHARE = 0.8, 0.3  # of an outline with its box; a worse one has lost the object
SOFT = 0.12  # of the shorter side: width of the soft edge of an object cut out by its box
PADDING = 2  # transparent pixels around a cut-out, so that it can be interpolated


@dataclass(frozen=True, slots=True)
class Cutout:
    """An object cut out of a photograph."""

    pixels: np.ndarray  # (h, w, 4) float32: RGB in 0..255 times alpha, and alpha in [0, 1]
    box: np.ndarray  # (4,) x1 y1 x2 y2 of the opaque part of `pixels`
    label: int
    has_outline: bool  # False: cut out by its box with soft edges


def whole_objects(boxes: np.ndarray, ignore: np.ndarray, size_hw: tuple[int, int]) -> Iterator[int]:
    """Yield the rows of boxes (D, 4) of objects that can be cut out of a photograph of `size_hw`.

    These are large enough, do not touch the edge and have no other object in their box, which
    would move with them without a label.
    """
    height, width = size_hw
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)  # (D, D) area
    np.fill_diagonal(shared, 0)
    for row, (x1, y1, x2, y2) in enumerate(boxes):
        sides = sorted((x2 - x1, y2 - y1))
        inside = min(x1, y1, width - x2, height - y2) >= EDGE
        alone = shared[row].max() <= OVERLAP * sides[0] * sides[1]
        if inside and alone and not ignore[row] and (np.array(sides) >= MIN_SIDES).all():
            yield row


def cut_out(image: np.ndarray, box: np.ndarray, label: int) -> Cutout:
    """Cut the object in `box` (4,) out of a photograph, (H, W, 3) uint8.

    The outline is found by GrabCut (Rother et al., SIGGRAPH 2004), which is given the box. Where
    the outline does not fill the box, the object is cut out by its box with soft edges.
    """
    x1, y1, x2, y2 = np.round(box).astype(int)
    outline = _outline(image, (x1, y1, x2, y2))
    alpha = _soft_box(y2 - y1, x2 - x1) if outline is None else outline
    pixels = np.dstack([image[y1:y2, x1:x2] * alpha[..., None], alpha]).astype(np.float32)
    pixels = cv2.copyMakeBorder(pixels, *[PADDING] * 4, cv2.BORDER_CONSTANT)
    opaque = pixels[..., 3] >= 0.5
    columns, rows = np.flatnonzero(opaque.any(0)), np.flatnonzero(opaque.any(1))
    tight = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)
    return Cutout(pixels, tight, label, outline is not None)


def _outline(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray | None:
    """The alpha of the object in its box; None if GrabCut does not find it."""
    x1, y1, x2, y2 = box
    margin = 4 + round(0.15 * max(x2 - x1, y2 - y1))  # of background around the object
    left, top = max(0, x1 - margin), max(0, y1 - margin)
    part = image[top : y2 + margin, left : x2 + margin]
    factor = min(1.0, WORKING_SIDE / max(part.shape[:2]))
    small = cv2.resize(part, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    a, b, c, d = np.round(np.array([x1 - left, y1 - top, x2 - left, y2 - top]) * factor).astype(int)
    mask = np.zeros(small.shape[:2], np.uint8)
    if mask.size - (c - a) * (d - b) < MIN_BACKGROUND:
        return None
    cv2.setRNGSeed(0)  # GrabCut clusters colours from a random start
    models = np.zeros((2, 1, 65))
    cv2.grabCut(
        small, mask, (a, b, c - a, d - b), models[0], models[1], STEPS, cv2.GC_INIT_WITH_RECT
    )
    found = _large_parts((mask & 1)[b:d, a:c])
    columns, rows = np.flatnonzero(found.any(0)), np.flatnonzero(found.any(1))
    filled = len(columns) and np.ptp(columns[[0, -1]]) * np.ptp(rows[[0, -1]]) / found.size
    if filled < MIN_IOU or found.mean() < MIN_SHARE:
        return None
    alpha = cv2.resize(found.astype(np.float32), (x2 - x1, y2 - y1), interpolation=cv2.INTER_CUBIC)
    alpha = cv2.GaussianBlur(alpha, (0, 0), max(0.6, 0.4 / factor))
    return np.clip(2 * alpha - 0.7, 0, 1)  # half opaque at 0.6: a little inside the outline


def _large_parts(mask: np.ndarray) -> np.ndarray:
    """The connected parts of a mask, without those below a tenth of the largest."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask)
    areas = stats[1:count, cv2.CC_STAT_AREA]
    large = 1 + np.flatnonzero(areas >= 0.1 * areas.max(initial=1))
    return np.isin(parts, large)


def _soft_box(height: int, width: int) -> np.ndarray:
    """Alpha that rises from 0 at the edges of a box to 1 inside."""
    soft = SOFT * min(height, width)
    rows, columns = (np.arange(n) + 0.5 for n in (height, width))
    down, across = (np.clip(np.minimum(x, n - x) / soft, 0, 1)
                    for x, n in ((rows, height), (columns, width)))  # fmt: skip
    return down[:, None] * across
