"""Export view.html: a page with the annotated video, its tracks over time and a table of them."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from rnndet.inference.writers.base import ExportedVideo, TextExport
from rnndet.inference.writers.view.page import (
    CUT,
    DETECTED,
    PREDICTED,
    PROPAGATED,
    RESTART,
    Media,
    Page,
)
from rnndet.structures import DEFAULT_FPS, Counts, Detections, FrameResult
from rnndet.video.sink import FrameTicks

VIDEO = "annotated.mp4"
NO_VIDEO = (
    f"There is no {VIDEO} beside this page: the boxes are drawn without the picture. "
    "rnndet infer --save html,video writes both."
)
PLAYERS = "The video is MPEG-4 (mp4v): install the video extra of rnndet (PyAV) and run again"


class HtmlExport(TextExport):
    """Collects the results and writes the page on `close`; memory grows by 27 bytes a box.

    A track has the class with the largest sum of scores, as in the summary of detections.jsonl.
    """

    names = ("view.html",)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._votes: dict[int, Counter[int]] = defaultdict(Counter)  # by row
        self._codec: str | None = None
        self._notes: list[str] = []

    def begin(self, video: ExportedVideo) -> None:
        super().begin(video)
        self._rate = Fraction(video.info.fps or DEFAULT_FPS).limit_denominator(1001)
        self._ticks = FrameTicks(self._rate)  # as the encoder counts them
        self._page = Page(video.classes, video.size_hw, step=float(1 / self._rate))

    def write(self, result: FrameResult, image: np.ndarray | None) -> None:
        frame = result.frame
        flags = CUT * result.cut + RESTART * frame.restart + PROPAGATED * result.propagated
        shown = self._ticks.next(frame.time) / self._ticks.per_second
        self._page.add_frame(
            index=frame.index, time=frame.time, shown=shown, gap=frame.gap, flags=flags
        )
        self._add(result.detections, result.shown, DETECTED)
        if result.predicted is not None:
            self._add(result.predicted, result.predicted, PREDICTED)
        if result.counts is not None:
            self._count(result.counts)

    def _count(self, counts: Counts) -> None:
        for name, region in counts.regions.items():
            self._page.set_count(name, "inside", listed(region.inside))
            self._page.set_count(name, "entered", listed(region.entered))
            self._page.set_count(name, "left", listed(region.left))
        for name, line in counts.lines.items():
            self._page.set_count(name, "to the right", listed(line.to_right))
            self._page.set_count(name, "to the left", listed(line.to_left))

    def _add(self, detections: Detections, shown: Detections, kind: int) -> None:
        labels = detections.labels.tolist()
        ids = [0] * len(labels) if detections.ids is None else detections.ids.tolist()
        for box, score, label, track_label, track in zip(
            detections.boxes.tolist(), detections.scores.tolist(), labels, shown.labels.tolist(),
            ids, strict=True,
        ):  # fmt: skip
            if track > 0:
                row = self._page.row(track, f"#{track}", label=label)
            else:
                row = self._page.row(("no track", label), "no track", label=label)
            if kind == DETECTED:
                self._votes[row][label] += score
            self._page.add_box(
                row, box, score=score, label=label, track_label=track_label, kind=kind
            )

    def sum_up(self, summary: Mapping[str, Any], warnings: Sequence[str]) -> None:
        self._codec = summary["codec"]
        if summary["interrupted"]:
            self._notes.append(f"The run was interrupted after {summary['frames']} frames.")
        self._notes += [f"Warning: {text}." for text in warnings]

    def close(self) -> None:
        for row, votes in self._votes.items():
            self._page.rows[row].label = votes.most_common(1)[0][0]
        if self._codec is not None and self._codec != "h264":
            self._page.show_evenly(self._rate)
        self.files[0].write(
            self._page.to_html(
                title=file_name(self.video.info.source) or self.video.info.name,
                facts=self._facts(),
                notes=[*self._notes, *([NO_VIDEO] if self._codec is None else [])],
                media=self._media(),
            )
        )
        super().close()

    def _media(self) -> Media | None:
        """The annotated video, whose sides are even."""
        if self._codec is None:
            return None
        height, width = (side + side % 2 for side in self.video.size_hw)
        hint = "" if self._codec == "h264" else PLAYERS
        return Media("video", (VIDEO,), (width, height), is_annotated=True, hint=hint)

    def _facts(self) -> dict[str, str]:
        info, about = self.video.info, self.video.about
        height, width = self.video.size_hw
        turned = f", turned upright by {info.rotation}°" if info.rotation else ""
        facts = {"size": f"{width} × {height}{turned}", "frames": str(len(self._page))}
        if info.fps is not None:
            facts["rate"] = f"{float(info.fps):g} per second"
        if "model" in about:
            facts["model"] = str(about["model"].get("name") or about["model"].get("detector"))
        for key, name in (("tracker", "tracker"), ("min_score", "scores from")):
            if key in about:
                facts[name] = str(about[key])
        return facts


def listed(counts: Mapping[str, int]) -> str:
    """Counts by class as text.

    >>> listed({"car": 2, "bus": 1}), listed({})
    ('2 car, 1 bus', '0')
    """
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "0"


def file_name(source: str) -> str:
    """The last part of a path or URL.

    >>> file_name("clips/street.mp4"), file_name("frames/")
    ('street.mp4', 'frames')
    """
    return source.replace("\\", "/").rstrip("/").rpartition("/")[2]
