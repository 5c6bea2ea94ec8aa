"""The interface of exports; text files and folders that get their names when complete."""

import contextlib
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rnndet.errors import OutputError
from rnndet.inference.counting import Regions
from rnndet.structures import FrameResult, VideoInfo
from rnndet.system.files import output_errors, part_of, replace
from rnndet.video.colour import ColourTags


@dataclass(frozen=True, slots=True)
class ExportedVideo:
    """The video of the written results."""

    info: VideoInfo
    size_hw: tuple[int, int]  # of the first frame; a container's claim may be wrong
    classes: tuple[str, ...]
    colours: ColourTags | None = None  # of the source
    about: Mapping[str, Any] = field(default_factory=dict)  # model and options, as in the header
    regions: Regions | None = None  # in which tracks are counted


class Export(ABC):
    """Writes the results of one video, in order; each video has its own instance.

    Files have temporary names until `close`; `abort` removes them. All methods raise OutputError
    where a file cannot be written. Boxes, scores and ids are the numbers of detections.jsonl.

    names: of the files and folders in the folder of results. needs_image: `write` gets the
    annotated frame, (H, W, 3) uint8 RGB; None otherwise. codec, note: of an annotated video, see
    `VideoSink`; None for other files.
    """

    names: ClassVar[tuple[str, ...]]
    needs_image: ClassVar[bool] = False
    codec: str | None = None
    note: str | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def paths(self) -> tuple[Path, ...]:
        """Paths of the complete files."""
        return tuple(self.folder / name for name in self.names)

    @abstractmethod
    def begin(self, video: ExportedVideo) -> None:
        """Create the files; once, before the first frame."""

    @abstractmethod
    def write(self, result: FrameResult, image: np.ndarray | None) -> None:
        """Append one frame."""

    def sum_up(self, summary: Mapping[str, Any], warnings: Sequence[str]) -> None:  # noqa: B027
        """Take the summary of detections.jsonl and its warnings in words; once, before `close`.

        Most files have no use for them.
        """

    @abstractmethod
    def close(self) -> None:
        """Complete the files and rename them to their final names, replacing older files."""

    @abstractmethod
    def abort(self) -> None:
        """Remove incomplete files. May be called twice, and before `begin`."""

    @classmethod
    def check_installed(cls) -> None:
        """Raise RnndetError if an optional package is missing; says which extra contains it."""
        return None

    def check_old(self) -> None:
        """Raise OutputError if a path exists and is not a result of a run."""
        for path in self.paths:
            if path.is_dir():
                raise OutputError(f"{path}: is a folder; remove it or use another `out_dir`")

    def remove_old(self) -> None:
        """Remove the results of an earlier run."""
        for path in self.paths:
            if not path.is_dir():
                with output_errors(path):
                    path.unlink(missing_ok=True)


class TextFile:
    """A UTF-8 text file, written under `part_of` its path and renamed on `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._part = part_of(path)
        with output_errors(path):
            self._file = self._part.open(
                "w", encoding="utf-8", errors="backslashreplace", newline=""
            )

    def write(self, text: str) -> None:
        with output_errors(self.path):
            self._file.write(text)

    def close(self) -> None:
        with output_errors(self.path):
            self._file.close()
        replace(self._part, self.path)

    def abort(self) -> None:
        with contextlib.suppress(OSError):  # a full disk; the file is removed in any case
            self._file.close()
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)


class TextExport(Export):
    """An export to text files; `begin` opens them all."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.files: list[TextFile] = []

    def begin(self, video: ExportedVideo) -> None:
        self.video = video
        for path in self.paths:
            self.files.append(TextFile(path))

    def close(self) -> None:
        for file in self.files:
            file.close()

    def abort(self) -> None:
        for file in self.files:
            file.abort()


class FolderExport(Export):
    """A folder of files, `part` of `place` until it is complete.

    An older folder is replaced if it contains nothing else.
    """

    pattern: re.Pattern[str]  # names of its files, which identify those of an earlier run

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (self.place,) = self.paths
        self.part = part_of(self.place)
        self._begun = False

    def begin(self, video: ExportedVideo) -> None:
        self.video = video
        with output_errors(self.place):
            shutil.rmtree(self.part, ignore_errors=True)
            self.part.mkdir(parents=True)
        self._begun = True

    def close(self) -> None:
        with output_errors(self.place):
            if self.place.exists():
                self.check_old()
                shutil.rmtree(self.place)
        replace(self.part, self.place)

    def abort(self) -> None:
        if self._begun:
            shutil.rmtree(self.part, ignore_errors=True)

    def remove_old(self) -> None:
        if self.place.is_dir():
            with contextlib.suppress(OutputError), output_errors(self.place):
                self.check_old()  # files of the user stay
                shutil.rmtree(self.place)

    def check_old(self) -> None:
        """Raise OutputError if the folder contains anything but files of a run."""
        if not self.place.exists():
            return
        if not self.place.is_dir():
            raise OutputError(f"{self.place}: is a file; remove it or use another `out_dir`")
        for path in self.place.rglob("*"):
            if path.is_symlink() or not (path.is_dir() or self.pattern.fullmatch(path.name)):
                raise OutputError(
                    f"{path}: is no result of a run and would be lost; move it away, or use "
                    "another `out_dir`"
                )
