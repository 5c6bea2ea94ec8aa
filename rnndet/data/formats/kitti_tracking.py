"""Read KITTI tracking (Geiger, Lenz, Urtasun 2012): 17-column label files, folders of images.

`<split>/label_02/0000.txt` labels the images `<split>/image_02/0000/000000.png`; the split is
`training` or `testing`. Frames count from 0. An image without rows is a labelled frame without
objects.

Left, top, right and bottom are pixels that count from 0. The width of a box is right - left, as in
the official evaluation, although right is the last pixel of the object.

`DontCare` is an ignore region of no class. As in the official evaluation, vans are ignored as Car
and sitting persons as Pedestrian. In tracking metrics they are distractors, as are, by that
evaluation, objects that are truncated (above 0) or hardly visible (occluded above 2), and unmatched
detections of at most 25 pixels in height are removed; in detection metrics and training all these
objects count.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rnndet.data.formats.text import rows
from rnndet.data.formats.video_builder import (
    VideoBuilder,
    folders_in,
    images_by_number,
    label_files,
    read_each,
)
from rnndet.data.orientation import Orientation, settle
from rnndet.data.problems import Problems
from rnndet.data.records import VideoRecord, VideoSet
from rnndet.data.targets import ANY_CLASS
from rnndet.errors import InputError
from rnndet.structures import Role

TYPES = ("Car", "Van", "Truck", "Pedestrian", "Person", "Person_sitting", "Cyclist", "Tram", "Misc")
# Ignored as the class that they resemble. The label files write Person for the devkit's
# Person_sitting.
SIMILAR = {"Van": "Car", "Person": "Pedestrian", "Person_sitting": "Pedestrian"}
FPS = 10.0
# of the official evaluation of tracking
MAX_TRUNCATED, MAX_OCCLUDED, MIN_HEIGHT = 0, 2, 25.0


def read(
    root: Path,
    split: str,
    problems: Problems,
    *,
    classes: Sequence[str] = ("Car", "Pedestrian", "Cyclist"),
    sequences: Sequence[str] | None = None,
    orientation: Orientation = "auto",
) -> VideoSet:
    """Read `root/<split>`; `sequences` are names such as "0000", None for all with labels.

    Objects of types other than `classes` and types similar to them are left out and counted.
    Raises InputError if there are no labels or `classes` has a name that is not a type of KITTI.
    """
    if unknown := sorted(set(classes) - set(TYPES)):
        raise InputError(f"classes {', '.join(unknown)}: unknown; choose from {', '.join(TYPES)}")
    meaning = {"DontCare": (ANY_CLASS, True)}  # type -> label, ignore
    label_of = {name: label for label, name in enumerate(classes)}
    meaning |= {k: (label_of[c], True) for k, c in SIMILAR.items() if c in label_of}
    meaning |= {name: (label, False) for name, label in label_of.items()}
    labels, images = root / split / "label_02", root / split / "image_02"
    if sequences is None:
        files = label_files(labels, "*.txt", videos=folders_in(images), problems=problems)
    else:
        files = [labels / f"{name}.txt" for name in sequences]

    def read_file(file: Path) -> VideoRecord:
        frames = images_by_number(images / file.stem, first=0)
        builder = VideoBuilder(
            frames, file=file, problems=problems, orientation=orientation, min_height=MIN_HEIGHT
        )
        return _video(file, builder, meaning, problems)

    videos = read_each(files, read_file, problems)
    return settle(VideoSet(tuple(classes), videos), orientation, problems)


def _video(
    file: Path, builder: VideoBuilder, meaning: Mapping[str, tuple[int, bool]], problems: Problems
) -> VideoRecord:
    for line, fields in rows(file, problems, columns=17, separator=None):
        try:
            frame, track = int(fields[0]), int(fields[1])
            truncated, occluded = int(float(fields[3])), int(float(fields[4]))
            x1, y1, x2, y2 = (float(field) for field in fields[6:10])
        except (ValueError, OverflowError):
            reason = "the frame, the id, truncated, occluded or the box is not made of numbers"
            problems.add(file, line, reason)
            continue
        kind = fields[2]
        if kind in meaning:
            label, ignore = meaning[kind]
            is_hidden = truncated > MAX_TRUNCATED or occluded > MAX_OCCLUDED
            role = Role.DISTRACTOR if label != ANY_CLASS and (ignore or is_hidden) else None
            box = (x1, y1, x2, y2)
            builder.add(frame, box, label, entry=line, track=track, ignore=ignore, role=role)
        elif kind in TYPES:
            problems.correct("objects of types that are no class left out")
        else:
            problems.add(file, line, f"{kind!r} is not a type of KITTI")
    return builder.build(file.stem, fps=FPS)
