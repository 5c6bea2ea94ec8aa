"""Several streams on one model: each gives what it gives alone, whatever the others ask for."""

import inspect
import pkgutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from threading import Barrier

import numpy as np
import pytest
import torch

import rnndet
from conftest import CLASSES, SIZE_HW, TINY_OPTIONS, tiny_model
from rnndet import benchmarks
from rnndet.benchmarks.torchvision_baseline import TorchvisionRuntime
from rnndet.config import config_from_dict
from rnndet.inference import runtimes
from rnndet.inference.run import make_stream
from rnndet.inference.runtimes.batching import Batcher, Member
from rnndet.inference.runtimes.onnx_runtime import OnnxRuntime
from rnndet.inference.runtimes.torch_runtime import TorchRuntime
from rnndet.inference.stream import Stream
from rnndet.models.video_detector import VideoDetector, build_model
from rnndet.structures import Detections, Frame

LENGTH = 4


def noise(seed: int = 0) -> list[Frame]:
    images = np.random.default_rng(seed).integers(0, 256, (LENGTH, *SIZE_HW, 3), np.uint8)
    return [Frame(image, k, k / 25) for k, image in enumerate(images)]


def one_stage(seed: int = 0) -> VideoDetector:
    """The tiny FCOS, with boxes that are large enough to overlap."""
    model = tiny_model(seed)
    with torch.no_grad():
        model.detector.net.head.regression_head.bbox_reg.bias += 1.5
    return model


def two_stage(seed: int = 0) -> VideoDetector:
    """A tiny Faster R-CNN, whose thresholds torchvision holds in its second stage."""
    torch.manual_seed(seed)
    options = {key: value for key, value in TINY_OPTIONS.items() if key != "head_convs"}
    model = {"detector": "faster_rcnn", "options": options | {"strides": [8, 16, 32]}}
    model["temporal"] = {"levels": ["0"], "hidden": 8}
    return build_model(config_from_dict({"model": model}, where="test").model, CLASSES).eval()


MODELS = {"fcos": one_stage, "faster_rcnn": two_stage}
LOW = {"min_score": 0.0, "nms": 0.9}


def equal(a: Detections, b: Detections) -> bool:
    return all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("boxes", "scores", "labels"))


def alone(build, seed: int = 0, **options) -> list[Detections]:
    run = rnndet.track(build(), noise(seed), tracker="none", scene_cuts=False, **options)
    return [result.detections for result in run]


@pytest.fixture(params=MODELS)
def build(request):
    return MODELS[request.param]


@pytest.fixture
def high(build) -> dict:
    """Options that keep a few of the boxes of LOW: by their score, and by suppression."""
    (first, *_) = alone(build, **LOW)
    options = {"min_score": float(np.quantile(first.scores, 0.7)), "nms": 0.1}
    (kept, *_) = alone(build, **options)
    (by_score, *_) = alone(build, **options | {"nms": 0.9})
    assert 0 < len(kept) < len(by_score) < len(first)
    return options


def test_interleaved_generators_on_one_model_give_what_each_gives_alone(build, high):
    model = build()
    runs = (
        rnndet.track(model, noise(), tracker="none", scene_cuts=False, **options)
        for options in (LOW, high)
    )
    pairs = [(a.detections, b.detections) for a, b in zip(*runs, strict=True)]
    expected = zip(alone(build, **LOW), alone(build, **high), strict=True)
    assert all(equal(a, x) and equal(b, y) for (a, b), (x, y) in zip(pairs, expected, strict=True))


def test_streams_in_two_threads_on_one_model_give_what_each_gives_alone(build, high):
    model, barrier = build(), Barrier(2)

    def run(options: dict) -> list[Detections]:
        stream, found = make_stream(model, tracker="none", scene_cuts=False, **options), []
        for frame in noise():
            barrier.wait(60)
            found.append(stream.step(frame).detections)
        return found

    with ThreadPoolExecutor(2) as pool:
        runs = pool.map(run, (LOW, high))
    for got, options in zip(runs, (LOW, high), strict=True):
        assert all(equal(a, b) for a, b in zip(got, alone(build, **options), strict=True))


def test_a_batch_of_two_streams_gives_each_its_own_thresholds(build, high):
    batcher, barrier = Batcher(TorchRuntime(build())), Barrier(2)

    def run(options: dict) -> list[Detections]:
        with Member(batcher) as member:
            barrier.wait(60)
            stream = make_stream(member, tracker="none", scene_cuts=False, **options)
            return [stream.step(frame).detections for frame in noise()]

    with ThreadPoolExecutor(2) as pool:
        runs = pool.map(run, (LOW, high))
    for got, options in zip(runs, (LOW, high), strict=True):
        expected = alone(build, **options)
        assert [len(a) for a in got] == [len(b) for b in expected]
        assert all(np.allclose(a.scores, b.scores) for a, b in zip(got, expected, strict=True))


def test_a_stream_leaves_the_thresholds_of_the_model_unchanged(build):
    model = build()
    model.score_threshold = 0.25
    list(rnndet.track(model, noise(), tracker="byte", min_score=0.6, nms=0.3))
    assert model.score_threshold == 0.25


def test_the_threshold_of_the_model_does_not_hide_detections_from_a_stream(build):
    model = build()
    model.score_threshold = 0.99
    stream = Stream(model, min_score=0.0)
    assert len(stream.step(noise()[0]).detections) > 10


def test_modes_of_a_model_do_not_change_between_the_frames_of_a_stream():
    model = tiny_model()

    def frames() -> Iterator[Frame]:
        for frame in noise():
            yield frame
            assert not model.training

    list(rnndet.track(model, frames()))
    assert not model.training


def test_every_runtime_takes_the_limits_of_each_image():
    modules = [
        import_module(f"{package.__name__}.{module.name}")
        for package in (runtimes, benchmarks)
        for module in pkgutil.iter_modules(package.__path__)
        if module.name.endswith(("runtime", "batching", "graph", "baseline"))
    ]
    kinds = {
        kind
        for module in modules
        for kind in vars(module).values()
        if inspect.isclass(kind) and hasattr(kind, "detect") and hasattr(kind, "rows_of")
    }
    assert {TorchRuntime, OnnxRuntime, Member, TorchvisionRuntime} <= kinds
    for kind in kinds:
        assert "limits" in inspect.signature(kind.detect).parameters, kind
