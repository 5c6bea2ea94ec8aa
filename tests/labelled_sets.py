"""A small labelled set in every format: one video of three frames with one box in the second."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from rnndet.data.formats import read_set
from rnndet.data.formats.imagenet_vid import WNIDS
from rnndet.data.problems import Problems
from rnndet.data.records import VideoSet
from rnndet.structures import Target
from rnndet.video.image import write_image

SIZE_HW = (48, 64)
BOX = (10, 8, 30, 20)  # x1 y1 x2 y2, pixels from 0, exclusive edges

Files = dict[str, str]  # path -> text
Numbers = tuple[float, float, float, float]


def write_images(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, np.zeros((*SIZE_HW, 3), np.uint8))


def write_video(path: Path, *, frames: int) -> None:
    """A black Motion JPEG file of 10 fps."""
    height, width = SIZE_HW
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (width, height))
    for _ in range(frames):
        writer.write(np.zeros((height, width, 3), np.uint8))
    writer.release()


def read_notes(format: str, root: Path, split: str, **options: Any) -> tuple[VideoSet, list[str]]:
    """The set, with entries that cannot be used left out, and the corrections."""
    problems = Problems()
    videos = read_set(format, root, split, skip_bad=True, problems=problems, **options)
    return videos, problems.notes()


def assert_same_videos(a: VideoSet, b: VideoSet, *, fps: bool = True) -> None:
    """Both sets hold the same classes and the same videos with the same targets."""
    assert a.classes == b.classes
    for x, y in zip(a.videos, b.videos, strict=True):
        assert (x.name, x.height, x.width) == (y.name, y.height, y.width)
        assert not fps or x.fps == y.fps
        for f, g in zip(x.frames, y.frames, strict=True):
            assert f.index == g.index
            assert_same_targets(f.target, g.target)


def assert_same_targets(a: Target | None, b: Target | None) -> None:
    assert (a is None) == (b is None)
    if a is not None and b is not None:
        for name in ("boxes", "labels", "ids", "ignore"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name


# One function for each format: the label files of the video `name` with one box in frame 1.


def _bdd100k_mot(name: str, box: Numbers) -> Files:
    box2d = dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))
    labels = [{"id": "a", "category": "car", "box2d": box2d}]
    frames = [
        {"name": f"{i:06d}.jpg", "frameIndex": i, "labels": labels if i == 1 else []}
        for i in range(3)
    ]
    return {f"labels/box_track_20/train/{name}.json": json.dumps(frames)}


def _coco_vid(name: str, box: Numbers) -> Files:
    size = {"width": SIZE_HW[1], "height": SIZE_HW[0]}
    images = [
        {"id": i + 1, "video_id": 1, "frame_id": i, "file_name": f"{name}/{i:06d}.jpg"} | size
        for i in range(3)
    ]
    annotation = {"id": 1, "image_id": 2, "category_id": 5, "bbox": _xywh(box), "instance_id": 7}
    tree = {
        "categories": [{"id": 5, "name": "car"}],
        "videos": [{"id": 1, "name": name, "fps": 10}],
        "images": images,
        "annotations": [annotation],
    }
    return {"annotations/train.json": json.dumps(tree)}


def _cvat_video(name: str, box: Numbers) -> Files:
    sides = zip(("xtl", "ytl", "xbr", "ybr"), box, strict=True)
    corners = "".join(f' {side}="{value}"' for side, value in sides)
    end = '<box frame="2" outside="1" xtl="0" ytl="0" xbr="9" ybr="9"/>'
    track = f'<track id="7" label="car"><box frame="1" outside="0"{corners}/>{end}</track>'
    task = "<task><size>3</size><labels><label><name>car</name></label></labels></task>"
    return {f"train/{name}.xml": f"<annotations><meta>{task}</meta>{track}</annotations>"}


def _imagenet_vid(name: str, box: Numbers) -> Files:
    inclusive = (box[0], box[1], box[2] - 1, box[3] - 1)
    tags = zip(("xmin", "ymin", "xmax", "ymax"), inclusive, strict=True)
    corners = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
    thing = f"<object><trackid>7</trackid><name>n02958343</name><bndbox>{corners}</bndbox></object>"
    size = f"<size><width>{SIZE_HW[1]}</width><height>{SIZE_HW[0]}</height></size>"
    return {
        f"Annotations/VID/train/{name}/{i:06d}.xml": f"<annotation>{size}{thing * (i == 1)}"
        "</annotation>"
        for i in range(3)
    }


def _kitti_tracking(name: str, box: Numbers) -> Files:
    text = " ".join(map(str, box))
    row = f"1 7 Car 0 0 -1.5 {text} 1.5 1.6 3.9 1.0 1.8 9.0 -1.6\n"
    return {f"training/label_02/{name}.txt": row}


def _labelled_folder(name: str, box: Numbers) -> Files:
    return {f"train/{name}.txt": f"2,7,{_from_one(box)},1,1,1.0\n"}


def _mot(name: str, box: Numbers) -> Files:
    info = f"[Sequence]\nseqLength=3\nimWidth={SIZE_HW[1]}\nimHeight={SIZE_HW[0]}\nframeRate=30\n"
    return {
        f"train/{name}/gt/gt.txt": f"2,7,{_from_one(box)},1,1,1.0\n",
        f"train/{name}/seqinfo.ini": info,
    }


def _pascal_voc(name: str, box: Numbers) -> Files:
    counted = (box[0] + 1, box[1] + 1, box[2], box[3])  # pixels count from 1
    tags = zip(("xmin", "ymin", "xmax", "ymax"), counted, strict=True)
    corners = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
    thing = f"<object><name>car</name><trackid>7</trackid><bndbox>{corners}</bndbox></object>"
    size = f"<size><width>{SIZE_HW[1]}</width><height>{SIZE_HW[0]}</height></size>"
    return {
        f"train/{name}/{i:06d}.xml": f"<annotation>{size}{thing * (i == 1)}</annotation>"
        for i in range(3)
    }


def _ua_detrac(name: str, box: Numbers) -> Files:
    left, top, width, height = _xywh(box)  # pixels count from 1
    corners = f' left="{left + 1}" top="{top + 1}" width="{width}" height="{height}"'
    target = f'<target id="7"><box{corners}/><attribute vehicle_type="car"/></target>'
    frame = f'<frame num="2"><target_list>{target}</target_list></frame>'
    path = f"DETRAC-Train-Annotations-XML/{name}.xml"
    return {path: f'<sequence name="{name}">{frame}</sequence>'}


def _visdrone_vid(name: str, box: Numbers) -> Files:
    text = ",".join(map(str, _xywh(box)))
    return {f"train/annotations/{name}.txt": f"2,7,{text},1,4,0,1\n"}


def _yolo(name: str, box: Numbers) -> Files:
    x, y, w, h = _xywh(box)
    height, width = SIZE_HW
    shares = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
    row = f"0 {' '.join(map(repr, shares))} 7\n"
    files = {f"labels/train/{name}/{i:06d}.txt": row * (i == 1) for i in range(3)}
    return files | {"data.yaml": "train: images/train\nnames:\n  0: car\n"}


def _youtube_vis(name: str, box: Numbers) -> Files:
    names = [f"{name}/{i:06d}.jpg" for i in range(3)]
    video = {"id": 1, "width": SIZE_HW[1], "height": SIZE_HW[0], "file_names": names}
    track = {"id": 7, "video_id": 1, "category_id": 5, "bboxes": [None, _xywh(box), None]}
    tree = {
        "categories": [{"id": 5, "name": "car"}],
        "videos": [video],
        "annotations": [track],
    }
    return {"annotations/train.json": json.dumps(tree)}


def _xywh(box: Numbers) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]


def _from_one(box: Numbers) -> str:
    """Left, top, width and height as MOTChallenge has them: pixels count from 1."""
    x, y, width, height = _xywh(box)
    return f"{x + 1},{y + 1},{width},{height}"


@dataclass(frozen=True)
class Layout:
    """The files of a format, and the expected result of its reader on the small set."""

    label_files: Callable[[str, Numbers], Files]
    images: str  # folder of the images of the video {name}
    entry: str  # how a message names the box
    image: str = "{:06d}.jpg"
    first: int = 0  # number of the first image
    split: str = "train"
    options: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ("car",)
    track: int = 7
    fps: float | None = None
    nothing: str = "no videos found; expected labels .*"  # the message for an empty folder

    def image_files(self, root: Path, name: str) -> list[Path]:
        folder = root / self.images.format(name=name)
        return [folder / self.image.format(self.first + i) for i in range(3)]


LAYOUTS = {
    "bdd100k_mot": Layout(
        _bdd100k_mot,
        "images/track/train/{name}",
        entry="frame 1 label 0",
        classes=("pedestrian", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
        track=1,
        fps=5.0,
        nothing=r"no videos found; expected labels .*box_track_20/train/\*\.json",
    ),
    "coco_vid": Layout(
        _coco_vid,
        "{name}",
        entry="annotation 1",
        fps=10.0,
        nothing=r"annotations/train\.json: no such annotation file",
    ),
    "cvat_video": Layout(
        _cvat_video,
        "train/{name}",
        entry="track 7 frame 1",
        nothing=r"no videos found; expected labels .*train/\*\.xml",
    ),
    "imagenet_vid": Layout(
        _imagenet_vid,
        "Data/VID/train/{name}",
        entry="object 1",
        image="{:06d}.JPEG",
        classes=tuple(WNIDS),
        nothing="expected Data/VID and Annotations/VID in it",
    ),
    "kitti_tracking": Layout(
        _kitti_tracking,
        "training/image_02/{name}",
        entry="line 1",
        image="{:06d}.png",
        split="training",
        classes=("Car", "Pedestrian", "Cyclist"),
        fps=10.0,
        nothing=r"no videos found; expected labels .*training/label_02/\*\.txt",
    ),
    "labelled_folder": Layout(
        _labelled_folder,
        "train/{name}",
        entry="line 1",
        options={"classes": ["car"]},
        nothing="train: no such folder of labelled videos",
    ),
    "mot": Layout(
        _mot,
        "train/{name}/img1",
        entry="line 1",
        first=1,
        classes=("pedestrian",),
        fps=30.0,
        nothing="train: no sequences found; expected folders with a seqinfo.ini",
    ),
    "pascal_voc": Layout(
        _pascal_voc,
        "train/{name}",
        entry="object 1",
        nothing=r"no videos found; expected labels in Annotations or train",
    ),
    "ua_detrac": Layout(
        _ua_detrac,
        "Insight-MVT_Annotation_Train/{name}",
        entry="frame 2 target 7",
        image="img{:05d}.jpg",
        first=1,
        classes=("car", "bus", "van", "others"),
        fps=25.0,
        nothing=r"no videos found; expected labels .*DETRAC-Train-Annotations-XML/\*\.xml",
    ),
    "visdrone_vid": Layout(
        _visdrone_vid,
        "train/sequences/{name}",
        entry="line 1",
        image="{:07d}.jpg",
        first=1,
        classes=(
            "pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle",
            "awning-tricycle", "bus", "motor",
        ),
        nothing="no videos found; .*VisDrone2019-VID-train, .*train, ",
    ),
    "yolo": Layout(
        _yolo,
        "images/train/{name}",
        entry="line 1",
        nothing="no videos found; expected images in any of ",
    ),
    "youtube_vis": Layout(
        _youtube_vis,
        "train/JPEGImages/{name}",
        entry=r"annotation 7, bboxes\[1\]",
        nothing=r"annotations/train\.json: no such annotation file",
    ),
}  # fmt: skip


def write_set(
    format: str, root: Path, *, name: str = "v", box: Numbers = BOX, images: bool = True
) -> list[Path]:
    """Write the small set; returns its label files, of which the first has the box."""
    layout = LAYOUTS[format]
    if images:
        write_images(*layout.image_files(root, name))
    paths = []
    for path, text in layout.label_files(name, box).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
        paths.append(root / path)
    return sorted(paths, key=lambda path: path.stem != "000001")


def read(format: str, root: Path, **options: Any) -> VideoSet:
    """Read the small set. Raises InputError for entries that cannot be used."""
    layout = LAYOUTS[format]
    return read_set(format, root, layout.split, **layout.options | options)
