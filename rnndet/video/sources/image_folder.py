"""Images as a video: those of a folder, of a pattern such as %06d.jpg or *.jpg, or one."""

import glob
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from rnndet.errors import InputError
from rnndet.structures import Frame, VideoInfo
from rnndet.video.image import read_image
from rnndet.video.sources.base import (
    ASSUMED_FPS,
    MAX_PIXELS,
    ReadCounts,
    Source,
    check_pixels,
    exists,
    safe_name,
    size_text,
)
from rnndet.video.sources.capture import existing_file

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
UNREADABLE_SHARE = 0.05  # of the images; with more, the folder is not what the user thinks
_NUMBER = re.compile(r"%(0?[0-9]{0,2})d")


class ImageFolder(Source):
    """The images of a folder or of a pattern in natural order (2 before 10), or one image.

    Where the names differ in one number only, `index` follows that number, so a missing image
    shifts nothing: it leaves a gap, as does one that cannot be decoded. Times assume 25 frames
    per second; `info.fps` is None.

    Args:
        path: a folder; an image; or, where no file has that name, a pattern: %06d.jpg for
            numbered images, or one with *, ? or [...].

    Raises:
        InputError: no images, more than 5 % of them unreadable, or one of another size.
    """

    def __init__(
        self, path: str | Path, *, name: str | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        self._files = image_files(path)
        if not self._files:
            if not exists(Path(path)):
                raise InputError(f"{path}: nothing has such a name; check the pattern")
            suffixes = ", ".join(IMAGE_SUFFIXES)
            raise InputError(f"{path}: the folder holds no images ({suffixes})")
        self._numbers = _numbers_of_pattern(path, self._files) or numbers(self._files)
        self._max_pixels = max_pixels
        self._start()
        height, width = next(self._images())[1].shape[:2]
        name = name or images_name(path)
        self.info = VideoInfo(name, str(path), width, height, None, len(self._files))
        self._start()

    def _start(self) -> None:
        self._decoded = 0
        self._failures: list[InputError] = []
        self._gaps: list[tuple[int, Path]] = []  # numbers missing, and the image after them

    @property
    def counts(self) -> ReadCounts:
        missing = sum(count for count, _ in self._gaps)
        return ReadCounts(self._decoded, len(self._failures), len(self._files), missing)

    @property
    def notes(self) -> tuple[str, ...]:
        found = []
        if self._failures:
            found.append(f"first image that could not be read: {self._failures[0]}")
        if self._gaps:
            count, before = self._gaps[0]
            found.append(f"the first gap in the numbers: {count} missing before {before.name}")
        return tuple(found)

    def __iter__(self) -> Iterator[Frame]:
        self._start()
        expected = (self.info.height, self.info.width)
        next_index = 0
        for place, image in self._images():
            if image.shape[:2] != expected:
                raise InputError(
                    f"{self._files[place]}: the image is {size_text(image.shape)}, but the first "
                    f"one is {size_text(expected)}; put images of one size in a folder"
                )
            index = self._numbers[place]
            missing = index - (self._numbers[place - 1] + 1 if place else 0)
            if missing:
                self._gaps.append((missing, self._files[place]))
            self._decoded += 1
            yield Frame(image, index, float(index / ASSUMED_FPS), index - next_index)
            next_index = index + 1

    def _images(self) -> Iterator[tuple[int, np.ndarray]]:
        """Place in the list and image; raises InputError once too many could not be read."""
        for place, file in enumerate(self._files):
            try:
                image = read_image(file)
            except InputError as error:
                self._failures.append(error)
                if len(self._files) == 1:
                    raise
                self._check_failures()
                continue
            check_pixels(file, image.shape, self._max_pixels)
            yield place, image

    def _check_failures(self) -> None:
        count, total = len(self._failures), len(self._files)
        if count > UNREADABLE_SHARE * total:
            raise InputError(
                f"{self._failures[0]} ({count} of {total} images so far, more than "
                f"{UNREADABLE_SHARE:.0%}: mend or remove them)"
            )


def list_images(folder: str | Path) -> list[Path]:
    """Image files directly in a folder, in natural order; hidden files are left out."""
    files = [
        file for file in Path(folder).iterdir() if is_image(file) and not file.name.startswith(".")
    ]
    return sorted(files, key=lambda file: natural_key(file.name))


def is_image(path: str | Path) -> bool:
    """By its suffix."""
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def is_image_pattern(text: str) -> bool:
    """Whether the last part of a path is a pattern that stands for images: %06d.jpg, *.jpg."""
    return _has_number(text) or glob.has_magic(text)


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key under which numbers inside names count as numbers: "f2" before "f10"."""
    parts = re.split(r"([0-9]+)", text)
    key = [(0, int(p), "") if p.isdecimal() else (1, 0, p.lower()) for p in parts if p]
    return [*key, (2, 0, text)]  # names that differ only in zeros or case keep one order


def numbers(files: list[Path]) -> list[int]:
    """The index of each image: its number in the sequence from 0, or else its place in the list.

    A sequence has names that differ in their last number only, and a step between numbers that is
    the smallest one, is found at least every second time, and divides the others.
    """
    places = list(range(len(files)))
    found = [re.fullmatch(r"(.*?)([0-9]+)([^0-9]*)", file.stem) for file in files]
    if any(match is None for match in found):
        return places
    frames = {(f.parent, f.suffix.lower(), m[1], m[3]) for f, m in zip(files, found, strict=True)}
    values = [int(match[2]) for match in found]
    steps = Counter(b - a for a, b in pairwise(values))
    step = min(steps, default=0)
    if len(frames) > 1 or step < 1 or 2 * steps[step] < len(files) - 1:
        return places
    if any(other % step for other in steps):
        return places
    return [(value - values[0]) // step for value in values]


def image_files(path: str | Path) -> list[Path]:
    """The images of a folder or pattern in order, or the one image; raises InputError."""
    given = Path(path)
    if exists(given) and given.is_dir():
        return list_images(given)
    if exists(given) or not is_image_pattern(str(path)):
        return [existing_file(given)]
    if _has_number(str(path)):
        return _numbered(given)
    return [file for file in matches(str(path)) if is_image(file) and file.is_file()]


def matches(pattern: str) -> list[Path]:
    """What there is of a pattern with *, ?, [...] or **, in natural order.

    A folder that exists is taken by its name, whatever signs are in it.
    """
    path = Path(pattern)
    if path.parent.is_dir():
        pattern = str(Path(glob.escape(str(path.parent)), path.name))
    found = map(Path, glob.glob(pattern, recursive=True))
    return sorted(found, key=lambda file: natural_key(str(file)))


def _has_number(text: str) -> bool:
    return is_image(text) and len(_NUMBER.findall(Path(text).name)) == 1


def _numbered(pattern: Path) -> list[Path]:
    """The files that a pattern such as f%06d.jpg stands for, by number."""
    before, form, after = _NUMBER.split(pattern.name)
    found = {}
    for file in pattern.parent.iterdir() if pattern.parent.is_dir() else ():
        match = _number_expression(pattern.name).fullmatch(file.name)
        if match and file.name == f"{before}{f'%{form}d' % int(match[1])}{after}":
            found[int(match[1])] = file
    return [found[number] for number in sorted(found)]


def _numbers_of_pattern(path: str | Path, files: list[Path]) -> list[int] | None:
    """The user says that %06d counts by one; None for other paths."""
    pattern = Path(path)
    if exists(pattern) or not _has_number(str(path)):
        return None
    expression = _number_expression(pattern.name)
    values = [int(expression.fullmatch(file.name)[1]) for file in files]
    return [value - values[0] for value in values]


def _number_expression(name: str) -> re.Pattern[str]:
    before, _, after = _NUMBER.split(name)
    return re.compile(f"{re.escape(before)}([0-9]+){re.escape(after)}")


def images_name(path: str | Path) -> str:
    """The stem of a folder or image; of a pattern the folder with the letters before the sign."""
    given = Path(path)
    if exists(given):
        return safe_name(given.resolve().stem)
    prefix = re.split(r"[%*?\[]", given.name)[0].strip("._- ")
    folder = re.sub(r"[*?\[\]]+", "_", given.parent.resolve().name)
    return safe_name("_".join(filter(None, [folder, prefix])))
