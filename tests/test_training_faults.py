"""Faults that a training run survives or reports."""

import os
import random
import resource
import time

import pytest
from forked_process import ForkedProcess

from conftest import TRAINING_TREE
from rnndet.config import config_from_dict
from rnndet.data.clips.dataset import ClipDataset
from rnndet.errors import OutputError, RnndetError, WeightsError
from rnndet.models.checkpoint import previous_of, read_checkpoint
from rnndet.training.run import run_training


def config_for(root, **train):
    tree = TRAINING_TREE | {"data": {"train": [{"root": str(root)}]}}
    return config_from_dict(tree | {"train": TRAINING_TREE["train"] | train}, where="test")


def run(root, folder, **train):
    run_training(config_for(root, **train), folder, device="cpu", quiet=True)


def test_loader_process_that_dies_ends_the_run_with_the_items(coco_vid_root, tmp_path, monkeypatch):
    monkeypatch.setattr(ClipDataset, "__getitem__", lambda *_: os._exit(1))
    with pytest.raises(RnndetError, match=r"step 0: a loader process died.*items 0 to 1"):
        run(coco_vid_root, tmp_path / "run", workers=1)


def test_loader_process_that_hangs_ends_the_run(coco_vid_root, tmp_path, monkeypatch):
    monkeypatch.setattr(ClipDataset, "__getitem__", lambda *_: time.sleep(60))
    with pytest.raises(RnndetError, match=r"more than train\.loader_timeout = 1 s"):
        run(coco_vid_root, tmp_path / "run", workers=1, loader_timeout=1)


def test_full_disk_leaves_the_checkpoint_that_was_there(coco_vid_root, tmp_path):
    folder = tmp_path / "run"
    run(coco_vid_root, folder)
    before = (folder / "last.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"last\.pt: cannot be written"):
            run_training(
                config_for(coco_vid_root, steps=6), folder, device="cpu", quiet=True, resume=True
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (folder / "last.pt").read_bytes() == before
    assert not list(folder.glob("*.part*"))


KILLS = int(os.environ.get("RNNDET_KILLS", "3"))


def test_kill_at_any_moment_loses_no_checkpoint(coco_vid_root, tmp_path):
    """Saving after every step, so that kills fall into saves; RNNDET_KILLS=30 takes minutes."""
    folder, dice = tmp_path / "run", random.Random(0)
    run(coco_vid_root, folder, steps=1, save_every=1)
    step = 1
    for _ in range(KILLS):
        process = ForkedProcess(
            run_training, config_for(coco_vid_root, steps=10**6, save_every=1), folder,
            device="cpu", quiet=True, resume=True,
        )  # fmt: skip
        before = mtime(folder)
        end = time.monotonic() + 60
        while time.monotonic() < end and process.poll() is None:
            time.sleep(0.01)
            if mtime(folder) not in (None, before):
                break
        time.sleep(dice.uniform(0, 0.5))
        assert process.poll() is None, "the run ended by itself"
        process.kill()
        process.wait()
        after = last_or_previous(folder)["step"]
        assert after >= step
        step = after


def mtime(folder):
    """None between two renames of a save, where last.pt has no file."""
    try:
        return (folder / "last.pt").stat().st_mtime_ns
    except FileNotFoundError:
        return None


def last_or_previous(folder):
    try:
        return read_checkpoint(folder / "last.pt")
    except WeightsError:
        return read_checkpoint(previous_of(folder / "last.pt"))
