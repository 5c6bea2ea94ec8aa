"""FrameStore, and clips that are augmented on the training device."""

import dataclasses

import pytest
import torch

from conftest import TRAINING_TREE, write_coco_vid
from rnndet.config import config_from_dict
from rnndet.data import frames
from rnndet.data.formats import read_set
from rnndet.data.frames import FrameStore
from rnndet.errors import RnndetError
from rnndet.training.run import build_run


def first_video(root):
    return read_set("coco_vid", root, "train").videos[0]


def batches(root, folder, **train):
    tree = TRAINING_TREE | {"data": {"train": [{"root": str(root)}]}}
    config = config_from_dict(tree | {"train": TRAINING_TREE["train"] | train}, where="test")
    trainer, dataset = build_run(config, folder, device="cpu", quiet=True)
    return [batch.frames for step in trainer.loader(dataset) for batch in step]


def test_clips_augmented_on_the_device_equal_those_of_the_loader(coco_vid_root, tmp_path):
    expected = batches(coco_vid_root, tmp_path / "a")
    found = batches(coco_vid_root, tmp_path / "b", augment_on="device", workers=2)
    assert len(found) == len(expected) == 4
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_kept_frames_are_not_decoded_again(coco_vid_root, monkeypatch):
    video = first_video(coco_vid_root)
    store = FrameStore("cpu", budget=2**30)
    before = store.load(video, video.frames[:2])
    monkeypatch.setattr(frames, "load", None)
    assert torch.equal(store.load(video, video.frames[:2]), before)


@pytest.mark.parametrize("as_files", [False, True])
def test_videos_of_two_sets_may_have_the_same_name(tmp_path, as_files):
    for name, videos in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        write_coco_vid(tmp_path / name, videos=videos, as_files=as_files)
    (square,) = read_set("coco_vid", tmp_path / "a", "train").videos
    bar = read_set("coco_vid", tmp_path / "b", "train").videos[1]
    other = dataclasses.replace(bar, name=square.name)
    store = FrameStore("cpu", budget=2**30)
    store.load(square, square.frames[:1])
    expected = FrameStore("cpu", budget=0).load(bar, bar.frames[:1])
    assert torch.equal(store.load(other, other.frames[:1]), expected)


def test_budget_is_not_exceeded(coco_vid_root):
    video = first_video(coco_vid_root)
    size = FrameStore("cpu", budget=0).load(video, video.frames[:1]).nbytes
    store = FrameStore("cpu", budget=2 * size)
    assert len(store.load(video, video.frames[:3])) == 3
    assert store.used == 2 * size


def test_keeping_frames_needs_the_device(coco_vid_root):
    config = {"data": {"keep_gib": 1.0}}
    with pytest.raises(RnndetError, match=r"data\.keep_gib needs train\.augment_on = "):
        config_from_dict(config, where="test")
