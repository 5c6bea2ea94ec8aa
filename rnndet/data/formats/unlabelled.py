"""Read videos and pictures without labels: a folder of them in any nesting, or a single file.

No frame has a target, and the set has no classes of its own: training and evaluation use those of
the model. Each video is its own scene group, so `data.holdout` takes the names of videos.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from rnndet.data.formats.video_builder import read_each
from rnndet.data.problems import Problems
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.errors import InputError, NothingFoundError, RnndetError
from rnndet.messages import counted
from rnndet.registry import Share
from rnndet.video.image import read_image
from rnndet.video.sources.base import VIDEO_SUFFIXES, safe_name, size_text
from rnndet.video.sources.image_folder import is_image, list_images, natural_key
from rnndet.video.sources.open import open_source

SUFFIXES = (*VIDEO_SUFFIXES, ".gif")


def read(
    root: Path,
    split: str,
    problems: Problems,
    *,
    classes: Sequence[str] = (),
    pictures: Literal["stills", "frames"] = "stills",
    names: Sequence[str] = ("*",),
    first: Share = 0.0,
    last: Share = 1.0,
) -> VideoSet:
    """Read the folder `root/<split>`, or `root` where it has no such folder; `root` may be a file.

    A video's name is its path in the folder without the suffix. Videos are decoded once to find
    their frames, since the number that a file states is often wrong.

    Args:
        classes: of the set; usually none.
        pictures: "stills", each picture is a video of one frame; "frames", the pictures of a
            folder are the frames of one video, in natural order of their names.
        names: patterns with *, ? and [...]; only videos whose name matches one of them are read.
        first, last: only this part of the frames of each video, as shares of their number. Parts
            that meet, such as 0 to 0.67 and 0.67 to 1, have no frame in common.

    Raises InputError or RnndetError: nothing to read, or an empty part. A file that cannot be
    decoded is a problem.
    """
    if first >= last:
        raise RnndetError(f"unlabelled options.first = {first:g} must be below last = {last:g}")
    folder = root / split if (root / split).is_dir() else root
    named = _named(folder, pictures)
    chosen = {
        path: name
        for path, name in named.items()
        if any(fnmatchcase(name, pattern) for pattern in names)
    }
    if not chosen:
        raise NothingFoundError(
            f"{folder}: none of {counted(len(named), 'video')} matches names = "
            f"{', '.join(names)}; the first is {next(iter(named.values()))}"
        )

    def read_video(path: Path) -> VideoRecord | None:
        return _part(_record(path, chosen[path]), first, last)

    records = read_each(list(chosen), read_video, problems)
    videos = tuple(record for record in records if record is not None)
    if len(videos) < len(records):
        problems.correct("videos too short for first and last left out", len(records) - len(videos))
    if not videos:
        raise NothingFoundError(f"{folder}: no video has a frame between first and last")
    return VideoSet(tuple(classes), videos)


def _named(folder: Path, pictures: str) -> dict[Path, str]:
    """The name of each video file, picture and folder of frames. Raises InputError."""
    if not folder.exists():
        raise NothingFoundError(f"{folder}: no such file or folder of videos or pictures")
    if folder.is_file():
        return {folder: safe_name(folder.stem)}
    files = [path for path in folder.rglob("*") if _is_used(path, folder)]
    if pictures == "frames":
        files = list(dict.fromkeys(file.parent if is_image(file) else file for file in files))
    if not files:
        raise NothingFoundError(f"{folder}: no videos or pictures found (.mp4, .avi, .jpg, ...)")
    files.sort(key=lambda file: natural_key(str(file)))
    short = {file: _name(file, folder, with_suffix=False) for file in files}
    shared = {name for name, count in Counter(short.values()).items() if count > 1}
    names = {
        file: _name(file, folder, with_suffix=True) if name in shared else name
        for file, name in short.items()
    }
    for name, count in Counter(names.values()).items():
        if count > 1:
            raise InputError(f"{folder}: {count} videos are called {name}; rename one")
    return names


def _is_used(path: Path, folder: Path) -> bool:
    """Whether a path is a video or a picture and not hidden."""
    is_known = is_image(path) or path.suffix.lower() in SUFFIXES
    parts = path.relative_to(folder).parts
    return is_known and path.is_file() and not any(part.startswith(".") for part in parts)


def _name(path: Path, folder: Path, *, with_suffix: bool) -> str:
    """The path in the folder, of characters that a folder name may have."""
    if path == folder:
        return safe_name(folder.resolve().name)
    *parents, last = path.relative_to(folder).parts
    last = last if with_suffix or path.is_dir() else path.stem
    return "/".join(map(safe_name, (*parents, last)))


def _record(path: Path, name: str) -> VideoRecord:
    """The record of a video file, a picture or a folder of frames. Raises InputError."""
    if path.is_dir() or is_image(path):
        return _record_of_pictures(list_images(path) if path.is_dir() else [path], name)
    with open_source(path) as source:
        frames = tuple(FrameRecord(frame.index, None) for frame in source)
        info = source.info
    fps = float(info.fps) if info.fps else None
    return VideoRecord(name, info.height, info.width, fps, frames, path, group=name)


def _record_of_pictures(files: Sequence[Path], name: str) -> VideoRecord:
    """The record of pictures of one size. Raises InputError."""
    height, width = read_image(files[0]).shape[:2]
    for file in files[1:]:
        shape = read_image(file).shape
        if shape[:2] != (height, width):
            raise InputError(
                f"{file}: {size_text(shape)}, but the first of its folder is {width}x{height}; "
                'pictures = "stills" reads pictures of any size'
            )
    frames = tuple(FrameRecord(index, None, file) for index, file in enumerate(files))
    return VideoRecord(name, height, width, None, frames, group=name)


def _part(video: VideoRecord, first: float, last: float) -> VideoRecord | None:
    """The frames from the share `first` to the share `last`; None if there are none."""
    count = len(video.frames)
    frames = video.frames[round(first * count) : round(last * count)]
    return replace(video, frames=frames) if frames else None
