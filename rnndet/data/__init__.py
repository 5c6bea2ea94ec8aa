"""Labelled videos: formats, frames, clips."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rnndet.catalog import check_options, pick
from rnndet.config import parse_change
from rnndet.data import (
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
    return dict(parse_change(change, flag="--option") for change in changes)


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
    read = pick(format, FORMATS, what="format")
    check_options(read, options, what=f"options of {format}")
    problems = Problems() if problems is None else problems
    videos = read(Path(root), split, problems, **options)
    if not skip_bad:
        problems.stop_if_any()
    elif problems.found:
        logger.warning("%s: %d entries left out, the first: %s", root, len(problems),
                       problems.found[0])  # fmt: skip
    for note in problems.notes():
        logger.info("%s: %s", root, note)
    return videos
