"""Write an evaluation as one page of HTML: numbers, curves, tracks and the worst frames.

The figures of single boxes use one matching (matched_run.py), and the score threshold of each run's
best F1, all classes pooled.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from rnndet.evaluation.metrics import unit
from rnndet.evaluation.metrics.base import Numbers
from rnndet.evaluation.metrics.intervals import Intervals
from rnndet.evaluation.metrics.matching import is_counted
from rnndet.evaluation.metrics.motion import GROUPS
from rnndet.evaluation.records import EvaluatedFrame, EvaluatedVideo, Predictions
from rnndet.evaluation.report import charts
from rnndet.evaluation.report.matched_run import MatchedFrame, MatchedRun
from rnndet.evaluation.score import ALL_FRAMES, RowKey, format_number
from rnndet.messages import counted
from rnndet.system.files import atomic_file
from rnndet.video.image import encode_jpeg

MAX_PER_VIDEO, MIN_DISTANCE = 2, 10  # of worst frames: number in a video, frames between them
UNNAMED = "the model"  # a run without a name
COLUMNS = 7  # numbers side by side
TIMELINES, TRACKS = 4, 20  # videos with timelines, and tracks in each
MIN_IMAGE_WIDTH = 960  # pixels; wider images are reduced to no less

_Lanes = dict[tuple[int, int], list[charts.Span]]  # by label and id of the target track


def worst_frames(run: Predictions, count: int) -> list[tuple[str, int]]:
    """Video and index of the `count` frames with the most errors, the worst first.

    Errors are missed targets and false positives at the score threshold of the run's best F1 (all
    classes pooled, IoU .5). Among frames with equal errors, more misses come first, then the order
    of video names and frame numbers. At most two frames of a video are chosen, at least ten frames
    apart, since neighbours look similar; frames without errors are never chosen.
    """
    matched = MatchedRun(run)
    ranked = []
    for name, frames in matched.videos.items():
        for m in frames:
            missed = int(m.missed(matched.threshold).sum())
            errors = missed + int(m.false(matched.threshold).sum())
            if errors:
                ranked.append((-errors, -missed, name, m.frame.index))
    chosen: list[tuple[str, int]] = []
    for _, _, name, index in sorted(ranked):
        if len(chosen) == count:
            break
        others = [other for video, other in chosen if video == name]
        far = all(abs(index - other) >= MIN_DISTANCE for other in others)
        if far and len(others) < MAX_PER_VIDEO:
            chosen.append((name, index))
    return chosen


def write_html(
    path: str | Path,
    *,
    title: str,
    protocol: Mapping[str, Any],
    rows: Mapping[RowKey, Numbers],
    runs: Mapping[str, Predictions],
    classes: Sequence[str],
    intervals: Mapping[RowKey, Intervals] | None = None,
    images: Mapping[tuple[str, int], np.ndarray] | None = None,
    links: Mapping[tuple[str, int], str] | None = None,
) -> None:
    """Write the page, atomically: one file that needs no others. Raises OutputError.

    rows, intervals: the numbers of each run and subset, as from `score.score`. runs: by name, of
    the same videos; the first one determines which videos have timelines. classes: names by label.
    images: (H, W, 3) uint8 RGB by video and frame index, see `worst_frames`; each is shown with the
    boxes of every run. links: URLs of these frames, see `video_page.write_video_pages`.
    """
    matched = {name or UNNAMED: MatchedRun(run) for name, run in runs.items()}
    videos = {video.name: video for run in runs.values() for video in run.videos}
    sections = [
        _summary(matched),
        _tables(rows, intervals or {}),
        _curves(matched, classes),
        _bars(rows, intervals or {}, classes),
        _timelines(matched, videos, classes),
        _images(matched, videos, classes, images or {}, links or {}),
        _section("Protocol", _definitions(protocol)),
    ]
    text = (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title>\n<style>{charts.STYLE}</style></head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n{''.join(sections)}</body>\n</html>\n"
    )
    with atomic_file(path) as part:
        # A name that is not valid Unicode (a folder may have one) must not lose the page.
        part.write_text(text, encoding="utf-8", errors="xmlcharrefreplace")


def _summary(matched: Mapping[str, MatchedRun]) -> str:
    head = ("run", "videos", "labelled frames", "targets", "F1", "precision", "recall", "at score")
    lines = []
    for name, run in matched.items():
        counts = (len(run.videos), sum(map(len, run.videos.values())), int(run.targets.sum()))
        shares = [charts.percent(run.best[key]) for key in ("F1", "precision", "recall")]
        at = "-" if np.isnan(run.threshold) else f"{run.threshold:.3f}"
        lines.append([escape(name), *map(str, counts), *shares, at])
    note = "At the score threshold of the best F1, all classes pooled, IoU .5; shares in per cent."
    return _section("Runs", _table(head, lines), note=note) if lines else ""


def _tables(rows: Mapping[RowKey, Numbers], intervals: Mapping[RowKey, Intervals]) -> str:
    """The numbers of all classes together; then the numbers by class, folded."""
    names = dict.fromkeys(name for numbers in rows.values() for name in numbers)
    kinds: dict[str, list[str]] = {}  # "" for all classes, else the part before the class
    for name in names:
        kinds.setdefault(name.split("/", 1)[0] if "/" in name else "", []).append(name)
    parts = _tables_of(kinds.pop("", []), rows, intervals)
    for kind, by_class in kinds.items():
        tables = "".join(_tables_of(by_class, rows, intervals))
        parts.append(f"<details><summary>{escape(kind)} by class</summary>{tables}</details>")
    note = "Per cent where no other unit is given; intervals, where there are any, in brackets."
    return _section("Numbers", *parts, note=note) if names else ""


def _tables_of(
    names: Sequence[str], rows: Mapping[RowKey, Numbers], intervals: Mapping[RowKey, Intervals]
) -> list[str]:
    """Tables of at most COLUMNS numbers side by side."""
    tables = []
    for first in range(0, len(names), COLUMNS):
        columns = names[first : first + COLUMNS]
        lines = []
        for row, numbers in rows.items():
            ends = intervals.get(row, {})
            cells = [_cell(name, numbers.get(name, np.nan), ends.get(name)) for name in columns]
            lines.append([escape(str(row)), *cells])
        tables.append(_table(["", *map(_heading, columns)], lines))
    return tables


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table; all cells are markup, and the first of each line is its heading."""
    heads = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = ""
    for name, *cells in lines:
        body += f'<tr><th scope="row">{name}</th>'
        body += "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    return (
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _heading(name: str) -> str:
    """The number's name, or its class, with possible line breaks; and its unit."""
    label = escape(name.split("/", 1)[-1]).replace("_", "_<wbr>").replace("@", "<wbr>@")
    units = unit(name)
    return label if units is None else f"{label}<small>{units}</small>"


