"""Detectors cut into steps equal torchvision's own models."""

import copy
import logging
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import detection

from rnndet.errors import RnndetError
from rnndet.models.detectors import (
    DETECTORS,
    FrameDetector,
    build_detector,
    build_for_classes,
)
from rnndet.models.detectors.published import COCO_OUTPUTS
from rnndet.structures import Detections, Target

SMALL = {"size": [96, 128], "backbone": "mobilenet_v3_small", "score_threshold": 0.0}
PYRAMID = {**SMALL, "channels": 32}
OPTIONS = {
    "fcos": {**PYRAMID, "head_convs": 1},
    "retinanet": {**PYRAMID, "head_convs": 1},
    "faster_rcnn": {**PYRAMID},
    "ssdlite": SMALL,
    "nanodet_plus": {**PYRAMID, "backbone": "shufflenet_v2_x0_5", "head_convs": 1},
    "torchvision": {
        "name": "fasterrcnn_mobilenet_v3_large_320_fpn",
        "size": [96, 128],
        "score_threshold": 0.0,
    },
}
every_family = pytest.mark.parametrize("name", sorted(DETECTORS))
# Those with a choice of backbone, which can be folded: torchvision's weights fit the unfolded one.
every_foldable = pytest.mark.parametrize("name", sorted(DETECTORS.keys() - {"torchvision"}))
# Those with torchvision's heads, to compare with; the others have tests/test_nanodet_plus.py and
# tests/test_published.py.
torchvision_family = pytest.mark.parametrize(
    "name", sorted(DETECTORS.keys() - {"nanodet_plus", "torchvision"})
)


@cache
def default_detector(name: str) -> FrameDetector:
    torch.manual_seed(0)
    return build_detector(name, 3, OPTIONS[name])


def make(name: str, **changes: object) -> FrameDetector:
    """A small detector of three classes; equal options give equal weights."""
    if not changes:
        return copy.deepcopy(default_detector(name))  # quicker than building
    torch.manual_seed(0)
    return build_detector(name, 3, OPTIONS[name] | changes)


def make_target(*boxes: list[float], ignore: bool = False) -> Target:
    count = len(boxes)
    return Target(
        torch.tensor(boxes).reshape(count, 4),
        torch.arange(count) % 3,
        None,
        torch.full((count,), ignore),
    )


def random_images(*sizes: tuple[int, int]) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes]


# Different sizes in one batch; a box at the edge, two boxes in one frame.
IMAGES = random_images((96, 128), (60, 100), (120, 120))
TARGETS = [
    make_target([10.0, 10, 60, 70]),
    make_target([0.0, 0, 100, 60], [20, 20, 50, 44]),
    make_target(),
]


def features(detector: FrameDetector, pixels: Tensor) -> dict[str, Tensor]:
    return detector.neck(detector.backbone(pixels))


def detect(detector: FrameDetector, images: list[Tensor]) -> list[Detections]:
    detector.eval()
    with torch.no_grad():
        prepared = detector.prepare(images)
        return detector.detect(prepared, features(detector, prepared.pixels))


def losses(detector: FrameDetector, targets: list[Target]) -> dict[str, Tensor]:
    detector.train()
    prepared = detector.prepare(IMAGES[: len(targets)], targets)
    return detector.losses(prepared, features(detector, prepared.pixels)).terms


def torchvision_detections(net: nn.Module, images: list[Tensor]) -> list[dict[str, Tensor]]:
    """torchvision's answer without its background outputs."""
    with torch.no_grad():
        found = net.eval()([image / 255 for image in images])
    return [{key: value[one["labels"] > 0] for key, value in one.items()} for one in found]


