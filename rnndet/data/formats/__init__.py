"""Labelled videos: formats, frames, clips."""

import inspect
import logging
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
    ua_detrac,
    visdrone_vid,
    youtube_vis,
)
from rnndet.data.problems import Problems
from rnndet.data.records import VideoSet
from rnndet.errors import InputError, RnndetError
from rnndet.registry import check_options, lookup

logger = logging.getLogger(__name__)

FORMATS = {
    "bdd100k_mot": bdd100k_mot.read,
    "coco_vid": coco_vid.read,
    "cvat_video": cvat_video.read,
    "imagenet_vid": imagenet_vid.read,
    "kitti_tracking": kitti_tracking.read,
    "labelled_folder": labelled_folder.read,
    "mot": mot.read,
    "ua_detrac": ua_detrac.read,
    "visdrone_vid": visdrone_vid.read,
    "youtube_vis": youtube_vis.read,
}


def reader_options(changes: Sequence[str]) -> dict[str, Any]:
    """Options of a reader as tools take them: `--option KEY=VALUE`. Raises RnndetError."""
    options = dict(parse_change(change, flag="--option") for change in changes)
    check_names(options, what="--option ")
    return options


def check_names(options: Mapping[str, Any], *, what: str) -> None:
    """Raise RnndetError if an option has the name of an argument of `read_set`."""
    own = inspect.signature(read_set).parameters.keys() & options.keys() - {"options"}
    if own:
        raise RnndetError(f"{what}{min(own)}: is no option of a format")


def read_set(
    format: str,
    root: str | Path,
    split: str,
    *,
    skip_bad: bool = False,
    problems: Problems | None = None,
    **options: Any,
) -> VideoSet:
    """Read a labelled set by the name of its format; options are those of the format's reader.

    Entries that cannot be used raise InputError with the first of them, unless `skip_bad`; then
    they are left out and counted in the log. Give `problems` to see them all.
    """
    read = lookup(format, FORMATS, what="format")
    first_three = tuple(inspect.signature(read).parameters)[:3]  # root, split, problems
    check_options(read, options, what=f"{format} options", given=first_three)
    problems = Problems() if problems is None else problems
    try:
        videos = read(Path(root), split, problems, **options)
    except OSError as error:
        place = root if error.filename is None else error.filename
        raise InputError(f"{place}: cannot be read: {error.strerror or error}") from None
    if not skip_bad:
        problems.stop_if_any()
    elif problems.found:
        logger.warning("%s: %d entries left out, the first: %s", root, len(problems),
                       problems.found[0])  # fmt: skip
    for note in problems.notes():
        logger.info("%s: %s", root, note)
    return videos
