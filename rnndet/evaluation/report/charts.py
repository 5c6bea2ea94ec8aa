"""Charts as inline SVG for a page of HTML: curves, bars, timelines, boxes on frames.

Every function returns markup with all names escaped. Series, one for each run, differ in colour and
dash, by their position in the list. STYLE is the style sheet of the whole page, light and dark.
Colours of series: Okabe and Ito's palette for colour-blind readers, as in Wong, "Points of view:
Color blindness", Nature Methods 8:441, 2011.
"""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

WIDTH = 960  # CSS pixels, of the widest figures
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("none", "8 3", "2 3", "9 3 2 3")  # with the palette 12 styles before they repeat
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
LABEL_WIDTH = 170  # of the names to the left of bars and timelines
MAX_NAMES = 12  # of boxes; more names would hide the image
MARKS = {  # boxes on images, for both colour schemes: colour, width, dash
    "missed": ("#d55e00", 2.5, "7 4"),
    "false": ("#f0e442", 2.5, "none"),
    "found": ("#56b4e9", 1.2, "none"),
}

STYLE = """
:root { color-scheme: light dark;
  --ink: #1b1c1e; --soft: #5c6168; --line: #d5d8dc; --shade: #eee3c4; --back: #fff;
  --link: #0a5fb0; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e9eaec; --soft: #a2a8b0; --line: #3d4248; --shade: #4a4124; --back: #16181b;
  --link: #6db3f2; } }
body { box-sizing: border-box; max-width: 1000px; margin: 0 auto; padding: 20px;
  font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); }
h1 { font-size: 26px; overflow-wrap: anywhere; } h2 { font-size: 20px; margin: 40px 0 8px; }
h3 { font-size: 15px; margin: 20px 0 4px; } p, figcaption { color: var(--soft); }
a { color: var(--link); }
table { border-collapse: collapse; margin: 12px 0; font-size: 13px; width: 100%; }
th, td { padding: 4px 8px; text-align: right; vertical-align: top; overflow-wrap: break-word;
  border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
th:first-child { text-align: left; width: 170px; } thead th { vertical-align: bottom; }
td small, th small { display: block; color: var(--soft); font-weight: 400; white-space: nowrap; }
.scroll { overflow-x: auto; } summary { cursor: pointer; margin: 12px 0; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 24px; padding: 0; list-style: none;
  font-size: 13px; } .legend li { display: flex; align-items: center; gap: 8px; }
.grid3, .grid2 { display: grid; gap: 16px; }
.grid3 { grid-template-columns: repeat(auto-fill, minmax(min(300px, 100%), 1fr)); }
.grid2 { grid-template-columns: repeat(auto-fill, minmax(min(460px, 100%), 1fr)); }
figure { margin: 0; } figcaption { font-size: 13px; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: minmax(120px, max-content) 1fr; gap: 4px 20px;
  margin: 0; } dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
svg { display: block; max-width: 100%; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: var(--ink); }
svg .soft { fill: var(--soft); }
svg .end { text-anchor: end; }
svg .middle { text-anchor: middle; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .whisker { stroke: var(--ink); stroke-width: 2; }
svg .curve { fill: none; stroke-width: 2; }
svg .missed { stroke: var(--soft); stroke-width: 1.5; }
svg .corrupted { fill: var(--shade); }
svg .box { fill: none; pointer-events: all; vector-effect: non-scaling-stroke; }
svg .on { fill: #fff; stroke: #000; stroke-width: .25em; paint-order: stroke; }
"""

Point = tuple[float, float]
Interval = tuple[float, float]


class Curve(NamedTuple):
    """Precision over recall of one run."""

    name: str  # with its numbers, if labels are drawn
    points: Sequence[Point]  # recall, precision in 0..1, by recall; may be empty
    mark: Point | None = None  # an operating point


class Bar(NamedTuple):
    value: float  # in 0..1; NaN: undefined
    interval: Interval | None = None


class Span(NamedTuple):
    """Frames from start to end, exclusive, in which a target is present."""

    start: int
    end: int
    found: bool


class Track(NamedTuple):
    name: str
    lanes: Sequence[Sequence[Span]]  # by run


