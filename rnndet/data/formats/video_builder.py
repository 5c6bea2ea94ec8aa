"""What readers of one label file per video share: files, images, boxes by frame."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from rnndet.data.problems import Problems
from rnndet.data.records import FrameRecord, VideoRecord
from rnndet.data.targets import ANY_CLASS, MAX_TRACK, TargetBuilder
from rnndet.errors import InputError, NothingFoundError
from rnndet.structures import Target
from rnndet.video.image import read_image
from rnndet.video.sources.image_folder import list_images, natural_key

MAX_FRAMES = 1_000_000  # of one video; a larger number is a mistake

Read = TypeVar("Read")


class VideoBuilder:
    """Collects the boxes of one video, as TruthBuilder does those of one frame.

    images: the labelled frames by index from 0, with the image, or None for a frame of a video
    file. A box of any other frame is a problem.
    """

    def __init__(
        self,
        images: Mapping[int, Path | None],
        *,
        size_hw: tuple[int, int],
        file: Path,
        problems: Problems,
    ) -> None:
        self._images, self._size_hw = images, size_hw
        self._file, self._problems = file, problems
        self._targets: dict[int, TargetBuilder] = defaultdict(self._target_builder)
        self._seen: set[tuple[int, int]] = set()  # frame, track

    def add(
        self,
        frame: int,
        box: tuple[float, float, float, float],
        label: int,
        *,
        entry: str | int,
        track: int = -1,
        ignore: bool = False,
    ) -> None:
        """Add a box to a frame; see TruthBuilder.add. An id that comes twice is a problem."""
        if frame not in self._images:
            self._problems.add(self._file, entry, f"there is no frame {frame} (counted from 0)")
        elif not -1 <= track <= MAX_TRACK:
            self._problems.add(self._file, entry, f"the id {track} is not a number from 0")
        elif not ignore and (frame, track) in self._seen:
            self._problems.add(self._file, entry, f"the id {track} comes twice in its frame")
        else:
            if track >= 0 and not ignore:
                self._seen.add((frame, track))
            self._targets[frame].add(box, label, entry=entry, track=track, ignore=ignore)

    def add_region(self, box: tuple[float, float, float, float], *, entry: str) -> None:
        """Ignore a region, whatever the class, in every frame; a problem is reported once."""
        before = len(self._problems)
        for frame in self._images:
            self.add(frame, box, ANY_CLASS, entry=entry, ignore=True)
            if len(self._problems) > before:
                return

    def build(
        self, name: str, *, fps: float | None = None, path: Path | None = None
    ) -> VideoRecord:
        """The record of the video, with an empty Truth for every frame that got no box."""
        records = []
        for frame, image in sorted(self._images.items()):
            target = self._targets[frame].build() if frame in self._targets else Target.empty()
            records.append(FrameRecord(frame, target, image))
        height, width = self._size_hw
        return VideoRecord(name, height, width, fps, tuple(records), path)

    def _target_builder(self) -> TargetBuilder:
        height, width = self._size_hw
        return TargetBuilder(width=width, height=height, file=self._file, problems=self._problems)


def label_files(folder: Path, pattern: str) -> list[Path]:
    """The label files of a folder in natural order. Raises InputError if there are none."""
    files = [file for file in folder.glob(pattern) if not file.name.startswith(".")]
    if not files:
        raise NothingFoundError(f"no videos found; expected labels {folder / pattern}")
    return sorted(files, key=lambda file: natural_key(file.name))


def count_unlabelled(videos: Iterable[str], files: Sequence[Path], problems: Problems) -> None:
    """Count the names of videos that no label file bears: they are left out."""
    left_out = len(set(videos) - {file.stem for file in files})
    if left_out:
        problems.correct("videos without labels left out", left_out)


def folders_in(folder: Path) -> list[str]:
    """The names of the folders in a folder, hidden ones aside; none if it is not there."""
    found = folder.iterdir() if folder.is_dir() else ()
    return [path.name for path in found if path.is_dir() and not path.name.startswith(".")]


def read_each(
    files: Sequence[Path], read_one: Callable[[Path], Read], problems: Problems
) -> list[Read]:
    """What `read_one` makes of each file; an InputError leaves the file out and is a problem.

    Raises InputError with the problems if nothing is left.
    """
    found = []
    for file in files:
        try:
            found.append(read_one(file))
        except InputError as error:
            problems.add(file, "", str(error).removeprefix(f"{file}: "))
    if not found:
        problems.stop_if_any()
    return found


def images_by_number(folder: Path, *, first: int) -> dict[int, Path]:
    """The images of a folder by frame index: the number that ends the name, less `first`.

    Raises InputError: no folder, no images, or one without a number of its own.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of images")
    found: dict[int, Path] = {}
    for image in list_images(folder):
        digits = re.search(r"[0-9]+$", image.stem)
        index = int(digits[0]) - first if digits else -1
        if index in found or not 0 <= index < MAX_FRAMES:
            raise InputError(f"{image}: expected a name that ends in its frame, from {first}")
        found[index] = image
    if not found:
        raise InputError(f"{folder}: holds no images")
    return found


def size_of(images: Mapping[int, Path]) -> tuple[int, int]:
    """Height and width of a video, from its first image, where the labels do not say."""
    height, width = read_image(images[min(images)]).shape[:2]
    return height, width
