"""Render synthetic clips (rnndet/video/synthetic/clip.py) to a CocoVID set of image files."""

import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rnndet import boxes as box_ops
from rnndet.system.files import output_errors, write_text
from rnndet.video.image import write_image
from rnndet.video.synthetic.clip import SyntheticClip


def render_set(root: Path, *, clips: int, length: int, first_seed: int, split: str) -> Path:
    """Render `clips` clips of `length` frames; returns the annotation file.

    Clip i has the seed first_seed + i. Frames are not corrupted: augmentation does that in
    training. The annotation file is written last and atomically, so an interrupted run leaves
    none. Raises OutputError.
    """
    tree: dict[str, Any] = {"videos": [], "images": [], "annotations": [], "categories": []}
    path = root / "annotations" / f"{split}.json"
    with output_errors(root):
        for number in tqdm(range(clips), unit="clip", disable=None):
            clip = SyntheticClip(first_seed + number, length=length, degrade=False)
            _add(tree, clip, number, root, split)
    write_text(path, json.dumps(tree))
    return path


def _add(tree: dict[str, Any], clip: SyntheticClip, number: int, root: Path, split: str) -> None:
    info = clip.info
    name = f"rendered_{split}_{number:04d}"
    size = {"width": info.width, "height": info.height}
    tree["categories"] = [{"id": i + 1, "name": c} for i, c in enumerate(clip.classes)]
    tree["videos"].append({"id": number + 1, "name": name, "fps": float(info.fps or 25), **size})
    (root / name).mkdir(parents=True, exist_ok=True)
    for frame in clip:
        file = f"{name}/{frame.index:06d}.jpg"
        write_image(root / file, frame.image)
        image = len(tree["images"]) + 1
        entry = {"id": image, "video_id": number + 1, "frame_id": frame.index, "file_name": file}
        tree["images"].append(entry | size)
        target = clip.target(frame.index)
        assert target.ids is not None
        boxes = box_ops.xyxy_to_xywh(target.boxes.numpy()).tolist()
        rows = zip(boxes, target.labels.tolist(), target.ids.tolist(), target.ignore.tolist(), strict=True)  # fmt: skip  # noqa: E501
        for box, label, track, ignore in rows:
            tree["annotations"].append({
                "id": len(tree["annotations"]) + 1, "image_id": image, "video_id": number + 1,
                "category_id": label + 1, "bbox": box, "area": box[2] * box[3],
                "iscrowd": int(ignore), "instance_id": (number + 1) * 1000 + track,
            })  # fmt: skip
