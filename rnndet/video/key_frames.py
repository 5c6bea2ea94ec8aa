"""Run the model on key frames only, and propagate its boxes to the frames in between."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rnndet.boxes import clip
from rnndet.errors import RnndetError
from rnndet.structures import Detections

MIN_SCORE = 0.05  # boxes of a lower score stay in place: they are many, and seldom shown
MAX_BOXES = 20  # boxes with the highest scores are matched; the cost grows with their number
CONTEXT = 0.3  # of the size of a box, added on each side of the template for its outline ...
MAX_CONTEXT = 8  # ... in pixels at most
REACH = 8  # pixels around the expected position that are searched, in each direction ...
MAX_REACH_FACTOR = 4  # ... times the frames since the last one, where frames were lost
MIN_TEMPLATE = 4  # pixels; smaller templates match anywhere
MAX_TEMPLATE = 64  # pixels; larger templates are matched in a downscaled image
MIN_CORRELATION = 0.4  # for a match
MIN_CONTRAST = 1.0  # standard deviation of grey values, of 255, below which nothing is matched

Grey = NDArray[np.uint8]
Box = NDArray[np.float32]  # (4,) x1 y1 x2 y2


class KeyFrames:
    """Key frames of a video, and template matching that propagates boxes between them.

    A key frame is every `every`-th frame, and the first after a reset. In between, the boxes with
    the highest scores (`MAX_BOXES`) are matched: the template of each box in the key frame is
    located where the normalised cross-correlation (Lewis 1995, Fast normalized cross-correlation)
    is highest, near the position that its last motion predicts. Scores and labels stay the same; a
    box without a match stays in place. The temporal module of the model runs on key frames only.

    lost: a frame in which less than this share of the matched boxes, weighted by their scores, has
    a match becomes a key frame too (it is blurred, occluded or dropped, or an object has left); 0:
    never. Boxes of a few pixels match nearly anywhere.

    >>> keys = KeyFrames(every=5)
    >>> image = np.zeros((64, 64, 3), np.uint8)
    >>> keys.between(image, size_hw=(64, 64)) is None  # a key frame: run the model
    True
    >>> keys.keep(image, Detections.empty())
    >>> len(keys.between(image, size_hw=(64, 64)))
    0
    """

    def __init__(self, every: int, *, lost: float = 0.0) -> None:
        if not isinstance(every, Integral) or every < 1:
            raise RnndetError(f"key frames: every = {every}; expected 1 (all frames) or more")
        if not isinstance(lost, Real) or not 0 <= lost <= 1:
            raise RnndetError(f"key frames: lost = {lost}; expected a share from 0 to 1")
        self.every, self.lost = every, lost
        self.reset()

    def reset(self) -> None:
        """Make the next frame a key frame."""
        self._age = 0  # frames since the last key frame
        self._image: Grey | None = None  # (h, w), the last key frame
        self._detections: Detections | None = None  # of the last key frame
        self._offsets = np.zeros((0, 2), np.float32)  # of its boxes since then, frame pixels
        self._motion = np.zeros((0, 2), np.float32)  # of its boxes per frame

    @property
    def is_between(self) -> bool:
        """Whether the last frame was not a key frame."""
        return self._age > 0

    def state_dict(self) -> dict[str, Any]:
        """The state that the next frame depends on, as plain data and arrays."""
        kept = self._detections
        return {
            "age": self._age,
            "image": self._image,
            "found": None if kept is None else [kept.boxes, kept.scores, kept.labels],
            "offsets": self._offsets,
            "motion": self._motion,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of `state_dict`."""
        self._age, self._image = state["age"], state["image"]
        self._detections = None if state["found"] is None else Detections(*state["found"])
        self._offsets, self._motion = state["offsets"], state["motion"]

    def between(
        self, image: NDArray[np.uint8], *, size_hw: tuple[int, int], gap: int = 0
    ) -> Detections | None:
        """Propagate the detections to the next frame; None for a key frame, see `keep`.

        image: (h, w, 3) uint8 RGB, the frame at the input size of the network; size_hw: of the
        frame; gap: frames that were lost before it.
        """
        kept = self._detections
        if kept is None or self._image is None or self._age + 1 >= self.every:
            return None
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        scale = np.array(grey.shape[::-1], np.float32) / np.array(size_hw[::-1], np.float32)
        rows = np.flatnonzero(kept.scores >= MIN_SCORE)[:MAX_BOXES]
        offsets_px, is_matched = match_boxes(
            self._image,
            grey,
            kept.boxes[rows] * np.tile(scale, 2),
            (self._offsets + (1 + gap) * self._motion)[rows] * scale,
            reach=REACH * min(1 + gap, MAX_REACH_FACTOR),
        )
        if _share(is_matched, kept.scores[rows]) < self.lost:
            return None
        self._age += 1
        offsets = self._offsets.copy()
        offsets[rows[is_matched]] = offsets_px[is_matched] / scale
        self._motion = (offsets - self._offsets) / (1 + gap)
        self._offsets = offsets
        boxes = clip(kept.boxes + np.tile(offsets, 2), size_hw=size_hw)
        is_inside = (boxes[:, 2:] > boxes[:, :2]).all(1)
        return Detections(boxes, kept.scores, kept.labels)[is_inside]

    def keep(self, image: NDArray[np.uint8], detections: Detections) -> None:
        """Set the image and the detections of a key frame; scores in descending order."""
        self._age = 0
        self._image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        self._detections = Detections(
            detections.boxes.copy(), detections.scores.copy(), detections.labels.copy()
        )
        self._offsets = np.zeros((len(detections), 2), np.float32)
        self._motion = np.zeros((len(detections), 2), np.float32)


