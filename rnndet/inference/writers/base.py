"""What every export offers, and files that get their names when they are complete."""

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from rnndet.errors import OutputError
from rnndet.structures import FrameResult, VideoInfo


@dataclass(frozen=True, slots=True)
class ExportedVideo:
    """The video whose results are written."""

    info: VideoInfo
    size_hw: tuple[int, int]  # of the first frame; a container's claim may be wrong
    classes: tuple[str, ...]


class Export(ABC):
    """Writes the results of one video, in order; made for each video anew.

    Files stand under other names until `close`; `abort` removes them. All raise OutputError where
    a file cannot be written. Boxes, scores and ids are the numbers of detections.jsonl.

    names: of its files and folders in the folder of results. needs_image: `write` gets the
    annotated frame, (H, W, 3) uint8 RGB; None otherwise.
    """

    names: ClassVar[tuple[str, ...]]
    needs_image: ClassVar[bool] = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(self.folder / name for name in self.names)

    @abstractmethod
    def begin(self, video: ExportedVideo) -> None:
        """Make the files; once, before the first frame."""

    @abstractmethod
    def write(self, result: FrameResult, image: np.ndarray | None) -> None:
        """Append one frame."""

    @abstractmethod
    def close(self) -> None:
        """Complete the files and give them their names, in place of older ones."""

    @abstractmethod
    def abort(self) -> None:
        """Give up: remove what is not complete. May be called twice, and before `begin`."""

    def check_old(self) -> None:
        """Raise OutputError if what stands in the way is not of an earlier run."""
        for path in self.paths:
            if path.is_dir():
                raise OutputError(f"{path}: is a folder; remove it or use another --out")

    def remove_old(self) -> None:
        """Remove the results of an earlier run."""
        for path in self.paths:
            if not path.is_dir():
                with reported(path):
                    path.unlink(missing_ok=True)


class TextFile:
    """UTF-8 text under `NAME.part.SUFFIX` beside its path, renamed on `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._part = path.with_name(f"{path.stem}.part{path.suffix}")
        with reported(path):
            self._file = self._part.open(
                "w", encoding="utf-8", errors="backslashreplace", newline=""
            )

    def write(self, text: str) -> None:
        with reported(self.path):
            self._file.write(text)

    def close(self) -> None:
        with reported(self.path):
            self._file.close()
            os.replace(self._part, self.path)

    def abort(self) -> None:
        with contextlib.suppress(OSError):  # a full disk; the file goes in any case
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


@contextlib.contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turn OSError into OutputError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{path}: cannot be written ({reason}); check the folder and the disk"
        ) from None
