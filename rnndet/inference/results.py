"""What one run over a video leaves behind: files, counts, times."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any

import numpy as np

import rnndet
from rnndet.errors import OutputError
from rnndet.inference.writers import EXPORTS, ExportedVideo
from rnndet.structures import Frame, FrameResult, VideoInfo
from rnndet.system.lock import FolderLock
from rnndet.video.draw import Annotator
from rnndet.video.sink import JsonLinesSink
from rnndet.video.sources.base import ReadCounts

STAGES = ("decode", "model", "track", "draw", "write")


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run over one video did."""

    folder: Path
    files: tuple[Path, ...]
    frames: int
    unreadable: int  # frames that the source could not decode and skipped
    seconds: float
    stages: dict[str, float]  # seconds by STAGES
    objects: dict[str, int]  # boxes shown, by class, over all frames
    tracks: dict[str, int]  # different ids by class; empty without a tracker
    cuts: int  # frames at which another scene began
    propagated: int  # frames between key frames
    interrupted: bool
    codec: str | None  # of the video; None without one
    note: str | None  # what to know about playing the video
    read: ReadCounts | None = None  # how reading has gone, where something can be lost
    warnings: tuple[str, ...] = ()  # of the source

    @property
    def fps(self) -> float:
        """Frames per second of the whole run; 0 if nothing was done."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    def lines(self) -> list[str]:
        """The same for people; the last lines are the files."""
        state = "interrupted after" if self.interrupted else "done:"
        total = sum(self.stages.values()) or 1.0
        shares = (f"{name} {100 * s / total:.0f} %" for name, s in self.stages.items())
        lines = [
            f"{self.folder.name}: {state} {self.frames} frames in {self.seconds:.1f} s, "
            f"{self.fps:.1f} per second",
            f"objects (boxes in all frames): {_listed(self.objects)}",
            f"tracks: {_listed(self.tracks)}",
            f"time: {', '.join(shares)}",
        ]
        if self.cuts:
            lines.append(f"scene cuts: {self.cuts}; memory and tracks began anew there")
        if self.propagated:
            seen = self.frames - self.propagated
            lines.append(f"key frames: {seen} of {self.frames}; in the others boxes followed")
        lines += [f"warning: {text}" for text in self._losses()]
        lines += [f"warning: {text}" for text in self.warnings]
        if self.note is not None:
            lines.append(self.note)
        return [*lines, *map(str, self.files)]

    @property
    def is_whole(self) -> bool:
        """Whether the source gave all of its frames, as far as it was run."""
        return self.read is None or self.read.is_complete

    def _losses(self) -> Iterator[str]:
        if self.unreadable:
            yield f"{self.unreadable} frames could not be decoded"
        if self.read is None:
            return
        if self.read.missing:
            yield f"{self.read.missing} images are missing from the numbers"
        if self.read.dropped:
            yield f"{self.read.dropped} frames were passed over for newer ones"
        if self.read.reconnects:
            yield f"the connection was lost; {self.read.reconnects} attempts to connect again"
        if self.read.truncated and self.read.expected is None:
            yield "the source was given up: no image came any more"
        elif self.read.truncated:
            yield (
                f"the file ends early: it claims {self.read.expected} frames; "
                "copy or download it again"
            )

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain data, for the last line of detections.jsonl."""
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
            **self._reading(),
        }

    def _reading(self) -> dict[str, Any]:
        """What was lost in reading, where anything was."""
        if self.read is None:
            return {}
        names = ("missing", "dropped", "reconnects", "truncated")
        found = {name: getattr(self.read, name) for name in names if getattr(self.read, name)}
        return found | ({"warnings": list(self.warnings)} if self.warnings else {})


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def write_run_summary(path: Path, sources: Sequence[Mapping[str, Any]], *, exit_code: int) -> None:
    """What became of each source of one run, as JSON; replaces the file of an earlier run whole.

    Raises OutputError if it cannot be written.
    """
    text = json.dumps({"exit_code": exit_code, "sources": list(sources)}, indent=2)
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from None


