"""Read a folder of videos, each beside its label file, as annotation tools write them.

A video is a file `NAME.mp4` (or another of VIDEO_SUFFIXES) or a folder `NAME` of images in
natural order. Its labels are one of

- `NAME.json`: CocoVID of that one video, with paths from the folder;
- `NAME.xml`: CVAT for video 1.1;
- `NAME.txt`: MOT rows `frame,id,left,top,width,height,flag,class,visibility`. Frames, pixels and
  classes count from 1 and the option `classes` names the classes. A row with flag 0 is ignored,
  a distractor in tracking metrics if it has an identity; with class 0 it is an ignore region of no
  class. A frame without rows has no objects.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rnndet.data.formats import coco_vid
from rnndet.data.formats.cvat_video import read_video
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
from rnndet.data.formats.text import rows
from rnndet.data.formats.video_builder import VideoBuilder, count_unlabelled, read_each
from rnndet.data.orientation import Orientation, settle
from rnndet.data.problems import Problems
from rnndet.data.records import VideoSet
from rnndet.data.targets import ANY_CLASS, Box
from rnndet.errors import InputError, NothingFoundError
from rnndet.messages import counted
from rnndet.structures import Role
from rnndet.video.sources.base import safe_name
from rnndet.video.sources.image_folder import natural_key

LABEL_SUFFIXES = (".json", ".xml", ".txt")


def read(
    root: Path,
    split: str,
    problems: Problems,
    *,
    classes: Sequence[str] | None = None,
    orientation: Orientation = "auto",
) -> VideoSet:
    """Read the folder `root/<split>`; the split "." is `root` itself.

    classes: all classes, in the order of their labels; None for those of the files, in the order
    of first occurrence. Give them where two splits must agree.

    Videos without labels are left out and counted. Raises InputError if there are no labels.
    Labels that cannot be read or have no video are a problem.
    """
    folder = root / split
    if not folder.is_dir():
        raise NothingFoundError(f"{folder}: no such folder of labelled videos")
    files = [
        file
        for file in sorted(folder.iterdir(), key=lambda path: natural_key(path.name))
        if file.suffix.lower() in LABEL_SUFFIXES and not file.name.startswith(".")
    ]
    if not files:
        raise NothingFoundError(f"no videos found; expected labels {folder}/*.json, *.xml or *.txt")
    videos = videos_in(folder)
    labels_of = Counter(file.stem for file in files)
    count_unlabelled(videos, files, problems)

    def read_file(file: Path) -> VideoSet:
        video = video_of(file, videos)
        if labels_of[file.stem] > 1:
            raise InputError(f"{file}: {video.name} has further labels; keep one label file")
        match file.suffix.lower():
            case ".json":
                return _read_coco(file, video, classes, problems)
            case ".xml":
                return read_video(file, video, problems, classes=classes, orientation=orientation)
        return _read_mot(file, video, classes, problems, orientation)

    sets = read_each(files, read_file, problems)
    joined = join([VideoSet(tuple(classes or ()), ()), *sets])
    return settle(joined, orientation, problems)


def _read_coco(
    file: Path, video: Path, classes: Sequence[str] | None, problems: Problems
) -> VideoSet:
    content = coco_vid.read(
        file.parent, file.name, problems, annotations="{split}", orientation="shown"
    )  # for now: it is decided for all files together
    if len(content.videos) > 1:
        raise InputError(f"{file}: labels {counted(len(content.videos), 'video')}; expected one")
    record = content.videos[0]
    image = record.frames[0].image
    named = record.path if image is None else image.parent
    if named != video:
        raise InputError(f"{file}: labels {named}; expected {video}")
    if unknown := sorted(set(content.classes) - set(classes or content.classes)):
        raise InputError(f"{file}: classes {', '.join(unknown)} are not in the option classes")
    return replace(content, videos=(replace(record, name=safe_name(file.stem)),))


def _read_mot(
    file: Path,
    video: Path,
    classes: Sequence[str] | None,
    problems: Problems,
    orientation: Orientation,
) -> VideoSet:
    if not classes:
        raise InputError(f"{file}: classes are numbers here; name them with the option classes")
    info = video_info(video)
    boxes: list[tuple[int, int, int, Box, int, bool]] = []  # line, frame, id, box, label, ignore
    for line, fields in rows(file, problems, columns=9):
        try:
            frame, track, number = int(fields[0]), int(fields[1]), int(fields[7])
            x, y, w, h, flag = (float(field) for field in fields[2:7])
        except ValueError:
            problems.add(file, line, "a field is not a number")
            continue
        if not (1 <= number <= len(classes) or (number == 0 and flag == 0)):
            problems.add(file, line, f"class {number} is unknown; expected 1 to {len(classes)}")
            continue
        box = (x - 1, y - 1, x - 1 + w, y - 1 + h)
        label = number - 1 if number else ANY_CLASS
        boxes.append((line, frame - 1, track, box, label, flag == 0))
    frames = all_frames(video, info, last=max((row[1] for row in boxes), default=0))
    size_hw = frame_size_hw(file, video, info, stated_hw=None, orientation=orientation)
    builder = VideoBuilder(
        frame_images(video, frames), size_hw=size_hw, file=file, problems=problems
    )
    for line, frame, track, box, label, ignore in boxes:
        role = Role.DISTRACTOR if ignore and label != ANY_CLASS and track >= 0 else None
        builder.add(frame, box, label, entry=line, track=track, ignore=ignore, role=role)
    record = build_record(builder, file, video, info, states_size=False)
    return VideoSet(tuple(classes), (record,))
