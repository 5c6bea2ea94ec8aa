"""Count tracks in regions of the image and across lines, with hysteresis at their edges.

A file of regions and lines is JSON, in pixels of the source:

    {"regions": {"yard": [[0, 200], [300, 200], [300, 480], [0, 480]]},
     "lines": {"gate": [[320, 0], [320, 480]]},
     "point": "bottom"}

The place of a track is the middle of its box, or with "point": "bottom" the middle of the lower
edge, which is where things stand on the ground.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnndet.errors import InputError, RnndetError
from rnndet.registry import nearest_hint
from rnndet.structures import Counts, FrameResult, LineCount, RegionCount

Point = Sequence[float]  # x, y in pixels of the source
Points = NDArray[np.float64]  # (P, 2)

# A track changes sides only once it is further from the edge than this share of the side of its
# box, sqrt(width * height): boxes jitter in proportion to their size. Pixels for the smallest.
HYSTERESIS, MIN_HYSTERESIS = 0.2, 2.0
FORGET = 500  # frames after which a track that was not seen is forgotten; trackers end them before
MAX_BYTES = 1_000_000  # of a file
PLACES = ("middle", "bottom")
KEYS = ("regions", "lines", "point")  # of a file
MAX_CORNERS = 1000  # of a region
# Pixels: an edge or end that is not farther from the border of the image lies on it. What is drawn
# along the border ends at the last pixel, places of boxes one further.
ON_BORDER = 2.0
FAR = 1e5  # pixels, beyond any image
OUTWARD = np.array([[-1.0, 0.0], [0.0, -1.0], [1.0, 0.0], [0.0, 1.0]])  # left, up, right, down
HINT = "coordinates are pixels of the source, x from the left and y from the top"


@dataclass(frozen=True, slots=True)
class Regions:
    """Named regions and lines of the image, in pixels of the source.

    regions: corners of polygons, in order, at least three; the last is joined to the first. lines:
    start and end. Points may be tuples, lists or rows of an array. point: middle or bottom, the
    point of a box that counts. Raises RnndetError for impossible values.

    >>> Regions(lines={"gate": ((320, 0), (320, 480))}).lines["gate"]
    ((320, 0), (320, 480))
    """

    regions: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    lines: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    point: str = "middle"

    def __post_init__(self) -> None:
        for kind in ("regions", "lines"):
            object.__setattr__(self, kind, _named_points(kind, getattr(self, kind)))
        if not self.regions and not self.lines:
            raise RnndetError("regions: expected at least one region or line")
        if self.point not in PLACES:
            raise RnndetError(f"point = {self.point!r}; choose one of: {', '.join(PLACES)}")
        for name in self.regions.keys() & self.lines.keys():
            raise RnndetError(f"{name!r} is a region and a line; use two names")
        for name, corners in self.regions.items():
            _check_points(f"region {name!r}", corners)
            _check_edges(f"region {name!r}", np.array(corners, float))
            if len(corners) < 3 or abs(_area(np.array(corners, float))) < 1:
                raise RnndetError(
                    f"region {name!r}: expected three corners or more around at least one pixel; "
                    f"{HINT}"
                )
        for name, ends in self.lines.items():
            _check_points(f"line {name!r}", ends)
            if len(ends) != 2 or math.dist(*ends) < 1:
                raise RnndetError(
                    f"line {name!r}: expected [[x, y], [x, y]], at least a pixel apart; {HINT}"
                )

    def to_dict(self) -> dict[str, Any]:
        """The content of a file of regions."""
        return {
            "regions": {name: [list(p) for p in points] for name, points in self.regions.items()},
            "lines": {name: [list(p) for p in points] for name, points in self.lines.items()},
            "point": self.point,
        }

    @staticmethod
    def from_dict(tree: Any, *, where: str) -> Regions:
        """Read the content of a file. Raises RnndetError that begins with `where`."""
        if not isinstance(tree, dict):
            raise RnndetError(f"{where}: expected an object with the keys {', '.join(KEYS)}")
        for key in sorted(tree.keys() - set(KEYS)):
            raise RnndetError(
                f"{where}: {key!r} is unknown; {nearest_hint(key, KEYS)}expected the keys "
                f"{', '.join(KEYS)}"
            )
        try:
            return Regions(
                tree.get("regions", {}), tree.get("lines", {}), tree.get("point", "middle")
            )
        except RnndetError as error:
            raise RnndetError(f"{where}: {error}") from None


def read_regions(path: str | Path) -> Regions:
    """Read a JSON file of regions and lines. Raises InputError, and RnndetError for its values."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: larger than any file of regions")
        tree = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_each_key_once)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # also not UTF-8
        raise InputError(f"{path}: not valid JSON: {error}") from None
    return Regions.from_dict(tree, where=str(path))


