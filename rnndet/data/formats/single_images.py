"""Join single labelled images to videos, by their folders and the frame numbers in their names.

Formats with one label file per image do not say which images belong together. The video of an
image is its folder and the part of its name before the number that ends the name; that number is
the frame: `yard/frame_000012.jpg` is frame 12 of `yard/frame`, `yard/12.jpg` of `yard`. The suffix
that Roboflow adds to a name (`yard_mp4-12_jpg.rf.0a1b2c.jpg`) is not part of it, nor are the eight
digits that Label Studio puts before the name of each uploaded file (`3f2a1b9c-yard_12.jpg`), where
all images of a folder have them and they differ. An image without a number at the end is a video of
one frame. Where a number is too large for a frame, such as a time, frames are counted in the order
of the names.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from rnndet.data.formats.video_builder import MAX_FRAMES
from rnndet.data.problems import Problems
from rnndet.video.sources.base import safe_name
from rnndet.video.sources.image_folder import is_image, natural_key

# An option: "frames", images are joined to videos; "stills", each image is a video of one frame.
Pictures = Literal["frames", "stills"]

ANY_SIZE = 'photographs are no video: pictures = "stills" reads images of any size'  # a hint

_ROBOFLOW = re.compile(r"_(?:jpe?g|png|bmp|webp|tiff?)\.rf\.\w+$", re.IGNORECASE)
_UPLOADED = re.compile(r"([0-9a-f]{8})-((?![0-9a-f]{8}$).+)")
_NUMBERED = re.compile(r"(.*?)[ _.-]*([0-9]+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image and where its labels are expected."""

    image: Path
    labels: Path

    def __str__(self) -> str:
        return str(self.image)


def images_below(folder: Path) -> dict[str, Path]:
    """Return the images in a folder, in any nesting, by their path in it without the suffix.

    Hidden files and folders are left out; of images that differ in the suffix only, the first is
    taken.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*"), key=lambda path: natural_key(path.as_posix())):
        relative = path.relative_to(folder)
        if is_image(path) and not any(part.startswith(".") for part in relative.parts):
            found.setdefault(relative.with_suffix("").as_posix(), path)
    return found


def videos_of(
    images: Mapping[str, LabelledImage], pictures: Pictures, problems: Problems
) -> Iterator[tuple[str, dict[int, LabelledImage]]]:
    """Yield the name and the frames of each video, in natural order.

    images: by their path without the suffix. Two images that are the same frame are a problem; the
    first is taken.
    """
    groups: dict[str, dict[str, int]] = defaultdict(dict)  # video -> image -> number
    uploaded = _uploaded(images)
    for path in images:
        name, number = (
            _frame(uploaded.get(path, path)) if pictures == "frames" else (_safe(path), 0)
        )
        groups[name][path] = number
    for name in sorted(groups, key=natural_key):
        numbers = groups[name]
        paths = sorted(numbers, key=lambda path: (numbers[path], natural_key(path)))
        if numbers[paths[-1]] >= MAX_FRAMES:
            numbers = {path: place for place, path in enumerate(paths)}
        frames: dict[int, LabelledImage] = {}
        for path in paths:
            first = frames.setdefault(numbers[path], images[path])
            if first is not images[path]:
                problems.add(
                    images[path].image, "", f"is frame {numbers[path]} of the video {name}, as is "
                    f"{first.image.name}; rename one, or set pictures = \"stills\""
                )  # fmt: skip
        yield name, frames


def _uploaded(paths: Iterable[str]) -> dict[str, str]:
    """The paths of images that Label Studio renamed, with the paths that they had before.

    >>> _uploaded(["a/3f2a1b9c-yard_1", "a/00aabbcc-yard_2", "b/1"])
    {'a/3f2a1b9c-yard_1': 'a/yard_1', 'a/00aabbcc-yard_2': 'a/yard_2'}
    """
    folders: dict[str, dict[str, re.Match[str] | None]] = defaultdict(dict)
    for path in paths:
        folder, _, stem = path.rpartition("/")
        folders[folder][path] = _UPLOADED.fullmatch(stem)
    found = {}
    for folder, matches in folders.items():
        prefixes = {match[1] for match in matches.values() if match is not None}
        if len(prefixes) == len(matches) > 1:
            found.update({p: f"{folder}/{m[2]}".lstrip("/") for p, m in matches.items() if m})
    return found


def _frame(path: str) -> tuple[str, int]:
    """Return the name of the video and the number of the frame of an image.

    >>> _frame("yard/frame_000012"), _frame("yard/12"), _frame("a"), _frame("12")
    (('yard/frame', 12), ('yard', 12), ('a', 0), ('images', 12))
    >>> _frame("yard_mp4-12_jpg.rf.0a1b2c")
    ('yard_mp4', 12)
    """
    folder, stem = PurePath(path).parent.as_posix(), PurePath(path).name
    match = _NUMBERED.fullmatch(_ROBOFLOW.sub("", stem))
    name, number = (stem, 0) if match is None else (match[1], int(match[2]))
    parts = [part for part in (folder, name) if part not in ("", ".")]
    return _safe("/".join(parts)) if parts else "images", number


def _safe(path: str) -> str:
    return "/".join(map(safe_name, PurePath(path).parts))
