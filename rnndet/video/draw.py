"""Draw boxes, labels and ids onto an image."""

import colorsys
from collections.abc import Mapping, Sequence
from itertools import pairwise

import cv2
import numpy as np

from rnndet.structures import Detections

Point = tuple[float, float]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_GOLDEN = 0.6180339887  # steps around the colour circle that never come close to each other soon


def draw(
    image: np.ndarray,
    detections: Detections,
    classes: Sequence[str],
    *,
    predicted: Detections | None = None,
    trails: Mapping[int, Sequence[Point]] | None = None,
) -> np.ndarray:
    """A copy of `image`, (H, W, 3) uint8 RGB, with each detection's box, label, score and id.

    Colour follows the id, or the class where there is no track (id 0, or no ids), and is the same
    in every frame.
    Lines and letters grow with the image; text is moved so that it stays inside.

    predicted: boxes that were not seen, drawn in thin dashes and without a score. trails: centres
    (x, y) of each id in the order of time, drawn as a line that gets thicker.
    """
    canvas = np.ascontiguousarray(image).copy()
    line, font = _line_width(image.shape), _font_scale(image.shape)
    for track, points in ({} if trails is None else trails).items():
        _draw_trail(canvas, points, colour_of(track), line)
    if predicted is not None:
        _draw_predicted(canvas, predicted, line, font)
    boxes = np.round(detections.boxes).astype(int).tolist()
    order = list(reversed(range(len(detections))))  # the surest on top
    labels = detections.labels.tolist()
    ids = [0] * len(labels) if detections.ids is None else detections.ids.tolist()
    keys = [track or label for track, label in zip(ids, labels, strict=True)]
    for k in order:
        boxes[k] = _frame_around(boxes[k], line, image.shape)
        x1, y1, x2, y2 = boxes[k]
        cv2.rectangle(canvas, (x1, y1), (x2, y2), colour_of(keys[k]), line)
    taken: list[tuple[int, int, int, int]] = []
    for k in reversed(order):  # the surest has the choice of places
        text = f"{classes[int(detections.labels[k])]} {float(detections.scores[k]):.2f}"
        if ids[k] > 0:  # 0 = no track yet
            text += f" #{ids[k]}"
        taken.append(_draw_label(canvas, boxes[k], text, colour_of(keys[k]), line, font, taken))
    return canvas


def _draw_predicted(canvas: np.ndarray, predicted: Detections, line: int, font: float) -> None:
    """Dashed boxes with their ids."""
    assert predicted.ids is not None, "only tracks are predicted"
    boxes = np.round(predicted.boxes).astype(int).tolist()
    for box, track in zip(boxes, predicted.ids.tolist(), strict=True):
        thin, colour = max(1, line // 2), colour_of(track)
        x1, y1, x2, y2 = frame = _frame_around(box, thin, canvas.shape)
        for a, b in (((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)),
                     ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1))):  # fmt: skip
            _draw_dashes(canvas, a, b, colour, thin)
        _draw_label(canvas, frame, f"#{track}", colour, thin, 0.8 * font, ())


def _draw_dashes(
    canvas: np.ndarray,
    start: tuple[int, int],
    end: tuple[int, int],
    colour: tuple[int, int, int],
    line: int,
) -> None:
    """A line along x or y, of dashes that are as long as the gaps between them."""
    length = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    count = max(1, round(length / (8 * line))) * 2 - 1  # odd: both corners are drawn
    edges = np.linspace(start, end, count + 1).round().astype(int)
    for a, b in zip(edges[:-1:2].tolist(), edges[1::2].tolist(), strict=True):
        cv2.line(canvas, a, b, colour, line)


def _draw_trail(
    canvas: np.ndarray, points: Sequence[Point], colour: tuple[int, int, int], line: int
) -> None:
    places = np.round(np.asarray(points, float).reshape(-1, 2)).astype(int).tolist()
    for age, (a, b) in enumerate(pairwise(places), start=1):
        width = max(1, round(line * age / len(places)))
        cv2.line(canvas, a, b, colour, width, cv2.LINE_AA)


def colour_of(key: int) -> tuple[int, int, int]:
    """A strong RGB colour, always the same for a number, different for neighbouring numbers."""
    hue = (key * _GOLDEN + 0.02) % 1.0
    value = (1.0, 0.85)[key % 2]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _line_width(shape: Sequence[int]) -> int:
    return max(1, round(min(shape[:2]) / 360))


def _font_scale(shape: Sequence[int]) -> float:
    return max(0.34, min(shape[:2]) / 1000)


def _frame_around(box: Sequence[int], line: int, shape: Sequence[int]) -> list[int]:
    """First and last pixel of a rectangle that leaves the object inside `box` (exclusive) free."""
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


def _draw_label(
    canvas: np.ndarray,
    box: Sequence[int],
    text: str,
    colour: tuple[int, int, int],
    line: int,
    font: float,
    taken: Sequence[tuple[int, int, int, int]],
) -> tuple[int, int, int, int]:
    """Draw text on a block of colour beside the box; returns the block, x1 y1 x2 y2 exclusive."""
    height, width = canvas.shape[:2]
    stroke, pad = max(1, line // 2), max(1, line)
    (wide, tall), below = cv2.getTextSize(text, _FONT, font, stroke)
    if wide + 2 * pad > width:
        font *= max(0.5, (width - 2 * pad) / wide)
        (wide, tall), below = cv2.getTextSize(text, _FONT, font, stroke)
    block_w, block_h = wide + 2 * pad, tall + below + 2 * pad
    left, top = _free_place(box, (block_w, block_h), (width, height), taken)
    block = (left, top, left + block_w, top + block_h)
    cv2.rectangle(canvas, block[:2], (block[2] - 1, block[3] - 1), colour, -1)
    red, green, blue = colour
    ink = (0, 0, 0) if 0.3 * red + 0.59 * green + 0.11 * blue > 110 else (255, 255, 255)
    place = (left + pad, top + pad + tall)
    cv2.putText(canvas, text, place, _FONT, font, ink, stroke, cv2.LINE_AA)
    return block


def _free_place(
    box: Sequence[int],
    block_wh: tuple[int, int],
    frame_wh: tuple[int, int],
    taken: Sequence[tuple[int, int, int, int]],
) -> tuple[int, int]:
    """Left and top for a block: above the box, else below, else beside it, whichever is freest.

    The block lies inside the frame if it fits there at all.
    """
    x1, y1, x2, y2 = box
    (wide, tall), (width, height) = block_wh, frame_wh
    wishes = [
        (x1, y1 - tall),
        (x1, y2 + 1),
        (x2 + 1 - wide, y1 - tall),
        (x2 + 1 - wide, y2 + 1),
        (x2 + 1, y1),
        (x1 - wide, y1),
    ]
    places = [(max(0, min(x, width - wide)), max(0, min(y, height - tall))) for x, y in wishes]

    def covered(place: tuple[int, int]) -> int:
        """Pixels of other labels and of the box itself under the block."""
        x, y = place
        total = 0
        for a1, b1, a2, b2 in [*taken, (x1, y1, x2 + 1, y2 + 1)]:
            across, down = min(x + wide, a2) - max(x, a1), min(y + tall, b2) - max(y, b1)
            total += max(0, across) * max(0, down)
        return total

    return min(places, key=covered)  # the first of equals
