"""What one run over a video leaves behind: files, counts, times."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import rnndet
from rnndet.errors import OutputError
from rnndet.structures import Frame, FrameResult, VideoInfo
from rnndet.video import JsonLinesSink, ReadCounts, VideoSink, draw

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
        lines += [f"warning: {text}" for text in self._losses()]
        lines += [f"warning: {text}" for text in self.warnings]
        if self.note is not None:
            lines.append(self.note)
        return [*lines, *map(str, self.files)]

    @property
    def is_whole(self) -> bool:
        """Whether the source gave all of its frames, as far as it was run."""
        return self.read is None or self.read.is_whole

    def _losses(self) -> Iterator[str]:
        if self.unreadable:
            yield f"{self.unreadable} frames could not be decoded"
        if self.read is None:
            return
        if self.read.missing:
            yield f"{self.read.missing} pictures are missing from the numbers"
        if self.read.dropped:
            yield f"{self.read.dropped} frames were passed over for newer ones"
        if self.read.reconnects:
            yield f"the connection was lost; {self.read.reconnects} attempts to connect again"
        if self.read.truncated and self.read.expected is None:
            yield "the source was given up: no picture came any more"
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
    boxes: Counter[int] = field(default_factory=Counter)
    votes: dict[int, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, result: FrameResult) -> None:
        detections = result.detections
        self.frames += 1
        self.cuts += result.cut
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
    """detections.jsonl and annotated.mp4 of one run: begun at the first frame, named when complete.

    Raises OutputError if a file exists and `overwrite` is false, or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        info: VideoInfo,
        classes: tuple[str, ...],
        *,
        header: Mapping[str, Any],
        write_video: bool,
        overwrite: bool,
    ) -> None:
        self._json_path = folder / "detections.jsonl"
        self._video_path = folder / "annotated.mp4"
        for path in (self._json_path, self._video_path):
            if path.exists() and not overwrite:
                raise OutputError(
                    f"{path}: there are results already; use --overwrite or another --out"
                )
        self._info, self._classes, self._header = info, classes, header
        self._write_video = write_video
        self._json: JsonLinesSink | None = None
        self._video: VideoSink | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files of a complete run."""
        return (self._json_path, self._video_path) if self._write_video else (self._json_path,)

    @property
    def codec(self) -> str | None:
        """Of the video; None without one."""
        return None if self._video is None else self._video.codec

    @property
    def note(self) -> str | None:
        """What to know about playing the video."""
        return None if self._video is None else self._video.note

    def write(self, result: FrameResult, clock: StageClock) -> None:
        """Append one frame to both files."""
        with clock.stage("write"):
            if self._json is None:
                self._json = self._begin(result.frame)
            self._json.write(result, self._classes)
        if self._video is None:
            return
        with clock.stage("draw"):
            picture = draw(result.frame.image, result.detections, self._classes)
        with clock.stage("write"):
            self._video.write(picture)

    def _begin(self, frame: Frame) -> JsonLinesSink:
        """Open the files; the first frame decides the size, a container's claim may be wrong."""
        height, width = frame.image.shape[:2]
        fps = self._info.fps
        json_lines = JsonLinesSink(self._json_path.with_name("detections.part.jsonl"))
        if self._write_video:
            self._video = VideoSink(self._video_path, size_hw=(height, width), fps=fps)
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
        """Complete both files and give them their names; without a frame there are none."""
        if self._json is None:
            return
        if self._video is not None:
            self._video.close()
        self._json.write_summary(summary.to_dict())
        self._json.close()
        try:
            os.replace(self._json.path, self._json_path)
            if self._video is None:
                self._video_path.unlink(missing_ok=True)  # of an earlier run: no longer true
        except OSError as error:
            raise OutputError(f"{self._json_path}: cannot be written ({error.strerror})") from None

    def __enter__(self) -> ResultFiles:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            for sink in (self._video, self._json):
                if sink is not None:
                    sink.abort()