class StageClock:
    """Seconds by stage, and since it was made."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._start = perf_counter()

    def elapsed(self) -> float:
        return perf_counter() - self._start

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += perf_counter() - start


@dataclass(slots=True)
class Tally:
    """Counts of what was shown; memory grows with the number of tracks, not of frames."""

    classes: tuple[str, ...]
    frames: int = 0
    cuts: int = 0
    propagated: int = 0
    boxes: Counter[int] = field(default_factory=Counter)
    votes: dict[int, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, result: FrameResult) -> None:
        detections = result.detections
        self.frames += 1
        self.cuts += result.cut
        self.propagated += result.propagated
        labels = detections.labels.tolist()
        self.boxes.update(labels)
        if detections.ids is not None:
            rows = zip(detections.ids.tolist(), labels, detections.scores.tolist(), strict=True)
            for track_id, label, score in rows:
                if track_id > 0:
                    self.votes[track_id][label] += score

    def objects(self) -> dict[str, int]:
        return self._named(self.boxes)

    def tracks(self) -> dict[str, int]:
        """Each track counts once, for the class with the largest sum of scores."""
        return self._named(Counter(votes.most_common(1)[0][0] for votes in self.votes.values()))

    def _named(self, counts: Counter[int]) -> dict[str, int]:
        return {self.classes[label]: count for label, count in sorted(counts.items())}


class ResultFiles:
    """The files of one run: begun at the first frame, named when complete.

    detections.jsonl is written always; save names the `EXPORTS` beside it. trails: see `Annotator`.
    show gets each annotated image, for a window. Use as a context manager, which holds the
    folder: one process at a time.

    Raises OutputError, on entering if another run holds the folder, or a file exists and
    `overwrite` is false, else where one cannot be written.
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
        show: Callable[[np.ndarray], None] | None = None,
        overwrite: bool = False,
    ) -> None:
        self._json_path = folder / "detections.jsonl"
        self._info, self._classes, self._header = info, classes, header
        self._lock, self._overwrite = FolderLock(folder), overwrite
        self._all = {name: kind(folder) for name, kind in EXPORTS.items()}
        self._exports = [self._all[name] for name in save]
        self._annotator, self._show = Annotator(classes, trails=trails), show
        self._draws = show is not None or any(export.needs_image for export in self._exports)
        self._json: JsonLinesSink | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files of a complete run."""
        return (self._json_path, *(path for export in self._exports for path in export.paths))

    @property
    def codec(self) -> str | None:
        """Of the video; None without one."""
        sink = self._all["video"].sink
        return None if sink is None else sink.codec

    @property
    def note(self) -> str | None:
        """What to know about playing the video."""
        sink = self._all["video"].sink
        return None if sink is None else sink.note

    def write(self, result: FrameResult, clock: StageClock) -> None:
        """Append one frame to all files."""
        with clock.stage("write"):
            if self._json is None:
                self._json = self._begin(result.frame)
            self._json.write(result, self._classes)
        image = None
        if self._draws:
            with clock.stage("draw"):
                image = self._annotator.draw(result)
                if self._show is not None:
                    self._show(image)
        with clock.stage("write"):
            for export in self._exports:
                export.write(result, image)

    def _begin(self, frame: Frame) -> JsonLinesSink:
        """Open the files; the first frame decides the size, a container's claim may be wrong."""
        height, width = frame.image.shape[:2]
        fps = self._info.fps
        json_lines = JsonLinesSink(self._json_path.with_name("detections.part.jsonl"))
        for export in self._exports:
            export.begin(ExportedVideo(self._info, (height, width), self._classes))
        about = {
            "source": self._info.source,
            "width": width,
            "height": height,
            "fps": None if fps is None else float(fps),
            **({"rotation": self._info.rotation} if self._info.rotation else {}),
            "classes": list(self._classes),
            "rnndet": rnndet.__version__,
        }
        json_lines.write_header({**about, **self._header})
        return json_lines

    def finish(self, summary: Summary) -> None:
        """Complete all files and give them their names; without a frame there are none."""
        if self._json is None:
            return
        for export in self._exports:
            export.close()
        self._json.write_summary(summary.to_dict())
        self._json.close()
        try:
            os.replace(self._json.path, self._json_path)
        except OSError as error:
            raise OutputError(f"{self._json_path}: cannot be written ({error.strerror})") from None
        for export in self._all.values():
            if export not in self._exports:
                export.remove_old()  # of an earlier run: no longer true

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
                    f"{path}: there are results already; use --overwrite or another --out"
                )
        for export in self._exports:
            export.check_old()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is not None:
                for export in self._exports:
                    export.abort()
                if self._json is not None:
                    self._json.abort()
        finally:
            self._lock.__exit__(kind, error, trace)
