"""Processes that torchrun starts share the videos of an evaluation."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from forked_process import ForkedProcess, with_files
from forked_ranks import run_ranks

from conftest import StubModel, detections
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.evaluation import predict
from rnndet.evaluation.metrics import CocoAP
from rnndet.evaluation.score import score
from rnndet.structures import Frame, Target
from rnndet.system.distributed import World, world


class Model(StubModel):
    """Scores follow from the brightness of all frames so far."""

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


def evaluate_in_ranks():
    """Print the figures of sets of different sizes, found by one, two and three processes."""
    torch.set_num_threads(1)
    predict.iterate = iterate
    for size in (1, 2, 3):
        run_ranks(size, evaluate)


def evaluate():
    with world() as here:
        for count in (1, 2, 3, 5, 7):
            for uses in ((), ("carried", "foreign", "shuffled")):
                if not uses or count > 1:
                    print_figures(here, count, uses)


def print_figures(here, count, uses):
    frames = [tuple(FrameRecord(i, target(n * i)) for i in range(4)) for n in range(count)]
    videos = [VideoRecord(f"v{n}", 32, 48, None, row) for n, row in enumerate(frames)]
    data = VideoSet(("thing",), tuple(videos))
    runs = predict.evaluate_set(Model().eval(), data, uses=uses, world=here)
    if not here.is_first:
        assert runs == {}
        return
    rows, _ = score(runs, {"coco_ap": CocoAP(("thing",))})
    rows = {str(row): numbers for row, numbers in rows.items()}
    found = {n: [round(r["AP50"], 12), round(r["F1"], 12)] for n, r in rows.items()}
    print(json.dumps([here.size, count, found, {n: run.frame_count for n, run in runs.items()}]))


def test_figures_do_not_depend_on_the_number_of_processes(tmp_path) -> None:
    output, errors = tmp_path / "output", tmp_path / "errors"
    process = ForkedProcess(with_files, evaluate_in_ranks, output=output, errors=errors)
    assert process.wait(timeout=240) == 0, errors.read_text()
    rows = [json.loads(line) for line in output.read_text().splitlines() if line.startswith("[")]
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
