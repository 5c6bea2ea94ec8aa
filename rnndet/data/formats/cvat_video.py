"""CVAT for video 1.1: one XML of tracks for each video, which stands beside it.

`NAME.xml` labels the video file `NAME.mp4` (or another of VIDEO_SUFFIXES), or the images of the
folder `NAME` in natural order. Frames count from 0. The labelled frames are the `<size>` frames of
the `<task>` or `<job>` from its `<start_frame>` in the steps of its `<frame_filter>`; without a
`<size>`, all frames of the video. One without boxes holds nothing.

Every `<box>` of a `<track>` counts, keyframe or not. Between two boxes the track moves linearly, as
in CVAT; with outside="1" it is gone until its next box, and after its last box it stays where it is
to the end of the task. Attributes are not read.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

import torch

from rnndet.data.formats.text import read_xml
from rnndet.data.formats.video_builder import (
    MAX_FRAMES,
    VideoBuilder,
    count_unlabelled,
    label_files,
    read_each,
)
from rnndet.data.problems import Problems
from rnndet.data.records import VideoRecord, VideoSet
from rnndet.data.targets import ANY_CLASS, LARGEST
from rnndet.errors import InputError
from rnndet.structures import VideoInfo
from rnndet.video.sources.base import safe_name
from rnndet.video.sources.image_folder import list_images
from rnndet.video.sources.open import VIDEO_SUFFIXES, open_source

Box = tuple[float, float, float, float]


class KeyBox(NamedTuple):
    """One `<box>` of a track."""

    frame: int
    box: Box  # x1 y1 x2 y2
    is_outside: bool  # not to be seen from here on


def read(
    root: Path,
    split: str,
    problems: Problems,
    *,
    classes: Sequence[str] | None = None,
    video: str | None = None,
) -> VideoSet:
    """Read `root/<split>/*.xml`; the split "." is `root` itself.

    classes: names in the order of the labels; None for those of the files, in the order first met.
    Give them where two splits must agree. video: where videos lie under `root`, {stem} standing for
    the name of the XML without suffix; None for beside it.

    Raises InputError where there are no XML files. A file that cannot be read, or whose video is
    not there or of another size, and a track of unknown label are problems.
    """
    folder = root / split
    files = label_files(folder, "*.xml")
    beside = {} if video else videos_in(folder)
    count_unlabelled(beside, files, problems)

    def read_one(file: Path) -> VideoSet:
        named = root / video.replace("{stem}", file.stem) if video else video_of(file, beside)
        return read_video(file, named, problems, classes=classes)

    return join(read_each(files, read_one, problems))


def read_video(
    file: Path, video: Path, problems: Problems, *, classes: Sequence[str] | None = None
) -> VideoSet:
    """The set of the one video that `file` labels. Raises InputError."""
    tree = read_xml(file)
    task = tree.find("meta/task")
    task = tree.find("meta/job") if task is None else task
    if tree.tag != "annotations" or task is None or tree.find("image") is not None:
        raise InputError(f"{file}: not an export of one task or job as CVAT for video 1.1")
    info = video_info(video)
    _check_size(task, info, file)
    named = [label.findtext("name", "").strip() for label in task.iterfind("labels/label")]
    names = tuple(dict.fromkeys(named if classes is None else classes))
    tracks = list(_tracks(tree, names, file, problems))
    last = max((key.frame for *_, keys in tracks for key in keys if not key.is_outside), default=0)
    frames = _task_frames(task, file) or all_frames(video, info, last=last)
    size_hw = (info.height, info.width)
    builder = VideoBuilder(
        frame_images(video, frames), size_hw=size_hw, file=file, problems=problems
    )
    for label, track, keys in tracks:
        for frame, box in _visible(keys, frames):
            builder.add(frame, box, label, entry=f"track {track} frame {frame}", track=track)
    return VideoSet(names, (build_record(builder, file, video, info),))


def videos_in(folder: Path) -> dict[str, list[Path]]:
    """The video files and folders of images in a folder, by the name that their labels bear."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith(".") and list_images(path):
            found[path.name].append(path)
        elif path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES and path.name[0] != ".":
            found[path.stem].append(path)
    return dict(found)


def video_of(file: Path, videos: Mapping[str, Sequence[Path]]) -> Path:
    """The one of `videos` that a label file bears the name of. Raises InputError."""
    found = videos.get(file.stem, ())
    if not found:
        raise InputError(
            f"{file}: labels without a video; expected {file.stem}.mp4 or the like beside it, or "
            f"a folder {file.stem} of images"
        )
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise InputError(f"{file}: may label {names}; keep one of them")
    return found[0]


def video_info(video: Path) -> VideoInfo:
    """What is known of a video file or a folder of images. Raises InputError."""
    if not video.exists():
        raise InputError(f"{video}: no such video")
    with open_source(video) as source:
        return source.info


def all_frames(video: Path, info: VideoInfo, *, last: int) -> range:
    """Every frame of a video; of a file up to frame `last` at least, for its length is a hint."""
    length = info.length or 1
    stop = length if video.is_dir() else max(length, last + 1)
    if stop > MAX_FRAMES:
        raise InputError(f"{video}: {stop} frames are claimed or labelled, more than a video has")
    return range(stop)


def frame_images(video: Path, frames: range) -> dict[int, Path | None]:
    """The image of each frame, in natural order of names; None for those of a video file."""
    if not video.is_dir():
        return dict.fromkeys(frames)
    images = list_images(video)
    if frames[-1] >= len(images):
        raise InputError(f"{video}: holds {len(images)} images; {frames[-1] + 1} are labelled")
    return {frame: images[frame] for frame in frames}


