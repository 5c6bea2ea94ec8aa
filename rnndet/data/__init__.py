"""Labelled videos: formats, frames, clips."""

import logging
from pathlib import Path
from typing import Any

from rnndet.catalog import check_options, pick
from rnndet.data import coco_vid
from rnndet.data.problems import Problems
from rnndet.data.records import VideoSet

logger = logging.getLogger(__name__)

FORMATS = {"coco_vid": coco_vid.read}


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