def spread(detector: FrameDetector) -> FrameDetector:
    """The detector with distinct scores and boxes, and without a cap on candidates."""
    torch.manual_seed(3)
    wide = 0.3 if detector.head_spec.scores == "centre" else 0.15  # no score reaches 1.0
    for key, tensor in detector.net.head.named_parameters():
        if tensor.dim() == 4:
            nn.init.normal_(tensor, std=wide if "classification" in key else 0.05)
    if detector.head_spec.boxes == "sides":  # boxes of four strides, which overlap
        nn.init.constant_(detector.net.head.regression_head.bbox_reg.bias, 2.0)
    detector.net.topk_candidates = 10**6
    detector.head_spec = replace(detector.head_spec, candidates=10**6)
    return detector


def random_features(detector: FrameDetector, pixels: Tensor) -> dict[str, Tensor]:
    """Neck features of the right shapes. Those of untrained weights are nearly the same in all
    cells of the coarse levels: scores are equal, overlaps are 0.5, and rounding decides."""
    torch.manual_seed(4)
    with torch.no_grad():
        shapes = {level: value.shape for level, value in features(detector, pixels).items()}
    return {level: torch.randn(shape) for level, shape in shapes.items()}


def assert_same_set(ours: Detections, theirs: dict[str, Tensor]) -> None:
    """Equal to 1e-3 px and 1e-5 of score, in any order: rounding may swap near scores."""
    expected = {key: value.numpy() for key, value in theirs.items()}
    one = np.column_stack([ours.boxes / 1e-3, ours.scores / 1e-5, 2 * ours.labels])
    other = np.column_stack(
        [expected["boxes"] / 1e-3, expected["scores"] / 1e-5, 2 * (expected["labels"] - 1)]
    )
    assert len(one) == len(other)
    for rows, others in ((one, other), (other, one)):
        largest_difference, _ = KDTree(others).query(rows, p=np.inf)  # from the nearest
        assert (largest_difference <= 1).all()


@pytest.mark.parametrize("name", ["fcos", "retinanet", "ssdlite"])
@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.3])
def test_detections_equal_torchvisions(name, threshold, monkeypatch):
    detector = spread(make(name, detections_per_frame=10**6)).eval()
    detector.score_threshold = threshold
    with torch.no_grad():
        prepared = detector.prepare(IMAGES)
        levels = random_features(detector, prepared.pixels)
        ours = detector.detect(prepared, levels)
    monkeypatch.setattr(detector.net.backbone, "forward", lambda pixels: levels)
    for mine, theirs in zip(ours, torchvision_detections(detector.net, IMAGES), strict=True):
        assert len(mine) > 5
        assert_same_set(mine, theirs)


def test_two_stage_detections_equal_torchvisions():
    detector = make("faster_rcnn")
    theirs = torchvision_detections(detector.net, IMAGES)
    for mine, other in zip(detect(detector, IMAGES), theirs, strict=True):
        assert len(mine) > 10
        assert_same_set(mine, other)


@torchvision_family
def test_features_equal_torchvisions(name):
    detector = make(name).eval()
    with torch.no_grad():
        pixels = detector.prepare(IMAGES).pixels
        found, expected = features(detector, pixels), detector.net.backbone(pixels)
    assert all(torch.equal(found[level], expected[level]) for level in detector.neck_channels)


@torchvision_family
def test_losses_equal_torchvisions(name):
    detector = make(name)
    torch.manual_seed(2)
    ours = losses(detector, TARGETS)
    targets = [{"boxes": one.boxes, "labels": one.labels + 1} for one in TARGETS]
    torch.manual_seed(2)
    theirs = detector.net([image / 255 for image in IMAGES], targets)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-5, atol=0, msg=key)


def test_giou_loss_of_retinanet_equals_torchvisions():
    detector = make("retinanet")
    detector.net.head.regression_head._loss_type = "giou"  # as in the second version
    ours = losses(detector, TARGETS)["bbox_regression"]
    targets = [{"boxes": one.boxes, "labels": one.labels + 1} for one in TARGETS]
    theirs = detector.net([image / 255 for image in IMAGES], targets)["bbox_regression"]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)


