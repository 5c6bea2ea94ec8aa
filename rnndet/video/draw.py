"""Draw detections, predicted boxes and trails on the frames of a video."""

import colorsys
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise

import cv2
import numpy as np

from rnndet.errors import RnndetError
from rnndet.structures import Counts, Detections, FrameResult
from rnndet.video.names import opencv_text

Point = tuple[float, float]
Colour = tuple[int, int, int]
Block = tuple[int, int, int, int]  # x1 y1 x2 y2 of a label in pixels, exclusive

TRAIL_MEMORY = 2  # a trail is removed when its track is away for this many times its length

_REGION_COLOUR = (255, 220, 0)  # of regions and lines
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_GOLDEN = 0.6180339887  # golden ratio: hues of consecutive numbers are far apart


class Annotator:
    """Draw the results of a video in order, with the smoothed classes and scores of tracks.

    trails: number of past centres of each track that are drawn as a line; 0 = none. Trails end at
    a scene cut. regions, lines: points by name, drawn with the counts of the result.

    >>> import numpy as np
    >>> from rnndet.structures import Frame
    >>> annotator = Annotator(["bird"], trails=20)
    >>> boxes = np.array([[10, 10, 30, 30]], np.float32)
    >>> detections = Detections(boxes, np.array([0.9]), np.array([0]), ids=np.array([1]))
    >>> frame = Frame(np.zeros((64, 64, 3), np.uint8), index=0, time=0.0)
    >>> annotator.draw(FrameResult(frame, detections)).shape
    (64, 64, 3)
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        trails: int = 0,
        regions: Mapping[str, Sequence[Point]] | None = None,
        lines: Mapping[str, Sequence[Point]] | None = None,
    ) -> None:
        if trails < 0:
            raise RnndetError(f"trails = {trails}; expected a number of frames, 0 = none")
        self._classes, self._length = classes, trails
        self._regions, self._lines = regions or {}, lines or {}
        self._trails: dict[int, deque[Point]] = {}  # by track id
        self._last_drawn: dict[int, int] = {}  # by track id: the number of the frame
        self._count = 0

    def draw(self, result: FrameResult) -> np.ndarray:
        """A copy of the frame with all annotations, (H, W, 3) uint8 RGB."""
        trails = self._extend(result) if self._length else {}
        image = draw(
            result.frame.image, result.shown, self._classes,
            predicted=result.predicted, trails=trails,
        )  # fmt: skip
        if result.counts is not None:
            _draw_counts(image, result.counts, self._regions, self._lines)
        return image

    def _extend(self, result: FrameResult) -> dict[int, deque[Point]]:
        """Add the centres of a frame to the trails; the trails of its tracks."""
        if result.cut:
            self._trails.clear()
        self._count += 1
        centres = [*_centres(result.shown), *_centres(result.predicted)]
        for track_id, centre in centres:
            self._trails.setdefault(track_id, deque(maxlen=self._length)).append(centre)
            self._last_drawn[track_id] = self._count
        oldest = self._count - TRAIL_MEMORY * self._length
        self._last_drawn = {k: number for k, number in self._last_drawn.items() if number >= oldest}
        self._trails = {k: trail for k, trail in self._trails.items() if k in self._last_drawn}
        return {track_id: self._trails[track_id] for track_id, _ in centres}


def draw(
    image: np.ndarray,
    detections: Detections,
    classes: Sequence[str],
    *,
    predicted: Detections | None = None,
    trails: Mapping[int, Sequence[Point]] | None = None,
) -> np.ndarray:
    """A copy of `image`, (H, W, 3) uint8 RGB, with the box, label, score and id of each detection.

    The colour follows the id, or the class without a track (id 0, or no ids), and is the same in
    every frame. Line width and font size grow with the image; labels are moved inside the image.

    predicted: boxes of tracks without a detection, drawn with thin dashes and without a score.
    trails: centres (x, y) by id in the order of time, drawn as a line that gets thicker.
    """
    canvas = np.ascontiguousarray(image).copy()
    line, font = _line_width(image.shape), _font_scale(image.shape)
    for track_id, points in (trails or {}).items():
        _draw_trail(canvas, points, colour_of(track_id), line)
    if predicted is not None:
        _draw_predicted(canvas, predicted, line, font)
    outlines = [_outline(box, line, image.shape) for box in _whole_pixels(detections.boxes)]
    labels = detections.labels.tolist()
    ids = [0] * len(labels) if detections.ids is None else detections.ids.tolist()
    colours = [colour_of(track or label) for track, label in zip(ids, labels, strict=True)]
    for k in reversed(range(len(detections))):  # the highest score on top
        x1, y1, x2, y2 = outlines[k]
        cv2.rectangle(canvas, (x1, y1), (x2, y2), colours[k], line)
    taken: list[Block] = []
    for k in range(len(detections)):  # the highest score gets the first choice of place
        text = f"{classes[labels[k]]} {float(detections.scores[k]):.2f}"
        if ids[k] > 0:  # 0 = no track yet
            text += f" #{ids[k]}"
        taken.append(_draw_label(canvas, outlines[k], text, colours[k], line, font, taken))
    return canvas


def colour_of(number: int) -> Colour:
    """A saturated RGB colour that is fixed for a number and differs between close numbers.

    >>> colour_of(1)
    (33, 64, 217)
    """
    hue = (number * _GOLDEN + 0.02) % 1.0
    value = (1.0, 0.85)[number % 2]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _centres(detections: Detections | None) -> list[tuple[int, Point]]:
    """Id and centre (x, y) of each box that has an id."""
    if detections is None or detections.ids is None:
        return []
    rows = zip(detections.ids.tolist(), detections.boxes.tolist(), strict=True)
    return [(k, ((x1 + x2) / 2, (y1 + y2) / 2)) for k, (x1, y1, x2, y2) in rows if k > 0]


def _draw_trail(canvas: np.ndarray, points: Sequence[Point], colour: Colour, line: int) -> None:
    places = _whole_pixels(np.asarray(points, float).reshape(-1, 2))
    for age, (a, b) in enumerate(pairwise(places), start=1):
        width = max(1, round(line * age / len(places)))
        cv2.line(canvas, a, b, colour, width, cv2.LINE_AA)


def _draw_counts(
    canvas: np.ndarray,
    counts: Counts,
    regions: Mapping[str, Sequence[Point]],
    lines: Mapping[str, Sequence[Point]],
) -> None:
    """Draw regions with the tracks in them, and lines with their crossings and an arrow.

    The arrow points from the middle of a line to its right.
    """
    line, font = _line_width(canvas.shape), _font_scale(canvas.shape)
    colour = _REGION_COLOUR
    for name, points in {**regions, **lines}.items():
        corners = np.round(np.asarray(points, float)).astype(np.int32)
        cv2.polylines(canvas, [corners], name in regions, colour, line, cv2.LINE_AA)
        if name in regions:
            text, (x, y) = f"{name}: {_numbers(counts.regions[name].inside)}", corners.min(0)
        else:
            x, y = corners.mean(0).astype(int).tolist()
            step = corners[1] - corners[0]
            across = np.array([-step[1], step[0]]) / np.hypot(*step) * 30 * line
            tip = (round(x + across[0]), round(y + across[1]))
            cv2.arrowedLine(canvas, (x, y), tip, colour, line, cv2.LINE_AA, tipLength=0.3)
            count = counts.lines[name]
            text = f"{name}: right {_numbers(count.to_right)}, left {_numbers(count.to_left)}"
        _draw_label(canvas, [int(x), int(y), int(x), int(y)], text, colour, line, 0.8 * font, ())


def _numbers(counts: Mapping[str, int]) -> str:
    return " ".join(f"{count} {name}" for name, count in counts.items()) or "0"


def _draw_predicted(canvas: np.ndarray, predicted: Detections, line: int, font: float) -> None:
    """Draw dashed boxes with their ids."""
    assert predicted.ids is not None, "only tracks are predicted"
    thin = max(1, line // 2)
    for box, track_id in zip(_whole_pixels(predicted.boxes), predicted.ids.tolist(), strict=True):
        colour = colour_of(track_id)
        x1, y1, x2, y2 = outline = _outline(box, thin, canvas.shape)
        for start, end in (
            ((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1)),
        ):  # fmt: skip
            _draw_dashes(canvas, start, end, colour, thin)
        _draw_label(canvas, outline, f"#{track_id}", colour, thin, 0.8 * font, ())


def _draw_dashes(
    canvas: np.ndarray, start: tuple[int, int], end: tuple[int, int], colour: Colour, line: int
) -> None:
    """Draw a line along x or y with dashes as long as the gaps between them."""
    length = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    count = max(1, round(length / (8 * line))) * 2 - 1  # odd: both corners are drawn
    edges = np.linspace(start, end, count + 1).round().astype(int)
    for a, b in zip(edges[:-1:2].tolist(), edges[1::2].tolist(), strict=True):
        cv2.line(canvas, a, b, colour, line)


def _draw_label(
    canvas: np.ndarray,
    outline: Sequence[int],
    text: str,
    colour: Colour,
    line: int,
    font: float,
    taken: Sequence[Block],
) -> Block:
    """Draw text on a coloured block near a box; the block."""
    height, width = canvas.shape[:2]
    stroke, pad, text = max(1, line // 2), max(1, line), opencv_text(text)
    (text_w, text_h), below = cv2.getTextSize(text, _FONT, font, stroke)
    if text_w + 2 * pad > width:
        font *= max(0.5, (width - 2 * pad) / text_w)
        (text_w, text_h), below = cv2.getTextSize(text, _FONT, font, stroke)
    block_w, block_h = text_w + 2 * pad, text_h + below + 2 * pad
    left, top = _free_place(outline, (block_w, block_h), (width, height), taken)
    block = (left, top, left + block_w, top + block_h)
    cv2.rectangle(canvas, block[:2], (block[2] - 1, block[3] - 1), colour, -1)
    red, green, blue = colour
    ink = (0, 0, 0) if 0.3 * red + 0.59 * green + 0.11 * blue > 110 else (255, 255, 255)
    origin = (left + pad, top + pad + text_h)
    cv2.putText(canvas, text, origin, _FONT, font, ink, stroke, cv2.LINE_AA)
    return block


def _free_place(
    outline: Sequence[int],
    block_wh: tuple[int, int],
    frame_wh: tuple[int, int],
    taken: Sequence[Block],
) -> tuple[int, int]:
    """Left and top of a block above, below or beside a box, at the position of least overlap.

    The block lies inside the frame if it fits. Of equal positions the first in this order is used.
    """
    x1, y1, x2, y2 = outline
    (block_w, block_h), (width, height) = block_wh, frame_wh
    candidates = [
        (x1, y1 - block_h),
        (x1, y2 + 1),
        (x2 + 1 - block_w, y1 - block_h),
        (x2 + 1 - block_w, y2 + 1),
        (x2 + 1, y1),
        (x1 - block_w, y1),
    ]
    places = [
        (max(0, min(x, width - block_w)), max(0, min(y, height - block_h))) for x, y in candidates
    ]

    def covered(place: tuple[int, int]) -> int:
        """Pixels of other labels and of the box itself under the block."""
        x, y = place
        total = 0
        for a1, b1, a2, b2 in [*taken, (x1, y1, x2 + 1, y2 + 1)]:
            across, down = min(x + block_w, a2) - max(x, a1), min(y + block_h, b2) - max(y, b1)
            total += max(0, across) * max(0, down)
        return total

    return min(places, key=covered)


def _outline(box: Sequence[int], line: int, shape: Sequence[int]) -> list[int]:
    """First and last pixel, inclusive, of a rectangle around `box` that covers nothing inside."""
    height, width = shape[:2]
    x1, y1 = (
        min(max(edge - line, 0), size - 1)
        for edge, size in zip(box[:2], (width, height), strict=True)
    )
    x2, y2 = (
        min(max(edge - 1 + line, 0), size - 1)
        for edge, size in zip(box[2:], (width, height), strict=True)
    )
    return [x1, y1, x2, y2]


def _whole_pixels(values: np.ndarray) -> list[list[int]]:
    return np.round(values).astype(int).tolist()


def _line_width(shape: Sequence[int]) -> int:
    return max(1, round(min(shape[:2]) / 360))


def _font_scale(shape: Sequence[int]) -> float:
    return max(0.34, min(shape[:2]) / 1000)
