"""Training on videos and pictures without labels."""

import json
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision_files import LIGHT, give_weights, random_weights

from conftest import (
    CLASSES,
    SIZE_HW,
    TINY_OPTIONS,
    TRAINING_TREE,
    error_line,
    frame_image,
    tiny_config,
    tiny_model,
)
from rnndet.cli import train
from rnndet.config import config_from_dict, load_config
from rnndet.data.frames import FrameStore
from rnndet.data.records import FrameRecord, VideoRecord
from rnndet.errors import RnndetError
from rnndet.evaluation.agreement import Teacher
from rnndet.inference.stream import Stream
from rnndet.models.checkpoint import (
    load_model,
    model_content,
    read_checkpoint,
    save_checkpoint,
)
from rnndet.models.video_detector import build_model
from rnndet.structures import Frame
from rnndet.training import run, validation
from rnndet.training.run import read_sources, run_training, with_detector_of_init
from rnndet.video.image import write_image

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A folder with two videos of twelve frames and a picture."""
    folder = tmp_path_factory.mktemp("videos")
    for name, label in (("street", 0), ("yard", 1)):
        code, size = cv2.VideoWriter.fourcc(*"MJPG"), SIZE_HW[::-1]
        writer = cv2.VideoWriter(str(folder / f"{name}.avi"), code, 10, size)
        for index in range(12):
            writer.write(np.ascontiguousarray(frame_image(index, label)[0][:, :, ::-1]))
        writer.release()
    write_image(folder / "still.png", frame_image(0, 0)[0])
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Weights of a tiny detector without temporal module."""
    path, model = tmp_path_factory.mktemp("start") / "start.pt", tiny_model(cell="none")
    torch.nn.init.constant_(model.detector.net.head.regression_head.bbox_reg.bias, 1.0)  # size
    save_checkpoint(path, model_content(model, tiny_config(cell="none"), step=0))
    return path


def source(root, **entries):
    return {"format": "unlabelled", "root": str(root)} | entries


def config_for(*sources, holdout=(), val=(), **train):
    data = {"train": list(sources), "holdout": list(holdout), "val": list(val)}
    train = TRAINING_TREE["train"] | {"detection": 0.0, "distillation": 1.0} | train
    return config_from_dict(TRAINING_TREE | {"data": data, "train": train}, where="test")


def test_temporal_module_is_trained_without_labels(videos, start, tmp_path):
    config = config_for(source(videos), init=str(start), freeze=["backbone", "neck", "head"])
    run_training(config, tmp_path / "run", device="cpu", quiet=True)
    trained, before = load_model(tmp_path / "run" / "weights.pt"), load_model(start)
    assert trained.temporal.levels == ("0", "1")
    own, other = before.state_dict(), trained.state_dict()
    assert all((other[name] == tensor).all() for name, tensor in own.items())


def test_classes_are_those_of_the_initial_weights(videos, start):
    (train_set,), held_out = read_sources(config_for(source(videos), init=str(start)))
    assert (train_set.classes, held_out.classes) == (CLASSES, CLASSES)


def test_without_classes_and_initial_weights_nothing_is_read(videos):
    with pytest.raises(RnndetError, match=r"^no source has classes; set train\.init"):
        read_sources(config_for(source(videos)))


def test_unlabelled_source_gets_the_classes_of_a_labelled_one(videos, coco_vid_root):
    config = config_for(source(videos), {"root": str(coco_vid_root)}, detection=1.0)
    train_sets, _ = read_sources(config)
    assert [found.classes for found in train_sets] == [CLASSES, CLASSES]
    assert [found.is_labelled for found in train_sets] == [False, True]


def test_labelled_source_is_supervised_beside_an_unlabelled_one(videos, coco_vid_root, tmp_path):
    config = config_for(source(videos), {"root": str(coco_vid_root)}, detection=1.0, batch=4)
    run_training(config, tmp_path / "run", device="cpu", quiet=True)
    assert '"classification"' in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_detection_loss_without_labels_is_refused(videos, start):
    config = config_for(source(videos), init=str(start), detection=1.0)
    with pytest.raises(RnndetError, match=r"no training source has labels.*train\.detection=0"):
        read_sources(config)


def test_video_is_held_out_by_its_name(videos, start):
    (train_set,), held_out = read_sources(
        config_for(source(videos), init=str(start), holdout=["street"])
    )
    assert [video.name for video in train_set.videos] == ["still", "yard"]
    assert [video.name for video in held_out.videos] == ["street"]


def test_frame_that_a_clip_repeats_is_decoded_once(monkeypatch, tmp_path):
    reads = []
    monkeypatch.setattr(
        "rnndet.data.orientation.read_image",
        lambda path, **_: reads.append(path) or np.zeros((4, 6, 3), np.uint8),
    )
    record = FrameRecord(0, None, tmp_path / "still.png")
    frames = FrameStore("cpu", budget=0).load(
        VideoRecord("still", 4, 6, None, (record,)), [record] * 3
    )
    assert frames.shape == (3, 3, 4, 6)
    assert len(reads) == 1