class Operations(TorchDispatchMode):
    """Counts the operations that run while it is on."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["fcos", "retinanet", "ssdlite"])
def test_operations_of_the_losses_do_not_grow_with_the_batch(name):
    detector = make(name).train()
    counts = []
    for copies in (2, 6):
        prepared = detector.prepare([IMAGES[0]] * copies, [TARGETS[1]] * copies)
        levels = features(detector, prepared.pixels)
        with Operations() as operations:
            detector.losses(prepared, levels)
        counts.append(operations.count)
    assert counts[0] == counts[1]


@every_family
def test_detections_are_sorted_inside_the_frame_and_without_background(name):
    for found, image in zip(detect(make(name), IMAGES), IMAGES, strict=True):
        height, width = image.shape[-2:]
        assert found.boxes.dtype == found.scores.dtype == np.float32
        assert found.labels.dtype == np.int64
        assert (np.diff(found.scores) <= 0).all()
        assert (found.labels >= 0).all() and (found.labels < 3).all()
        assert (found.boxes >= 0).all()
        assert (found.boxes[:, [0, 2]] <= width + 1e-3).all()
        assert (found.boxes[:, [1, 3]] <= height + 1e-3).all()


@every_family
@pytest.mark.parametrize(
    "targets",
    [
        [make_target()],
        [make_target(), make_target()],
        [make_target([5.0, 5, 40, 40]), make_target()],
    ],
)
def test_frames_without_boxes_give_finite_losses_and_gradients(name, targets):
    detector = make(name)
    total = torch.stack(list(losses(detector, targets).values())).sum()
    total.backward()
    assert total.isfinite()
    grads = [p.grad for p in detector.parameters() if p.grad is not None]
    assert grads and all(grad.isfinite().all() for grad in grads)


@every_family
def test_ignored_and_flat_targets_do_not_count(name):
    detector = make(name).train()
    boxes = [
        make_target([5.0, 5, 40, 40], ignore=True),
        make_target([5.0, 5, 5, 40], [9, 9, 30, 9]),
    ]
    prepared = detector.prepare(IMAGES[:2], boxes)
    assert [len(target["boxes"]) for target in prepared.targets] == [0, 0]


@every_family
def test_select_equals_preparing_the_subset(name):
    detector = make(name).train()
    images = random_images((96, 128), (96, 128), (96, 128))
    chosen = detector.prepare(images, TARGETS).select(torch.tensor([2, 1]))
    alone = detector.prepare([images[2], images[1]], [TARGETS[2], TARGETS[1]])
    assert torch.equal(chosen.pixels, alone.pixels)
    assert chosen.image_sizes == alone.image_sizes
    assert chosen.original_sizes == alone.original_sizes
    for one, other in zip(chosen.targets, alone.targets, strict=True):
        assert torch.equal(one["boxes"], other["boxes"])
        assert torch.equal(one["labels"], other["labels"])


def test_labelled_frames_can_be_selected_from_unlabelled_ones():
    detector = make("fcos").train()
    prepared = detector.prepare(IMAGES, [None, TARGETS[0], None])
    maps = features(detector, prepared.pixels)
    rows = torch.tensor([1])
    labelled = detector.losses(prepared.select(rows), {k: v[rows] for k, v in maps.items()})
    assert all(value.isfinite() for value in labelled.terms.values())
    with pytest.raises(AssertionError, match="labelled images only"):
        detector.losses(prepared, maps)


@every_family
def test_channels_describe_the_features(name):
    detector = make(name).eval()
    with torch.no_grad():
        low = detector.backbone(torch.zeros(1, 3, 96, 128))
        high = detector.neck(low)
    assert {key: value.shape[1] for key, value in low.items()} == detector.backbone_channels
    assert {key: value.shape[1] for key, value in high.items()} == detector.neck_channels
    assert list(low) == list(detector.backbone_channels)
    widths = [value.shape[-1] for value in high.values()]
    assert widths == sorted(widths, reverse=True)  # finest first


@every_family
def test_steps_do_not_depend_on_the_order_of_levels(name):
    detector = make(name).eval()
    with torch.no_grad():
        prepared = detector.prepare(IMAGES[:1])
        low = detector.backbone(prepared.pixels)
        expected = detector.detect(prepared, detector.neck(low))[0]
        backwards = detector.neck(dict(reversed(low.items())))
        found = detector.detect(prepared, dict(reversed(backwards.items())))[0]
    assert np.array_equal(found.boxes, expected.boxes)


@every_family
def test_state_dict_holds_every_tensor_once_under_net(name):
    state = make(name).state_dict()
    assert all(key.startswith("net.") for key in state)
    assert len({value.data_ptr() for value in state.values()}) == len(state)


@every_foldable
@pytest.mark.parametrize("folded", [False, True])
def test_state_dict_reloads_into_the_same_structure(name, folded):
    source = make(name, fold_batch_norm=folded)
    torch.manual_seed(3)
    other = build_detector(name, 3, OPTIONS[name] | {"fold_batch_norm": folded})
    other.load_state_dict(source.state_dict())
    assert np.array_equal(detect(other, IMAGES[:1])[0].boxes, detect(source, IMAGES[:1])[0].boxes)


@every_foldable
def test_folding_leaves_the_features_as_they_are(name):
    pixels = torch.randn(1, 3, 96, 128)
    plain, folded = make(name).eval(), make(name, fold_batch_norm=True).eval()
    with torch.no_grad():
        expected, found = plain.backbone(pixels), folded.backbone(pixels)
    for level, value in expected.items():
        torch.testing.assert_close(found[level], value, rtol=1e-4, atol=1e-4)


@every_family
def test_frozen_backbone_parts_do_not_learn(name):
    detector = make(name, trainable_backbone_from=3)
    frozen = [key for key, p in detector.named_parameters() if not p.requires_grad]
    assert frozen and all(key.startswith("net.backbone.") for key in frozen)


@every_family
def test_score_threshold_takes_effect(name):
    detector = make(name)
    scores = detect(detector, IMAGES[:1])[0].scores
    detector.score_threshold = (scores[0] + scores[-1]).item() / 2
    fewer = detect(detector, IMAGES[:1])[0].scores
    assert 0 < len(fewer) < len(scores) and (fewer > detector.score_threshold).all()
    detector.score_threshold = 1.0
    assert len(detect(detector, IMAGES[:1])[0]) == 0


@every_family
def test_training_clips_keep_their_scale_if_asked(name):
    detector = make(name, resize_in_training=False).train()
    assert detector.prepare([IMAGES[1]], [TARGETS[0]]).image_sizes == [(60, 100)]
    assert detector.eval().prepare([IMAGES[1]]).image_sizes != [(60, 100)]


@torchvision_family
def test_unknown_backbone_error_lists_names(name):
    with pytest.raises(RnndetError, match="mobilenet_v3_large"):
        make(name, backbone="mobilenet_v33")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("fcos", {"chanels": 32}, "did you mean 'channels'"),
        ("fcos", {"num_classes": 4}, "num_classes"),
        ("fcos", {"size": 96}, "size"),
        ("fcos", {"size": [0, 96]}, "size"),
        ("fcos", {"channels": 40}, "multiple of 32"),
        ("retinanet", {"head_convs": 5}, "from 0 to 4"),
        ("ssdlite", {"head_norm": "batch"}, "frozen, group"),
        ("faster_rcnn", {"backbone": "mobilenet_v3_large_320_fpn"}, r"strides = \[32, 32\]"),
    ],
)
def test_wrong_options_are_explained(name, changes, message):
    with pytest.raises(RnndetError, match=message):
        make(name, **changes)


def test_missing_size_is_explained():
    with pytest.raises(RnndetError, match="size is missing"):
        build_detector("fcos", 3, {})


def test_detector_without_classes_is_refused():
    with pytest.raises(RnndetError, match="at least one class"):
        build_detector("fcos", 0, OPTIONS["fcos"])


def test_unknown_detector_error_lists_names():
    with pytest.raises(
        RnndetError, match="faster_rcnn, fcos, nanodet_plus, retinanet, ssdlite, torchvision"
    ):
        build_detector("yolo", 3, {})


LIMITS = {"size": [64, 64], "score_threshold": 0.001, "detections_per_frame": 20}
RESNET = {**LIMITS, "backbone": "resnet50", "strides": [8, 16, 32], "extra_levels": 2}
SIZES = {"min_size": 64, "max_size": 64}
ONE_STAGE = {"score_thresh": 0.001, "nms_thresh": 0.5, "detections_per_img": 20}
TWO_STAGE = {f"box_{key}": value for key, value in ONE_STAGE.items()}
PUBLISHED = {
    "fcos": (
        RESNET,
        detection.fcos_resnet50_fpn,
        detection.FCOS_ResNet50_FPN_Weights,
        {**SIZES, **ONE_STAGE},
    ),
    "retinanet": (
        RESNET,
        detection.retinanet_resnet50_fpn,
        detection.RetinaNet_ResNet50_FPN_Weights,
        {**SIZES, **ONE_STAGE},
    ),
    "faster_rcnn": (
        {**LIMITS, "backbone": "mobilenet_v3_large_320_fpn", "strides": [32, 32]},
        detection.fasterrcnn_mobilenet_v3_large_320_fpn,
        detection.FasterRCNN_MobileNet_V3_Large_320_FPN_Weights,
        {**SIZES, **TWO_STAGE},
    ),
    "ssdlite": (
        {
            **LIMITS,
            "size": [320, 320],
            "backbone": "mobilenet_v3_large_reduced",
            "head_norm": "frozen",
        },
        detection.ssdlite320_mobilenet_v3_large,
        detection.SSDLite320_MobileNet_V3_Large_Weights,
        ONE_STAGE,
    ),
}
published_family = pytest.mark.parametrize("name", sorted(PUBLISHED))  # torchvision has weights


def publish(monkeypatch: pytest.MonkeyPatch, factory, weights) -> None:
    """Replace torchvision's weights by random ones, with batch norms that depend on `eps`."""
    torch.manual_seed(4)
    model = factory(weights=None, weights_backbone=None, num_classes=91)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # the identity, but for eps
            nn.init.constant_(module.running_var, 1e-4)
            nn.init.constant_(module.weight, 1e-2)
    state = model.state_dict()
    monkeypatch.setattr(weights, "get_state_dict", lambda self, *args, **kwargs: dict(state))
    # models built from here on get loaded weights
    for slow in ("kaiming_normal_", "kaiming_uniform_"):
        monkeypatch.setattr(nn.init, slow, lambda tensor, **kwargs: tensor.data.zero_())


