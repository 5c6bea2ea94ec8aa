"""Starting from weights: folded batch norms, track classes, and teachers with another order."""

import logging

import pytest
import torch
from torchvision.ops import FrozenBatchNorm2d
from windows import losses, noise

from conftest import TINY_OPTIONS
from rnndet.config import Config, ModelConfig, TemporalConfig, config_from_dict
from rnndet.errors import RnndetError, WeightsError
from rnndet.models.checkpoint import model_content, save_checkpoint
from rnndet.models.detectors.batch_norms import convert_norms
from rnndet.models.video_detector import VideoDetector, build_model
from rnndet.specs import TrackClassSpec
from rnndet.training.checkpoints import start_from
from rnndet.training.run import build_teacher
from rnndet.training.teacher import CleanTeacher

CLASSES = ("bird", "drone", "airplane")
SMALL = {"size": [64, 96], "backbone": "mobilenet_v3_small", "resize_in_training": False}
PYRAMID = SMALL | {"channels": 32}
OPTIONS = {
    "faster_rcnn": PYRAMID,
    "fcos": PYRAMID | {"head_convs": 1},
    "nanodet_plus": PYRAMID | {"backbone": "shufflenet_v2_x0_5", "head_convs": 1},
    "retinanet": PYRAMID | {"head_convs": 1},
    "ssdlite": SMALL,
}
every_family = pytest.mark.parametrize("name", sorted(OPTIONS))
SPEC = TrackClassSpec(CLASSES, ("area",), (0.0,), (1.0,), ((1.0, 2.0, 3.0),), (0.0, 0.0, 1.0))


def config_of(name: str, **options) -> Config:
    return Config(ModelConfig(name, OPTIONS[name] | options, TemporalConfig(cell="none")))


def make(name: str, *, seed: int, classes=CLASSES, **options) -> VideoDetector:
    """A model without temporal module, whose frozen batch norms change their input."""
    torch.manual_seed(seed)
    model = build_model(config_of(name, **options).model, classes).eval()
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
    return model


def save(model: VideoDetector, folder, name: str, **options) -> str:
    path = folder / "start.pt"
    save_checkpoint(path, model_content(model, config_of(name, **options), step=0))
    return str(path)


@torch.no_grad()
def features_of(model: VideoDetector) -> dict[str, torch.Tensor]:
    return model.eval().encode(noise(1)).features


# folded batch norms


@every_family
@pytest.mark.parametrize("folds", [True, False], ids=["folded", "unfolded"])
@pytest.mark.parametrize("classes", [CLASSES, ("airplane", "bird")], ids=["same", "others"])
def test_start_with_other_folding_gives_its_own_features(name, folds, classes, tmp_path):
    start = make(name, seed=1, fold_batch_norm=not folds)
    model = make(name, seed=2, fold_batch_norm=folds, classes=classes)
    path = save(start, tmp_path, name, fold_batch_norm=not folds)
    assert start_from(model, path) == []
    found, expected = features_of(model), features_of(start)
    for level, value in expected.items():
        torch.testing.assert_close(found[level], value, rtol=1e-3, atol=1e-4)