def build_record(builder: VideoBuilder, file: Path, video: Path, info: VideoInfo) -> VideoRecord:
    """The record of a video, named after its labels."""
    fps = float(info.fps) if info.fps else None
    return builder.build(safe_name(file.stem), fps=fps, path=None if video.is_dir() else video)


def join(sets: Iterable[VideoSet]) -> VideoSet:
    """One set of all videos, with all classes in the order first met.

    Raises InputError if two videos have one name.
    """
    sets = list(sets)
    classes = tuple(dict.fromkeys(name for one in sets for name in one.classes))
    videos = [_renumbered(video, one.classes, classes) for one in sets for video in one.videos]
    names = Counter(video.name for video in videos)
    if twice := [name for name, count in names.items() if count > 1]:
        raise InputError(f"two videos are called {twice[0]}; rename one")
    return VideoSet(classes, tuple(videos))


def _renumbered(video: VideoRecord, old: Sequence[str], new: Sequence[str]) -> VideoRecord:
    """The video with labels that count in `new` instead of `old`."""
    table = torch.tensor([*(new.index(name) for name in old), ANY_CLASS])  # [-1] is ANY_CLASS
    frames = []
    for frame in video.frames:
        assert frame.target is not None, video.name
        target = replace(frame.target, labels=table[frame.target.labels])
        frames.append(replace(frame, target=target))
    return replace(video, frames=tuple(frames))


def _check_size(task: Element, info: VideoInfo, file: Path) -> None:
    width = _number(task, "original_size/width", file, default=info.width)
    height = _number(task, "original_size/height", file, default=info.height)
    if (width, height) != (info.width, info.height):
        raise InputError(
            f"{file}: labels images of {width}x{height}, but those of {info.source} have "
            f"{info.width}x{info.height}"
        )


def _task_frames(task: Element, file: Path) -> range | None:
    """The frames that a task or job consists of; None where it does not say."""
    size = _number(task, "size", file, default=None)
    if size is None:
        return None
    start = _number(task, "start_frame", file, default=0)
    step = re.search(r"step\s*=\s*([1-9][0-9]{0,8})", task.findtext("frame_filter", ""))
    step = int(step[1]) if step else 1
    if size < 1 or start < 0 or start + size * step > MAX_FRAMES:
        raise InputError(f"{file}: a task of {size} frames from {start} in steps of {step}")
    return range(start, start + size * step, step)


def _number(task: Element, path: str, file: Path, *, default: int | None) -> int | None:
    """The whole number in an element of the task; `default` if it is missing or empty."""
    text = task.findtext(path, "").strip()
    try:
        return int(text) if text else default
    except ValueError:
        raise InputError(f"{file}: <{path}> is not a whole number: {text[:40]!r}") from None


def _tracks(
    tree: Element, names: Sequence[str], file: Path, problems: Problems
) -> Iterator[tuple[int, int, list[KeyBox]]]:
    """Label, id and boxes of every track."""
    for place, element in enumerate(tree.iterfind("track")):
        where = f"track {element.get('id', place)}"
        if others := sum(child.tag not in ("box", "attribute") for child in element):
            problems.correct("shapes that are no boxes left out", others)
        name = element.get("label", "")
        if name not in names:
            problems.add(file, where, f"label {name!r} is unknown; known are {', '.join(names)}")
            continue
        try:
            track = int(element.get("id", place))
        except ValueError:
            problems.add(file, where, "the id is not a number")
            continue
        yield names.index(name), track, _keys(element, where, file, problems)


def _keys(track: Element, where: str, file: Path, problems: Problems) -> list[KeyBox]:
    """The boxes of a track in order of frames."""
    keys: dict[int, KeyBox] = {}
    for element in track.iterfind("box"):
        entry = f"{where} frame {element.get('frame')}"
        try:
            frame = int(element.get("frame", ""))
            x1, y1, x2, y2 = (float(element.get(k, "")) for k in ("xtl", "ytl", "xbr", "ybr"))
        except ValueError:
            problems.add(file, entry, "the frame or the box is not made of numbers")
            continue
        if "rotation" in element.attrib:
            problems.correct("rotated boxes read as if they were upright")
        if frame in keys:
            problems.add(file, entry, "the frame is there twice")
        elif not all(isfinite(v) and abs(v) <= LARGEST for v in (x1, y1, x2, y2)):
            problems.add(file, entry, "the box is not in pixels")
        elif x2 < x1 or y2 < y1:
            problems.add(file, entry, "the box has a negative size")
        else:
            keys[frame] = KeyBox(frame, (x1, y1, x2, y2), element.get("outside") == "1")
    return sorted(keys.values())


def _visible(keys: Sequence[KeyBox], frames: range) -> Iterator[tuple[int, Box]]:
    """Frame and box wherever a track is to be seen; also boxes that are not in `frames`."""
    for place, key in enumerate(keys):
        if key.is_outside:
            continue
        if key.frame not in frames:
            yield key.frame, key.box
            continue
        after = keys[place + 1] if place + 1 < len(keys) else key._replace(frame=frames.stop)
        for frame in range(key.frame, min(after.frame, frames.stop), frames.step):
            share = (frame - key.frame) / (after.frame - key.frame)
            x1, y1, x2, y2 = (a + share * (b - a) for a, b in zip(key.box, after.box, strict=True))
            yield frame, (x1, y1, x2, y2)
