"""Processes that torchrun starts share the videos of an evaluation."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rnndet.system.distributed import World, world

ROOT = Path(__file__).resolve().parent.parent

SCRIPT = """
import json, sys
import numpy as np
import torch
from types import SimpleNamespace
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.evaluation import predict as evaluation
from rnndet.system.distributed import world
from rnndet.evaluation.metrics import CocoAP
from rnndet.evaluation.score import score
from rnndet.structures import Frame, Target
from conftest import StubModel, detections
from forked_ranks import run_ranks

class Model(StubModel):
    def encode(self, frames, original_sizes=None):
        return frames.float().mean().expand(1, 1, 2, 2)
    def decode(self, code, state=None, limits=None):
        before = torch.zeros_like(code) if state is None else state["0"][0]
        after = 0.5 * before + code
        scores = torch.sigmoid(after.mean() / 100).reshape(1)
        found = detections([[8.0, 8, 24, 24]], scores.detach(), [0])
        return SimpleNamespace(state={"0": (after,)}, detections=[[found]])

def target(seed):
    move = seed % 7
    box = torch.tensor([[8.0 + move, 8, 24 + move, 24]])
    return Target(box, torch.zeros(1).long(), torch.ones(1).long(), torch.zeros(1).bool())

def iterate(video, cache=None):
    for record in video.frames:
        light = (37 * record.index + 11 * len(video.name) * ord(video.name[-1])) % 256
        yield Frame(np.full((32, 48, 3), light, np.uint8), record.index, 0.0)

evaluation.iterate = iterate

def work():
    with world() as here:
        evaluate(Model().eval(), here)

def evaluate(model, here):
    for count in (1, 2, 3, 5, 7):
        frames = [tuple(FrameRecord(i, target(n * i)) for i in range(4)) for n in range(count)]
        videos = [VideoRecord(f"v{n}", 32, 48, None, row) for n, row in enumerate(frames)]
        data = VideoSet(("thing",), tuple(videos))
        for uses in ((), ("carried", "foreign", "shuffled")):
            if uses and count < 2:
                continue
            runs = evaluation.evaluate_set(model, data, uses=uses, world=here)
            if here.is_first:
                rows, _ = score(runs, {"coco_ap": CocoAP(("thing",))})
                rows = {str(row): numbers for row, numbers in rows.items()}
                found = {n: [round(r["AP50"], 12), round(r["F1"], 12)] for n, r in rows.items()}
                frames = {n: run.frame_count for n, run in runs.items()}
                print(json.dumps([here.size, count, found, frames]))
            else:
                assert runs == {}

for size in (1, 2, 3):
    run_ranks(size, work)
"""


def test_figures_do_not_depend_on_the_number_of_processes(tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True, text=True, timeout=240, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    alone, *others = ([row[1:] for row in rows if row[0] == size] for size in (1, 2, 3))
    assert [row[0] for row in alone] == [1, 2, 2, 3, 3, 5, 5, 7, 7]
    assert others == [alone, alone]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 7])
def test_every_item_belongs_to_exactly_one_process(size, count) -> None:
    shares = [World(rank, size).share(range(count)) for rank in range(size)]
    assert sorted(item for share in shares for item in share) == list(range(count))


def test_one_process_starts_nothing(monkeypatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with world() as here:
        assert (here, here.gather("x")) == (World(0, 1), ["x"])