@published_family
def test_published_weights_give_torchvisions_outputs(name, monkeypatch):
    options, factory, weights, limits = PUBLISHED[name]
    publish(monkeypatch, factory, weights)
    detector = build_detector(name, 90, {**options, "weights": "COCO_V1"})
    images = random_images((64, 64))
    net = factory(weights=weights.COCO_V1, **limits)
    theirs = torchvision_detections(net, images)[0]
    ours = detect(detector, images)[0]
    assert len(ours) > 0
    same = len(theirs["scores"])  # there the background takes places
    np.testing.assert_allclose(ours.scores[:same], theirs["scores"], rtol=1e-4)
    if detector.head_spec is not None:  # many scores are equal, so the selection is arbitrary
        with torch.no_grad():
            pixels = detector.prepare(images).pixels
            expected = net.head(list(net.backbone(pixels).values()))
            found = detector.head(features(detector, pixels))
        torch.testing.assert_close(found, expected)
    # the same options without weights take a checkpoint of it
    structure = build_detector(name, 90, options)
    structure.load_state_dict(detector.state_dict())
    assert np.array_equal(detect(structure, images)[0].boxes, ours.boxes)


def test_faster_rcnn_with_resnet50_has_the_published_structure():
    with torch.device("meta"):
        theirs = detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    ours = build_detector(
        "faster_rcnn", 90, {"size": [64, 64], "backbone": "resnet50", "strides": [4, 8, 16, 32]}
    )
    expected = {k: v.shape for k, v in theirs.state_dict().items() if "num_batches" not in k}
    assert {k.removeprefix("net."): v.shape for k, v in ours.state_dict().items()} == expected
    generators = ours.net.rpn.anchor_generator, theirs.rpn.anchor_generator
    assert generators[0].sizes == generators[1].sizes


