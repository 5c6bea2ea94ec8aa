"""Shared by the tests of batches: the tool, a tiny model on disk, small clips."""

import importlib.util
import json
from pathlib import Path

import numpy as np

from conftest import tiny_config, tiny_model
from rnndet.models.checkpoint import model_content, save_checkpoint
from rnndet.video.sink import VideoSink

TOOL = Path(__file__).resolve().parent.parent / "tools" / "infer.py"


def load_tool():
    spec = importlib.util.spec_from_file_location("infer_of_batches", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def save_weights(path: Path, *, seed: int = 0) -> Path:
    save_checkpoint(path, model_content(tiny_model(seed), tiny_config(), step=0))
    return path


def write_clip(path: Path, *, length: int, seed: int) -> Path:
    dice = np.random.default_rng(seed)
    with VideoSink(path, size_hw=(64, 96), fps=25) as sink:
        for number in range(length):
            image = np.full((64, 96, 3), 80, np.uint8)
            image[20:40, number % 70 : number % 70 + 20] = dice.integers(0, 255, (20, 20, 3))
            sink.write(image)
    return path


def order(weights, out, *arguments) -> list[str]:
    given = ["--weights", weights, "--out", out, "--device", "cpu", "--score-threshold", 0.01]
    return list(map(str, [*given, "--no-video", "--quiet", *arguments]))


def summary_of(out: Path, name: str = "summary.json") -> dict:
    return json.loads((out / name).read_text())


def frames_of(out: Path) -> dict[str, bytes]:
    """By folder, detections.jsonl as it is, less its last line, which has the times."""
    return {
        path.parent.name: path.read_bytes().rstrip(b"\n").rpartition(b"\n")[0]
        for path in out.glob("*/detections.jsonl")
    }
