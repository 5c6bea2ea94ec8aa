"""Shipped weights are complete, small, listed, and contain no local paths."""

import re
import shutil

import pytest
import torch

from rnndet.boxes import pairwise_iou
from rnndet.errors import WeightsError
from rnndet.inference.run import make_stream
from rnndet.inference.stream import run_video
from rnndet.models import zoo as published
from rnndet.models.checkpoint import load_model
from rnndet.models.zoo import (
    CLIP_WEIGHTS,
    DEFAULT_WEIGHTS,
    WEIGHTS_DIR,
    file_sha256,
    published_weights,
)
from rnndet.video.synthetic.clip import SyntheticClip

NAMES = sorted(published_weights())


def test_defaults_and_the_baseline_are_shipped():
    assert {DEFAULT_WEIGHTS, CLIP_WEIGHTS, "aerial_frame"} <= set(NAMES)


def test_every_file_is_listed():
    files = {path.name for path in WEIGHTS_DIR.glob("*.pt")}
    assert files == {entry["file"] for entry in published_weights().values()}


@pytest.mark.parametrize("name", NAMES)
def test_file_is_small_and_has_its_sha256_and_card(name):
    entry = published_weights()[name]
    path = WEIGHTS_DIR / entry["file"]
    assert path.stat().st_size < 16_000_000
    assert file_sha256(path) == entry["sha256"]
    assert (WEIGHTS_DIR / entry["card"]).is_file()


@pytest.mark.parametrize("name", NAMES)
def test_file_contains_no_path(name):
    data = (WEIGHTS_DIR / published_weights()[name]["file"]).read_bytes()
    assert re.search(rb"/(root|home|work|tmp|Users)/", data) is None


def test_pair_differs_in_the_temporal_module_only():
    recurrent, without = load_model("aerial"), load_model("aerial_frame")
    assert recurrent.temporal.cells and not without.temporal.cells
    assert recurrent.classes == without.classes
    theirs = recurrent.detector.state_dict()
    for name, tensor in without.detector.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name


def test_weights_of_the_rendered_clip_find_most_of_its_objects():
    clip = SyntheticClip(7, length=24, degrade=False)
    stream = make_stream(load_model(CLIP_WEIGHTS))
    seen = found = 0
    for result in run_video(stream, clip):
        target = clip.target(result.frame.index)
        target = target[~target.ignore]
        overlap = pairwise_iou(target.boxes.numpy(), result.detections.boxes)
        seen += len(target)
        found += int((overlap.max(1) >= 0.5).sum()) if overlap.shape[1] else 0
    assert found / seen > 0.6


@pytest.mark.parametrize("name", NAMES)
def test_flipped_bit_of_a_copy_is_noticed_by_name_and_by_path(name, tmp_path, monkeypatch):
    shutil.copytree(WEIGHTS_DIR, tmp_path / "weights")
    path = tmp_path / "weights" / published_weights()[name]["file"]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # in the middle of a tensor
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="damaged"):
        load_model(path)
    monkeypatch.setattr(published, "WEIGHTS_DIR", tmp_path / "weights")
    with pytest.raises(WeightsError, match="sha256 differs"):
        load_model(name)