@published_family
def test_other_number_of_classes_starts_an_untrained_head_with_a_warning(name, monkeypatch, caplog):
    options, factory, weights, _ = PUBLISHED[name]
    publish(monkeypatch, factory, weights)
    with caplog.at_level(logging.WARNING, logger="rnndet.models.detectors.base"):
        detector = build_detector(name, 2, {**options, "weights": "DEFAULT"})
    assert "has 90 classes and the model has 2" in caplog.text
    assert (detect(detector, random_images((64, 64)))[0].labels < 2).all()


@published_family
def test_published_class_layers_are_taken_by_name(name, monkeypatch, caplog):
    options, factory, weights, _ = PUBLISHED[name]
    publish(monkeypatch, factory, weights)
    options = {**options, "weights": "DEFAULT"}
    with caplog.at_level(logging.INFO, logger="rnndet.models.detectors"):
        detector = build_for_classes(name, ("drone", "car", "person"), options)
    assert "taken by name: car, person; untrained: drone" in caplog.text
    assert "almost the same name" not in caplog.text
    published = build_detector(name, 90, options)
    own, theirs = detector.state_dict(), published.state_dict()
    rows, coco = detector.class_rows(), published.class_rows()
    assert rows
    for key, tensor in theirs.items():
        if key not in rows:
            assert torch.equal(own[key], tensor), key
            continue
        for place, number in ((1, 3), (2, 1)):  # car and person of COCO
            found = own[key][rows[key].classes[place]]
            assert torch.equal(found, tensor[coco[key].classes[number - 1]]), key
        assert torch.equal(own[key][rows[key].shared], tensor[coco[key].shared]), key


