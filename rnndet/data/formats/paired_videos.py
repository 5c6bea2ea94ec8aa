"""Find and open the videos next to their label files, and join them into one set."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rnndet.data.formats.video_builder import MAX_FRAMES, VideoBuilder
from rnndet.data.orientation import Orientation, stated_size_hw, turn_hint
from rnndet.data.records import VideoRecord, VideoSet
from rnndet.data.targets import relabelled
from rnndet.errors import InputError
from rnndet.messages import counted
from rnndet.structures import VideoInfo
from rnndet.video.sources.base import VIDEO_SUFFIXES, safe_name
from rnndet.video.sources.image_folder import list_images
from rnndet.video.sources.open import count_frames, open_source

CVAT_IMAGE = re.compile(r"frame_([0-9]{6,7})")  # of a video task


def videos_in(folder: Path) -> dict[str, list[Path]]:
    """List the video files and image folders in a folder, by the stem of their label files."""
    videos: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith(".") and list_images(path):
            videos[path.name].append(path)
        elif path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES and path.name[0] != ".":
            videos[path.stem].append(path)
    return dict(videos)


def video_of(file: Path, videos: Mapping[str, Sequence[Path]]) -> Path:
    """Return the one video with the name of a label file. Raises InputError: none, or several."""
    named = videos.get(file.stem, ())
    if not named:
        raise InputError(
            f"{file}: labels without a video; expected {file.stem}.mp4 or the like beside it, or "
            f"a folder {file.stem} of images"
        )
    if len(named) > 1:
        names = " and ".join(path.name for path in named)
        raise InputError(f"{file}: may label {names}; keep one of them")
    return named[0]


def video_info(video: Path) -> VideoInfo:
    """Open a video file or a folder of images and return its info. Raises InputError."""
    if not video.exists():
        raise InputError(f"{video}: no such video")
    with open_source(video) as source:
        return source.info


def frame_size_hw(
    file: Path,
    video: Path,
    info: VideoInfo,
    *,
    stated_hw: tuple[int, int] | None,
    orientation: Orientation,
) -> tuple[int, int]:
    """Return the size of the frames that `file` labels; `stated_hw` is the size that it states.

    Raises InputError if it states another size than the video has.
    """
    image = list_images(video)[0] if video.is_dir() else None
    shown_hw = (info.height, info.width)
    size_hw = stated_size_hw(image, shown_hw, stated_hw, orientation)
    if stated_hw not in (None, size_hw):
        hint = turn_hint(image or video, stated_hw, as_stored=size_hw != shown_hw)
        raise InputError(
            f"{file}: labels images of {stated_hw[1]}x{stated_hw[0]}, but the images of "
            f"{info.source} have {size_hw[1]}x{size_hw[0]}" + (f"; {hint}" if hint else "")
        )
    return size_hw


def all_frames(video: Path, info: VideoInfo, *, last: int) -> range:
    """Return all frame numbers of a video; of a file those that decoding gives, at least to `last`.

    The number of frames that a file states is a hint: an edit list hides some of them, and for
    other files it follows from the duration.
    """
    stop = (info.length or 1) if video.is_dir() else max(count_frames(video), last + 1)
    if stop > MAX_FRAMES:
        raise InputError(f"{video}: {stop} frames are claimed or labelled, more than a video has")
    return range(stop)


def frame_images(video: Path, frames: range) -> dict[int, Path | None]:
    """Return the image of each frame; None in a video file.

    The images of a folder are all frames of the video from 0, in natural order of names. If there
    are fewer, they are the labelled ones, as CVAT exports them: images called frame_000005 have the
    number of their frame, and those of deleted frames are missing; under other names they are as
    many as the frames. Raises InputError: other images.
    """
    if not video.is_dir():
        return dict.fromkeys(frames)
    images = list_images(video)
    if frames[-1] < len(images):
        return {frame: images[frame] for frame in frames}
    named = {int(m[1]): image for image in images if (m := CVAT_IMAGE.fullmatch(image.stem))}
    if images and len(named) == len(images) and named.keys() <= set(frames):
        return dict(sorted(named.items()))
    if len(images) == len(frames):
        return dict(zip(frames, images, strict=True))
    raise InputError(
        f"{video}: holds {counted(len(images), 'image')}; {frames[-1] + 1} are labelled"
    )


def build_record(
    builder: VideoBuilder, file: Path, video: Path, info: VideoInfo, *, states_size: bool
) -> VideoRecord:
    """Return the record of a video, named after its label file."""
    fps = float(info.fps) if info.fps else None
    path = None if video.is_dir() else video
    record = builder.build(safe_name(file.stem), fps=fps, path=path)
    return replace(record, states_size=states_size)


def join(sets: Iterable[VideoSet]) -> VideoSet:
    """Join sets into one, with all classes in the order of first occurrence.

    Raises InputError if two videos have the same name.
    """
    sets = list(sets)
    classes = tuple(dict.fromkeys(name for part in sets for name in part.classes))
    videos = [relabelled(video, part.classes, classes) for part in sets for video in part.videos]
    names = Counter(video.name for video in videos)
    if twice := [name for name, count in names.items() if count > 1]:
        raise InputError(f"two videos are called {twice[0]}; rename one")
    return VideoSet(classes, tuple(videos))
