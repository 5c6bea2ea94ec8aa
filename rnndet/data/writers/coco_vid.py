"""Write a VideoSet as CocoVID, which the `coco_vid` format reads back."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rnndet.data.frames import iterate
from rnndet.data.orientation import labelled_image
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.data.targets import target_rows
from rnndet.data.writers.names import FOLDER_NAME, check_unique
from rnndet.errors import InputError, OutputError
from rnndet.system.files import atomic_file, atomic_folder
from rnndet.video.exif import UPRIGHT, read_header
from rnndet.video.image import write_image

VIDEO_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*")  # a folder, or several

Entry = dict[str, Any]


def write(videos: VideoSet, root: Path, split: str, *, images: bool = True) -> int:
    """Write `root/annotations/<split>.json`; returns the number of unlabelled frames left out.

    CocoVID has no unlabelled frames: an image without annotations is an empty labelled frame. An
    ignore region of no class becomes one annotation with iscrowd 1 for each class. Identities of -1
    are left out; all other ids are unique within a video. Boxes read back equal.

    With `images`, labelled frames go to `root/images/<split>/<video>/%06d.*`: image files are
    copied, frames of video files are written as JPEG of quality 92. Images with an EXIF
    orientation are written anew without it, turned if their labels are for the turned image.
    Without `images`, image and video files are not copied but named by their path from `root`, and
    must lie under it.

    Images and annotations are written atomically, images first.

    Raises:
        OutputError: the split exists already, no frame is labelled, a name cannot be written, a
            file lies outside `root` or cannot be written.
        InputError: an image of the source cannot be read.
    """
    _check_names(videos, split, images=images)
    kept, left_out = _labelled(videos)
    target, folder = root / "annotations" / f"{split}.json", root / "images" / split
    for path in (target, folder) if images else (target,):
        if path.exists():
            raise OutputError(f"{path}: exists already; choose another folder")
    tree = _tree(kept, root, split, images=images)
    with ExitStack() as stack:
        part = stack.enter_context(atomic_file(target))
        part.write_text(json.dumps(tree), encoding="utf-8")
        if images:  # left first, so that no labels appear without their images
            part_folder = stack.enter_context(atomic_folder(folder))
            for video in tqdm(kept.videos, unit="video", disable=None):
                _write_images(video, part_folder / video.name)
    return left_out


def _check_names(videos: VideoSet, split: str, *, images: bool) -> None:
    names = [video.name for video in videos.videos]
    check_unique(names)
    if not FOLDER_NAME.fullmatch(split):
        raise OutputError(f"split {split!r} cannot be a file name; use letters, digits, '_', '-'")
    for name in names if images else ():
        if not VIDEO_NAME.fullmatch(name):
            raise OutputError(f"{name!r} cannot be a folder; use letters, digits, '_', '-', '.'")


def _labelled(videos: VideoSet) -> tuple[VideoSet, int]:
    """Return the set without unlabelled frames, and their number.

    Raises OutputError if no frame is labelled.
    """
    kept = []
    for video in videos.videos:
        frames = tuple(record for record in video.frames if record.target is not None)
        if frames:
            kept.append(replace(video, frames=frames))
    if not kept:
        raise OutputError("no frame is labelled, and CocoVID holds only labelled frames")
    count = sum(len(video.frames) for video in videos.videos)
    return replace(videos, videos=tuple(kept)), count - sum(len(video.frames) for video in kept)


def _tree(videos: VideoSet, root: Path, split: str, *, images: bool) -> dict[str, list[Entry]]:
    tree: dict[str, list[Entry]] = {"videos": [], "images": [], "annotations": []}
    tree["categories"] = [{"id": i + 1, "name": name} for i, name in enumerate(videos.classes)]
    for number, video in enumerate(videos.videos, start=1):
        size = {"width": video.width, "height": video.height}
        entry = {"id": number, "name": video.name, **size}
        optional = {"fps": video.fps, "scene": video.group}
        if video.path is not None and not images:
            optional["file_name"] = _below(root, video.path)
        tree["videos"].append(entry | {k: v for k, v in optional.items() if v is not None})
        for record in video.frames:
            image = {"id": len(tree["images"]) + 1, "video_id": number, "frame_id": record.index}
            if images:
                image["file_name"] = f"images/{split}/{video.name}/{_image_name(record)}"
            elif record.image is not None:
                image["file_name"] = _below(root, record.image)
            tree["images"].append(image | size)
            for annotation in _annotations(record, len(videos.classes)):
                ids = {"id": len(tree["annotations"]) + 1, "image_id": image["id"]}
                tree["annotations"].append(ids | {"video_id": number} | annotation)
    return tree


def _annotations(record: FrameRecord, classes: int) -> Iterator[Entry]:
    assert record.target is not None
    for (x1, y1, x2, y2), label, track, ignore in target_rows(record.target):
        box = [x1, y1, x2 - x1, y2 - y1]
        entry: Entry = {"bbox": box, "area": box[2] * box[3], "iscrowd": int(ignore or label < 0)}
        if track >= 0 and label >= 0:
            entry["instance_id"] = track
        for category in range(classes) if label < 0 else (label,):
            yield entry | {"category_id": category + 1}


def _below(root: Path, file: Path) -> str:
    try:
        return Path(os.path.abspath(file)).relative_to(os.path.abspath(root)).as_posix()
    except ValueError:
        raise OutputError(
            f"{file}: lies outside {root}; write images too, or choose a parent folder of it"
        ) from None


def _image_name(record: FrameRecord) -> str:
    suffix = ".jpg" if record.image is None else record.image.suffix.lower()
    return f"{record.index:06d}{suffix}"


def _write_images(video: VideoRecord, folder: Path) -> None:
    folder.mkdir(parents=True)
    if video.path is not None:
        for frame in iterate(video):
            write_image(folder / f"{frame.index:06d}.jpg", frame.image)
        return
    for record in video.frames:
        assert record.image is not None, video.name
        if not record.image.is_file():
            raise InputError(f"{record.image}: no such image; check the path")
        copy = folder / _image_name(record)
        header = read_header(record.image)
        if header is None or header.orientation == UPRIGHT:
            shutil.copyfile(record.image, copy)
        else:
            write_image(copy, labelled_image(video, record, record.image))
