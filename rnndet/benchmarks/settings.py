"""Parse and open the models that rnndet benchmark compares."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnndet.benchmarks.inference import Contender
from rnndet.benchmarks.torchvision_baseline import TorchvisionRuntime
from rnndet.config import parse_change
from rnndet.inference.run import describe_model, make_stream
from rnndet.inference.runtimes import Runtime, open_runtime
from rnndet.models.checkpoint import load_model
from rnndet.registry import AtLeastOne, Share, convert, lookup


@dataclass(frozen=True, slots=True)
class Setting:
    """A model to compare, and how it is run."""

    weights: str  # a name of weights/weights.toml, or a path
    tracker: str = "byte"
    score: Share = 0.3  # `min_score` of the stream
    runtime: str = "torch"  # of `RUNTIMES`; compiled; or "stock", the torchvision baseline
    key_every: AtLeastOne = 1
    key_lost: Share = 0.0
    track_classes: bool = True  # of the stream
    size: AtLeastOne | None = None  # of the stream


def parse_setting(text: str, *, tracker: str = "byte") -> Setting:
    """Parse `aerial`, `aerial:tracker=none`, `aerial:runtime=onnx` or `a.pt:tracker=iou,score=0.1`.

    key_every and key_lost are those of `KeyFrames`. Raises RnndetError for an unknown key or a
    wrong value.

    >>> parse_setting("aerial:runtime=onnx,score=0.1").score
    0.1
    """
    weights, colon, tail = text.rpartition(":")
    if not colon or "=" not in tail or Path(text).is_file():
        return Setting(text, tracker)
    kinds = typing.get_type_hints(Setting, include_extras=True)
    del kinds["weights"]
    values = {"tracker": tracker}
    for pair in tail.split(","):
        key, value = parse_change(pair, flag=f"{text}:")
        kind = lookup(key, kinds, what=f"{text}: setting")
        values[key] = convert(kind, value, what=f"{text}: {key}")
    return Setting(weights, **values)


def open_contender(
    text: str,
    *,
    tracker: str = "byte",
    tracker_options: Mapping[str, Any] | None = None,
    device: str = "auto",
    threads: int | None = None,
) -> Contender:
    """Load a model and make its stream; text: see `parse_setting`. Raises RnndetError.

    tracker_options: of `tracker`; a model with another tracker in its setting does not get them.
    """
    setting = parse_setting(text, tracker=tracker)
    runtime = open_setting(setting, device=device, threads=threads)
    stream = make_stream(
        runtime,
        tracker=setting.tracker,
        tracker_options=tracker_options if setting.tracker == tracker else None,
        min_score=setting.score,
        key_every=setting.key_every,
        key_lost=setting.key_lost,
        track_classes=setting.track_classes,
        size=setting.size,
    )
    about = {**describe_model(runtime, setting.weights), "weights": setting.weights}
    return Contender(text, stream, about | {"tracker": setting.tracker, "min_score": setting.score})


def open_setting(setting: Setting, *, device: str, threads: int | None) -> Runtime:
    """Open the runtime of a setting. Raises RnndetError."""
    if setting.runtime == "stock":
        return TorchvisionRuntime(load_model(setting.weights), device=device)
    is_compiled = setting.runtime == "compiled"
    kind = "torch" if is_compiled else setting.runtime
    return open_runtime(
        setting.weights, kind=kind, device=device, threads=threads, compiled=is_compiled
    )[0]
