"""Backbones: selected layers, frozen batch norm, folding, weights."""

import pytest
import torch
from torch import nn
from torchvision import models

from rnndet.errors import RnndetError, WeightsError
from rnndet.models.detectors.backbones import (
    build_backbone,
    build_pyramid,
    finish_backbone,
    level_strides,
)


def run(backbone: nn.Module, x: torch.Tensor, until: str) -> torch.Tensor:
    for name, layer in backbone.named_children():
        x = layer(x)
        if name == until:
            return x
    raise AssertionError(until)


def with_random_norms(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


@pytest.fixture
def saved(tmp_path):
    """Writes a torchvision classifier with random batch norms; returns it and the file."""

    def write(name: str) -> tuple[nn.Module, str]:
        torch.manual_seed(0)
        model = with_random_norms(models.get_model(name, weights=None)).eval()
        path = str(tmp_path / f"{name}.pth")
        torch.save(model.state_dict(), path)
        return model, path

    return write


@pytest.mark.parametrize(
    ("name", "layers", "channels"),
    [
        ("mobilenet_v2", ["6", "13", "18"], [32, 96, 1280]),
        ("mobilenet_v3_large", ["6", "12", "16"], [40, 112, 960]),
        ("mobilenet_v3_small", ["3", "8", "12"], [24, 48, 576]),
        ("resnet18", ["layer2", "layer3", "layer4"], [128, 256, 512]),
    ],
)
def test_levels_are_the_last_layers_at_each_stride(name, layers, channels):
    _, found, widths = build_backbone(name, strides=(8, 16, 32))
    assert found == dict(zip(layers, "012", strict=True))
    assert widths == channels


def test_stride_given_twice_takes_first_and_last_layer():
    _, layers, channels = build_backbone("mobilenet_v3_large", strides=[32, 32])
    assert layers == {"13": "0", "16": "1"}
    assert channels == [160, 960]


def test_unknown_backbone_error_lists_names():
    with pytest.raises(RnndetError, match=r"mobilenet_v2.*resnet18.*resnet50"):
        build_backbone("resnet_18")


@pytest.mark.parametrize("strides", [(), (8, 64), (16, 8), (7,), (8, 8, 8)])
def test_impossible_strides_are_refused(strides):
    with pytest.raises(RnndetError, match="strides"):
        build_backbone("mobilenet_v3_small", strides=strides)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "resnet18"])
@pytest.mark.parametrize("folded", [False, True])
def test_backbone_equals_classifier_with_and_without_folding(name, folded, saved):
    classifier, path = saved(name)
    backbone, layers, _ = build_backbone(name, weights=path)
    finish_backbone(backbone, fold_batch_norm=folded, trainable_from=0)
    x = torch.randn(1, 3, 64, 64)
    source = classifier.features if hasattr(classifier, "features") else classifier
    with torch.no_grad():
        for layer in layers:
            expected = run(source, x, layer)
            torch.testing.assert_close(run(backbone, x, layer), expected, rtol=1e-4, atol=1e-4)


def test_folded_backbone_has_no_batch_norm_and_trains_every_parameter():
    backbone, _, _ = build_backbone("resnet18")
    finish_backbone(backbone, fold_batch_norm=True, trainable_from=0)
    assert not [m for m in backbone.modules() if "BatchNorm" in type(m).__name__]
    assert all(p.requires_grad for p in backbone.parameters())


def test_batch_norm_is_frozen_in_train_mode(saved):
    _, path = saved("mobilenet_v3_small")
    backbone, layers, _ = build_backbone("mobilenet_v3_small", weights=path)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    run(backbone.train(), torch.randn(2, 3, 64, 64), list(layers)[-1])
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def frozen_names(backbone: nn.Module) -> set[str]:
    return {n.split(".")[0] for n, p in backbone.named_parameters() if not p.requires_grad}


