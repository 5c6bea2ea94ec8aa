"""Random weights for torchvision's published detectors, placed where torch's cache has them."""

import hashlib
import math
from contextlib import contextmanager
from functools import cache
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from rnndet.structures import Detections

COCO = models.get_model_weights("ssd300_vgg16").DEFAULT.meta["categories"]  # 91 entries
UNUSED = [number for number, name in enumerate(COCO) if name in ("__background__", "N/A")]
LIGHT = ("ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn")
CLASS_LAYERS = ("cls_logits", "cls_score", "classification_head.module_list")


def weights_of(name: str) -> WeightsEnum:
    return models.get_model_weights(name).DEFAULT


@cache
def random_weights(name: str, *, unused: float = -20.0) -> dict[str, Tensor]:
    """Random weights with features of about 1, so that there are some detections.

    The variances of the batch norms are so small that `eps` matters. unused: bias of the outputs
    without a class, which trained weights never choose.
    """
    with torch.device("meta"):
        shapes = models.get_model(name, weights=None, weights_backbone=None).state_dict()
    random = torch.Generator().manual_seed(0)
    norm_gain = 0.035 if "ssdlite" in name else 0.0115 if "mobilenet" in name else 0.009
    state = {}
    for key, like in shapes.items():
        if key.endswith("num_batches_tracked"):
            continue
        if key.endswith("running_var"):
            state[key] = 1e-4 + 1e-4 * torch.rand(like.shape, generator=random)
        elif like.dim() > 1:
            spread = _gain(key) * math.sqrt(2 / like[0].numel())
            state[key] = spread * torch.randn(like.shape, generator=random)
        elif key.replace("weight", "running_var") in shapes:
            state[key] = torch.full(like.shape, norm_gain)
        else:
            state[key] = torch.full(like.shape, 1.0 if "weight" in key else 0.0)
        is_class_bias = key.endswith("bias") and any(part in key for part in CLASS_LAYERS)
        if is_class_bias and like.numel() % len(COCO) == 0:
            state[key] = torch.randn(like.shape, generator=random)
            state[key].view(-1, len(COCO))[:, UNUSED] = unused
    return state


def _gain(key: str) -> float:
    if "cls_score" in key:
        return 3.0
    if key == "backbone.features.0.weight":  # VGG's pixels go up to 255
        return 0.01
    return 0.1 if any(part in key for part in ("bbox", "regression", *CLASS_LAYERS)) else 1.0


def give_weights(monkeypatch: pytest.MonkeyPatch, name: str, state: dict[str, Tensor]) -> None:
    """Replace the file of the weights by tensors, without a file."""
    kind = type(weights_of(name))
    monkeypatch.setattr(kind, "get_state_dict", lambda self, *args, **kwargs: dict(state))


def write_weights(folder: Path, name: str, content: object) -> Path:
    """Write a file as torchvision names it, with the first digits of its sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / "part")
    digest = hashlib.sha256((folder / "part").read_bytes()).hexdigest()
    return (folder / "part").rename(folder / f"{name}_coco-{digest[:8]}.pth")


def publish_at(monkeypatch: pytest.MonkeyPatch, name: str, url: str) -> None:
    """Set the URL of torchvision's weights of this name."""
    monkeypatch.setattr(weights_of(name).value, "url", url)


@contextmanager
def serve(folder: Path):
    """A server of the files of a folder on the loopback address: its URL, and the paths asked."""
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def torchvision_model(name: str, **options: object) -> nn.Module:
    """torchvision's own model with its weights, as its documentation builds it."""
    slow = ("kaiming_normal_", "kaiming_uniform_", "normal_", "xavier_uniform_", "uniform_")
    with patch.multiple(nn.init, **{init: lambda tensor, *_, **__: tensor for init in slow}):
        return models.get_model(name, weights=weights_of(name), progress=False, **options).eval()


def torchvision_detections(name: str, net: nn.Module, image: np.ndarray) -> dict[str, np.ndarray]:
    """Boxes, scores and class names of torchvision's own inference, without those of no class."""
    pixels = weights_of(name).transforms()(torch.from_numpy(image).permute(2, 0, 1))
    with torch.no_grad():
        found = {key: value.numpy() for key, value in net([pixels])[0].items()}
    used = ~np.isin(found["labels"], UNUSED)
    names = np.array(COCO)[found["labels"][used]]
    return {"boxes": found["boxes"][used], "scores": found["scores"][used], "names": names}


def assert_equal(ours: Detections, classes: tuple[str, ...], theirs: dict[str, np.ndarray]) -> None:
    """Equal in number, boxes (1e-4 of the size of a frame), scores and names, in any order."""
    names = np.array(classes)[ours.labels]
    assert len(names) == len(theirs["names"])
    near = names[:, None] == theirs["names"]
    near &= np.abs(ours.scores[:, None] - theirs["scores"]) <= 1e-4
    near &= (np.abs(ours.boxes[:, None] - theirs["boxes"]) <= 1e-4 * 100).all(-1)
    assert near.any(0).all() and near.any(1).all()


def random_image(height: int = 75, width: int = 100) -> np.ndarray:
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (height // 5, width // 5, 3), dtype=np.uint8)
    return small.repeat(5, 0).repeat(5, 1)
