"""The public API as users call it: mypy checks the types that they get, nothing is run."""

from collections.abc import Iterator
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import rnndet
from rnndet.boxes import pairwise_iou
from rnndet.config import Config
from rnndet.errors import RnndetError
from rnndet.structures import Frame, FrameResult

model = rnndet.load_model("aerial", device="cpu")
assert_type(model, rnndet.VideoDetector)
assert_type(model.classes, tuple[str, ...])

results = rnndet.track(model, "clip.mp4", tracker="byte", key_every=5, classes=("bird",))
assert_type(results, Iterator[FrameResult])
for result in results:
    assert_type(result.frame.time, float)
    found = result.detections
    assert_type(found, rnndet.Detections)
    assert_type(found.boxes, NDArray[np.float32])
    assert_type(found.ids, NDArray[np.int64] | None)
    assert_type(found[found.scores > 0.5], rnndet.Detections)
    assert_type(len(found), int)
    assert_type(result.predicted, rnndet.Detections | None)
    assert_type(pairwise_iou(found.boxes, found.boxes), NDArray[np.floating])

several = rnndet.track(
    model, ["a.mp4", "b.mp4"], min_score={"bird": 0.5, "*": 0.3}, nms=0.6, regions="regions.json",
    stride=2, start=1.0, end=9.0,
)  # fmt: skip
for result in several:
    assert_type(result.source, str | None)
    if result.counts is not None:
        assert_type(result.counts.lines["gate"].to_right, dict[str, int])
        assert_type(result.counts.regions["yard"].inside, dict[str, int])

table = rnndet.read_results("out/clip")
assert_type(table["score"], NDArray[Any])

stream = rnndet.Stream(model, min_score=0.3)
image = np.zeros((480, 640, 3), np.uint8)
assert_type(stream.step(Frame(image, index=0, time=0.0)), FrameResult)
stream.reset()

live = rnndet.LiveOptions(allow_network=True, timeout=5.0)
with rnndet.open_source("rtsp://camera/1", live=live) as source:
    for frame in source:
        assert_type(frame, Frame)
    assert_type(rnndet.track(model, source), Iterator[FrameResult])

assert_type(rnndet.load_config("configs/aerial.toml", changes=["train.steps=100"]), Config)
assert_type(RnndetError("what is wrong").exit_code, int)