def _cell(name: str, value: float, ends: charts.Interval | None) -> str:
    text = format_number(name, value)
    if ends is None or np.isnan(ends).any():
        return text
    low, high = (format_number(name, end) for end in ends)
    return f"{text}<small>[{low}, {high}]</small>"


def _curves(matched: Mapping[str, MatchedRun], classes: Sequence[str]) -> str:
    if not matched:
        return ""
    pooled = []
    for name, run in matched.items():
        f1 = f"{name}, best F1 {charts.percent(run.best['F1'])}"
        mark = None if np.isnan(run.threshold) else (run.best["recall"], run.best["precision"])
        pooled.append(charts.Curve(f1, run.curve(), mark))
    panels, absent = "", []
    for label, name in enumerate(classes):
        targets = max(int(run.targets[label]) for run in matched.values())
        if targets == 0:
            absent.append(name)
            continue
        series = [charts.Curve(run_name, run.curve(label)) for run_name, run in matched.items()]
        chart = charts.curves(series, width=308, height=260)
        caption = f"{escape(name)}, targets: {targets}"
        panels += f"<figure><figcaption>{caption}</figcaption>{chart}</figure>"
    parts = [
        "<h3>All classes pooled</h3>",
        charts.curves(pooled, width=charts.WIDTH, height=360, label_width=320),
        f'<h3>By class</h3>{charts.legend(list(matched))}<div class="grid3">{panels}</div>',
    ]
    if absent:
        parts.append(f"<p>Without targets: {escape(', '.join(absent))}.</p>")
    note = "Interpolated precision at IoU .5, up to the highest recall of a run; ring: best F1."
    return _section("Precision and recall", *parts, note=note)


