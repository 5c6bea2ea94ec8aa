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
from torch import distributed

from conftest import TINY_OPTIONS
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


def command(config, out, *, processes, steps):
    train = [ROOT / "tools/train.py", config, "--out", out, "--quiet", "--device", "cpu"]
    train += ["--set", f"train.steps={steps}", "--set", "train.threads=1"]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [sys.executable, *(launcher if processes > 1 else []), *map(str, train)]


def losses(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


TRAIN_BOTH = """
import sys
from forked_ranks import run_ranks
from rnndet.cli import train

def work():
    return train.main([*sys.argv[1:-1], "--out", f"{sys.argv[-1]}/{size}"])

for size in (1, 2):
    run_ranks(size, work)
"""


def test_two_processes_train_as_one(config, tmp_path):
    _, _, given, _, _, *options = command(config, "", processes=1, steps=5)
    done = subprocess.run(
        [sys.executable, "-c", TRAIN_BOTH, given, *options, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
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


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_saves_and_ends(config, tmp_path, processes):
    order = command(config, tmp_path / "run", processes=processes, steps=100_000)
    process = subprocess.Popen(order, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        wait_for_step(tmp_path / "run", process, step=2)
        process.send_signal(signal.SIGTERM)
        _, shown = process.communicate(timeout=60)
    finally:
        process.kill()
    assert read_checkpoint(tmp_path / "run" / "last.pt")["step"] >= 2
    if processes == 1:
        assert process.returncode == 143
        assert "saved; continue with --resume" in shown


def kill_one(process):
    """SIGKILL for the last of the processes that torchrun started."""
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    )
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)


def test_a_process_that_dies_ends_the_run(config, tmp_path):
    order = command(config, tmp_path / "run", processes=2, steps=100_000)
    process = subprocess.Popen(order, stderr=subprocess.DEVNULL, cwd=ROOT)
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


def test_restarted_run_resumes_from_the_last_save(config, tmp_path):
    steps = 30
    order = command(config, tmp_path / "run", processes=2, steps=steps)
    order.insert(order.index("--standalone"), "--max-restarts=1")
    order += ["--resume", "auto", "--set", "train.save_every=2"]
    process = subprocess.Popen(order, stderr=subprocess.DEVNULL, cwd=ROOT)
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
