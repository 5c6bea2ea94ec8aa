"""Fixtures: a labelled set of moving squares, and a tiny model."""

import gc
import json
import os
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from rnndet.config import Config, config_from_dict
from rnndet.models.video_detector import VideoDetector, build_model
from rnndet.structures import Detections

CLASSES = ("square", "bar")
SIZE_HW = (64, 96)
TINY_OPTIONS = {
    "size": list(SIZE_HW),
    "backbone": "mobilenet_v3_small",
    "strides": [8, 16],
    "channels": 32,
    "head_convs": 1,
    "extra_levels": 0,
    "fold_batch_norm": True,
    "resize_in_training": False,
}


# A training of seconds; [data] is to be filled in.
TRAINING_TREE = {
    "model": {"options": TINY_OPTIONS, "temporal": {"levels": ["0", "1"], "hidden": 8}},
    "clip": {"length": 2, "windows": 2},
    "augment": {"crop": [64, 64]},
    "train": {"steps": 4, "batch": 2, "warmup": 1, "log_every": 1, "save_every": 2},
}


def pytest_configure():
    """One thread of OpenMP in processes that tests start: more would only wait for each other."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Keep modules and tests out of the search for garbage, which takes seconds: they all stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Escape names that are not UTF-8 in captured logs: a worker of pytest-xdist cannot send them.

    What is captured depends on the level of logging that the tests before have left.
    """
    report = yield
    report.sections = [
        (title, text.encode("utf-8", "backslashreplace").decode())
        for title, text in report.sections
    ]
    return report


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors: threads only cost, and CI has two cores."""
    torch.set_num_threads(1)


def detections(boxes, scores, labels, ids=None) -> Detections:
    """Detections from tensors or lists: boxes (D, 4), and a number each for the others."""
    return Detections(
        np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(scores, np.float32),
        np.asarray(labels, np.int64), None if ids is None else np.asarray(ids, np.int64),
    )  # fmt: skip


class IdentityInput:
    """An input specification that leaves every frame its size, for models of a few lines."""

    shorter = longer = 0
    as_float = False

    @staticmethod
    def scaled_hw(height: int, width: int) -> tuple[int, int]:
        return height, width


class StubModel(torch.nn.Module):
    """Base of stub models for a stream; subclasses define `encode` and `decode`."""

    classes: tuple[str, ...] = ("thing",)
    score_threshold = 0.0
    detector = SimpleNamespace(input_spec=IdentityInput())
    temporal = SimpleNamespace(cells={})
    track_classes = None

    def step(self, frames, state, *, original_sizes, limits, timer):
        return self.decode(self.encode(frames, original_sizes=original_sizes), state)


def tiny_config(**temporal) -> Config:
    """A configuration of a tiny FCOS with temporal modules on both levels, fast to run."""
    temporal = {"levels": ["0", "1"], "hidden": 8} | temporal
    model = {"detector": "fcos", "options": TINY_OPTIONS, "temporal": temporal}
    return config_from_dict({"model": model}, where="test")


def tiny_model(seed: int = 0, **temporal) -> VideoDetector:
    """The tiny model in eval mode, with weights that follow from the seed."""
    torch.manual_seed(seed)
    return build_model(tiny_config(**temporal).model, CLASSES).eval()


def frame_image(index: int, label: int) -> tuple[np.ndarray, list[float]]:
    """A frame of SIZE_HW with one object that moves 3 px a frame, and its box x y w h."""
    image = np.full((*SIZE_HW, 3), 90, np.uint8)
    w, h = (16, 16) if label == 0 else (24, 10)
    x, y = 8 + 3 * index, 20
    image[y : y + h, x : x + w] = (200, 60, 30)
    return image, [x, y, w, h]


def write_coco_vid(root, *, videos: int = 2, length: int = 6, as_files: bool = False) -> None:
    """A CocoVID set under root, split "train"; as images, or as lossless video files."""
    tree = {"videos": [], "images": [], "annotations": []}
    tree["categories"] = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    for v in range(videos):
        entry = {"id": v + 1, "name": f"v{v}", "fps": 10, "scene": v}
        writer = None
        if as_files:
            entry |= {"file_name": f"v{v}.avi", "height": SIZE_HW[0], "width": SIZE_HW[1]}
            size = (SIZE_HW[1], SIZE_HW[0])
            fourcc = cv2.VideoWriter.fourcc(*"MJPG")
            writer = cv2.VideoWriter(str(root / f"v{v}.avi"), fourcc, 10, size)
        tree["videos"].append(entry)
        (root / f"v{v}").mkdir(parents=True, exist_ok=True)
        for i in range(length):
            image, box = frame_image(i, v % 2)
            number = len(tree["images"]) + 1
            name = f"v{v}/{i:06d}.png"
            if writer is None:
                cv2.imwrite(str(root / name), image[:, :, ::-1])
            else:
                writer.write(np.ascontiguousarray(image[:, :, ::-1]))
            size = {"height": SIZE_HW[0], "width": SIZE_HW[1]}
            image_entry = {"id": number, "video_id": v + 1, "frame_id": i, "file_name": name}
            tree["images"].append(image_entry | size)
            tree["annotations"].append(
                {"id": number, "image_id": number, "video_id": v + 1, "category_id": v % 2 + 1}
                | {"bbox": box, "area": box[2] * box[3], "iscrowd": 0, "instance_id": v + 1}
            )
        if writer is not None:
            writer.release()
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / "train.json").write_text(json.dumps(tree))


def error_line(capsys) -> str:
    """The one line that a tool has printed on stderr."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture
def coco_vid_root(tmp_path):
    write_coco_vid(tmp_path)
    return tmp_path
