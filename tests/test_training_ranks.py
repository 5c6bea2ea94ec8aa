"""rnndet train under torchrun, on the CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from forked_process import ForkedProcess, with_files
from forked_ranks import run_ranks, torchrun
from torch import distributed

from conftest import TINY_OPTIONS
from rnndet.cli import train
from rnndet.models.checkpoint import read_checkpoint
from rnndet.system.distributed import store_of_attempt

ROOT = Path(__file__).resolve().parent.parent


def toml_value(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {toml_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value)


@pytest.fixture
def config(coco_vid_root, tmp_path):
    """A configuration file over the small set; four rows, windows carried on."""
    tree = {
        "model": {"options": TINY_OPTIONS, "temporal": {"levels": ["0", "1"], "hidden": 8}},
        "data": {"train": [{"root": str(coco_vid_root)}]},
        "clip": {"length": 2, "windows": 2, "stride_max": 1},
        "augment": {"crop": [64, 64], "corrupt": 1.0},
        "train": {"batch": 4, "warmup": 1, "log_every": 1, "save_every": 0, "distillation": 0.1},
    }
    path = tmp_path / "c.toml"
    path.write_text("\n".join(f"{name} = {toml_value(part)}" for name, part in tree.items()))
    return path


def arguments(config, out, *, steps):
    """Of rnndet train."""
    given = [config, "--out", out, "--quiet", "--device", "cpu"]
    return [*map(str, given), "--set", f"train.steps={steps}", "--set", "train.threads=1"]


def losses(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def train_both(config, folder):
    """By one process and by two, which write to folder/1 and folder/2."""
    for size in (1, 2):
        given = arguments(config, folder / str(size), steps=5)
        run_ranks(size, lambda given=given: train.main(given))


def test_two_processes_train_as_one(config, tmp_path):
    errors = tmp_path / "errors"
    process = ForkedProcess(with_files, train_both, config, tmp_path, errors=errors)
    assert process.wait(timeout=120) == 0, errors.read_text()
    one, two = losses(tmp_path / "1"), losses(tmp_path / "2")
    assert len(one) == 5
    assert two == pytest.approx(one, rel=2e-3)


def wait_for_step(folder, process, *, step):
    """Until the run has logged the step."""
    end = time.monotonic() + 90
    while time.monotonic() < end and process.poll() is None:
        log = folder / "metrics.jsonl"
        if log.exists() and len(log.read_text().splitlines()) >= step:
            return
        time.sleep(0.1)
    raise AssertionError("the run did not get there")


def test_sigterm_saves_and_ends(config, tmp_path):
    errors, given = tmp_path / "errors", arguments(config, tmp_path / "run", steps=100_000)
    process = ForkedProcess(with_files, train.main, given, errors=errors)
    try:
        wait_for_step(tmp_path / "run", process, step=2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
    finally:
        process.kill()
    assert "saved; continue with --resume" in errors.read_text()
    assert read_checkpoint(tmp_path / "run" / "last.pt")["step"] >= 2


def test_sigterm_to_torchrun_saves_and_ends(config, tmp_path):
    order = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    order += [ROOT / "tools/train.py", *arguments(config, tmp_path / "run", steps=100_000)]
    process = subprocess.Popen(list(map(str, order)), stderr=subprocess.DEVNULL, cwd=ROOT)
    try:
        wait_for_step(tmp_path / "run", process, step=2)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    finally:
        process.kill()
    assert read_checkpoint(tmp_path / "run" / "last.pt")["step"] >= 2


def kill_one(process):
    """SIGKILL for the last of the processes that torchrun started."""
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    )
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)


def test_a_process_that_dies_ends_the_run(config, tmp_path):
    given = arguments(config, tmp_path / "run", steps=100_000)
    process = ForkedProcess(with_files, torchrun, 2, train.main, given)
    try:
        wait_for_step(tmp_path / "run", process, step=2)
        kill_one(process)
        assert process.wait(timeout=60) != 0
    finally:
        process.kill()


def test_an_attempt_does_not_see_keys_of_the_previous_one():
    store = distributed.HashStore()
    store_of_attempt(store, "0").set("address", "of a process that is dead")
    assert not store_of_attempt(store, "1").check(["address"])


def restarted_once(given):
    return torchrun(2, train.main, given, max_restarts=1)


def test_restarted_run_resumes_from_the_last_save(config, tmp_path):
    steps = 30
    given = arguments(config, tmp_path / "run", steps=steps)
    given += ["--resume", "auto", "--set", "train.save_every=2"]
    process = ForkedProcess(with_files, restarted_once, given)
    try:
        wait_for_step(tmp_path / "run", process, step=8)
        kill_one(process)
        assert process.wait(timeout=120) == 0
    finally:
        process.kill()
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    seen = [line["step"] for line in lines if "loss" in line]
    again = [b for a, b in pairwise(seen) if b <= a]
    assert seen[-1] == steps
    assert len(again) <= 1 and all(step > 5 for step in again)  # it did not start over
