"""Detectors for single frames, one file per family."""

from collections.abc import Callable, Mapping
from typing import Any

from rnndet.errors import RnndetError
from rnndet.models.detectors.base import FrameDetector
from rnndet.models.detectors.faster_rcnn import FasterRCNN
from rnndet.models.detectors.fcos import FCOS
from rnndet.models.detectors.nanodet_plus import NanoDetPlus
from rnndet.models.detectors.published import build_published
from rnndet.models.detectors.retinanet import RetinaNet
from rnndet.models.detectors.ssdlite import SSDLite
from rnndet.registry import check_options, lookup

DETECTORS: dict[str, Callable[..., FrameDetector]] = {
    "faster_rcnn": FasterRCNN,
    "fcos": FCOS,
    "nanodet_plus": NanoDetPlus,
    "retinanet": RetinaNet,
    "ssdlite": SSDLite,
    "torchvision": build_published,
}


def build_detector(name: str, num_classes: int, options: Mapping[str, Any]) -> FrameDetector:
    """Build the detector `name` of `DETECTORS` for `num_classes` classes without background.

    options: keywords of its constructor. Raises `RnndetError` for an unknown name or option, a
    missing option, and values that the constructor refuses.

    >>> options = {"size": [64, 96], "backbone": "mobilenet_v3_small"}
    >>> build_detector("ssdlite", 2, options).neck_channels["0"]
    288
    """
    build = lookup(name, DETECTORS, what="model.detector.name")
    if "num_classes" in options:
        raise RnndetError("model.detector.num_classes is not an option: name the classes")
    check_options(build, options, what="model.detector", given=("num_classes",))
    return build(num_classes, **options)