def choose_key_frames(every: int, lost: float = 0.0) -> KeyFrames | None:
    """`KeyFrames`, or None where every frame is a key frame. Raises RnndetError."""
    if every == 1 and lost:
        raise RnndetError(
            f"key frames: lost = {lost} has no effect where every frame is a key frame"
        )
    keys = KeyFrames(every, lost=lost)
    return None if every == 1 else keys


def match_boxes(
    before: Grey,
    after: Grey,
    boxes: NDArray[np.float32],
    expected: NDArray[np.float32],
    *,
    reach: int = REACH,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Offset of each box between two images, (D, 2) pixels, and whether it has a match, (D,).

    before, after: (h, w) uint8; boxes: (D, 4) in `before`; expected: (D, 2) offsets, which are also
    the result without a match; reach: how far around them to search, in pixels.
    """
    offsets, is_matched = expected.copy(), np.zeros(len(boxes), bool)
    for row, (box, offset) in enumerate(zip(boxes, expected, strict=True)):
        match = _match(before, after, box, np.rint(offset).astype(int), reach)
        if match is not None:
            offsets[row], is_matched[row] = match, True
    return offsets, is_matched


def _match(
    before: Grey, after: Grey, box: Box, expected: NDArray[np.int_], reach: int
) -> NDArray[np.float32] | None:
    """The offset of the best match of a box, (2,) pixels, or None."""
    height, width = before.shape
    context = np.clip(CONTEXT * (box[2:] - box[:2]), 1, MAX_CONTEXT)
    inside = (width - REACH, height - REACH)  # pixels at the border may leave the image
    start = np.clip(np.rint(box[:2] - context), REACH, inside).astype(int)  # x, y
    size = np.clip(np.rint(box[2:] + context), REACH, inside).astype(int) - start
    if size.min() < MIN_TEMPLATE:
        return None
    # Large templates are downscaled by whole blocks, on the same grid in both images.
    block = max(1, min(-(-size.max() // MAX_TEMPLATE), size.min() // MIN_TEMPLATE))
    size = size // block * block
    template = before[start[1] : start[1] + size[1], start[0] : start[0] + size[0]]
    if template.std() < MIN_CONTRAST:
        return None
    radius = -(-reach // block)  # blocks
    target = start + expected
    first = target - np.minimum(radius, target // block) * block  # of the search window
    room = ((width, height) - target - size) // block
    last = target + size + np.minimum(radius, room) * block
    if target.min() < 0 or room.min() < 0:  # the box leaves the image with its expected motion
        return expected.astype(np.float32)
    window = after[first[1] : last[1], first[0] : last[0]]
    if block > 1:
        template, window = (_downscale(part, block) for part in (template, window))
    correlation = cv2.matchTemplate(window, template, cv2.TM_CCOEFF_NORMED)
    _, best, _, (column, row) = cv2.minMaxLoc(correlation)
    if not best >= MIN_CORRELATION:  # NaN is no match either
        return None
    peak = np.array(
        (column + _peak(correlation[row], column), row + _peak(correlation[:, column], row))
    )
    return (first - start + block * peak).astype(np.float32)


def _downscale(part: Grey, block: int) -> Grey:
    height, width = part.shape
    return cv2.resize(part, (width // block, height // block), interpolation=cv2.INTER_AREA)


def _peak(line: NDArray[np.float32], at: int) -> float:
    """Sub-pixel offset of the maximum of a line: the vertex of the parabola through 3 points."""
    if not 0 < at < len(line) - 1:
        return 0.0
    before, here, after = map(float, line[at - 1 : at + 2])
    curvature = before - 2 * here + after
    return 0.0 if curvature >= 0 else min(max((before - after) / (2 * curvature), -0.5), 0.5)


def _share(mask: NDArray[np.bool_], weights: NDArray[np.float32]) -> float:
    """The share of the weights that is in the mask; 1 without weights."""
    return float(weights[mask].sum() / weights.sum()) if len(weights) else 1.0