def test_log_counts_the_converted_batch_norms(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = save(make("fcos", seed=1), tmp_path, "fcos")
    start_from(make("fcos", seed=2, fold_batch_norm=True), path)
    count = sum(isinstance(m, FrozenBatchNorm2d) for m in make("fcos", seed=1).modules())
    assert f"{path}: {count} batch norms folded or unfolded" in caplog.messages


@pytest.mark.parametrize("folds", [True, False])
def test_start_with_the_same_folding_is_unchanged_bit_for_bit(folds):
    start = make("fcos", seed=1, fold_batch_norm=folds)
    tensors, count = convert_norms(make("fcos", seed=2, fold_batch_norm=folds), start)
    assert count == 0
    assert all(torch.equal(tensor, start.state_dict()[name]) for name, tensor in tensors.items())


def test_start_with_nan_is_refused_by_name(tmp_path):
    model = make("fcos", seed=1)
    name = "detector.net.head.regression_head.bbox_reg.bias"
    model.state_dict()[name].fill_(float("nan"))
    path = save(model, tmp_path, "fcos")
    with pytest.raises(WeightsError, match=f"{name} holds NaN"):
        start_from(make("fcos", seed=2), path)


# track classes


def with_track_classes(tmp_path) -> str:
    start = make("fcos", seed=1)
    start.track_classes = SPEC
    return save(start, tmp_path, "fcos")


def test_track_classes_of_the_start_are_taken_over_for_the_same_classes(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path, model = with_track_classes(tmp_path), make("fcos", seed=2)
    start_from(model, path)
    assert model.track_classes == SPEC
    assert model_content(model, config_of("fcos"), step=1)["track_classes"] == SPEC.to_dict()
    assert f"{path}: its track classes are taken over" in caplog.messages


@pytest.mark.parametrize("classes", [CLASSES[::-1], ("bird", "drone", "car"), ("bird",)])
def test_track_classes_of_other_classes_are_left_out_with_a_word(classes, tmp_path, caplog):
    path, model = with_track_classes(tmp_path), make("fcos", seed=2, classes=classes)
    start_from(model, path)
    assert model.track_classes is None
    assert "its track classes are for other classes and left out" in caplog.text


# a teacher with the classes in another order


@pytest.mark.parametrize("name", ["fcos", "nanodet_plus", "retinanet", "ssdlite"])
def test_teacher_with_another_order_of_the_classes_teaches_the_same(name, tmp_path):
    """The start has the order of the teacher, and the model takes its rows by name."""
    teacher = make(name, seed=1)
    torch.manual_seed(3)
    for parameter in teacher.detector.net.head.parameters():  # scores that differ by class
        torch.nn.init.normal_(parameter, std=0.1)
    start = save(teacher, tmp_path, name)
    found = []
    for classes in (CLASSES, ("drone", "airplane", "bird")):
        student = make(name, seed=2, classes=classes)
        start_from(student, start)
        with torch.no_grad():
            for key, rows in student.detector.class_rows().items():
                at = rows.classes[list(classes).index("drone")]
                student.detector.state_dict()[key][at] += 1.0
        given = {
            "clean": noise(1, seed=7),
            "teacher": CleanTeacher(
                build_and_load(teacher, name), site="neck", resizes=False, classes=classes
            ),
            "output_distillation": True,
        }
        terms = losses(student.train(), noise(1), [[None]], **given)
        found.append(float(terms["output_distillation"].detach()))
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def build_and_load(teacher: VideoDetector, name: str) -> VideoDetector:
    copy = make(name, seed=5)
    copy.load_state_dict(teacher.state_dict())
    return copy


def tree_of(start: str, **train) -> dict:
    source = {"format": "unlabelled", "root": "videos"}
    return {
        "model": {"options": TINY_OPTIONS},
        "data": {"train": [source]},
        "train": {"init": start, "teacher": "init", "detection": 0.0, "distillation": 1.0} | train,
    }


@pytest.mark.parametrize("classes", [("bird", "drone", "car"), ("bird", "drone")])
def test_teacher_of_other_classes_is_refused_before_the_first_step(classes, tmp_path):
    start = save(make("fcos", seed=1), tmp_path, "fcos")
    config = config_from_dict(tree_of(start, output_distillation=1.0), where="test")
    with pytest.raises(RnndetError, match=r"train\.teacher: has other classes .*also airplane"):
        build_teacher(config, classes, device=torch.device("cpu"))


def test_classes_of_a_teacher_do_not_matter_for_features(tmp_path):
    start = save(make("fcos", seed=1), tmp_path, "fcos")
    config = config_from_dict(tree_of(start), where="test")
    assert build_teacher(config, ("car",), device=torch.device("cpu")) is not None