def _bars(
    rows: Mapping[RowKey, Numbers], intervals: Mapping[RowKey, Intervals], classes: Sequence[str]
) -> str:
    """AP50 by class and by motion, of each run on all frames."""
    whole = [row for row in rows if row.subset == ALL_FRAMES]
    names = [row.run or UNNAMED for row in whole]
    figures = {"AP50 by class": {name: f"AP50/{name}" for name in classes}}
    for rule in ("AP50", "AP50_ilsvrc"):
        figures[f"{rule} by motion"] = {group: f"{rule}_{group}" for group in GROUPS}
    sections = ""
    for heading, keys in figures.items():
        groups = {
            group: [
                charts.Bar(rows[r].get(key, np.nan), intervals.get(r, {}).get(key)) for r in whole
            ]
            for group, key in keys.items()
            if any(key in rows[r] for r in whole)
        }
        if groups:
            sections += _section(heading, charts.legend(names), charts.bars(groups))
    return sections


def _timelines(
    matched: Mapping[str, MatchedRun],
    videos: Mapping[str, EvaluatedVideo],
    classes: Sequence[str],
) -> str:
    """Timelines of the videos in which the first run misses the most targets."""
    if not matched:
        return ""
    first = next(iter(matched.values()))
    misses = {
        name: sum(int(m.missed(first.threshold).sum()) for m in frames)
        for name, frames in first.videos.items()
    }
    worst = sorted((name for name in misses if misses[name]), key=lambda n: (-misses[n], n))
    parts = []
    for name in worst[:TIMELINES]:
        lanes = [_lanes(run.videos.get(name, []), run.threshold) for run in matched.values()]
        parts.append(f"<h3>{escape(name)}</h3>" + _timeline(videos[name], lanes, classes))
    note = (
        "Videos with the most misses of the first run. Thick: detected at IoU .5 and the run's "
        "score of best F1; thin: missed; gap: no target, or not labelled. Shaded: corrupted frames."
    )
    return _section("Tracks", charts.legend(list(matched)), *parts, note=note) if parts else ""


def _timeline(video: EvaluatedVideo, lanes: Sequence[_Lanes], classes: Sequence[str]) -> str:
    """The tracks that the first run misses most; lanes: by run."""

    def missed(track: tuple[int, int]) -> int:
        return sum(span.end - span.start for span in lanes[0][track] if not span.found)

    order = sorted(lanes[0], key=lambda track: (-missed(track), track))
    tracks = [
        charts.Track(f"#{number} {classes[label]}", [run.get((label, number), []) for run in lanes])
        for label, number in order[:TRACKS]
    ]
    ends = _ends(video.frames)
    pairs = zip(video.frames, ends, strict=True)
    corrupted = _joined(charts.Span(f.index, end, False) for f, end in pairs if f.corrupted)
    shaded = [(span.start, span.end) for span in corrupted]
    chart = charts.timeline(tracks, shaded=shaded, extent=(video.frames[0].index, ends[-1]))
    more = len(order) - len(tracks)
    return chart + (
        f"<p>{counted(more, 'more track')}, with fewer misses, not shown.</p>" if more else ""
    )


def _lanes(frames: Sequence[MatchedFrame], threshold: float) -> _Lanes:
    """The frames in which each target track is present, and whether it is detected there."""
    lanes: _Lanes = {}
    for m, end in zip(frames, _ends([m.frame for m in frames]), strict=True):
        known = is_counted(m.frame) & (m.frame.target_ids >= 0)
        fields = (m.frame.target_labels, m.frame.target_ids, m.found(threshold))
        for label, number, found in zip(*(field[known].tolist() for field in fields), strict=True):
            lanes.setdefault((label, number), []).append(charts.Span(m.frame.index, end, found))
    return {track: _joined(spans) for track, spans in lanes.items()}


