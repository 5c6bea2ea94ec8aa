"""An evaluation as one page of HTML: numbers, curves, tracks and the worst frames.

What the page shows of single boxes follows from one matching (matching.py), and from
the score threshold of each run's best F1, all classes pooled.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from rnndet.errors import OutputError
from rnndet.evaluation.metrics.base import Numbers, unit
from rnndet.evaluation.metrics.intervals import Intervals
from rnndet.evaluation.metrics.motion import GROUPS
from rnndet.evaluation.metrics.overlap import is_counted
from rnndet.evaluation.metrics.record import EvaluatedFrame, EvaluatedVideo, Predictions
from rnndet.evaluation.report import charts
from rnndet.evaluation.report.matching import JudgedFrame, JudgedRun
from rnndet.video.image import encode_jpeg

PER_VIDEO, APART = 2, 10  # worst frames: the most of one video, and the least frames between them
ALL_FRAMES = "all frames"  # how score.py names the row that is not of a part of the frames
UNNAMED = "the model"  # a run without a name
COLUMNS = 7  # numbers side by side
TIMELINES, TRACKS = 4, 20  # videos with timelines, and tracks in each
PICTURE_WIDTH = 960  # pixels that are kept of an image, at least

_Lanes = dict[tuple[int, int], list[charts.Span]]  # by label and id of the truth track


def worst_frames(run: Predictions, count: int) -> list[tuple[str, int]]:
    """Video and index of the `count` frames with the most mistakes, the worst first.

    Mistakes are the missed truths and the false alarms at the score threshold of the run's best F1
    (all classes pooled, IoU .5). Of equal frames the one with more misses comes first, then the
    earlier one in the order of names and numbers. At most two frames of a video are taken, at least
    ten frames apart, since neighbours show the same; frames without a mistake never.
    """
    supervised = JudgedRun(run)
    ranked = []
    for name, frames in supervised.videos.items():
        for j in frames:
            missed = int(j.missed(supervised.threshold).sum())
            mistakes = missed + int(j.false(supervised.threshold).sum())
            if mistakes:
                ranked.append((-mistakes, -missed, name, j.frame.index))
    chosen: list[tuple[str, int]] = []
    for _, _, name, index in sorted(ranked):
        if len(chosen) == count:
            break
        own = [other for video, other in chosen if video == name]
        if len(own) < PER_VIDEO and all(abs(index - other) >= APART for other in own):
            chosen.append((name, index))
    return chosen


def write_html(
    path: str | Path,
    *,
    title: str,
    protocol: Mapping[str, Any],
    rows: Mapping[str, Numbers],
    runs: Mapping[str, Predictions],
    classes: Sequence[str],
    intervals: Mapping[str, Intervals] | None = None,
    images: Mapping[tuple[str, int], np.ndarray] | None = None,
) -> None:
    """Write the page, atomically: one file that needs no other. Raises OutputError.

    rows: the numbers of each run, or of a part of its frames (score.py); intervals: by the
    same names. runs: by name, of the same videos; videos with timelines are chosen by the first.
    classes: names by label. images: (H, W, 3) uint8 RGB by video and frame index, see
    `worst_frames`; every one is shown with the boxes of every run.
    """
    supervised = {name or UNNAMED: JudgedRun(run) for name, run in runs.items()}
    videos = {video.name: video for run in runs.values() for video in run.videos}
    sections = [
        _summary(supervised),
        _tables(rows, intervals or {}),
        _curves(supervised, classes),
        _bars(rows, intervals or {}, classes),
        _timelines(supervised, videos, classes),
        _images(supervised, videos, classes, images or {}),
        _section("Protocol", _definitions(protocol)),
    ]
    text = (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title>\n<style>{charts.STYLE}</style></head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n{''.join(sections)}</body>\n</html>\n"
    )
    _write(Path(path), text)


def _summary(supervised: Mapping[str, JudgedRun]) -> str:
    head = ("run", "videos", "labelled frames", "truths", "F1", "precision", "recall", "at score")
    lines = []
    for name, run in supervised.items():
        counts = (len(run.videos), sum(map(len, run.videos.values())), int(run.targets.sum()))
        shares = [charts.percent(run.best[key]) for key in ("F1", "precision", "recall")]
        at = "-" if np.isnan(run.threshold) else f"{run.threshold:.3f}"
        lines.append([escape(name), *map(str, counts), *shares, at])
    note = "At the score threshold of the best F1, all classes pooled, IoU .5; shares in per cent."
    return _section("Runs", _table(head, lines), note=note) if lines else ""


def _tables(rows: Mapping[str, Numbers], intervals: Mapping[str, Intervals]) -> str:
    """The numbers of all classes together; then those of each class, folded."""
    names = dict.fromkeys(name for numbers in rows.values() for name in numbers)
    kinds: dict[str, list[str]] = {}  # "" for all classes, else the part before the class
    for name in names:
        kinds.setdefault(name.split("/", 1)[0] if "/" in name else "", []).append(name)
    parts = _tables_of(kinds.pop("", []), rows, intervals)
    for kind, own in kinds.items():
        tables = "".join(_tables_of(own, rows, intervals))
        parts.append(f"<details><summary>{escape(kind)} by class</summary>{tables}</details>")
    note = "Per cent where no other unit is given; intervals, where there are any, in brackets."
    return _section("Numbers", *parts, note=note) if names else ""


def _tables_of(
    names: Sequence[str], rows: Mapping[str, Numbers], intervals: Mapping[str, Intervals]
) -> list[str]:
    """Tables of at most COLUMNS numbers side by side."""
    tables = []
    for first in range(0, len(names), COLUMNS):
        own = names[first : first + COLUMNS]
        lines = []
        for row, numbers in rows.items():
            ends = intervals.get(row, {})
            cells = [_cell(name, numbers.get(name, np.nan), ends.get(name)) for name in own]
            lines.append([escape(row), *cells])
        tables.append(_table(["", *map(_heading, own)], lines))
    return tables


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """All cells are markup; the first of a line is its name."""
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
    """The number, or its class, where a line may break after _; and its unit."""
    shown = escape(name.split("/", 1)[-1]).replace("_", "_<wbr>").replace("@", "<wbr>@")
    counted = unit(name)
    return shown if counted is None else f"{shown}<small>{counted}</small>"


def _cell(name: str, value: float, ends: charts.Interval | None) -> str:
    def text(number: float) -> str:
        is_share = unit(name) is None or np.isnan(number)
        return charts.percent(number) if is_share else f"{number:.2f}"

    if ends is None or np.isnan(ends).any():
        return text(value)
    return f"{text(value)}<small>[{text(ends[0])}, {text(ends[1])}]</small>"


def _curves(supervised: Mapping[str, JudgedRun], classes: Sequence[str]) -> str:
    if not supervised:
        return ""
    together = []
    for name, run in supervised.items():
        f1 = f"{name}, best F1 {charts.percent(run.best['F1'])}"
        mark = None if np.isnan(run.threshold) else (run.best["recall"], run.best["precision"])
        together.append(charts.Curve(f1, run.curve(), mark))
    panels, absent = "", []
    for label, name in enumerate(classes):
        targets = max(int(run.targets[label]) for run in supervised.values())
        if targets == 0:
            absent.append(name)
            continue
        own = [charts.Curve(run, j.curve(label)) for run, j in supervised.items()]
        chart = charts.curves(own, width=308, height=260)
        caption = f"{escape(name)}, targets: {targets}"
        panels += f"<figure><figcaption>{caption}</figcaption>{chart}</figure>"
    parts = [
        "<h3>All classes pooled</h3>",
        charts.curves(together, width=charts.WIDTH, height=360, label_width=320),
        f'<h3>By class</h3>{charts.legend(list(supervised))}<div class="grid3">{panels}</div>',
    ]
    if absent:
        parts.append(f"<p>Without targets: {escape(', '.join(absent))}.</p>")
    note = "Interpolated precision at IoU .5, as far as a run's recall gets; ring: best F1."
    return _section("Precision and recall", *parts, note=note)


def _bars(
    rows: Mapping[str, Numbers], intervals: Mapping[str, Intervals], classes: Sequence[str]
) -> str:
    """AP50 by class and by motion, of the rows of all frames if some are; else of all rows."""
    whole = [row for row in rows if row.split(", ")[-1] == ALL_FRAMES] or list(rows)
    names = [row.removesuffix(ALL_FRAMES).removesuffix(", ") or UNNAMED for row in whole]
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
    supervised: Mapping[str, JudgedRun],
    videos: Mapping[str, EvaluatedVideo],
    classes: Sequence[str],
) -> str:
    """Of the videos in which the first run misses most."""
    if not supervised:
        return ""
    first = next(iter(supervised.values()))
    misses = {
        name: sum(int(j.missed(first.threshold).sum()) for j in frames)
        for name, frames in first.videos.items()
    }
    worst = sorted((name for name in misses if misses[name]), key=lambda n: (-misses[n], n))
    parts = []
    for name in worst[:TIMELINES]:
        lanes = [_lanes(run.videos.get(name, []), run.threshold) for run in supervised.values()]
        parts.append(f"<h3>{escape(name)}</h3>" + _timeline(videos[name], lanes, classes))
    note = (
        "The videos in which the first run misses most. Thick: found at IoU .5 and the run's score "
        "of best F1; thin: missed; nothing: not there, or not labelled. Shaded: corrupted frames."
    )
    return _section("Tracks", charts.legend(list(supervised)), *parts, note=note) if parts else ""


def _timeline(video: EvaluatedVideo, lanes: Sequence[_Lanes], classes: Sequence[str]) -> str:
    """The tracks that the first of the runs misses most; lanes: by run."""

    def missed(track: tuple[int, int]) -> int:
        return sum(span.end - span.start for span in lanes[0][track] if not span.found)

    order = sorted(lanes[0], key=lambda track: (-missed(track), track))
    tracks = [
        charts.Track(f"#{number} {classes[label]}", [run.get((label, number), []) for run in lanes])
        for label, number in order[:TRACKS]
    ]
    ends = _ends(video.frames)
    pairs = zip(video.frames, ends, strict=True)
    hard = _joined(charts.Span(f.index, end, False) for f, end in pairs if f.corrupted)
    shaded = [(span.start, span.end) for span in hard]
    chart = charts.timeline(tracks, shaded=shaded, extent=(video.frames[0].index, ends[-1]))
    more = len(order) - len(tracks)
    return chart + (f"<p>{more} more tracks, with fewer misses, are not shown.</p>" if more else "")


def _lanes(frames: Sequence[JudgedFrame], threshold: float) -> _Lanes:
    """Where each truth track is there, and found."""
    lanes: _Lanes = {}
    for j, end in zip(frames, _ends([j.frame for j in frames]), strict=True):
        known = is_counted(j.frame) & (j.frame.target_ids >= 0)
        fields = (j.frame.target_labels, j.frame.target_ids, j.found(threshold))
        for label, number, found in zip(*(field[known].tolist() for field in fields), strict=True):
            lanes.setdefault((label, number), []).append(charts.Span(j.frame.index, end, found))
    return {track: _joined(spans) for track, spans in lanes.items()}


def _joined(spans: Iterable[charts.Span]) -> list[charts.Span]:
    """Those that follow each other and are alike made one."""
    joined: list[charts.Span] = []
    for span in spans:
        if joined and (joined[-1].end, joined[-1].found) == (span.start, span.found):
            span = joined.pop()._replace(end=span.end)
        joined.append(span)
    return joined


def _ends(frames: Sequence[EvaluatedFrame]) -> list[int]:
    """Up to which frame number each frame stands: the next, or as far as they mostly lie apart."""
    index = np.array([frame.index for frame in frames], np.int64)
    step = int(np.median(np.diff(index))) if len(index) > 1 else 1
    return np.minimum(np.append(index[1:], index[-1:] + step), index + step).tolist()


def _images(
    supervised: Mapping[str, JudgedRun],
    videos: Mapping[str, EvaluatedVideo],
    classes: Sequence[str],
    images: Mapping[tuple[str, int], np.ndarray],
) -> str:
    """Each with the boxes of every run; the pixels lie in the page once."""
    figures = ""
    for place, ((name, index), image) in enumerate(images.items()):
        key, size_hw = f"image{place}", videos[name].size_hw
        shown = charts.jpeg_image(encode_jpeg(_smaller(image)), size_hw, key=key)
        for run, own in supervised.items():
            j = next(j for j in own.videos[name] if j.frame.index == index)
            marks = _marks(j, own.threshold, classes)
            counts = [
                f"{sum(m.kind == kind for m in marks)} {kind}" for kind in ("missed", "false")
            ]
            where = f"{name}, frame {index}" + (", corrupted" if j.frame.corrupted else "")
            caption = escape(f"{where}. {run}: {', '.join(counts)}")
            svg = charts.frame_figure(shown, size_hw, marks)
            figures += f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"
            shown = charts.same_image(key=key)
    note = "At IoU .5 and each run's score of best F1. Point at a box for its class and score."
    grid = f'<div class="grid2">{figures}</div>'
    return _section("Worst frames", charts.mark_legend(), grid, note=note) if figures else ""


def _marks(j: JudgedFrame, threshold: float, classes: Sequence[str]) -> list[charts.Mark]:
    """The boxes to draw; the mistakes last, which is on top."""
    frame, false, missed = j.frame, j.false(threshold), j.missed(threshold)
    found = (j.taken >= 0) & (frame.scores >= threshold)
    marks = []
    for kind, places in (("found", found), ("false", false)):
        for i in np.flatnonzero(places):
            name = f"{classes[frame.labels[i]]} {frame.scores[i]:.2f}"
            marks.append(charts.Mark(kind, frame.boxes[i].tolist(), name))
    for i in np.flatnonzero(missed):
        box = frame.target_boxes[i].tolist()
        marks.append(charts.Mark("missed", box, classes[frame.target_labels[i]]))
    return marks


def _definitions(facts: Mapping[str, Any]) -> str:
    """A list of definitions; one within another for what is itself a mapping."""
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
    """The mean of blocks of pixels, so that at least PICTURE_WIDTH columns are left."""
    size = max(1, image.shape[1] // PICTURE_WIDTH)
    height, width = (edge // size for edge in image.shape[:2])
    blocks = image[: height * size, : width * size].reshape(height, size, width, size, 3)
    return blocks.mean((1, 3)).round().astype(np.uint8)


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name that is no Unicode (a folder may have one) must not lose the page.
        part.write_text(text, encoding="utf-8", errors="xmlcharrefreplace")
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise OutputError(f"{path}: page cannot be written: {error.strerror}") from None
