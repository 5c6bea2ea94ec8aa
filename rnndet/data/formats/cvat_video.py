"""Read CVAT for video 1.1: one XML of tracks beside each video.

`NAME.xml` labels the video file `NAME.mp4` (or another of VIDEO_SUFFIXES), or the images of the
folder `NAME`, see `paired_videos.frame_images`. Frames count from 0. The labelled frames are the
`<size>` frames of the `<task>` or `<job>` from its `<start_frame>` in the steps of its
`<frame_filter>`; without a `<size>`, all frames of the video. A labelled frame may have no boxes.

Every `<box>` of a `<track>` is used, keyframe or not. In between, boxes are interpolated linearly,
as in CVAT. From a box with outside="1" the track is absent until its next box; after its last box
it stays in place to the end of the task. CVAT writes an object of a single frame as a track of two
boxes, the second with outside="1" in the next frame, but leaves that out if it would be the last
frame (`<stop_frame>`): a track of one box there is in its frame only. A rotated box is read as the
upright box around it. Attributes are not read.
"""

import re
from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

from rnndet.data.formats.paired_videos import (
    all_frames,
    build_record,
    frame_images,
    frame_size_hw,
    join,
    video_info,
    video_of,
    videos_in,
)
from rnndet.data.formats.text import read_xml
from rnndet.data.formats.video_builder import MAX_FRAMES, VideoBuilder, label_files, read_each
from rnndet.data.orientation import Orientation, settle
from rnndet.data.problems import Problems
from rnndet.data.records import VideoSet
from rnndet.data.targets import LARGEST, ROTATED, Box, upright
from rnndet.errors import InputError
from rnndet.messages import counted


class KeyBox(NamedTuple):
    """One `<box>` of a track."""

    frame: int
    box: Box  # before the rotation
    is_outside: bool  # absent from here on
    rotation: float  # degrees, about the centre of the box


def read(
    root: Path,
    split: str,
    problems: Problems,
    *,
    classes: Sequence[str] | None = None,
    video: str | None = None,
    orientation: Orientation = "auto",
) -> VideoSet:
    """Read `root/<split>/*.xml`; the split "." is `root` itself.

    classes: names in the order of the labels; None for those of the files, in the order of first
    occurrence. Give them where two splits must agree. video: path of a video under `root`, where
    {stem} is the name of the XML without suffix; None for beside the XML.

    Raises InputError if there are no XML files. A file that cannot be read or whose video is
    missing or of another size, and a track of unknown label are problems.
    """
    folder = root / split
    beside = videos_in(folder) if folder.is_dir() and not video else {}
    files = label_files(folder, "*.xml", videos=beside, problems=problems)

    def read_file(file: Path) -> VideoSet:
        named = root / video.replace("{stem}", file.stem) if video else video_of(file, beside)
        return read_video(file, named, problems, classes=classes, orientation=orientation)

    return settle(join(read_each(files, read_file, problems)), orientation, problems)


def read_video(
    file: Path,
    video: Path,
    problems: Problems,
    *,
    classes: Sequence[str] | None = None,
    orientation: Orientation = "auto",
) -> VideoSet:
    """Return the set of one video, labelled by `file`. Raises InputError."""
    tree = read_xml(file)
    task = tree.find("meta/task")
    task = tree.find("meta/job") if task is None else task
    if tree.tag != "annotations" or task is None or tree.find("image") is not None:
        raise InputError(f"{file}: {_other_export(tree)}")
    info = video_info(video)
    stated_hw = _stated_hw(tree, task, file)
    size_hw = frame_size_hw(file, video, info, stated_hw=stated_hw, orientation=orientation)
    labels = [label.findtext("name", "").strip() for label in task.iterfind("labels/label")]
    names = tuple(dict.fromkeys(labels if classes is None else classes))
    tracks = list(_tracks(tree, names, file, problems))
    last = max((key.frame for *_, keys in tracks for key in keys if not key.is_outside), default=0)
    frames = _task_frames(task, file) or all_frames(video, info, last=last)
    stop = _number(task, "stop_frame", file, default=None)
    images = frame_images(video, frames)
    if missing := len(frames) - len(images):
        problems.correct("frames without an image left out", missing)
    builder = VideoBuilder(images, size_hw=size_hw, file=file, problems=problems)
    for label, track, keys in tracks:
        keyed = {key.frame for key in keys}
        for frame, box in _visible(keys, frames, stop=stop):
            if frame in frames and frame not in images and frame not in keyed:
                continue  # interpolated through a deleted frame
            builder.add(frame, box, label, entry=f"track {track} frame {frame}", track=track)
    record = build_record(builder, file, video, info, states_size=stated_hw is not None)
    return VideoSet(names, (record,))


