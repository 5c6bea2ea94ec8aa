"""Read sets with one label file per video: find files and images, collect boxes by frame."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from rnndet.data.orientation import Orientation, image_size_hw
from rnndet.data.problems import Problems
from rnndet.data.records import FrameRecord, VideoRecord
from rnndet.data.targets import ANY_CLASS, MAX_TRACK, Box, TargetBuilder
from rnndet.errors import InputError, NothingFoundError
from rnndet.structures import Role, Target
from rnndet.video.sources.image_folder import list_images, natural_key

MAX_FRAMES = 1_000_000  # of one video; a larger number is a mistake

Content = TypeVar("Content")


class VideoBuilder:
    """Collect the boxes of one video, as TargetBuilder does for one frame.

    images: the labelled frames by index from 0, with the image, or None for a frame of a video
    file. A box in any other frame is a problem. size_hw: None for the size of the first image,
    which for the orientation "stored" is not turned. min_height: as in `TrackingTarget`.
    """

    def __init__(
        self,
        images: Mapping[int, Path | None],
        *,
        file: Path,
        problems: Problems,
        size_hw: tuple[int, int] | None = None,
        orientation: Orientation = "auto",
        min_height: float = 0.0,
    ) -> None:
        self._images, self._states_size = images, size_hw is not None
        self._size_hw = size_hw or _first_size_hw(images, orientation)
        self._file, self._problems, self._min_height = file, problems, min_height
        self._targets: dict[int, TargetBuilder] = defaultdict(self._target_builder)

    def add(
        self,
        frame: int,
        box: Box,
        label: int,
        *,
        entry: str | int,
        track: int = -1,
        ignore: bool = False,
        role: Role | None = None,
    ) -> None:
        """Add a box to a frame; see TargetBuilder.add."""
        if frame not in self._images:
            self._problems.add(self._file, entry, f"there is no frame {frame} (counted from 0)")
        elif not -1 <= track <= MAX_TRACK:
            self._problems.add(self._file, entry, f"the id {track} is not a number from 0")
        else:
            self._targets[frame].add(box, label, entry=entry, track=track, ignore=ignore, role=role)

    def add_region(self, box: Box, *, entry: str) -> None:
        """Add an ignore region of no class to every frame; a problem is reported once."""
        before = len(self._problems)
        for frame in self._images:
            self.add(frame, box, ANY_CLASS, entry=entry, ignore=True)
            if len(self._problems) > before:
                return

    def build(
        self, name: str, *, fps: float | None = None, path: Path | None = None
    ) -> VideoRecord:
        """Return the record of the video; frames without boxes get an empty target."""
        records = []
        for frame, image in sorted(self._images.items()):
            has_boxes = frame in self._targets or self._min_height > 0
            target = self._targets[frame].build() if has_boxes else Target.empty()
            records.append(FrameRecord(frame, target, image))
        height, width = self._size_hw
        return VideoRecord(
            name, height, width, fps, tuple(records), path, states_size=self._states_size
        )

    def _target_builder(self) -> TargetBuilder:
        height, width = self._size_hw
        return TargetBuilder(
            width=width, height=height, file=self._file, problems=self._problems,
            min_height=self._min_height,
        )  # fmt: skip


def label_files(
    folder: Path, pattern: str, *, videos: Iterable[str], problems: Problems
) -> list[Path]:
    """List the label files of a folder in natural order; count `videos` that have none.

    Raises InputError if there are no files.
    """
    files = [file for file in folder.glob(pattern) if not file.name.startswith(".")]
    if not files:
        raise NothingFoundError(f"no videos found; expected labels {folder / pattern}")
    count_unlabelled(videos, files, problems)
    return sorted(files, key=lambda file: natural_key(file.name))


def count_unlabelled(videos: Iterable[str], files: Sequence[Path], problems: Problems) -> None:
    """Count the videos, given by name, that have no label file: they are left out."""
    left_out = len(set(videos) - {file.stem for file in files})
    if left_out:
        problems.correct("videos without labels left out", left_out)


def folders_in(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, without hidden ones; empty if it is missing."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return [path.name for path in paths if path.is_dir() and not path.name.startswith(".")]


def read_each(
    files: Sequence[Path], read_file: Callable[[Path], Content], problems: Problems
) -> tuple[Content, ...]:
    """Read every file with `read_file`; a file that raises InputError is a problem and left out.

    Raises InputError with the problems if no file can be read.
    """
    contents = []
    for file in files:
        try:
            contents.append(read_file(file))
        except InputError as error:
            problems.add_error(file, error)
    if not contents:
        problems.stop_if_any()
    return tuple(contents)


def images_by_number(folder: Path, *, first: int) -> dict[int, Path]:
    """Return the images of a folder by frame index: the number that ends the name, minus `first`.

    Raises InputError: no folder, no images, or an image without a unique number.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of images")
    images: dict[int, Path] = {}
    for image in list_images(folder):
        digits = re.search(r"[0-9]+$", image.stem)
        index = int(digits[0]) - first if digits else -1
        if index in images or not 0 <= index < MAX_FRAMES:
            raise InputError(f"{image}: expected a name that ends in its frame, from {first}")
        images[index] = image
    if not images:
        raise InputError(f"{folder}: holds no images")
    return images


def _first_size_hw(images: Mapping[int, Path | None], orientation: Orientation) -> tuple[int, int]:
    first = images[min(images)]
    assert first is not None, "frames of a video file need a size"
    return image_size_hw(first, orientation)
