"""Read BDD100K multi-object tracking (Yu et al. 2020): one JSON and one image folder per video.

`labels/box_track_20/<split>/<video>.json` is a list of frames `{name, frameIndex, labels}` (`index`
in older files), a label is `{id, category, attributes, box2d {x1, y1, x2, y2}}`; `name` is an image
in `images/track/<split>/<video>/`. A frame without labels is a labelled frame without objects.

As in the official evaluation, labels with the attribute `crowd` or `ignored`, other people,
trailers and other vehicles are ignore regions of no class: detections of any class in them do not
count. Other names of the classes (bike, motor, person, van, caravan) are read, too.

Box edges are positions in the image with decimals, from 0; the width is x2 - x1.
"""

from pathlib import Path
from typing import Any

from rnndet.data.formats.text import inside, read_json
from rnndet.data.formats.video_builder import (
    MAX_FRAMES,
    VideoBuilder,
    folders_in,
    label_files,
    read_each,
)
from rnndet.data.orientation import Orientation, settle
from rnndet.data.problems import Problems
from rnndet.data.records import VideoRecord, VideoSet
from rnndet.data.targets import ANY_CLASS, Box
from rnndet.errors import InputError, NothingFoundError
from rnndet.video.sources.image_folder import list_images

CLASSES = ("pedestrian", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
# Names of older files and of other parts of BDD100K, from the toolkit's configuration.
ALIASES = {
    "bike": "bicycle", "caravan": "car", "motor": "motorcycle", "person": "pedestrian",
    "van": "car",
}  # fmt: skip
DISTRACTORS = ("other person", "trailer", "other vehicle")
FPS = 5.0


def read(
    root: Path,
    split: str,
    problems: Problems,
    *,
    annotations: str = "labels/box_track_20",
    images: str = "images/track",
    orientation: Orientation = "auto",
) -> VideoSet:
    """Read `root/<annotations>/<split>/*.json`; identities are numbered from 1 in each video.

    Raises InputError if there are no labels.
    """
    folders = root / images / split
    labels = root / annotations / split
    files = label_files(labels, "*.json", videos=folders_in(folders), problems=problems)

    def read_file(file: Path) -> VideoRecord:
        return _video(file, folders / file.stem, problems, orientation)

    videos = read_each(files, read_file, problems)
    return settle(VideoSet(CLASSES, videos), orientation, problems)


def _video(file: Path, folder: Path, problems: Problems, orientation: Orientation) -> VideoRecord:
    frames = _frames(file, folder, problems)
    images = {index: image for index, (image, _) in frames.items()}
    builder = VideoBuilder(images, file=file, problems=problems, orientation=orientation)
    ids: dict[str, int] = {}
    for index, (_, labels) in sorted(frames.items()):
        for place, entry in enumerate(labels):
            where = f"frame {index} label {place}"
            try:
                box, name, category, is_ignored = _parse(entry)
            except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
                problems.add(file, where, "lacks an id, a category or a box2d made of numbers")
                continue
            track = ids.setdefault(name, len(ids) + 1)
            category = ALIASES.get(category, category)
            if category not in CLASSES and category not in DISTRACTORS:
                problems.add(file, where, f"category {category!r} is unknown")
            elif is_ignored or category in DISTRACTORS:
                builder.add(index, box, ANY_CLASS, entry=where, ignore=True)
            else:
                builder.add(index, box, CLASSES.index(category), entry=where, track=track)
    return builder.build(file.stem, fps=FPS)


def _frames(file: Path, folder: Path, problems: Problems) -> dict[int, tuple[Path, list[Any]]]:
    """Return the image and labels of each frame of a video, by frame index."""
    entries = read_json(file)
    if not isinstance(entries, list):
        raise InputError(f"{file}: not in BDD100K form: the top level is not a list of frames")
    present = set(list_images(folder)) if folder.is_dir() else set()
    frames: dict[int, tuple[Path, list[Any]]] = {}
    for place, entry in enumerate(entries):
        where = f"[{place}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            problems.add(file, where, "not an object with a name")
            continue
        index = entry.get("frameIndex", entry.get("index", place))
        labels = entry.get("labels") or []
        image = inside(folder, entry["name"], where=f"{file}: {where}")
        if type(index) is not int or not 0 <= index < MAX_FRAMES:
            problems.add(file, where, "the frame index is not a number from 0")
        elif not isinstance(labels, list):
            problems.add(file, where, "labels is not a list")
        elif index in frames:
            problems.add(file, where, f"frame {index} is there twice")
        elif image not in present:
            problems.add(file, where, f"there is no image {image}")
        else:
            frames[index] = (image, labels)
    if not frames:
        raise NothingFoundError(f"{file}: holds no frames that have an image")
    if len(present) > len(frames):
        problems.correct("images without labels left out", len(present) - len(frames))
    return frames


def _parse(entry: Any) -> tuple[Box, str, str, bool]:
    """Return the box, id, category and whether it is ignored; raises Python's errors."""
    x1, y1, x2, y2 = (float(entry["box2d"][key]) for key in ("x1", "y1", "x2", "y2"))
    attributes = entry.get("attributes") or {}
    is_ignored = any(attributes.get(name) for name in ("crowd", "Crowd", "ignored", "Ignored"))
    return (x1, y1, x2, y2), str(entry["id"]), str(entry["category"]), is_ignored
