"""Writes a VideoSet as CocoVID, as `coco_vid` reads it."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rnndet.data.frames import iterate
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.errors import InputError, OutputError
from rnndet.video.image import write_image

NAME = re.compile(r"\w[\w.-]*")  # of a split: part of the name of a file
VIDEO = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*")  # a folder, perhaps in others

Entry = dict[str, Any]


def write(videos: VideoSet, root: Path, split: str, *, images: bool = True) -> int:
    """Write `root/annotations/<split>.json`; returns the number of unlabelled frames left out.

    CocoVID has no unlabelled frames: an image without annotations holds nothing. An ignored region
    that belongs to no class becomes one annotation with iscrowd 1 for each class. Identities of -1
    are left out; the others stay as they are, unique within a video. Boxes are the same when read
    back.

    With `images`, labelled frames go to `root/images/<split>/<video>/%06d.*`: image files are
    copied, frames of video files are written as JPEG of quality 92. Without, image and video
    files stay where they are and are named by their path from `root`, under which they must lie.

    Files get their names when all are complete.

    Raises:
        OutputError: the split is there already, no frame is labelled, a name does not fit, a file
            lies outside `root`, or one cannot be written.
        InputError: an image of the source cannot be read.
    """
    _check_names(videos, split, images=images)
    kept, left_out = _labelled(videos)
    target, folder = root / "annotations" / f"{split}.json", root / "images" / split
    for path in (target, folder) if images else (target,):
        if path.exists():
            raise OutputError(f"{path}: is there already; choose another folder")
    tree = _tree(kept, root, split, images=images)
    part_file, part_folder = target.with_suffix(".part"), folder.with_name(f"{split}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part_file.write_text(json.dumps(tree), encoding="utf-8")
        if images:
            shutil.rmtree(part_folder, ignore_errors=True)
            for video in tqdm(kept.videos, unit="video", disable=None):
                _write_images(video, part_folder / video.name)
            part_folder.rename(folder)
        os.replace(part_file, target)
    except OSError as error:
        raise OutputError(f"{root}: cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            part_file.unlink(missing_ok=True)
        shutil.rmtree(part_folder, ignore_errors=True)
    return left_out


def _check_names(videos: VideoSet, split: str, *, images: bool) -> None:
    names = [video.name for video in videos.videos]
    if len(set(names)) < len(names):
        raise OutputError("two videos have one name; names must be unique")
    if not NAME.fullmatch(split):
        raise OutputError(f"split {split!r} cannot be a file name; use letters, digits, '_', '-'")
    for name in names if images else ():
        if not VIDEO.fullmatch(name):
            raise OutputError(f"{name!r} cannot be a folder; use letters, digits, '_', '-', '.'")


def _labelled(videos: VideoSet) -> tuple[VideoSet, int]:
    """The set without unlabelled frames, and their number; raises OutputError if none is left."""
    kept = []
    for video in videos.videos:
        frames = tuple(record for record in video.frames if record.target is not None)
        if frames:
            kept.append(replace(video, frames=frames))
    if not kept:
        raise OutputError("no frame is labelled, and CocoVID holds only labelled ones")
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
    target = record.target
    assert target is not None
    tracks = [-1] * len(target) if target.ids is None else target.ids.tolist()
    for (x1, y1, x2, y2), label, track, ignore in zip(
        target.boxes.tolist(), target.labels.tolist(), tracks, target.ignore.tolist(), strict=True
    ):
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
            f"{file}: lies outside {root}; write images too, or choose a folder that holds it"
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
        shutil.copyfile(record.image, folder / _image_name(record))
