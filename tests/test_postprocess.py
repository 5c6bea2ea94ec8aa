"""Postprocessing and suppression equal torchvision's."""

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from test_detectors import assert_same_set
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import batched_nms

from rnndet.boxes import BLOCK, nms
from rnndet.models.detectors import build_detector
from rnndet.models.postprocess import anchors_of, postprocess
from rnndet.structures import DetectionLimits

ONE_STAGE = ["fcos", "retinanet", "ssdlite"]
one_stage = pytest.mark.parametrize("name", ONE_STAGE)


@cache
def built(name):
    """A small detector in eval mode with different scores for each anchor."""
    torch.manual_seed(0)
    options = {"size": [96, 128], "backbone": "mobilenet_v3_small"}
    if name != "ssdlite":
        options |= {"channels": 32, "head_convs": 1}
    detector = build_detector(name, 3, options).eval()
    for key, tensor in detector.net.head.named_parameters():
        if tensor.dim() == 4:
            nn.init.normal_(tensor, std=0.5 if "classification" in key else 0.05)
        elif "cls_logits" in key:
            nn.init.zeros_(tensor)
    return detector


def make(name):
    return copy.deepcopy(built(name))


def seen(detector, *, size_hw=(96, 128), seed=1):
    """A random image prepared, and its neck features."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, *size_hw), generator=generator, dtype=torch.uint8)
    with torch.no_grad():
        prepared = detector.prepare([image])
        return prepared, detector.neck(detector.backbone(prepared.pixels))


def raw(detector, **about):
    """Raw outputs, anchors, levels and size of one random image."""
    prepared, features = seen(detector, **about)
    with torch.no_grad():
        outputs = {key: value[0].numpy() for key, value in detector.head(features).items()}
    grids = tuple(tuple(level.shape[-2:]) for level in features.values())
    return outputs, *anchors_of(detector.head_spec, prepared.padded_hw, grids), (96, 128)


def found(detector, outputs, anchors, level_of, size_hw, *, threshold=0.05):
    return postprocess(
        outputs, detector.head_spec, anchors, level_of,
        size_hw=size_hw, original_hw=size_hw, limits=DetectionLimits(threshold),
    )  # fmt: skip


@one_stage
@pytest.mark.parametrize("size_hw", [(96, 128), (72, 128), (100, 128)])
def test_anchors_equal_torchvisions(name, size_hw):
    detector = make(name)
    prepared, features = seen(detector, size_hw=size_hw)
    images = ImageList(prepared.pixels, prepared.image_sizes)
    (expected,) = detector.net.anchor_generator(images, list(features.values()))
    grids = tuple(tuple(level.shape[-2:]) for level in features.values())
    anchors, levels = anchors_of(detector.head_spec, prepared.padded_hw, grids)
    np.testing.assert_allclose(anchors, expected.numpy(), atol=1e-4)
    assert len(levels) == len(anchors)


@pytest.mark.parametrize("seed", range(5))
def test_suppression_equals_torchvisions(seed):
    generator = np.random.default_rng(seed)
    low = generator.uniform(0, 80, (300, 2))
    boxes = np.hstack([low, low + generator.uniform(2, 40, (300, 2))]).astype(np.float32)
    labels = generator.integers(0, 3, 300)
    scores = np.linspace(1, 0.1, 300, dtype=np.float32)
    expected = batched_nms(*map(torch.from_numpy, (boxes, scores, labels)), 0.5)
    assert nms(boxes, labels, limit=0.5, most=300).tolist() == expected.tolist()


def test_the_last_box_after_a_whole_block_is_suppressed_by_the_first():
    corners = 20.0 * np.arange(BLOCK)[:, None] + np.array([0, 0, 10, 10])
    boxes = np.concatenate([corners, corners[:1]]).astype(np.float32)
    kept = nms(boxes, np.zeros(BLOCK + 1, np.int64), limit=0.5, most=1000)
    assert kept.tolist() == list(range(BLOCK))


def test_suppression_stops_at_the_limit():
    boxes = np.array([[k * 10, 0, k * 10 + 8, 8] for k in range(9)], np.float32)
    assert nms(boxes, np.zeros(9, int), limit=0.5, most=4).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("most", [0, 1, 20, 299])
def test_suppression_with_a_limit_returns_the_first_of_the_complete_result(most):
    generator = np.random.default_rng(0)
    low = generator.uniform(0, 80, (300, 2))
    boxes = np.hstack([low, low + generator.uniform(2, 40, (300, 2))]).astype(np.float32)
    labels = generator.integers(0, 3, 300)
    whole = nms(boxes, labels, limit=0.5, most=300)
    assert 20 < len(whole) < 299
    assert nms(boxes, labels, limit=0.5, most=most).tolist() == whole[:most].tolist()


@one_stage
@pytest.mark.parametrize("cap", [3, 20])
def test_candidates_are_capped_as_torchvisions(name, cap):
    """Per level of FCOS and RetinaNet, per class of SSD, before the suppression."""
    detector = make(name)
    detector.net.detections_per_img = 10**6
    outputs, anchors, levels, size_hw = raw(detector)
    generator = np.random.default_rng(0)
    outputs = {key: generator.normal(size=v.shape).astype("f4") for key, v in outputs.items()}
    outputs["cls_logits"][:, 0] = -30  # torchvision also counts the background among the candidates
    found_by_cap = {}
    for most in (cap, 10**6):
        detector.net.topk_candidates = most
        detector.head_spec = replace(detector.head_spec, candidates=most, most=10**6)
        found_by_cap[most] = found(detector, outputs, anchors, levels, size_hw)
        assert_same_set(found_by_cap[most], torchvisions(detector, outputs, anchors, levels))
    groups = 3 if name == "ssdlite" else len(np.unique(levels))
    assert 0 < len(found_by_cap[cap]) <= cap * groups < len(found_by_cap[10**6])


def torchvisions(detector, outputs, anchors, levels):
    """What torchvision makes of raw outputs of one image."""
    raw = {key: torch.from_numpy(value)[None] for key, value in outputs.items()}
    boxes = torch.from_numpy(anchors.copy())
    if detector.head_spec.per_class:
        (theirs,) = detector.net.postprocess_detections(raw, [boxes], [(96, 128)])
        return theirs
    counts = np.bincount(levels).tolist()
    raw = {key: list(value.split(counts, 1)) for key, value in raw.items()}
    parts = [list(boxes.split(counts))]
    (theirs,) = detector.net.postprocess_detections(raw, parts, [(96, 128)])
    return theirs


@one_stage
def test_score_at_the_threshold_is_not_kept(name):
    detector = make(name)
    known = raw(detector)
    best = found(detector, *known).scores[0]
    assert (found(detector, *known, threshold=float(best)).scores > best).all()


@one_stage
def test_nothing_above_the_threshold_gives_empty_arrays(name):
    detector = make(name)
    nothing = found(detector, *raw(detector), threshold=1.0)
    assert nothing.boxes.shape == (0, 4)
    assert (nothing.boxes.dtype, nothing.scores.dtype) == (np.float32, np.float32)
    assert nothing.labels.dtype == np.int64


@one_stage
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_outputs_give_finite_detections(name, size):
    detector = make(name)
    outputs, *rest = raw(detector)
    outputs = {key: np.full_like(value, size) for key, value in outputs.items()}
    outputs["cls_logits"][:, 1] += 1
    detections = found(detector, outputs, *rest, threshold=0.001)
    assert np.isfinite(detections.scores).all()
    assert np.isfinite(detections.boxes).all()


class Operations(TorchDispatchMode):
    """Counts the operations of torch that run while it is on."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def operations(work) -> int:
    with torch.no_grad(), Operations() as counted:
        work()
    return counted.count