class Mark(NamedTuple):
    kind: str  # one of MARKS
    box: Sequence[float]  # x1 y1 x2 y2 in pixels of the frame
    name: str


def legend(names: Sequence[str]) -> str:
    """The names of the series with their line styles."""
    return _legend([(_stroke(i), 3.0, name) for i, name in enumerate(names)])


def mark_legend() -> str:
    """The meaning of the boxes on images."""
    texts = {"missed": "missed target", "false": "false positive", "found": "detected"}
    rows = []
    for kind, (colour, width, dash) in MARKS.items():
        rows.append((f'stroke="{colour}" stroke-dasharray="{dash}"', width, texts[kind]))
    return _legend(rows, behind='<line x1="0" y1="6" x2="34" y2="6" stroke="#000" '
                   'stroke-width="6"/>')  # fmt: skip


def curves(series: Sequence[Curve], *, width: int, height: int, label_width: int = 0) -> str:
    """Precision over recall, both in per cent; with names at the right if label_width is not 0."""
    left, top, bottom, right = 48, 10, height - 42, width - 12 - label_width

    def place(point: Point) -> Point:
        return left + point[0] * (right - left), bottom - point[1] * (bottom - top)

    parts = [_recall_axes(left, top, right, bottom)]
    ends: dict[int, Point] = {}  # of the curves that have points
    for i, curve in enumerate(series):
        if not curve.points:
            continue
        places = [place(point) for point in curve.points]
        ends[i] = places[-1]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="curve" points="{path}" {_stroke(i)}/>')
        parts.append(_circle(places[-1], 3, f'fill="{_colour(i)}"'))
        if curve.mark is not None:
            ring = f'fill="none" stroke="{_colour(i)}" stroke-width="2"'
            parts.append(_circle(place(curve.mark), 5, ring))
    if label_width:
        names = {i: curve.name for i, curve in enumerate(series)}
        parts += _end_labels(ends, names, x=right + 12, lowest=bottom, width=label_width)
    return _svg(width, height, "precision over recall", parts)


def bars(groups: Mapping[str, Sequence[Bar]]) -> str:
    """Horizontal bars from 0 to 100 per cent, one per series in every group; whiskers: intervals.

    >>> bars({"car": [Bar(0.5)]}).count("<rect")
    1
    """
    thick, gap, top, left, right = 12, 10, 4, LABEL_WIDTH, WIDTH - 60
    count = max((len(group) for group in groups.values()), default=0)
    step = thick * count + gap
    bottom = top + step * len(groups)

    def across(value: float) -> float:
        return left + min(max(value, 0.0), 1.0) * (right - left)

    parts = []
    for tick in TICKS:
        x = across(tick)
        parts.append(_line("grid", (x, top), (x, bottom)))
        parts.append(_text(x, bottom + 16, f"{100 * tick:.0f}", css="soft middle"))
    parts.append(_text((left + right) / 2, bottom + 34, "per cent", css="soft middle"))
    for g, (name, group) in enumerate(groups.items()):
        upper = top + g * step + gap / 2
        middle = upper + thick * count / 2 + 4
        parts.append(_text(left - 8, middle, name, css="end", limit=24))
        for i, bar in enumerate(group):
            parts.append(_bar(bar, _colour(i), across, upper + i * thick, thick - 2))
    return _svg(WIDTH, bottom + 40, "bars", parts)


def timeline(tracks: Sequence[Track], *, shaded: Sequence[Interval], extent: Interval) -> str:
    """One line per target track and run over the frame number: thick if detected, thin if missed.

    Nothing is drawn where the target is absent. `shaded` frames have another background.
    """
    thick, gap, top, left, right = 7, 8, 4, LABEL_WIDTH, WIDTH - 20
    first, last = extent[0], max(extent[1], extent[0] + 1)
    count = max((len(track.lanes) for track in tracks), default=0)
    step = thick * count + gap
    bottom = top + step * len(tracks)

    def across(frame: float) -> float:
        return left + (frame - first) / (last - first) * (right - left)

    parts = []
    for start, end in shaded:
        box = f'x="{across(start):.1f}" y="{top}" width="{across(end) - across(start):.1f}"'
        parts.append(f'<rect class="corrupted" {box} height="{bottom - top}"/>')
    for tick in _frame_ticks(first, last):
        x = across(tick)
        parts.append(_line("grid", (x, top), (x, bottom)))
        parts.append(_text(x, bottom + 16, str(tick), css="soft middle"))
    parts.append(_text((left + right) / 2, bottom + 34, "frame number", css="soft middle"))
    for t, track in enumerate(tracks):
        upper = top + t * step + gap / 2
        middle = upper + thick * count / 2 + 4
        parts.append(_text(left - 8, middle, track.name, css="end", limit=24))
        for i, lane in enumerate(track.lanes):
            centre = upper + (i + 0.5) * thick
            for span in lane:
                parts.append(_span(span, _colour(i), across, centre, thick - 2))
    return _svg(WIDTH, bottom + 40, "tracks over frames", parts)


