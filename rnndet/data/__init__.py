"""Labelled videos: formats, frames, clips."""

from pathlib import Path
from typing import Any

from rnndet.catalog import check_options, pick
from rnndet.data import coco_vid
from rnndet.data.records import VideoSet

FORMATS = {"coco_vid": coco_vid.read}


def read_set(format: str, root: str | Path, split: str, **options: Any) -> VideoSet:
    """Read a labelled set by the name of its format; options are those of the format's reader."""
    read = pick(format, FORMATS, what="format")
    check_options(read, options, what=f"options of {format}")
    return read(Path(root), split, **options)