@pytest.mark.parametrize("folded", [False, True])
def test_trainable_from_freezes_the_first_parts(folded):
    mobile, _, _ = build_backbone("mobilenet_v2")
    finish_backbone(mobile, fold_batch_norm=folded, trainable_from=4)
    assert frozen_names(mobile) == {"0", "1", "2", "3"}
    resnet, _, _ = build_backbone("resnet18")
    finish_backbone(resnet, fold_batch_norm=folded, trainable_from=2)
    assert frozen_names(resnet) - {"bn1"} == {"conv1", "layer1"}


def test_more_frozen_parts_than_there_are_is_refused():
    backbone, _, _ = build_backbone("resnet18")
    with pytest.raises(RnndetError, match="from 0 to 5"):
        finish_backbone(backbone, fold_batch_norm=False, trainable_from=6)


def test_unknown_published_weights_error_lists_names():
    with pytest.raises(RnndetError, match="IMAGENET1K_V1"):
        build_backbone("resnet18", weights="IMAGENET_V1")


def test_published_weights_come_from_torchvision(monkeypatch, saved):
    classifier, _ = saved("mobilenet_v3_small")
    asked = []

    def state(self, *args, **kwargs):
        asked.append(self.name)
        return classifier.state_dict()

    monkeypatch.setattr(models.MobileNet_V3_Small_Weights, "get_state_dict", state)
    backbone, _, _ = build_backbone("mobilenet_v3_small", weights="IMAGENET1K_V1")
    assert asked == ["IMAGENET1K_V1"]
    assert torch.equal(backbone[0][0].weight, classifier.features[0][0].weight)


def test_missing_weights_file_is_an_error_with_its_path():
    with pytest.raises(WeightsError, match=r"absent\.pth"):
        build_backbone("resnet18", weights="absent.pth")


def test_damaged_weights_file_is_an_error(tmp_path, saved):
    _, path = saved("mobilenet_v3_small")
    cut = tmp_path / "cut.pth"
    with open(path, "rb") as file:
        cut.write_bytes(file.read()[:2000])
    with pytest.raises(WeightsError, match=r"cut\.pth"):
        build_backbone("mobilenet_v3_small", weights=str(cut))


def test_text_instead_of_weights_is_an_error(tmp_path):
    path = tmp_path / "page.pth"
    path.write_text("<html>not found</html>")
    with pytest.raises(WeightsError, match=r"page\.pth"):
        build_backbone("mobilenet_v3_small", weights=str(path))


def test_weights_of_another_backbone_are_refused(saved):
    _, path = saved("mobilenet_v3_small")
    with pytest.raises(WeightsError, match="not a state_dict of torchvision's resnet18"):
        build_backbone("resnet18", weights=path)


def test_whole_pickled_model_is_refused(tmp_path):
    path = str(tmp_path / "whole.pt")
    torch.save(nn.Linear(1, 1), path)
    with pytest.raises(WeightsError, match="state_dict"):
        build_backbone("resnet18", weights=path)


@pytest.mark.parametrize(
    ("extra_levels", "names", "strides"),
    [(0, "0 1", [8, 16]), (1, "0 1 pool", [8, 16, 32]), (2, "0 1 p6 p7", [8, 16, 32, 64])],
)
def test_pyramid_levels_and_strides(extra_levels, names, strides):
    pyramid, backbone, neck = build_pyramid(
        "mobilenet_v3_small", weights=None, strides=[8, 16], extra_levels=extra_levels, channels=32
    )
    with torch.no_grad():
        levels = pyramid(torch.zeros(1, 3, 128, 128))
    assert list(levels) == list(neck) == names.split()
    assert list(backbone) == ["0", "1"]
    assert [128 // level.shape[-1] for level in levels.values()] == strides
    assert level_strides([8, 16], extra_levels) == strides


def test_extra_levels_out_of_range_are_refused():
    with pytest.raises(RnndetError, match="extra_levels"):
        build_pyramid("mobilenet_v3_small", weights=None, strides=[8], extra_levels=3, channels=32)
