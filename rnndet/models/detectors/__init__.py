"""Detectors for single frames, one file per family."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from rnndet.errors import RnndetError
from rnndet.messages import listed
from rnndet.models.detectors.base import FrameDetector
from rnndet.models.detectors.class_rows import (
    class_layers,
    pairs_by_name,
    warn_of_almost_equal_names,
)
from rnndet.models.detectors.faster_rcnn import FasterRCNN
from rnndet.models.detectors.fcos import FCOS
from rnndet.models.detectors.nanodet_plus import NanoDetPlus
from rnndet.models.detectors.published import COCO_OUTPUTS, build_published
from rnndet.models.detectors.retinanet import RetinaNet
from rnndet.models.detectors.ssdlite import SSDLite
from rnndet.registry import check_options, lookup

log = logging.getLogger(__name__)

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


def build_for_classes(
    name: str, classes: Sequence[str], options: Mapping[str, Any]
) -> FrameDetector:
    """`build_detector` for these classes; published weights of other classes are taken by name.

    Classes that torchvision's `weights` lack start untrained, as the log says. Raises as
    `build_detector`.
    """
    if options.get("weights") is None or tuple(classes) == COCO_OUTPUTS:
        return build_detector(name, len(classes), options)
    detector = build_detector(name, len(classes), {**options, "weights": None})
    with torch.random.fork_rng(devices=[]):  # the draws for the rest of the model stay the same
        published = build_detector(name, len(COCO_OUTPUTS), options)
    pairs = pairs_by_name(classes, COCO_OUTPUTS)
    own, layers = detector.state_dict(), class_layers(detector, published, pairs)
    start = published.state_dict() | {key: own[key] for key in layers}
    detector.load_state_dict(start | {key: t for key, t in layers.items() if t is not None})
    taken = {place for place, _ in pairs}
    log.info(
        "weights %s of torchvision: class layers taken by name: %s; untrained: %s",
        options["weights"],
        listed([classes[place] for place in sorted(taken)], "class", "classes"),
        listed([one for i, one in enumerate(classes) if i not in taken], "class", "classes"),
    )
    where = f"weights {options['weights']} of torchvision"
    warn_of_almost_equal_names(classes, COCO_OUTPUTS, where=where)
    return detector