def _joined(spans: Iterable[charts.Span]) -> list[charts.Span]:
    """The spans, with adjacent equal spans merged."""
    joined: list[charts.Span] = []
    for span in spans:
        if joined and (joined[-1].end, joined[-1].found) == (span.start, span.found):
            span = joined.pop()._replace(end=span.end)
        joined.append(span)
    return joined


def _ends(frames: Sequence[EvaluatedFrame]) -> list[int]:
    """The frame number where each frame's span ends: the next frame, or the median step."""
    index = np.array([frame.index for frame in frames], np.int64)
    step = int(np.median(np.diff(index))) if len(index) > 1 else 1
    return np.minimum(np.append(index[1:], index[-1:] + step), index + step).tolist()


def _images(
    matched: Mapping[str, MatchedRun],
    videos: Mapping[str, EvaluatedVideo],
    classes: Sequence[str],
    images: Mapping[tuple[str, int], np.ndarray],
    links: Mapping[tuple[str, int], str],
) -> str:
    """Each image with the boxes of every run; the page contains its pixels once."""
    figures = ""
    for position, ((name, index), image) in enumerate(images.items()):
        key, size_hw = f"image{position}", videos[name].size_hw
        content = charts.jpeg_image(encode_jpeg(_smaller(image)), size_hw, key=key)
        for run_name, run in matched.items():
            m = next(m for m in run.videos[name] if m.frame.index == index)
            marks = _marks(m, run.threshold, classes)
            kinds = [mark.kind for mark in marks]
            counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("missed", "false"))
            where = f"{name}, frame {index}" + (", corrupted" if m.frame.corrupted else "")
            where = _linked(escape(where), links.get((name, index)))
            caption = f"{where}. {escape(f'{run_name}: {counts}')}"
            svg = charts.frame_figure(content, size_hw, marks)
            figures += f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"
            content = charts.same_image(key=key)
    note = "At IoU .5 and each run's score of best F1. Point at a box for its class and score."
    if links:
        note += " The name of a frame opens its video there, with the boxes of the first run."
    grid = f'<div class="grid2">{figures}</div>'
    return _section("Worst frames", charts.mark_legend(), grid, note=note) if figures else ""


def _linked(markup: str, url: str | None) -> str:
    return markup if url is None else f'<a href="{escape(url)}">{markup}</a>'


def _marks(m: MatchedFrame, threshold: float, classes: Sequence[str]) -> list[charts.Mark]:
    """The boxes to draw; errors last, so that they are on top."""
    frame, missed = m.frame, m.missed(threshold)
    marks = []
    for kind, rows in (("found", m.true(threshold)), ("false", m.false(threshold))):
        for i in np.flatnonzero(rows):
            name = f"{classes[frame.labels[i]]} {frame.scores[i]:.2f}"
            marks.append(charts.Mark(kind, frame.boxes[i].tolist(), name))
    for i in np.flatnonzero(missed):
        box = frame.target_boxes[i].tolist()
        marks.append(charts.Mark("missed", box, classes[frame.target_labels[i]]))
    return marks


def _definitions(facts: Mapping[str, Any]) -> str:
    """A definition list; nested for values that are mappings."""
    items = ""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            text = _definitions(value)
        elif isinstance(value, list | tuple):
            text = escape(", ".join(map(str, value)))
        else:
            text = escape(str(value))
        items += f"<dt>{escape(str(name))}</dt><dd>{text}</dd>"
    return f"<dl>{items}</dl>"


def _section(heading: str, *parts: str, note: str = "") -> str:
    about = f"<p>{note}</p>" if note else ""
    return f"<section><h2>{heading}</h2>{about}{''.join(parts)}</section>\n"


def _smaller(image: np.ndarray) -> np.ndarray:
    """The image reduced by the mean of pixel blocks, to at least MIN_IMAGE_WIDTH columns."""
    size = max(1, image.shape[1] // MIN_IMAGE_WIDTH)
    height, width = (edge // size for edge in image.shape[:2])
    blocks = image[: height * size, : width * size].reshape(height, size, width, size, 3)
    return blocks.mean((1, 3)).round().astype(np.uint8)
