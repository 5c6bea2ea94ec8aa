"""Convert detectors trained with torchvision into checkpoints of rnndet."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from rnndet.config import Config, ModelConfig, TemporalConfig
from rnndet.errors import RnndetError, WeightsError
from rnndet.messages import counted
from rnndet.models.checkpoint import model_content
from rnndet.models.detectors.backbones import freeze_batch_norms
from rnndet.models.video_detector import build_model
from rnndet.registry import lookup

PYRAMID = {"backbone": "resnet50", "extra_levels": 2}
# Detector and options by the name of torchvision's function that built the network.
STRUCTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": (
        "faster_rcnn", {"backbone": "mobilenet_v3_large_320_fpn", "strides": [32, 32]},
    ),
    "fasterrcnn_mobilenet_v3_large_fpn": (
        "faster_rcnn", {"backbone": "mobilenet_v3_large_fpn", "strides": [32, 32]},
    ),
    "fasterrcnn_resnet50_fpn": (
        "faster_rcnn", {"backbone": "resnet50", "strides": [4, 8, 16, 32]},
    ),
    "fcos_resnet50_fpn": ("fcos", PYRAMID),
    "retinanet_resnet50_fpn": ("retinanet", PYRAMID),
    "ssdlite320_mobilenet_v3_large": (
        "ssdlite", {"backbone": "mobilenet_v3_large_reduced", "head_norm": "frozen"},
    ),
}  # fmt: skip


def convert_torchvision(net: nn.Module, name: str, classes: Sequence[str]) -> dict[str, Any]:
    """The content of a checkpoint, see `save_checkpoint`, with the weights of torchvision's `net`.

    net: built by `torchvision.models.detection.<name>`, with any number of classes; its batch norms
    become constant. classes: names without background, in the order of its labels from 1. Input
    size and thresholds are those of `net`. Raises RnndetError for an unknown name, and WeightsError
    for other layers, classes or anchors than `name` has.
    """
    if isinstance(classes, str):
        raise RnndetError(f"classes = {classes!r}: expected a list of names, such as [{classes!r}]")
    detector, options = lookup(name, STRUCTURES, what="name")
    options = {"size": _size(net.transform), **options, **_thresholds(net)}
    config = Config(model=ModelConfig(detector, options, TemporalConfig(cell="none")))
    model = build_model(config.model, tuple(classes)).eval()
    frozen = copy.deepcopy(net).cpu()
    freeze_batch_norms(frozen)
    for module in frozen.modules():
        if isinstance(module, FrozenBatchNorm2d):  # eps is part of the variance in rnndet
            module.running_var += module.eps
            module.eps = 0.0
    weights, own = frozen.state_dict(), model.detector.net.state_dict()
    wrong = sorted(
        key for key in weights.keys() | own.keys() if _shape(weights, key) != _shape(own, key)
    )
    if wrong:
        raise WeightsError(
            f"not {name} with {counted(len(classes), 'class', 'classes')} and background: "
            f"{wrong[0]} is {_shape(weights, wrong[0])} instead of {_shape(own, wrong[0])}"
        )
    if _anchors(frozen) != _anchors(model.detector.net):
        raise WeightsError(f"its anchors are not those of {name}, which rnndet needs")
    model.detector.net.load_state_dict(weights)
    return model_content(model, config, step=0)


def _size(transform: nn.Module) -> list[int]:
    """The option `size`, [height, width]."""
    if transform.fixed_size is not None:
        width, height = transform.fixed_size
        return [height, width]
    return [min(transform.min_size), transform.max_size]


def _thresholds(net: nn.Module) -> dict[str, Any]:
    settings = getattr(net, "roi_heads", net)
    return {
        "score_threshold": settings.score_thresh,
        "nms_threshold": settings.nms_thresh,
        "detections_per_frame": settings.detections_per_img,
    }


def _shape(state: dict[str, Tensor], key: str) -> str:
    return str(tuple(state[key].shape)) if key in state else "missing"


def _anchors(net: nn.Module) -> list[list[list[float]]]:
    """Base anchors by level, or relative sizes for SSD's generator."""
    generator = net.rpn.anchor_generator if hasattr(net, "rpn") else net.anchor_generator
    is_grid = hasattr(generator, "cell_anchors")  # AnchorGenerator, else DefaultBoxGenerator
    levels = generator.cell_anchors if is_grid else generator._wh_pairs
    return [torch.as_tensor(level).tolist() for level in levels]