@one_stage
@pytest.mark.parametrize("threshold", [0.0, 0.9])
def test_detections_take_few_operations_after_the_head(name, threshold):
    detector = make(name)
    detector.score_threshold = threshold
    prepared, features = seen(detector)
    whole = operations(lambda: detector.detect(prepared, features))
    assert whole - operations(lambda: detector.head(features)) <= 40


@one_stage
def test_operations_do_not_grow_with_the_number_of_detections(name):
    detector = make(name)
    prepared, features = seen(detector)
    counts, lengths = [], []
    for threshold in (0.0, 1.0):
        detector.score_threshold = threshold
        counts.append(operations(lambda: lengths.append(detector.detect(prepared, features)[0])))
    assert len(lengths[0]) > len(lengths[1]) == 0
    assert counts[0] == counts[1]


@one_stage
def test_batch_is_prepared_in_as_many_operations_as_one_image(name):
    detector = make(name)
    image = torch.zeros(3, 60, 90, dtype=torch.uint8)
    one, four = (operations(lambda n=n: detector.prepare([image] * n)) for n in (1, 4))
    assert four - one <= 2


@one_stage
@pytest.mark.parametrize(
    "sizes", [[(96, 128)], [(60, 100)] * 2, [(120, 120), (60, 100), (96, 128)]]
)
def test_prepared_pixels_equal_torchvisions(name, sizes):
    detector = make(name)
    generator = torch.Generator().manual_seed(2)
    images = [torch.randint(0, 256, (3, *s), generator=generator, dtype=torch.uint8) for s in sizes]
    expected, _ = detector.net.transform([image / 255 for image in images])
    prepared = detector.prepare(images)
    torch.testing.assert_close(prepared.pixels, expected.tensors, rtol=0, atol=1e-5)
    assert prepared.image_sizes == expected.image_sizes