# validation by agreement with the initial weights


def test_unlabelled_videos_are_validated_by_agreement_with_the_initial_weights(
    videos, start, tmp_path, caplog
):
    config = config_for(source(videos), init=str(start), holdout=["street"])
    with caplog.at_level("INFO"):
        run_training(config, tmp_path / "run", device="cpu", quiet=True)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    figures = {"AP50", "AP50_corrupted", "AP50_other", "flicker", "jitter"}
    assert json.loads(lines[-1]).keys() >= {f"val/{name}" for name in figures}
    assert f"agreement with {start} at >= 0.4 on clean frames, not accuracy" in caplog.text


def test_initial_weights_agree_fully_with_themselves_on_the_frames_left_clean(
    videos, start, tmp_path, monkeypatch
):
    model = load_model(start)
    found = Stream(model, min_score=0.0).step(Frame(frame_image(0, 0)[0], 0, 0.0)).detections
    # the weights are untrained: their third best score stands for a score of 0.4
    monkeypatch.setattr(validation, "Teacher", partial(Teacher, min_score=float(found.scores[2])))
    config = config_for(source(videos), init=str(start), val=[source(videos)])
    _, held_out = read_sources(config)
    figures = validation.validation(config, held_out, tmp_path, device=torch.device("cpu"))(model)
    assert figures["AP50_other"] == pytest.approx(1.0)
    assert figures["AP50_corrupted"] < 1
    assert (tmp_path / "samples.jpg").is_file()


def test_videos_are_labelled_once_for_all_validations(videos, start, tmp_path, monkeypatch):
    labelled, label = [], Teacher.label
    monkeypatch.setattr(
        Teacher, "label", lambda self, video, **_: labelled.append(video) or label(self, video)
    )
    config = config_for(
        source(videos), init=str(start), holdout=["street"], validate_every=1, validate_frames=3
    )
    run_training(config, tmp_path / "run", device="cpu", quiet=True)
    assert [(video.name, len(video.frames)) for video in labelled] == [("street", 3)]


def test_validation_without_labels_needs_initial_weights(videos, coco_vid_root, tmp_path):
    config = config_for({"root": str(coco_vid_root)}, val=[source(videos)])
    with pytest.raises(RnndetError, match=r"compared with train\.teacher or train\.init"):
        run_training(config, tmp_path / "run", device="cpu", quiet=True)


def test_unlabelled_videos_are_validated_against_the_teacher_of_the_training(
    videos, start, tmp_path, caplog
):
    other = tmp_path / "other.pt"
    other.write_bytes(start.read_bytes())
    config = config_for(
        source(videos), init=str(start), teacher=str(other), holdout=["street"], steps=1
    )
    with caplog.at_level("INFO"):
        run_training(config, tmp_path / "run", device="cpu", quiet=True)
    assert f"agreement with {other} at >= 0.4" in caplog.text
    assert f"agreement with {start}" not in caplog.text


def test_teacher_init_is_the_initial_weights_in_validation_too(videos, start):
    config = config_for(source(videos), init=str(start), teacher="init")
    assert validation.teacher_name(config) == str(start)


def test_initial_weights_of_other_classes_are_no_teacher(videos, start, tmp_path):
    classes = {"options": {"classes": ["square", "disc"]}}
    config = config_for(source(videos, **classes), init=str(start), holdout=["street"])
    with pytest.raises(RnndetError, match=r"class 2 is bar instead of disc"):
        run_training(config, tmp_path / "run", device="cpu", quiet=True)


def test_validation_with_and_without_labels_is_refused(videos, start, coco_vid_root):
    config = config_for(
        source(videos), init=str(start), val=[source(videos), {"root": str(coco_vid_root)}]
    )
    with pytest.raises(RnndetError, match="sources with and without labels"):
        read_sources(config)


# configs/temporal_for_any_detector.toml, and the detector "init"


def recipe(videos, start, **changes):
    """The recipe for two steps on the tiny videos, validated on them too."""
    sources = f'[{{format="unlabelled", root="{videos}"}}]'
    changes = {
        "train.init": f'"{start}"',
        "train.steps": 2,
        "train.batch": 2,
        "train.warmup": 1,
        "train.validate_frames": 3,
        "augment.crop": [64, 64],
        "clip.length": 2,
        "data.train": sources,
        "data.val": sources,
    } | changes
    return load_config(
        CONFIGS / "temporal_for_any_detector.toml",
        changes=[f"{key}={value}" for key, value in changes.items()],
    )