class TrackCounter:
    """Counts the tracks of a video in regions and across lines; one step per frame, in order.

    Its state is the counts, and of each track of the last FORGET frames the side of each region and
    line where it was last seen clearly: further from the edge than HYSTERESIS. Nearer to an edge, a
    track stays on the side where it was, so that one that jitters there counts once. A track that
    is first seen near a line has no side of it yet; near the edge of a region, it is inside if its
    point is.

    - region: a track enters or leaves it when its side changes. One that begins or ends inside does
      neither.
    - region and line: what lies on the border of the image goes on beyond it, since nothing enters,
      leaves or passes there unseen.
    - line: a track crosses it when its side changes and the straight way from the last clear place
      on one side to the first on the other meets the line between its ends. Each such change counts
      once, in its direction: who comes back is counted there. "to_right" is to the right hand of
      somebody who looks from the start of the line to its end.

    Objects without a track and predicted boxes do not count. The class is the one that is shown,
    in the frame in which a track enters, leaves or crosses. At a scene cut and a restart tracks
    begin anew and counts go on.

    >>> from rnndet.structures import Detections, Frame
    >>> counter = TrackCounter(Regions(lines={"gate": ((20, 40), (20, 0))}), ("car",))
    >>> for index, x in enumerate((5, 35)):
    ...     box = np.array([[x - 4, 16, x + 4, 24]], np.float32)
    ...     found = Detections(box, np.array([0.9]), np.array([0]), ids=np.array([1]))
    ...     frame = Frame(np.zeros((40, 40, 3), np.uint8), index, index / 25)
    ...     counts = counter.step(FrameResult(frame, found))
    >>> counts.lines["gate"]
    LineCount(to_left={}, to_right={'car': 1})
    """

    def __init__(self, regions: Regions, classes: Sequence[str]) -> None:
        self.regions, self._classes = regions, tuple(classes)
        self._shapes: dict[str, _Polygon | _Segment] = {
            **{name: _Polygon(np.array(p, float)) for name, p in regions.regions.items()},
            **{name: _Segment(*np.array(p, float)) for name, p in regions.lines.items()},
        }
        self.reset()

    def reset(self) -> None:
        """Forget tracks and counts, before another video."""
        self._events = {name: {-1: Counter(), 1: Counter()} for name in self._shapes}
        self._count = 0
        self._is_fitted = False
        self.restart()

    def restart(self) -> None:
        """Forget the tracks, where all end; counts go on."""
        self._tracks: dict[int, _Track] = {}

    def step(self, result: FrameResult) -> Counts:
        """Count the next frame. Raises RnndetError for detections without ids, at the first frame
        also for a region or line that lies outside the image."""
        shown = result.shown
        if shown.ids is None:
            raise RnndetError("regions: only tracks are counted; use a tracker")
        if not self._is_fitted:
            self._fit(*result.frame.image.shape[:2])
        if result.cut or result.frame.restart:
            self.restart()
        self._count += 1
        places, margins = _places(shown.boxes.astype(np.float64), self.regions.point)
        inside: dict[str, Counter[str]] = {name: Counter() for name in self.regions.regions}
        present: Counter[str] = Counter()
        rows = zip(shown.ids.tolist(), shown.labels.tolist(), places, margins, strict=True)
        for track_id, label, place, margin in rows:
            if track_id > 0:
                name = self._classes[label]
                present[name] += 1
                self._move(track_id, name, place, margin)
                for region in inside:
                    inside[region][name] += self._tracks[track_id].sides[region] > 0
        oldest = self._count - FORGET
        self._tracks = {k: track for k, track in self._tracks.items() if track.seen > oldest}
        return self._counts(inside, present)

    def _move(self, track_id: int, label: str, place: Points, margin: float) -> None:
        """Update the sides of a track, and count what it has entered, left or crossed."""
        track = self._tracks.get(track_id)
        if track is None:
            track = self._tracks[track_id] = _Track({}, {})
        track.seen = self._count
        for name, shape in self._shapes.items():
            distance = shape.distance(place)
            before = track.sides.get(name, 0)
            if abs(distance) <= margin and (before or isinstance(shape, _Segment)):
                continue
            side = 1 if distance > 0 else -1
            if before and side != before and shape.meets(track.places[name], place):
                self._events[name][side][label] += 1
            track.sides[name], track.places[name] = side, place

    def _counts(self, inside: Mapping[str, Counter[str]], present: Counter[str]) -> Counts:
        events = {name: (dict(n[-1]), dict(n[1])) for name, n in self._events.items()}
        regions = {
            name: RegionCount(dict(+found), dict(present - found), events[name][1], events[name][0])
            for name, found in inside.items()
        }
        return Counts(regions, {name: LineCount(*events[name]) for name in self.regions.lines})

    def _fit(self, height: int, width: int) -> None:
        """Refuse what lies outside the image, and extend beyond it what lies on its border."""
        for name, points in {**self.regions.regions, **self.regions.lines}.items():
            low, high = np.min(points, 0), np.max(points, 0)
            if (high < 0).any() or (low > (width, height)).any():
                raise RnndetError(
                    f"regions: {name!r} lies outside the image of {width}x{height}; {HINT}"
                )
        for shape in self._shapes.values():
            shape.fit(height, width)
        self._is_fitted = True

    def state_dict(self) -> dict[str, Any]:
        """Counts and tracks as numbers, text and lists, in the order of the regions and lines."""
        return {
            "count": self._count,
            "events": [[list(n[side].items()) for side in (-1, 1)] for n in self._events.values()],
            "tracks": [
                [track_id, track.seen]
                + [
                    [track.sides[name], *track.places[name].tolist()] if name in track.sides else []
                    for name in self._shapes
                ]
                for track_id, track in self._tracks.items()
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state_dict` of a counter with the same regions."""
        self.reset()
        self._count = state["count"]
        for name, (back, forth) in zip(self._shapes, state["events"], strict=True):
            self._events[name] = {-1: Counter(dict(back)), 1: Counter(dict(forth))}
        for track_id, seen, *clear in state["tracks"]:
            known = {name: one for name, one in zip(self._shapes, clear, strict=True) if one}
            self._tracks[track_id] = _Track(
                {name: one[0] for name, one in known.items()},
                {name: np.array(one[1:]) for name, one in known.items()},
                seen,
            )


@dataclass(slots=True)
class _Track:
    """What is known of a track, by the name of the region or line."""

    sides: dict[str, int]  # 1: inside, or on the right; -1: outside, or on the left
    places: dict[str, Points]  # the last clear place there, (2,)
    seen: int = 0  # number of the last frame with it


class _Polygon:
    """A region; distances are positive inside."""

    def __init__(self, corners: Points) -> None:
        self._corners = corners
        self._set(corners)

    def fit(self, height: int, width: int) -> None:
        """Move the edges that lie on the border of an image far beyond it."""
        near = _near_borders(self._corners, height, width)
        on = near & np.roll(near, -1, 0)  # of each edge, which begins at its corner
        steps = [FAR * OUTWARD[row.argmax()] if row.any() else None for row in on]
        moved = []
        for corner, before, after in zip(self._corners, [steps[-1], *steps], steps, strict=False):
            moved += [] if before is None else [corner + before]
            moved += [corner] if before is None or after is None else []
            moved += [] if after is None else [corner + after]
        self._set(np.array(moved))

    def _set(self, corners: Points) -> None:
        self._starts, self._ends = corners, np.roll(corners, -1, 0)

    def distance(self, place: Points) -> float:
        edges = self._ends - self._starts
        length = np.maximum((edges**2).sum(1), 1e-12)
        share = np.clip(((place - self._starts) * edges).sum(1) / length, 0, 1)
        nearest = self._starts + share[:, None] * edges
        distance = float(np.sqrt(((place - nearest) ** 2).sum(1)).min())
        # even-odd rule: edges that a ray to the right crosses
        y = place[1]
        spans = (self._starts[:, 1] > y) != (self._ends[:, 1] > y)
        rise = np.where(spans, edges[:, 1], 1.0)
        x = self._starts[:, 0] + (y - self._starts[:, 1]) / rise * edges[:, 0]
        is_inside = np.count_nonzero(spans & (x > place[0])) % 2 == 1
        return distance if is_inside else -distance

    def meets(self, before: Points, after: Points) -> bool:
        return True


class _Segment:
    """A line with ends; distances are from the endless line, positive to the right of it."""

    def __init__(self, start: Points, end: Points) -> None:
        self._start, self._step = start, end - start
        self._length = float(np.hypot(*self._step))
        self._first, self._last = 0.0, 1.0  # shares of the step between which it is met

    def fit(self, height: int, width: int) -> None:
        """Extend the line where it ends at the border of an image, unless it runs along it."""
        ends = np.array([self._start, self._start + self._step])
        way = self._step / self._length
        leaves = np.array([OUTWARD @ -way, OUTWARD @ way]) > 0.5
        is_open = (_near_borders(ends, height, width) & leaves).any(1)
        self._first = -math.inf if is_open[0] else 0.0
        self._last = math.inf if is_open[1] else 1.0

    def distance(self, place: Points) -> float:
        return float(_cross(self._step, place - self._start)) / self._length

    def meets(self, before: Points, after: Points) -> bool:
        """Whether the straight way between places on both sides passes between the ends."""
        a, b = self.distance(before), self.distance(after)
        at = before + (after - before) * (a / (a - b))
        share = float((at - self._start) @ self._step) / self._length**2
        return self._first <= share <= self._last


def _places(boxes: Points, point: str) -> tuple[Points, Points]:
    """The point of each box that counts, (D, 2), and its hysteresis in pixels, (D,)."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    places = (boxes[:, :2] + boxes[:, 2:]) / 2
    if point == "bottom":
        places[:, 1] = boxes[:, 3]
    return places, np.maximum(HYSTERESIS * np.sqrt(sides.prod(1)), MIN_HYSTERESIS)


def _cross(a: Points, b: Points) -> Any:
    """Positive where b points to the right of a; y points down."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _area(corners: Points) -> float:
    return float(_cross(corners, np.roll(corners, -1, 0)).sum()) / 2


def _near_borders(points: Points, height: int, width: int) -> NDArray[np.bool_]:
    """Whether each point is on or beyond the left, upper, right and lower border, (P, 4)."""
    return np.hstack([points <= ON_BORDER, points >= (width - ON_BORDER, height - ON_BORDER)])


def _check_points(what: str, points: Sequence[Any]) -> None:
    for point in points:
        is_pair = isinstance(point, tuple) and len(point) == 2
        if not is_pair or not all(_is_number(value) for value in point):
            raise RnndetError(f"{what}: {point!r} is no point; expected [x, y]; {HINT}")


def _check_edges(what: str, corners: Points) -> None:
    """Raise RnndetError if there are too many edges, or two of them cross."""
    count = len(corners)
    if count > MAX_CORNERS:
        raise RnndetError(f"{what}: {count} corners; expected {MAX_CORNERS} at most")
    ends = np.roll(corners, -1, 0)
    for k in range(count - 2):
        a, b = corners[k], ends[k]
        c, d = corners[k + 1 :], ends[k + 1 :]
        is_parted = _cross(b - a, c - a) * _cross(b - a, d - a) < 0
        crosses = is_parted & (_cross(d - c, a - c) * _cross(d - c, b - c) < 0)
        if crosses.any():
            other = int(crosses.argmax())
            first, second = (
                f"from {_text(x)} to {_text(y)}" for x, y in ((a, b), (c[other], d[other]))
            )
            raise RnndetError(
                f"{what}: its edge {first} crosses that {second}; give the corners in their order "
                "around the region"
            )


def _text(point: Points) -> str:
    return f"({point[0]:g}, {point[1]:g})"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _named_points(kind: str, shapes: Any) -> dict[str, tuple[Any, ...]]:
    """The points of each region or line as tuples of numbers; what is none is left as it is."""
    if not isinstance(shapes, Mapping) or not all(isinstance(name, str) for name in shapes):
        raise RnndetError(f"{kind}: expected names with lists of points, [[x, y], ...]")
    return {
        name: tuple(map(_as_tuple, _as_tuple(points, one=True))) for name, points in shapes.items()
    }


def _as_tuple(value: Any, *, one: bool = False) -> Any:
    """A list, tuple or array as a tuple of plain values; other values as they are.

    one: give a tuple of the value then.
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(x.item() if isinstance(x, np.generic) else x for x in value)
    return (value,) if one else value


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        names = Counter(name for name, _ in pairs)
        raise ValueError(f"{names.most_common(1)[0][0]!r} is there twice")
    return tree