def frame_figure(content: str, size_hw: tuple[int, int], marks: Sequence[Mark]) -> str:
    """A frame with boxes; `content` is `jpeg_image` or `same_image`. Errors are named, if few."""
    height, width = size_hw
    letters = max(height, width) / 32
    parts = [content]
    for mark in marks:
        colour, thick, dash = MARKS[mark.kind]
        x1, y1, x2, y2 = mark.box
        box = f'class="box" x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}"'
        box += f' height="{y2 - y1:.1f}"'
        parts.append(f'<rect {box} stroke="#000" stroke-width="{thick + 2}" opacity=".6"/>')
        parts.append(f'<rect {box} stroke="{colour}" stroke-width="{thick}" '
                     f'stroke-dasharray="{dash}">{_title(f"{mark.kind}: {mark.name}")}</rect>'
                     )  # fmt: skip
    errors = [mark for mark in marks if mark.kind != "found"]
    for mark in errors if len(errors) <= MAX_NAMES else ():
        x1, y1, x2, _ = mark.box
        is_left = x1 < width / 2  # the name extends towards the middle of the frame
        x, side = (max(x1, 0), "start") if is_left else (min(x2, width), "end")
        size = f'font-size="{letters:.1f}" text-anchor="{side}"'
        css = f'class="on" x="{x:.1f}" y="{max(y1 - letters / 4, letters):.1f}"'
        parts.append(f"<text {css} {size}>{escape(_cut(mark.name, 24))}</text>")
    return (
        f'<svg role="img" aria-label="frame with boxes" viewBox="0 0 {width} {height}">'
        f"{''.join(parts)}</svg>"
    )


def jpeg_image(jpeg: bytes, size_hw: tuple[int, int], *, key: str) -> str:
    """An image with its pixels; `same_image` with its key shows it again."""
    height, width = size_hw
    data = base64.b64encode(jpeg).decode("ascii")
    size = f'width="{width}" height="{height}" preserveAspectRatio="none"'
    return f'<image id="{key}" {size} href="data:image/jpeg;base64,{data}"/>'


def same_image(*, key: str) -> str:
    """A reference to the `jpeg_image` with this key."""
    return f'<use href="#{key}"/>'


def percent(value: float) -> str:
    """Per cent with one decimal; "-" for NaN.

    >>> percent(0.5)
    '50.0'
    """
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _svg(width: int, height: float, label: str, parts: Sequence[str]) -> str:
    size = f'width="{width}" height="{height:.0f}" viewBox="0 0 {width} {height:.0f}"'
    return f'<svg role="img" aria-label="{escape(label)}" {size}>{"".join(parts)}</svg>'


def _colour(series: int) -> str:
    return PALETTE[series % len(PALETTE)]


def _stroke(series: int) -> str:
    return f'stroke="{_colour(series)}" stroke-dasharray="{DASHES[series % len(DASHES)]}"'


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _text(x: float, y: float, text: str, *, css: str = "", limit: int = 100) -> str:
    """Text cut to `limit` characters; a tooltip has the whole text."""
    short = _cut(text, limit)
    tooltip = "" if short == text else _title(text)
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}">{escape(short)}{tooltip}</text>'


def _line(css: str, start: Point, end: Point, paint: str = "") -> str:
    ends = f'x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"'
    return f'<line class="{css}" {ends} {paint}/>'


