"""The annotated image of each frame of a video, with what was before: trails."""

from collections import deque
from collections.abc import Sequence

import numpy as np

from rnndet.errors import RnndetError
from rnndet.structures import Detections, FrameResult
from rnndet.video.draw import Point, draw

FORGOTTEN = 2  # a trail goes after its track has been away for this many times its length


class Annotator:
    """Draws the results of one video, in order; labels and scores are those of the tracks.

    trails: so many of the last centres of each track are drawn as a line; 0 = none. A trail ends
    where another scene begins.
    """

    def __init__(self, classes: Sequence[str], *, trails: int = 0) -> None:
        if trails < 0:
            raise RnndetError(f"trails = {trails}; expected a number of frames, 0 = none")
        self._classes, self._length = classes, trails
        self._trails: dict[int, deque[Point]] = {}
        self._seen: dict[int, int] = {}  # frames drawn when the track was last there
        self._count = 0

    def draw(self, result: FrameResult) -> np.ndarray:
        """A copy of the frame with everything that is shown, (H, W, 3) uint8 RGB."""
        trails = self._extend(result) if self._length else {}
        return draw(
            result.frame.image, result.shown, self._classes,
            predicted=result.predicted, trails=trails,
        )  # fmt: skip

    def _extend(self, result: FrameResult) -> dict[int, deque[Point]]:
        """The trails of the tracks that are in this frame."""
        if result.cut:
            self._trails.clear()
        self._count += 1
        present = []
        for found in (result.shown, result.predicted):
            for one, centre in _centres(found):
                self._trails.setdefault(one, deque(maxlen=self._length)).append(centre)
                self._seen[one] = self._count
                present.append(one)
        limit = self._count - FORGOTTEN * self._length
        self._seen = {one: seen for one, seen in self._seen.items() if seen >= limit}
        self._trails = {one: trail for one, trail in self._trails.items() if one in self._seen}
        return {one: self._trails[one] for one in present}


def _centres(found: Detections | None) -> list[tuple[int, Point]]:
    """Id and centre (x, y) of each box that has an id."""
    if found is None or found.ids is None:
        return []
    rows = zip(found.ids.tolist(), found.boxes.tolist(), strict=True)
    return [(one, ((x1 + x2) / 2, (y1 + y2) / 2)) for one, (x1, y1, x2, y2) in rows if one > 0]
