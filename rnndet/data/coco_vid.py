"""CocoVID: one JSON with videos, images, annotations, categories (mmtracking's layout).

Frames are picture files (`images[].file_name` under `root/images_dir`), or, where a video has a
`file_name`, frames of that video file: `images[].frame_id` (0-based) is then the frame number.
An image without annotations is a labelled frame that holds nothing. `videos[].scene`, if given,
is the scene group.
"""

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.errors import InputError
from rnndet.structures import Truth


def read(
    root: Path, split: str, *, annotations: str = "annotations/{split}.json", images_dir: str = "."
) -> VideoSet:
    """Read `root/annotations/<split>.json`; boxes become x1 y1 x2 y2 clipped to the picture.

    Boxes of less than one pixel after clipping are left out. Raises InputError with the file and
    the entry: not JSON, a key is missing, an id is used twice, a number is not finite.
    """
    path = root / annotations.format(split=split)
    tree = _load(path)
    try:
        return _parse(tree, path, root, images_dir)
    except KeyError as error:
        raise InputError(f"{path}: an entry lacks the key {error}") from None
    except (TypeError, AttributeError) as error:
        raise InputError(f"{path}: not in CocoVID form: {error}") from None


def _load(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such annotation file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: not in CocoVID form: the top level is not an object")
    return tree


def _parse(tree: dict[str, Any], path: Path, root: Path, images_dir: str) -> VideoSet:
    categories = sorted(_unique(tree["categories"], path, "categories").items())
    classes = tuple(str(c["name"]) for _, c in categories)
    label_of = {category: i for i, (category, _) in enumerate(categories)}
    videos = _unique(tree["videos"], path, "videos")
    images = _unique(tree["images"], path, "images")
    boxes_of = defaultdict(list)
    for annotation in _unique(tree["annotations"], path, "annotations").values():
        if annotation["image_id"] not in images:
            where = f"annotation {annotation['id']}"
            raise InputError(f"{path}: {where}: there is no image {annotation['image_id']}")
        if annotation["category_id"] not in label_of:
            where = f"annotation {annotation['id']}"
            raise InputError(f"{path}: {where}: there is no category {annotation['category_id']}")
        boxes_of[annotation["image_id"]].append(annotation)
    frames_of = defaultdict(list)
    for image in images.values():
        if image["video_id"] not in videos:
            raise InputError(f"{path}: image {image['id']}: there is no video {image['video_id']}")
        frames_of[image["video_id"]].append(image)
    records = []
    for number, video in videos.items():
        is_file = "file_name" in video
        frames = tuple(
            FrameRecord(
                index=int(image["frame_id"]),
                truth=_truth(boxes_of[image["id"]], image, label_of, path),
                image=None if is_file else root / images_dir / image["file_name"],
            )
            for image in sorted(frames_of[number], key=lambda image: image["frame_id"])
        )
        if frames:
            records.append(_video(video, frames, frames_of[number][0], root if is_file else None))
    if not records:
        raise InputError(f"{path}: holds no videos with images")
    return VideoSet(classes, tuple(records))


def _video(
    video: dict[str, Any], frames: tuple[FrameRecord, ...], image: dict[str, Any], root: Path | None
) -> VideoRecord:
    return VideoRecord(
        name=str(video["name"]),
        height=int(video.get("height", image["height"])),
        width=int(video.get("width", image["width"])),
        fps=float(video["fps"]) if video.get("fps") else None,
        frames=frames,
        path=None if root is None else root / video["file_name"],
        group=str(video["scene"]) if "scene" in video else None,
    )


def _unique(entries: list[dict[str, Any]], path: Path, what: str) -> dict[int, dict[str, Any]]:
    table: dict[int, dict[str, Any]] = {}
    for entry in entries:
        if entry["id"] in table:
            raise InputError(f"{path}: {what}: id {entry['id']} is used twice")
        table[entry["id"]] = entry
    return table


def _truth(
    annotations: list[dict[str, Any]], image: dict[str, Any], label_of: dict[int, int], path: Path
) -> Truth:
    rows = []
    for annotation in annotations:
        x, y, w, h = (float(v) for v in annotation["bbox"])
        if not all(map(math.isfinite, (x, y, w, h))) or w < 0 or h < 0:
            raise InputError(f"{path}: annotation {annotation['id']}: bbox {annotation['bbox']}")
        x1, y1 = max(x, 0.0), max(y, 0.0)
        x2, y2 = min(x + w, float(image["width"])), min(y + h, float(image["height"]))
        if x2 - x1 < 1 or y2 - y1 < 1:
            continue
        label = label_of[annotation["category_id"]]
        track = int(annotation.get("instance_id", -1))
        rows.append((x1, y1, x2, y2, label, track, bool(annotation.get("iscrowd", 0))))
    if not rows:
        return Truth.empty()
    boxes = torch.tensor([row[:4] for row in rows], dtype=torch.float32)
    labels = torch.tensor([row[4] for row in rows])
    ids = torch.tensor([row[5] for row in rows])
    return Truth(boxes, labels, ids, torch.tensor([row[6] for row in rows]))