def _circle(centre: Point, radius: float, paint: str) -> str:
    return f'<circle cx="{centre[0]:.1f}" cy="{centre[1]:.1f}" r="{radius}" {paint}/>'


def _legend(rows: Sequence[tuple[str, float, str]], *, behind: str = "") -> str:
    """rows: stroke, width of the line, name."""
    items = []
    for stroke, width, name in rows:
        line = f'<line x1="0" y1="6" x2="34" y2="6" stroke-width="{width}" {stroke}/>'
        swatch = f'<svg aria-hidden="true" width="34" height="12">{behind}{line}</svg>'
        items.append(f"<li>{swatch} {escape(name)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


def _recall_axes(left: float, top: float, right: float, bottom: float) -> str:
    parts = []
    for tick in TICKS:
        x, y = left + tick * (right - left), bottom - tick * (bottom - top)
        parts.append(_line("grid", (x, top), (x, bottom)))
        parts.append(_line("grid", (left, y), (right, y)))
        parts.append(_text(x, bottom + 16, f"{100 * tick:.0f}", css="soft middle"))
        parts.append(_text(left - 6, y + 4, f"{100 * tick:.0f}", css="soft end"))
    parts.append(_text((left + right) / 2, bottom + 34, "recall (%)", css="soft middle"))
    turned = f'transform="rotate(-90 14 {(top + bottom) / 2:.1f})"'
    upright = _text(14, (top + bottom) / 2, "precision (%)", css="soft middle")
    parts.append(f"<g {turned}>{upright}</g>")
    return "".join(parts)


def _end_labels(
    ends: Mapping[int, Point], names: Mapping[int, str], *, x: float, lowest: float, width: float
) -> list[str]:
    """The names of the series at `x`, each connected to the end of its curve."""
    heights = _spread([y for _, y in ends.values()], gap=17, lowest=lowest)
    parts = []
    for (i, (x_end, y_end)), y in zip(ends.items(), heights, strict=True):
        parts.append(_line("grid", (x_end + 5, y_end), (x, y)))
        parts.append(_line("curve", (x + 2, y), (x + 28, y), _stroke(i)))
        parts.append(_text(x + 34, y + 4, names[i], limit=round((width - 46) / 7)))
    return parts


def _spread(heights: Sequence[float], *, gap: float, lowest: float) -> list[float]:
    """Heights near the given ones, at least `gap` apart, none below `lowest`."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    heights = list(heights)
    for previous, i in pairwise(order):
        heights[i] = max(heights[i], heights[previous] + gap)
    for i in reversed(order):
        heights[i] = min(heights[i], lowest)
        lowest = heights[i] - gap
    return heights


def _bar(bar: Bar, paint: str, across: Callable[[float], float], y: float, thick: float) -> str:
    """A bar and its number; `across` gives the x of a value."""
    if math.isnan(bar.value):
        return _text(across(0) + 6, y + thick, percent(bar.value), css="soft")
    start, end = across(0), across(bar.value)
    box = f'x="{start:.1f}" y="{y:.1f}" width="{end - start:.1f}" height="{thick}"'
    parts = [f'<rect {box} fill="{paint}"/>']
    if bar.interval is not None and not any(map(math.isnan, bar.interval)):
        low, high = map(across, bar.interval)
        middle = y + thick / 2
        parts.append(_line("whisker", (low, middle), (high, middle)))
        end = max(end, high)
    parts.append(_text(end + 5, y + thick, percent(bar.value)))
    return "".join(parts)


def _span(span: Span, paint: str, across: Callable[[float], float], y: float, thick: float) -> str:
    """A line in the run's colour, thick if detected, thin if missed; y: of the middle."""
    start, end = across(span.start), across(span.end)
    if not span.found:
        return _line("missed", (start, y), (end, y))
    box = f'x="{start:.1f}" y="{y - thick / 2:.1f}" width="{end - start:.1f}" height="{thick}"'
    return f'<rect {box} fill="{paint}"/>'


def _frame_ticks(first: float, last: float) -> list[int]:
    """Round frame numbers within first to last, at most about eight."""
    min_step = max((last - first) / 8, 1)
    power = 10 ** math.floor(math.log10(min_step))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= min_step)
    return list(range(math.ceil(first / step) * step, math.floor(last) + 1, step))
