"""What tools/benchmark.py compares, as it is written on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rnndet.benchmarks.torchvision_baseline import TorchvisionRuntime
from rnndet.errors import RnndetError
from rnndet.inference.runtimes import Runtime, open_runtime
from rnndet.models.checkpoint import load_model
from rnndet.registry import lookup


@dataclass(frozen=True, slots=True)
class Setting:
    """One of the things to compare."""

    weights: str  # a name of weights/weights.toml, or a path
    tracker: str
    min_score: float
    runtime: str = "torch"  # of `RUNTIMES`; compiled; or stock: torchvision's own loop
    key_every: int = 1
    key_lost: float = 0.0


def parse_setting(text: str, *, tracker: str = "byte", min_score: float = 0.3) -> Setting:
    """Read `aerial`, `aerial:tracker=none`, `aerial:runtime=onnx` or `a.pt:tracker=iou,score=0.1`.

    key_every and key_lost are those of `KeyFrames`. Raises RnndetError for an unknown key or a
    value that is no number.
    """
    weights, colon, tail = text.rpartition(":")
    if not colon or "=" not in tail or Path(text).is_file():
        return Setting(text, tracker, min_score)
    given = {"tracker": tracker, "score": str(min_score), "runtime": "torch",
             "key_every": "1", "key_lost": "0"}  # fmt: skip
    for pair in tail.split(","):
        key, _, value = pair.partition("=")
        lookup(key, given, what=f"{text}: setting")
        given[key] = value
    try:
        return Setting(
            weights, given["tracker"], float(given["score"]), given["runtime"],
            int(given["key_every"]), float(given["key_lost"]),
        )  # fmt: skip
    except ValueError as error:
        raise RnndetError(f"{text}: a number was expected: {error}") from None


def open_setting(setting: Setting, *, device: str, threads: int | None) -> Runtime:
    """What runs the weights of a setting. Raises RnndetError."""
    if setting.runtime == "stock":
        return TorchvisionRuntime(load_model(setting.weights), device=device)
    is_compiled = setting.runtime == "compiled"
    kind = "torch" if is_compiled else setting.runtime
    return open_runtime(
        setting.weights, kind=kind, device=device, threads=threads, compiled=is_compiled
    )[0]
