"""Registry of dataset formats: read a labelled set by the name of its format."""

import inspect
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rnndet.config import parse_change
from rnndet.data.formats import (
    bdd100k_mot,
    coco_vid,
    cvat_video,
    imagenet_vid,
    kitti_tracking,
    labelled_folder,
    mot,
    pascal_voc,
    ua_detrac,
    unlabelled,
    visdrone_vid,
    yolo,
    youtube_vis,
)
from rnndet.data.problems import Problems
from rnndet.data.records import VideoSet
from rnndet.errors import InputError, RnndetError
from rnndet.messages import counted
from rnndet.registry import check_options, lookup

logger = logging.getLogger(__name__)

# Name -> reader: read(root, split, problems, **options) -> VideoSet.
FORMATS = {
    "bdd100k_mot": bdd100k_mot.read,
    "coco_vid": coco_vid.read,
    "cvat_video": cvat_video.read,
    "imagenet_vid": imagenet_vid.read,
    "kitti_tracking": kitti_tracking.read,
    "labelled_folder": labelled_folder.read,
    "mot": mot.read,
    "pascal_voc": pascal_voc.read,
    "ua_detrac": ua_detrac.read,
    "unlabelled": unlabelled.read,
    "visdrone_vid": visdrone_vid.read,
    "yolo": yolo.read,
    "youtube_vis": youtube_vis.read,
}


def read_set(
    format: str,
    root: str | Path,
    split: str,
    *,
    skip_bad: bool = False,
    problems: Problems | None = None,
    **options: Any,
) -> VideoSet:
    """Read one split of a labelled set in a format of FORMATS.

    Args:
        root: folder of the set.
        skip_bad: leave out entries that cannot be used and count them in the log, instead of
            raising InputError with the first of them.
        problems: collects the problems and corrections, for callers that report all of them.
        options: keyword arguments of the format's reader.

    Raises InputError (files that cannot be read, entries that cannot be used) or RnndetError (an
    unknown format or option).

    >>> import tempfile
    >>> from rnndet.data.rendered import render_set
    >>> with tempfile.TemporaryDirectory() as root:
    ...     _ = render_set(Path(root), clips=1, length=2, first_seed=0, split="train")
    ...     videos = read_set("coco_vid", root, "train")
    >>> videos.classes, [len(video.frames) for video in videos.videos]
    (('airplane', 'bird', 'drone', 'helicopter'), [2])
    """
    read = lookup(format, FORMATS, what="format")
    first_three = tuple(inspect.signature(read).parameters)[:3]  # root, split, problems
    check_options(read, options, what=f"{format} options", given=first_three)
    problems = Problems() if problems is None else problems
    if not os.path.lexists(root):
        raise InputError(f"{root}: no such file or folder; check the path")
    try:
        videos = read(Path(root), split, problems, **options)
    except OSError as error:
        place = root if error.filename is None else error.filename
        raise InputError(f"{place}: cannot be read: {error.strerror or error}") from None
    _check_classes(videos.classes, root)
    if not skip_bad:
        problems.stop_if_any()
    elif problems.found:
        first = problems.found[0]
        count = counted(len(problems), "entry", "entries")
        logger.warning("%s: %s left out, the first: %s", root, count, first)
    for warning in problems.warnings():
        logger.warning("%s: %s", root, warning)
    for note in problems.notes():
        logger.info("%s: %s", root, note)
    return videos


def _check_classes(classes: Sequence[str], root: str | Path) -> None:
    """Raise InputError unless each class has a name of its own: sets and models go by names."""
    places: dict[str, int] = {}
    for place, name in enumerate(classes):
        if not name.strip():
            raise InputError(f"{root}: class {place} has no name")
        if name in places:
            raise InputError(
                f"{root}: class {name!r} is named twice, as {places[name]} and {place}"
            )
        places[name] = place


def reader_options(changes: Sequence[str]) -> dict[str, Any]:
    """Parse the options of a reader as on the command line (`--option KEY=VALUE`).

    Raises RnndetError.

    >>> reader_options(["annotations=labels.json", "allow_outside=true"])
    {'annotations': 'labels.json', 'allow_outside': True}
    """
    options = dict(
        parse_change(change, flag="`options`", example="orientation=shown") for change in changes
    )
    check_names(options, what="`options` ")
    return options


def check_names(options: Mapping[str, Any], *, what: str) -> None:
    """Raise RnndetError if an option has the name of a parameter of `read_set`.

    >>> check_names({"classes": ["bird"]}, what="data.train.options.")
    """
    reserved = inspect.signature(read_set).parameters.keys() - {"options"}
    if taken := reserved & options.keys():
        raise RnndetError(f"{what}{min(taken)}: is no option of a format")
