"""The configurations of configs/: all are valid, and the ImageNet VID one runs on a tiny set."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import SIZE_HW, TINY_OPTIONS
from rnndet.config import load_config
from rnndet.models.checkpoint import load_model, read_checkpoint
from rnndet.models.zoo import published_weights
from rnndet.training.run import run_training
from rnndet.video.image import write_image

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
OBJECT = (
    "<object><trackid>0</trackid><name>n02691156</name><bndbox>"
    "<xmin>{0}</xmin><ymin>20</ymin><xmax>{1}</xmax><ymax>40</ymax></bndbox></object>"
)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_configuration_is_valid(path):
    model = load_config(path).model
    assert model.detector == "init" or min(model.options["size"]) > 0


def put(root, kind, path, x):
    path_of_image, xml = root / f"Data/{kind}/{path}.JPEG", root / f"Annotations/{kind}/{path}.xml"
    for file in (path_of_image, xml):
        file.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((*SIZE_HW, 3), 90, np.uint8)
    image[19:40, x - 1 : x + 20] = (200, 60, 30)
    write_image(path_of_image, image)
    size = f"<size><width>{SIZE_HW[1]}</width><height>{SIZE_HW[0]}</height></size>"
    xml.write_text(f"<annotation>{size}{OBJECT.format(x, x + 20)}</annotation>")


@pytest.fixture
def ilsvrc(tmp_path):
    """Two training videos and a validation video of six frames, and three DET images."""
    root = tmp_path / "ILSVRC2015"
    for video in (
        "train/ILSVRC2015_VID_train_0000/a",
        "train/ILSVRC2015_VID_train_0000/b",
        "val/c",
    ):
        for number in range(6):
            put(root, "VID", f"{video}/{number:06d}", 10 + 3 * number)
    for number in range(3):
        put(root, "DET", f"train/ILSVRC2013_train/p{number}", 20)
    videos = [f"train/ILSVRC2015_VID_train_0000/{name}" for name in "ab"]
    lists = {
        "VID_train_videos": [f"{video} {i} 0 6" for i, video in enumerate(videos, 1)],
        "VID_train_15frames": [f"{video} 1 {n} 6" for video in videos for n in (0, 3, 5)],
        "DET_train_30classes": [f"train/ILSVRC2013_train/p{n} {n + 1}" for n in range(3)],
    }
    for name, rows in lists.items():
        (root / "ImageSets").mkdir(exist_ok=True)
        (root / f"ImageSets/{name}.txt").write_text("\n".join(rows) + "\n")
    return root


def small(name, root, **train):
    """A configuration with the small model and few steps; all else is its own."""
    config = load_config(CONFIGS / name)
    temporal = replace(config.model.temporal, levels=config.model.temporal.levels[:2])
    model = replace(config.model, options=TINY_OPTIONS, temporal=temporal)
    sources = {
        part: tuple(replace(source, root=str(root)) for source in getattr(config.data, part))
        for part in ("train", "val")
    }
    return replace(
        config,
        model=model,
        data=replace(config.data, **sources),
        augment=replace(config.augment, crop=(64, 64)),
        train=replace(config.train, steps=2, batch=2, workers=0, validate_every=0, **train),
    )


def test_imagenet_vid_recipe_runs_on_a_tiny_set_of_its_layout(ilsvrc, tmp_path):
    frame, whole = tmp_path / "frame", tmp_path / "whole"
    run_training(small("imagenet_vid_frame.toml", ilsvrc), frame, device="cpu", quiet=True)
    second = small("imagenet_vid.toml", ilsvrc, init=str(frame / "weights.pt"))
    run_training(second, whole, device="cpu", quiet=True)
    assert len(load_model(whole / "weights.pt").classes) == 30
    first, last = (read_checkpoint(run / "weights.pt")["model"] for run in (frame, whole))
    assert all((last[name] == tensor).all() for name, tensor in first.items())
    assert "val/AP50" in (whole / "metrics.jsonl").read_text()


def cvat_export(x):
    """One task of six frames with a car that stays for the whole of it."""
    boxes = "".join(
        f'<box frame="{n}" outside="0" occluded="0" keyframe="1" '
        f'xtl="{x + 3 * n}" ytl="20" xbr="{x + 3 * n + 20}" ybr="40"/>'
        for n in range(6)
    )
    size = f"<width>{SIZE_HW[1]}</width><height>{SIZE_HW[0]}</height>"
    return (
        "<annotations><version>1.1</version><meta><task><name>t</name><size>6</size><labels>"
        "<label><name>car</name></label><label><name>person</name></label></labels>"
        f"<original_size>{size}</original_size></task></meta>"
        f'<track id="0" label="car" source="manual">{boxes}</track></annotations>'
    )


@pytest.fixture
def own(tmp_path):
    """Two training videos and a validation video, each a folder of images beside its XML."""
    root = tmp_path / "own"
    for video in ("train/a", "train/b", "val/c"):
        (root / video).mkdir(parents=True)
        for number in range(6):
            image = np.full((*SIZE_HW, 3), 90, np.uint8)
            image[20:40, 10 + 3 * number : 30 + 3 * number] = (200, 60, 30)
            write_image(root / video / f"{number}.png", image)
        (root / f"{video}.xml").write_text(cvat_export(10))
    return root


def test_own_video_recipe_runs_on_cvat_exports(own, tmp_path):
    frame, whole = tmp_path / "frame", tmp_path / "whole"
    first = small("finetune_own_video_frame.toml", own, init="")
    run_training(first, frame, device="cpu", quiet=True)
    second = small("finetune_own_video.toml", own, init=str(frame / "weights.pt"))
    run_training(second, whole, device="cpu", quiet=True)
    assert load_model(whole / "weights.pt").classes == ("car", "person")
    assert "val/AP50" in (whole / "metrics.jsonl").read_text()


def test_own_video_recipe_begins_from_shipped_weights():
    config = load_config(CONFIGS / "finetune_own_video_frame.toml")
    assert config.train.init in published_weights()
