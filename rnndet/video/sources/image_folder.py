"""Read images as a video: a folder, a pattern such as %06d.jpg or *.jpg, or a single image."""

import glob
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from rnndet.errors import InputError
from rnndet.messages import counted
from rnndet.structures import DEFAULT_FPS, Frame, VideoInfo
from rnndet.video.exif import count_images
from rnndet.video.image import INVALID, MAX_BITS, bits_of_folder, read_image
from rnndet.video.sources.base import (
    MAX_PIXELS,
    VIDEO_SUFFIXES,
    ReadCounts,
    Source,
    check_pixels,
    exists,
    safe_name,
    size_text,
)
from rnndet.video.sources.capture import existing_file

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff",
)  # fmt: skip
# Images that are not read: not every build of OpenCV can decode them.
OTHER_SUFFIXES = frozenset({
    ".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".jxr", ".gif", ".tga", ".psd", ".exr",
    ".hdr", ".ppm", ".pgm", ".pbm", ".pnm", ".svg", ".ico", ".dng", ".cr2", ".cr3", ".nef", ".arw",
    ".orf", ".rw2", ".raf", ".raw",
})  # fmt: skip
UNREADABLE_SHARE = 0.05  # of the images; with more, the folder is probably the wrong one
_NUMBER = re.compile(r"%(0?[0-9]{0,2})d")


