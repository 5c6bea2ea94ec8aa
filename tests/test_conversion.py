"""Detectors trained with torchvision as checkpoints of rnndet."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.ops import FrozenBatchNorm2d

from rnndet.errors import RnndetError, WeightsError
from rnndet.models.checkpoint import load_model, model_from_checkpoint, save_checkpoint
from rnndet.models.detectors.backbones import freeze_batch_norms
from rnndet.models.detectors.conversion import STRUCTURES, convert_torchvision

CLASSES = ("car", "person", "dog")
SSDLITE = "ssdlite320_mobilenet_v3_large"


def network(name, **options):
    """torchvision's network for three classes, with weights and batch norms of a seed."""
    torch.manual_seed(0)
    if "ssdlite" not in name:
        options = {"min_size": 64, "max_size": 96} | options
    build = getattr(detection, name)
    net = build(weights=None, weights_backbone=None, num_classes=len(CLASSES) + 1, **options)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.weight, 0.5, 1.5)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
    if "fcos" in name or "retinanet" in name:  # their output 0 is never trained: no class
        outputs = len(CLASSES) + 1
        nn.init.constant_(net.head.classification_head.cls_logits.bias[0::outputs], -20.0)
    getattr(net, "roi_heads", net).score_thresh = 0.02
    return net.eval()


def image_for(name):
    height, width = (320, 320) if "ssdlite" in name else (64, 96)
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return torch.from_numpy(small.repeat(8, 0).repeat(8, 1)).permute(2, 0, 1)


@pytest.mark.parametrize("name", STRUCTURES)
def test_converted_detector_finds_what_torchvisions_finds(name):
    net, image = network(name), image_for(name)
    model = model_from_checkpoint(convert_torchvision(net, name, CLASSES), where="test")
    with torch.no_grad():
        ((found,),) = model(image[None, None]).detections
        (expected,) = net([image / 255])
    assert model.classes == CLASSES
    assert len(found) == len(expected["scores"]) > 3
    assert found.scores == pytest.approx(expected["scores"].numpy(), abs=1e-4)
    assert (found.labels + 1 == expected["labels"].numpy()).all()
    assert np.abs(found.boxes - expected["boxes"].numpy()).max() < 1e-2


def test_checkpoint_loads_and_has_the_settings_of_the_network(tmp_path):
    net = network(SSDLITE)
    save_checkpoint(tmp_path / "mine.pt", convert_torchvision(net, SSDLITE, CLASSES))
    model = load_model(tmp_path / "mine.pt")
    assert (model.score_threshold, model.detector.head_spec.nms_threshold) == (0.02, 0.55)
    assert model.detector.input_spec.fixed_hw == (320, 320)
    assert not model.temporal.cells


@pytest.mark.parametrize("eps", [0.0, 0.5])
def test_batch_norms_that_are_frozen_already_keep_their_eps(eps):
    net = network(SSDLITE)
    freeze_batch_norms(net)
    for module in net.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = eps
    model = model_from_checkpoint(convert_torchvision(net, SSDLITE, CLASSES), where="test")
    pixels = torch.rand(1, 3, 320, 320)
    features = model.detector.neck(model.detector.backbone(pixels))
    for level, expected in enumerate(net.backbone(pixels).values()):
        torch.testing.assert_close(features[str(level)], expected)


def test_network_is_not_changed():
    net = network(SSDLITE)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    convert_torchvision(net, SSDLITE, CLASSES)
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())


def test_other_number_of_classes_is_one_line():
    with pytest.raises(WeightsError, match=r"^not ssdlite.* with 2 classes .*\(24,\)") as caught:
        convert_torchvision(network(SSDLITE), SSDLITE, CLASSES[:2])
    assert "\n" not in str(caught.value)


def test_name_in_place_of_a_list_of_names_is_refused():
    """Its three letters would pass for the three classes."""
    with pytest.raises(RnndetError, match=r"classes = 'car': expected a list of names"):
        convert_torchvision(network(SSDLITE), SSDLITE, "car")


def test_other_anchors_are_refused():
    net = network(SSDLITE)
    net.anchor_generator = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.1, max_ratio=0.9)
    with pytest.raises(WeightsError, match="its anchors are not those of ssdlite320"):
        convert_torchvision(net, SSDLITE, CLASSES)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(RnndetError, match=r"name = 'yolo' is unknown.*fcos_resnet50_fpn"):
        convert_torchvision(nn.Identity(), "yolo", CLASSES)


def test_lines_of_the_tutorial_make_a_checkpoint(tmp_path, monkeypatch):
    text = Path(__file__).resolve().parent.parent.joinpath("docs/your_detector.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    monkeypatch.chdir(tmp_path)
    net = detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3
    )
    torch.save(net.state_dict(), "mine.pth")
    exec(code, {})
    assert load_model("mine.pt").classes == ("car", "person")