@pytest.fixture(scope="module")
def finished(videos, start, tmp_path_factory):
    """The folder of a run of the recipe, which tests only read."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    run_training(recipe(videos, start), folder, device="cpu", quiet=True)
    return folder


def test_recipe_gives_the_detector_a_temporal_module(finished):
    trained = load_model(finished / "weights.pt")
    assert (trained.site, trained.temporal.levels) == ("backbone", ("0", "1"))
    stream = Stream(trained, min_score=0.0)
    for index in range(2):
        result = stream.step(Frame(frame_image(index, 0)[0], index, index / 10))
    assert len(result.detections) and set(stream.state) == {"0", "1"}
    assert '"val/AP50_corrupted"' in (finished / "metrics.jsonl").read_text()


def test_recipe_leaves_the_detector_unchanged_bit_for_bit(finished, videos, start):
    trained = load_model(finished / "weights.pt").state_dict()
    for name, tensor in load_model(start).state_dict().items():
        assert torch.equal(trained[name], tensor), name
    fresh = [name for name in trained if name.startswith("temporal.cells") and "gates" in name]
    starts = build_model(with_detector_of_init(recipe(videos, start)).model, CLASSES).state_dict()
    assert any(not torch.equal(trained[name], starts[name]) for name in fresh if "bias" in name)


def test_run_stores_the_detector_that_it_took_from_the_initial_weights(finished):
    stored = json.loads((finished / "config.json").read_text())["model"]
    assert (stored["detector"], stored["temporal"]["levels"]) == ("fcos", ["0", "1"])
    assert stored["options"] == TINY_OPTIONS
    assert read_checkpoint(finished / "weights.pt")["config"]["model"] == stored


def test_run_from_the_recipe_is_resumed(finished, videos, start, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    longer = recipe(videos, start, **{"train.steps": 3})
    run_training(longer, folder, device="cpu", quiet=True, resume=True)
    assert read_checkpoint(folder / "weights.pt")["step"] == 3


def test_options_of_the_configuration_replace_those_of_the_initial_weights(videos, start):
    config = recipe(videos, start, **{"model.options.size": [96, 128]})
    assert with_detector_of_init(config).model.options == TINY_OPTIONS | {"size": [96, 128]}


def test_clips_have_network_scale_whatever_the_initial_weights_were_trained_with(videos, tmp_path):
    options = {key: v for key, v in TINY_OPTIONS.items() if key != "resize_in_training"}
    tree = {"options": options | {"weights": None}, "temporal": {"cell": "none"}}
    config = config_from_dict({"model": tree}, where="test")
    save_checkpoint(
        tmp_path / "a.pt", model_content(build_model(config.model, CLASSES), config, step=0)
    )
    found = with_detector_of_init(recipe(videos, tmp_path / "a.pt")).model
    assert found.options == TINY_OPTIONS  # and no weights, which would be downloaded


def test_without_levels_every_level_of_the_site_gets_a_cell(videos, tmp_path):
    options = TINY_OPTIONS | {"extra_levels": 1}
    tree = {"options": options, "temporal": {"cell": "none"}}
    config = config_from_dict({"model": tree}, where="test")
    save_checkpoint(
        tmp_path / "a.pt", model_content(build_model(config.model, CLASSES), config, step=0)
    )
    at_neck = recipe(videos, tmp_path / "a.pt", **{"model.temporal.site": "neck"})
    chosen = recipe(videos, tmp_path / "a.pt", **{"model.temporal.levels": ["1"]})
    assert with_detector_of_init(at_neck).model.temporal.levels == ("0", "1", "pool")
    assert with_detector_of_init(chosen).model.temporal.levels == ("1",)


def test_temporal_module_of_the_initial_weights_is_trained_further(finished, videos):
    again = with_detector_of_init(recipe(videos, finished / "weights.pt"))
    model, is_fresh = run.start_model(again, CLASSES, resume=False)
    assert not is_fresh
    expected = load_model(finished / "weights.pt").state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("", 'model.detector = "init" needs train.init'),
        ("nothing.pt", "weights 'nothing.pt': neither a file nor a published name"),
    ],
)
def test_missing_initial_weights_are_one_line(init, message, videos, tmp_path, capsys):
    args = ["temporal_for_any_detector", "--out", str(tmp_path / "run"), "--quiet"]
    assert train.main([*args, "--set", f'train.init="{init}"']) != 0
    assert message in error_line(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", LIGHT)
def test_recipe_starts_from_a_detector_that_torchvision_publishes(
    name, videos, tmp_path, monkeypatch
):
    give_weights(monkeypatch, name, random_weights(name))
    config = recipe(videos, f"torchvision:{name}", **{"model.options.size": [64, 96]})
    run_training(config, tmp_path / "run", device="cpu", quiet=True)
    trained = load_model(tmp_path / "run" / "weights.pt")
    assert (trained.detector.name, trained.site) == (name, "backbone")
    published, found = load_model(f"torchvision:{name}").state_dict(), trained.state_dict()
    assert all(torch.equal(found[key], tensor) for key, tensor in published.items())