def test_published_classes_of_almost_the_same_name_are_a_warning(monkeypatch, caplog):
    options, factory, weights, _ = PUBLISHED["faster_rcnn"]
    publish(monkeypatch, factory, weights)
    build_for_classes("faster_rcnn", ("Car", "dog"), {**options, "weights": "DEFAULT"})
    assert "weights DEFAULT of torchvision: classes of almost the same name" in caplog.text
    assert "not taken: 'car' for 'Car'; give" in caplog.text


def test_published_classes_in_another_order_are_not_taken_by_position(monkeypatch):
    """90 classes, as many as the published weights have."""
    options, factory, weights, _ = PUBLISHED["faster_rcnn"]
    publish(monkeypatch, factory, weights)
    options = {**options, "weights": "DEFAULT"}
    names = (*COCO_OUTPUTS[1:], "drone")
    detector = build_for_classes("faster_rcnn", names, options)
    published = build_detector("faster_rcnn", 90, options)
    key = "net.roi_heads.box_predictor.cls_score.weight"
    own, theirs = detector.state_dict()[key], published.state_dict()[key]
    assert torch.equal(own[1:90], theirs[2:91])
    assert not any(torch.equal(own[90], row) for row in theirs)


@torchvision_family
def test_published_weights_name_the_options_they_need(name):
    with pytest.raises(
        RnndetError, match=r"backbone.*mobilenet_v3_small|mobilenet_v3_small.*choose"
    ):
        make(name, weights="COCO_V1")


@published_family
def test_unknown_weights_error_lists_names(name):
    options = PUBLISHED[name][0]
    with pytest.raises(RnndetError, match="COCO_V1"):
        build_detector(name, 3, {**options, "weights": "COCO_V9"})
