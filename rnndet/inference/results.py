"""Write the result files of a run over one video, and sum the run up."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import rnndet
from rnndet.errors import OutputError
from rnndet.inference.counting import Regions
from rnndet.inference.writers import EXPORTS
from rnndet.inference.writers.base import ExportedVideo
from rnndet.messages import counted
from rnndet.structures import Counts, Frame, FrameResult, VideoInfo
from rnndet.system.files import replace, write_text
from rnndet.system.lock import FolderLock
from rnndet.system.timing import NO_TIMER, Timer
from rnndet.video.colour import ColourTags
from rnndet.video.draw import Annotator
from rnndet.video.sink import JsonLinesSink
from rnndet.video.sources.base import ReadCounts, ratio_text

# Stages of `Runtime` and `Stream` that a summary has as "model".
MODEL_STAGES = ("preprocess", "network", "temporal", "head", "propagate")


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts, times and files of a run over one video."""

    folder: Path
    files: tuple[Path, ...]
    frames: int
    unreadable: int  # frames that the source could not decode and skipped
    seconds: float
    stages: dict[str, float]  # seconds of decode, model, track, draw and write
    objects: dict[str, int]  # boxes shown, by class, over all frames
    tracks: dict[str, int]  # different ids by class; empty without a tracker
    cuts: int  # scene cuts
    propagated: int  # frames between key frames
    interrupted: bool
    codec: str | None  # of the annotated video; None without it
    note: str | None  # hint about playing the video
    read: ReadCounts | None = None  # losses while reading, where there can be any
    warnings: tuple[str, ...] = ()  # of the source
    counts: Counts | None = None  # of regions and lines, at the last frame

    @property
    def fps(self) -> float:
        """Frames per second of the whole run; 0 without a frame."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    def lines(self) -> list[str]:
        """Return the summary as text for people; the last lines are the files."""
        state = "interrupted after" if self.interrupted else "done:"
        total = sum(self.stages.values()) or 1.0
        shares = (f"{name} {100 * s / total:.0f} %" for name, s in self.stages.items())
        lines = [
            f"{self.folder.name}: {state} {counted(self.frames, 'frame')} in {self.seconds:.1f} s, "
            f"{self.fps:.1f} per second",
            f"objects (boxes in all frames): {_listed(self.objects)}",
            f"tracks: {_listed(self.tracks)}",
            f"time: {', '.join(shares)}",
        ]
        lines += _count_lines(self.counts)
        if self.cuts:
            lines.append(f"scene cuts: {self.cuts}; state and tracks were reset there")
        if self.propagated:
            keys = self.frames - self.propagated
            lines.append(f"key frames: {keys} of {self.frames}; boxes propagated in the rest")
        lines += [f"warning: {text}" for text in self.all_warnings]
        if self.note is not None:
            lines.append(self.note)
        return [*lines, *map(str, self.files)]

    @property
    def is_complete(self) -> bool:
        """Whether all frames of the source were read, up to where the run ended."""
        return self.read is None or self.read.is_complete

    @property
    def all_warnings(self) -> tuple[str, ...]:
        """Losses while reading, in words, and the warnings of the source."""
        return (*self._losses(), *self.warnings)

    def _losses(self) -> Iterator[str]:
        if self.unreadable:
            yield f"{counted(self.unreadable, 'frame')} could not be decoded"
        if self.read is None:
            return
        if self.read.missing:
            number = counted(self.read.missing, "image")
            yield f"{number} {'is' if self.read.missing == 1 else 'are'} missing from the sequence"
        if self.read.dropped:
            number = counted(self.read.dropped, "frame")
            yield f"{number} {'was' if self.read.dropped == 1 else 'were'} dropped for newer ones"
        if self.read.reconnects:
            number = counted(self.read.reconnects, "attempt")
            yield f"the connection was lost; {number} to reconnect"
        if self.read.truncated and self.read.expected is None:
            yield "gave up on the source: it sent no more images"
        elif self.read.truncated:
            yield (
                f"the file ends early: it claims {counted(self.read.expected, 'frame')}; "
                "copy or download it again"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain data, for the last line of detections.jsonl."""
        return {
            "frames": self.frames,
            "unreadable": self.unreadable,
            "interrupted": self.interrupted,
            "seconds": round(self.seconds, 3),
            "fps": round(self.fps, 2),
            "stage_seconds": {name: round(s, 3) for name, s in self.stages.items()},
            "objects": self.objects,
            "tracks": self.tracks,
            "cuts": self.cuts,
            "followed": self.propagated,
            "codec": self.codec,
            **({} if self.counts is None else {"counts": asdict(self.counts)}),
            **self._reading(),
        }

    def _reading(self) -> dict[str, Any]:
        """Return the losses while reading that are not zero."""
        if self.read is None:
            return {}
        names = ("missing", "dropped", "reconnects", "truncated")
        losses = {name: getattr(self.read, name) for name in names if getattr(self.read, name)}
        return losses | ({"warnings": list(self.warnings)} if self.warnings else {})


