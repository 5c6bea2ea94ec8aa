"""Key frames: the model looks at some of the frames, and in those between its boxes follow the
image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rnndet.boxes import clip
from rnndet.errors import RnndetError
from rnndet.structures import Detections

FLOOR = 0.05  # boxes of a lower score stay where they are: they are many, and seldom shown
MOST = 20  # boxes that are followed, those of the highest scores; the cost grows with them
AROUND = 0.3  # of its size on every side of a box that is looked for with it: its outline ...
MARGIN = 8  # ... but at most so many pixels
REACH = 8  # pixels from where a box is expected, in each direction, that it is looked for ...
LONGEST = 4  # ... times the frames since the last one, which are more where frames were lost
SMALLEST = 4  # pixels; nothing smaller can be told from anything else
LARGEST = 64  # pixels; what is larger is looked for in a smaller image
ALIKE = 0.4  # correlation from which on a box is found again
PLAIN = 1.0  # standard deviation of grey values, of 255, under which there is nothing to look for

Grey = NDArray[np.uint8]
Box = NDArray[np.float32]  # (4,) x1 y1 x2 y2


class KeyFrames:
    """Which frames the model sees, and what is reported of the others; one video at a time.

    A key frame is every `every`-th one, and the first after a reset. Between two of them the best
    boxes (`MOST`) are looked for: what was in each in the key frame is found again where the
    normalised cross-correlation (Lewis 1995, Fast normalized cross-correlation) is highest, near
    where its last motion between two such frames leads to. Scores and labels stay, and so does a
    box that is not found. The model's memory sees the key frames alone.

    lost: a frame in which less than this share of those boxes, weighted by their scores, is found
    again is a key frame too (it is blurred, covered or dropped, or an object has gone); 0: never.
    Something like a box of a few pixels is found nearly everywhere.
    """

    def __init__(self, every: int, *, lost: float = 0.0) -> None:
        if every < 1:
            raise RnndetError(f"key frames: every = {every}; expected 1 (all frames) or more")
        if not 0 <= lost <= 1:
            raise RnndetError(f"key frames: lost = {lost}; expected a share from 0 to 1")
        self.every, self.lost = every, lost
        self.reset()

    def reset(self) -> None:
        """The next frame is a key frame."""
        self._age = 0  # frames since the last key frame
        self._image: Grey | None = None  # (h, w), the last key frame
        self._found: Detections | None = None  # in it
        self._offsets = np.zeros((0, 2), np.float32)  # how far its boxes have moved since, frame px
        self._motion = np.zeros((0, 2), np.float32)  # by how much of that from frame to frame

    @property
    def is_between(self) -> bool:
        """Whether the last frame was no key frame."""
        return self._age > 0

    def state_dict(self) -> dict[str, Any]:
        """What the next frame depends on, as plain data and arrays."""
        found = self._found
        return {
            "age": self._age,
            "image": self._image,
            "found": None if found is None else [found.boxes, found.scores, found.labels],
            "offsets": self._offsets,
            "motion": self._motion,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._age, self._image = state["age"], state["image"]
        self._found = None if state["found"] is None else Detections(*state["found"])
        self._offsets, self._motion = state["offsets"], state["motion"]

    def between(
        self, image: NDArray[np.uint8], *, size_hw: tuple[int, int], gap: int = 0
    ) -> Detections | None:
        """The detections of the next frame; None: it is a key frame, see `keep`.

        image: (h, w, 3) uint8 RGB, the frame at the size of the network; size_hw: of the frame;
        gap: frames that were lost before it.
        """
        if self._found is None or self._image is None or self._age + 1 >= self.every:
            return None
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        scale = np.array(grey.shape[::-1], np.float32) / np.array(size_hw[::-1], np.float32)
        chosen = np.flatnonzero(self._found.scores >= FLOOR)[:MOST]
        places, is_found = follow(
            self._image,
            grey,
            self._found.boxes[chosen] * np.tile(scale, 2),
            (self._offsets + (1 + gap) * self._motion)[chosen] * scale,
            reach=REACH * min(1 + gap, LONGEST),
        )
        if _share(is_found, self._found.scores[chosen]) < self.lost:
            return None
        self._age += 1
        seen = chosen[is_found]
        offsets = self._offsets.copy()
        offsets[seen] = places[is_found] / scale
        self._motion = (offsets - self._offsets) / (1 + gap)
        self._offsets = offsets
        boxes = clip(self._found.boxes + np.tile(offsets, 2), size_hw=size_hw)
        is_there = (boxes[:, 2:] > boxes[:, :2]).all(1)  # what has left the image is not
        return Detections(boxes, self._found.scores, self._found.labels)[is_there]

    def keep(self, image: NDArray[np.uint8], found: Detections) -> None:
        """Follow what the model found in a key frame; scores descending."""
        self._age = 0
        self._image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        self._found = Detections(found.boxes.copy(), found.scores.copy(), found.labels.copy())
        self._offsets = np.zeros((len(found), 2), np.float32)
        self._motion = np.zeros((len(found), 2), np.float32)


def choose_key_frames(every: int, lost: float = 0.0) -> KeyFrames | None:
    """`KeyFrames`, None where every frame is one. Raises RnndetError."""
    if every == 1 and lost:
        raise RnndetError(f"key frames: lost = {lost} says nothing where every frame is one")
    keys = KeyFrames(every, lost=lost)
    return None if every == 1 else keys


def follow(
    before: Grey,
    after: Grey,
    boxes: NDArray[np.float32],
    expected: NDArray[np.float32],
    *,
    reach: int = REACH,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """How far each box is from one image to another, (D, 2) pixels, and whether it was found.

    before, after: (h, w) uint8; boxes: (D, 4) in before; expected: (D, 2), about how far, which is
    the answer for what is not found; reach: how wrong that may be, in pixels.
    """
    offsets, is_found = expected.copy(), np.zeros(len(boxes), bool)
    for number, (box, about) in enumerate(zip(boxes, expected, strict=True)):
        offset = _find(before, after, box, np.rint(about).astype(int), reach)
        if offset is not None:
            offsets[number], is_found[number] = offset, True
    return offsets, is_found


def _find(
    before: Grey, after: Grey, box: Box, about: NDArray[np.int_], reach: int
) -> NDArray[np.float32] | None:
    height, width = before.shape
    margin = np.clip(AROUND * (box[2:] - box[:2]), 1, MARGIN)
    inside = (width - REACH, height - REACH)  # what touches the edge may have left a moment later
    start = np.clip(np.rint(box[:2] - margin), REACH, inside).astype(int)  # x, y
    size = np.clip(np.rint(box[2:] + margin), REACH, inside).astype(int) - start
    if size.min() < SMALLEST:
        return None
    # Large ones in a smaller image of whole blocks, which both images must begin alike.
    block = max(1, min(-(-size.max() // LARGEST), size.min() // SMALLEST))
    size = size // block * block
    wanted = before[start[1] : start[1] + size[1], start[0] : start[0] + size[0]]
    if wanted.std() < PLAIN:
        return None
    around = -(-reach // block)  # blocks
    there = start + about
    first = there - np.minimum(around, there // block) * block  # of the search
    room = ((width, height) - there - size) // block
    last = there + size + np.minimum(around, room) * block
    if there.min() < 0 or room.min() < 0:  # it is leaving the image: it goes on as it did
        return about.astype(np.float32)
    where = after[first[1] : last[1], first[0] : last[0]]
    if block > 1:
        wanted, where = (_smaller(part, block) for part in (wanted, where))
    alike = cv2.matchTemplate(where, wanted, cv2.TM_CCOEFF_NORMED)
    _, best, _, (column, row) = cv2.minMaxLoc(alike)
    if not best >= ALIKE:  # also if it is no number
        return None
    place = np.array((column + _peak(alike[row], column), row + _peak(alike[:, column], row)))
    return (first - start + block * place).astype(np.float32)


def _smaller(part: Grey, block: int) -> Grey:
    height, width = part.shape
    return cv2.resize(part, (width // block, height // block), interpolation=cv2.INTER_AREA)


def _peak(line: NDArray[np.float32], at: int) -> float:
    """Where between its neighbours the maximum of a line lies: that of a parabola through three."""
    if not 0 < at < len(line) - 1:
        return 0.0
    before, here, after = map(float, line[at - 1 : at + 2])
    bend = before - 2 * here + after
    return 0.0 if bend >= 0 else min(max((before - after) / (2 * bend), -0.5), 0.5)


def _share(chosen: NDArray[np.bool_], weights: NDArray[np.float32]) -> float:
    """The part of the weights that is chosen; 1 of nothing."""
    return float(weights[chosen].sum() / weights.sum()) if len(weights) else 1.0
