"""Write untrained models of a requested size, for comparing speeds; detections are meaningless."""

from __future__ import annotations

from pathlib import Path

import torch

from rnndet.config import config_from_dict
from rnndet.models.checkpoint import model_content, save_checkpoint
from rnndet.models.video_detector import build_model

CLASSES = 90  # as many as COCO has
# Layers as in torchvision's published models: unchanged for the baseline, folded for ours.
DETECTORS = {
    "ssdlite": {"backbone": "mobilenet_v3_large", "head_norm": "frozen"},
    "fcos": {"backbone": "mobilenet_v2", "channels": 64, "head_convs": 2},
    "retinanet": {"backbone": "mobilenet_v2", "channels": 64, "head_convs": 2},
}
TEMPORAL = {
    "cell": "bottleneck_lstm",
    "levels": ["0", "1"],
    "hidden": 32,
    "site": "neck",
    "fusion": "residual",  # a gate as wide as these levels would cost a fifth of the detector
}


def write_untrained(folder: Path, detector: str, size_hw: tuple[int, int]) -> tuple[Path, Path]:
    """Write stock.pt, the detector of torchvision, and ours.pt, folded and with a temporal module.

    Raises RnndetError for a detector that is not in `DETECTORS`.
    """
    paths = []
    for name, folded, temporal in (("stock", False, {"cell": "none"}), ("ours", True, TEMPORAL)):
        options = {**DETECTORS[detector], "size": list(size_hw), "fold_batch_norm": folded}
        tree = {"model": {"detector": detector, "options": options, "temporal": temporal}}
        config = config_from_dict(tree, where="untrained")
        torch.manual_seed(0)
        model = build_model(config.model, tuple(f"class {k}" for k in range(CLASSES))).eval()
        path = folder / f"{name}.pt"
        save_checkpoint(path, model_content(model, config, step=0))
        paths.append(path)
    return paths[0], paths[1]