def _count_lines(counts: Counts | None) -> Iterator[str]:
    """Lines for people: what entered and left each region, and crossed each line."""
    if counts is None:
        return
    for name, region in counts.regions.items():
        yield f"{name}: entered by {_listed(region.entered)}; left by {_listed(region.left)}"
    for name, line in counts.lines.items():
        yield f"{name}: to the left {_listed(line.to_left)}; to the right {_listed(line.to_right)}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def write_run_summary(path: Path, sources: Sequence[Mapping[str, Any]], *, exit_code: int) -> None:
    """Write the outcome of each source of a run as JSON. Raises OutputError."""
    text = json.dumps({"exit_code": exit_code, "sources": list(sources)}, indent=2)
    write_text(path, text + "\n")


def stage_seconds(seconds: Mapping[str, float]) -> dict[str, float]:
    """Sum the stages of a timer up into decode, model, track, draw and write.

    >>> stage_seconds({"decode": 1.0, "network": 2.0, "head": 0.5})
    {'decode': 1.0, 'model': 2.5, 'track': 0.0, 'draw': 0.0, 'write': 0.0}
    """
    model = sum(seconds.get(name, 0.0) for name in MODEL_STAGES)
    parts = {name: seconds.get(name, 0.0) for name in ("decode", "track", "draw", "write")}
    return {"decode": parts.pop("decode"), "model": model, **parts}


@dataclass(slots=True)
class Tally:
    """Counts of reported objects; its size grows with the number of tracks, not of frames."""

    classes: tuple[str, ...]
    frames: int = 0
    cuts: int = 0
    propagated: int = 0
    counts: Counts | None = None  # of regions and lines, so far
    boxes: Counter[int] = field(default_factory=Counter)
    votes: dict[int, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, result: FrameResult) -> None:
        """Count one frame."""
        detections = result.detections
        self.frames += 1
        self.cuts += result.cut
        self.propagated += result.propagated
        self.counts = result.counts
        labels = detections.labels.tolist()
        self.boxes.update(labels)
        if detections.ids is not None:
            rows = zip(detections.ids.tolist(), labels, detections.scores.tolist(), strict=True)
            for track_id, label, score in rows:
                if track_id > 0:
                    self.votes[track_id][label] += score

    def objects(self) -> dict[str, int]:
        """Return the number of boxes by class."""
        return self._named(self.boxes)

    def tracks(self) -> dict[str, int]:
        """Return the number of tracks by class: the one with the largest sum of scores."""
        return self._named(Counter(votes.most_common(1)[0][0] for votes in self.votes.values()))

    def _named(self, counts: Counter[int]) -> dict[str, int]:
        return {self.classes[label]: count for label, count in sorted(counts.items())}