class ImageFolder(Source):
    """The images of a folder or pattern in natural order (2 before 10), or a single image.

    Where the names differ in a single number, `index` follows that number, so that a missing image
    leaves a gap and shifts no other index; so does an image that cannot be decoded. Times
    assume 25 frames per second; `info.fps` is None.

    Args:
        path: a folder; an image; or, where no file has that name, a pattern: %06d.jpg for
            numbered images, or a glob with *, ? or [...].

    Raises:
        InputError: no images, more than 5 % of them unreadable, or images of different sizes.
    """

    def __init__(
        self, path: str | Path, *, name: str | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        self._files = image_files(path)
        if not self._files:
            raise InputError(f"{path}: {_why_none(path)}")
        self._numbers = _numbers_of_pattern(path, self._files) or numbers(self._files)
        self._max_pixels = max_pixels
        self._left_out = _left_out(path)
        self._bits = bits_of_folder(self._files[0])
        self._reset_counts()
        height, width = next(self._images())[1].shape[:2]
        name = name or images_name(path)
        self.info = VideoInfo(name, str(path), width, height, None, len(self._files))
        self._reset_counts()

    def _reset_counts(self) -> None:
        self._decoded = 0
        self._failures: list[InputError] = []
        self._gaps: list[tuple[int, Path]] = []  # numbers missing, and the image after them
        self._several: list[tuple[int, Path]] = []  # images in a file with more than one

    @property
    def counts(self) -> ReadCounts:
        missing = sum(count for count, _ in self._gaps)
        return ReadCounts(self._decoded, len(self._failures), len(self._files), missing)

    @property
    def notes(self) -> tuple[str, ...]:
        notes = [] if self._left_out is None else [self._left_out]
        if self._bits is not None and self._bits < MAX_BITS:
            notes.append(
                f"16-bit images without values above {2**self._bits - 1} "
                f"(a few pixels of {INVALID} aside) are read as {self._bits}-bit images"
            )
        if self._several:
            count, file = self._several[0]
            files = counted(len(self._several), "file")
            notes.append(
                f"only the first image is read of {files} with several ({file.name}: {count}); "
                "save them as single images, or as a video"
            )
        if self._failures:
            notes.append(f"the first image that could not be read: {self._failures[0]}")
        if self._gaps:
            count, file = self._gaps[0]
            notes.append(f"the first gap in the numbers: {count} missing before {file.name}")
        return tuple(notes)

    def __iter__(self) -> Iterator[Frame]:
        self._reset_counts()
        expected = (self.info.height, self.info.width)
        next_index = 0
        for place, image in self._images():
            if image.shape[:2] != expected:
                raise InputError(
                    f"{self._files[place]}: the image is {size_text(image.shape)}, but the first "
                    f"is {size_text(expected)}; put images of different sizes in different folders"
                )
            index = self._numbers[place]
            missing = index - (self._numbers[place - 1] + 1 if place else 0)
            if missing:
                self._gaps.append((missing, self._files[place]))
            self._decoded += 1
            yield Frame(image, index, float(index / DEFAULT_FPS), index - next_index)
            next_index = index + 1

    def _images(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield place in the list and image; raises InputError after too many unreadable images."""
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
            count = count_images(file)
            if count > 1:
                self._several.append((count, file))
            yield place, image

    def _check_failures(self) -> None:
        count, total = len(self._failures), len(self._files)
        if count > UNREADABLE_SHARE * total:
            raise InputError(
                f"{self._failures[0]} ({count} of {total} images so far, more than "
                f"{UNREADABLE_SHARE:.0%}: repair or remove them)"
            )


def _left_out(path: str | Path) -> str | None:
    """What images of a folder are not read, in one line; None without any, and for other paths."""
    if not (exists(Path(path)) and Path(path).is_dir()):
        return None
    suffixes = Counter(
        file.suffix.lower()
        for file in Path(path).iterdir()
        if file.suffix.lower() in OTHER_SUFFIXES and not file.name.startswith(".")
    )
    if not suffixes:
        return None
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(suffixes.items()))
    return f"images of other formats are left out: {kinds}; convert them to jpg or png"


def _why_none(path: str | Path) -> str:
    """Why a folder or a pattern gives no images, and what to do."""
    if not exists(Path(path)):
        if any(Path(found).suffix.lower() in VIDEO_SUFFIXES for found in glob.iglob(str(path))):
            lister = f"rnndet.video.sources.listing.expand({str(path)!r})"
            return f"matches videos, no images; for a list of the videos use {lister}"
        return "no file matches; check the pattern"
    none = f"no images in the folder ({', '.join(IMAGE_SUFFIXES)})"
    suffixes = Counter(file.suffix for file in Path(path).iterdir())
    videos = [suffix for suffix, _ in suffixes.most_common() if suffix.lower() in VIDEO_SUFFIXES]
    if videos:
        count = counted(suffixes[videos[0]], "video")
        return f"{none}, but {count}; give the pattern {Path(path) / ('*' + videos[0])}"
    return f"{none}; {_left_out(path) or 'check the path'}"


def list_images(folder: str | Path) -> list[Path]:
    """Image files directly in a folder, in natural order; hidden files are left out."""
    files = [
        file for file in Path(folder).iterdir() if is_image(file) and not file.name.startswith(".")
    ]
    return sorted(files, key=lambda file: natural_key(file.name))


def is_image(path: str | Path) -> bool:
    """Whether a file is an image, by its suffix.

    >>> is_image("a/photo.JPG")
    True
    """
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def is_image_pattern(text: str) -> bool:
    """Whether the last part of a path is a pattern of images: %06d.jpg, *.jpg."""
    return _has_number(text) or glob.has_magic(text)


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key that compares numbers inside names by value.

    >>> sorted(["f10", "f2"], key=natural_key)
    ['f2', 'f10']
    """
    parts = re.split(r"([0-9]+)", text)
    key = [(0, int(p), "") if p.isdecimal() else (1, 0, p.lower()) for p in parts if p]
    return [*key, (2, 0, text)]  # a fixed order for names that differ only in zeros or case


def numbers(files: list[Path]) -> list[int]:
    """The index of each image: its number in the sequence from 0, or else its place in the list.

    The files are a sequence if their names differ in the last number only, and if the smallest step
    between numbers is at least half of all steps and divides the others.

    >>> numbers([Path("f10.jpg"), Path("f12.jpg"), Path("f16.jpg")])
    [0, 1, 3]
    """
    places = list(range(len(files)))
    parts = [re.fullmatch(r"(.*?)([0-9]+)([^0-9]*)", file.stem) for file in files]
    if any(part is None for part in parts):
        return places
    names = {(f.parent, f.suffix.lower(), p[1], p[3]) for f, p in zip(files, parts, strict=True)}
    values = [int(part[2]) for part in parts]
    steps = Counter(b - a for a, b in pairwise(values))
    step = min(steps, default=0)
    if len(names) > 1 or step < 1 or 2 * steps[step] < len(files) - 1:
        return places
    if any(other % step for other in steps):
        return places
    return [(value - values[0]) // step for value in values]


def image_files(path: str | Path) -> list[Path]:
    """The images of a folder or pattern in order, or a single image; raises InputError."""
    text, path = str(path), Path(path)
    if exists(path) and path.is_dir():
        return list_images(path)
    if exists(path) or not is_image_pattern(text):
        return [existing_file(path)]
    if _has_number(text):
        return _numbered(path)
    return [file for file in matches(text) if is_image(file) and file.is_file()]


def matches(pattern: str) -> list[Path]:
    """The files and folders that match a glob with *, ?, [...] or **, in natural order.

    An existing parent folder is taken literally, with any characters.
    """
    path = Path(pattern)
    if path.parent.is_dir():
        pattern = str(Path(glob.escape(str(path.parent)), path.name))
    paths = map(Path, glob.glob(pattern, recursive=True))
    return sorted(paths, key=lambda path: natural_key(str(path)))


def _has_number(text: str) -> bool:
    return is_image(text) and len(_NUMBER.findall(Path(text).name)) == 1


def _numbered(pattern: Path) -> list[Path]:
    """The files that match a pattern such as f%06d.jpg, by number."""
    before, width, after = _NUMBER.split(pattern.name)
    files = {}
    for file in pattern.parent.iterdir() if pattern.parent.is_dir() else ():
        match = _number_expression(pattern.name).fullmatch(file.name)
        if match and file.name == f"{before}{f'%{width}d' % int(match[1])}{after}":
            files[int(match[1])] = file
    return [files[number] for number in sorted(files)]


def _numbers_of_pattern(path: str | Path, files: list[Path]) -> list[int] | None:
    """The indices of the images of a pattern like %06d, which counts by 1; None for other paths."""
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
    """The stem of a folder or image; for a pattern its folder and the text before the pattern."""
    path = Path(path)
    if exists(path):
        return safe_name(path.resolve().stem)
    prefix = re.split(r"[%*?\[]", path.name)[0].strip("._- ")
    folder = re.sub(r"[*?\[\]]+", "_", path.parent.resolve().name)
    return safe_name("_".join(filter(None, [folder, prefix])))