def _other_export(tree: Element) -> str:
    """What an XML is that is no export of a task or a job for video, and what to do."""
    if tree.tag == "annotations" and tree.find("image") is not None:
        return "an export as CVAT for images; export the task or job as CVAT for video 1.1"
    if tree.tag == "annotations" and tree.find("meta/project") is not None:
        return "an export of a project; export each task as CVAT for video 1.1"
    return "not an export of one task or job as CVAT for video 1.1"


def _stated_hw(tree: Element, task: Element, file: Path) -> tuple[int, int] | None:
    """Return the size of the labelled images: of the task, or of the export, as in one of a job.

    None if it is not stated. Raises InputError.
    """
    for parent in (task, tree.find("meta")):
        if parent is not None and parent.find("original_size") is not None:
            height = _number(parent, "original_size/height", file, default=None)
            width = _number(parent, "original_size/width", file, default=None)
            if height is not None and width is not None:
                return height, width
    return None


def _task_frames(task: Element, file: Path) -> range | None:
    """Return the frames of a task or job; None if it has no size."""
    size = _number(task, "size", file, default=None)
    if size is None:
        return None
    start = _number(task, "start_frame", file, default=0)
    step = re.search(r"step\s*=\s*([1-9][0-9]{0,8})", task.findtext("frame_filter", ""))
    step = int(step[1]) if step else 1
    if size < 1 or start < 0 or start + size * step > MAX_FRAMES:
        raise InputError(
            f"{file}: a task of {counted(size, 'frame')} from {start} in steps of {step}"
        )
    return range(start, start + size * step, step)


def _number(task: Element, path: str, file: Path, *, default: int | None) -> int | None:
    """Return the whole number in an element of the task; `default` if missing or empty."""
    text = task.findtext(path, "").strip()
    try:
        return int(text) if text else default
    except ValueError:
        raise InputError(f"{file}: <{path}> is not a whole number: {text[:40]!r}") from None


def _tracks(
    tree: Element, names: Sequence[str], file: Path, problems: Problems
) -> Iterator[tuple[int, int, list[KeyBox]]]:
    """Yield the label, id and boxes of every track."""
    for place, element in enumerate(tree.iterfind("track")):
        where = f"track {element.get('id', place)}"
        if others := sum(child.tag not in ("box", "attribute") for child in element):
            problems.correct("shapes other than boxes left out", others)
        name = element.get("label", "").strip()
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
    """Return the boxes of a track in order of frames."""
    keys: dict[int, KeyBox] = {}
    for element in track.iterfind("box"):
        entry = f"{where} frame {element.get('frame')}"
        try:
            frame = int(element.get("frame", ""))
            x1, y1, x2, y2 = (float(element.get(k, "")) for k in ("xtl", "ytl", "xbr", "ybr"))
            rotation = float(element.get("rotation", 0))
            if not isfinite(rotation):
                raise ValueError
        except ValueError:
            problems.add(file, entry, "the frame or the box is not made of numbers")
            continue
        if rotation % 360:
            problems.correct(ROTATED)
        if frame in keys:
            problems.add(file, entry, "the frame is there twice")
        elif not all(isfinite(v) and abs(v) <= LARGEST for v in (x1, y1, x2, y2)):
            problems.add(file, entry, "the box is not in pixels")
        elif x2 < x1 or y2 < y1:
            problems.add(file, entry, "the box has a negative size")
        else:
            is_outside = element.get("outside") == "1"
            keys[frame] = KeyBox(frame, (x1, y1, x2, y2), is_outside, rotation)
    return sorted(keys.values())


def _visible(
    keys: Sequence[KeyBox], frames: range, *, stop: int | None
) -> Iterator[tuple[int, Box]]:
    """Yield frame and box wherever a track is visible; also boxes that are not in `frames`.

    stop: the last frame, as the file states it; see the module's docstring.
    """
    if len(keys) == 1 and stop is not None and keys[0].frame + frames.step >= stop:
        frames = range(frames.start, min(keys[0].frame + 1, frames.stop), frames.step)
    for place, key in enumerate(keys):
        if key.is_outside:
            continue
        if key.frame not in frames:
            yield key.frame, upright(key.box, key.rotation)
            continue
        after = keys[place + 1] if place + 1 < len(keys) else key._replace(frame=frames.stop)
        turn = (after.rotation - key.rotation + 180) % 360 - 180  # the shorter way round
        for frame in range(key.frame, min(after.frame, frames.stop), frames.step):
            share = (frame - key.frame) / (after.frame - key.frame)
            x1, y1, x2, y2 = (a + share * (b - a) for a, b in zip(key.box, after.box, strict=True))
            yield frame, upright((x1, y1, x2, y2), key.rotation + share * turn)