class ResultFiles:
    """The files of one run: created at the first frame, renamed to their final names when complete.

    detections.jsonl is always written; save names the `EXPORTS` beside it. trails: see `Annotator`;
    regions: drawn on the frames, with their counts. show is called with each annotated image, for a
    window. colours: tags for the annotated video. Use as a context manager, which locks the folder:
    one process at a time.

    Raises OutputError on entering if another run has the lock, or if a file exists and `overwrite`
    is false; later if a file cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        info: VideoInfo,
        classes: tuple[str, ...],
        *,
        header: Mapping[str, Any],
        save: Sequence[str] = ("video",),
        trails: int = 0,
        regions: Regions | None = None,
        show: Callable[[np.ndarray], None] | None = None,
        overwrite: bool = False,
        colours: ColourTags | None = None,
    ) -> None:
        self._colours = colours
        self._json_path = folder / "detections.jsonl"
        self._info, self._classes, self._header = info, classes, header
        self._lock, self._overwrite = FolderLock(folder), overwrite
        self._all = {name: kind(folder) for name, kind in EXPORTS.items()}
        self._exports = [self._all[name] for name in save]
        self._regions, self._show = regions, show
        shapes = {} if regions is None else {"regions": regions.regions, "lines": regions.lines}
        self._annotator = Annotator(classes, trails=trails, **shapes)
        self._draws = show is not None or any(export.needs_image for export in self._exports)
        self._json: JsonLinesSink | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Paths of the files of a complete run."""
        return (self._json_path, *(path for export in self._exports for path in export.paths))

    @property
    def codec(self) -> str | None:
        """Codec of the annotated video; None without a video."""
        return next((export.codec for export in self._exports if export.codec is not None), None)

    @property
    def note(self) -> str | None:
        """Hint about playing the annotated video."""
        return next((export.note for export in self._exports if export.note is not None), None)

    def write(self, result: FrameResult, timer: Timer = NO_TIMER) -> None:
        """Append one frame to all files; measures the stages draw and write."""
        with timer.stage("write"):
            if self._json is None:
                self._json = self._begin(result.frame)
            self._json.write(result, self._classes)
        image = None
        if self._draws:
            with timer.stage("draw"):
                image = self._annotator.draw(result)
                if self._show is not None:
                    self._show(image)
        with timer.stage("write"):
            for export in self._exports:
                export.write(result, image)

    def _begin(self, frame: Frame) -> JsonLinesSink:
        """Open the files; the size is that of the first frame, a container's claim may be wrong."""
        height, width = frame.image.shape[:2]
        fps, aspect = self._info.fps, self._info.sample_aspect
        json_lines = JsonLinesSink(self._json_path.with_name("detections.part.jsonl"))
        for export in self._exports:
            video = ExportedVideo(
                self._info,
                (height, width),
                self._classes,
                self._colours,
                about=self._header,
                regions=self._regions,
            )
            export.begin(video)
        about = {
            "source": self._info.source,
            "width": width,
            "height": height,
            "fps": None if fps is None else float(fps),
            **({"rotation": self._info.rotation} if self._info.rotation else {}),
            **({} if aspect is None else {"sample_aspect_ratio": ratio_text(aspect)}),
            "classes": list(self._classes),
            "rnndet": rnndet.__version__,
        }
        json_lines.write_header({**about, **self._header})
        return json_lines

    def finish(self, summary: Summary) -> None:
        """Complete and rename all files; without a frame there are no files."""
        if self._json is None:
            return
        for export in self._exports:
            export.sum_up(summary.to_dict(), summary.all_warnings)
            export.close()
        self._json.write_summary(summary.to_dict())
        self._json.close()
        replace(self._json.path, self._json_path)
        for export in self._all.values():
            if export not in self._exports:
                export.remove_old()  # of an earlier run: outdated

    def __enter__(self) -> ResultFiles:
        self._lock.__enter__()
        try:
            self._check_old()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def _check_old(self) -> None:
        for path in (self._json_path, *(p for export in self._all.values() for p in export.paths)):
            if path.exists() and not self._overwrite:
                raise OutputError(
                    f"{path}: there are results already; use `overwrite=True` or another `out_dir`"
                )
        for export in self._exports:
            export.check_old()

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            if kind is not None:
                for export in self._exports:
                    export.abort()
                if self._json is not None:
                    self._json.abort()
        finally:
            self._lock.__exit__(kind, *rest)
