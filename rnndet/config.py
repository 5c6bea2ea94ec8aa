"""Configuration of a run: frozen dataclasses, read from TOML, stored in checkpoints.

An unknown key, a wrong type and a value outside its range are errors that name the key.
"""

import dataclasses
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from rnndet.errors import RnndetError
from rnndet.registry import (
    AtLeastOne,
    Count,
    NotNegative,
    Positive,
    Range,
    Share,
    ShareBelowOne,
    convert,
)

RENAMED = {  # settings of checkpoint format 1; such checkpoints are upgraded when read
    "train.lr_trunk": "train.lr_backbone",
    "train.lr_memory": "train.lr_temporal",
    "train.restoration": "train.distillation",
    "train.recompute": "train.activation_checkpoints",
    "train.thaw": "train.unfreeze",
    "train.ahead": "train.prefetch",
    "model.options.trainable_trunk_from": "model.options.trainable_backbone_from",
}
RENAMED_VALUES = {"trunk": "backbone", "memory": "temporal"}  # of train.freeze, model.temporal.site
# Settings that are paths; all but NO_NAMES may also be names of weights.
PATHS = ("data.cache", "model.options.backbone_weights", "train.init", "train.teacher")
NO_NAMES = ("data.cache",)
MAX_BYTES = 1_000_000  # a configuration is small; anything larger is another kind of file


@dataclass(frozen=True, slots=True)
class TemporalConfig:
    """The temporal module. Default: a blend whose gate starts in favour of the recurrent state."""

    # none | conv_rnn | conv_lstm | identity_lstm | conv_gru | bottleneck_lstm | min_gru
    # | gated_hold | two_frame
    cell: str = "conv_lstm"
    site: Literal["neck", "backbone"] = "neck"  # its input: neck is after the FPN
    # feature levels that get a cell, finest first; () with detector = "init": all levels
    levels: tuple[str, ...] = ("0", "1", "2")
    hidden: Count = 32  # channels of the state; 0: the same as the features
    fusion: str = "blend"  # blend | residual | replace; state for cells that hold features
    gate_bias: float = 2.0  # blend: 2 starts the gate at 0.88 in favour of the recurrent state
    memory_scale: float = 8.0  # amplitude of the cell's output; training calibrates it per level
    options: dict[str, Any] = field(default_factory=dict)  # of the cell


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The network: a detector of single frames and a temporal module."""

    # fcos | retinanet | ssdlite | faster_rcnn | nanodet_plus | torchvision
    # init: in training, that of train.init
    detector: str = "fcos"
    options: dict[str, Any] = field(default_factory=dict)  # of the detector's constructor
    temporal: TemporalConfig = field(default_factory=TemporalConfig)


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One set of videos, with labels or without."""

    format: str = "coco_vid"
    root: str = "data"
    split: str = "train"
    weight: float = 1.0  # share of the training clips, relative to the other sources
    options: dict[str, Any] = field(default_factory=dict)  # of the format's reader


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Which videos to train and to validate on."""

    train: tuple[SourceConfig, ...] = (SourceConfig(),)
    val: tuple[SourceConfig, ...] = ()  # validated on, never trained on
    holdout: tuple[str, ...] = ()  # scene groups of the first train set, moved to validation
    keep_gib: NotNegative = 0.0  # decoded frames kept on the device; needs augment_on = "device"
    cache: str = ""  # folder of decoded frames (rnndet cache_frames); "" decodes videos each time


@dataclass(frozen=True, slots=True)
class ClipConfig:
    """Which frames make a training clip."""

    length: AtLeastOne = 8  # frames of one window: the span of backpropagation through time
    windows: AtLeastOne = 1  # windows of one clip; the state is carried across, detached
    streamed: Share = 1.0  # share of the rows with clips of all windows; the rest have one window
    stride_min: AtLeastOne = 1  # a clip has every n-th frame, n from stride_min ...
    stride_max: AtLeastOne = 3  # ... to stride_max: slow and fast motion from the same videos
    classes: Literal["even", "natural"] = "even"  # even: rare classes as often as common classes
    # share of the labelled frames in the detector's losses; the temporal module sees all frames
    labelled: Annotated[float, Range(0, 1, low_is_open=True)] = 1.0


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """Augmentation: one random draw per clip changes all its frames alike, corruption excepted."""

    # height, width of the training image, in network pixels
    crop: tuple[Annotated[int, Range(32)], Annotated[int, Range(32)]] = (256, 256)
    zoom_min: Positive = 0.6  # scale relative to the scale of inference, log-uniform
    zoom_max: Positive = 1.5
    on_object: Share = 0.85  # share of crops placed so that a random object is inside
    mosaic: Share = 0.0  # share of clips made of four clips side by side
    flip: Share = 0.5
    reverse: Share = 0.5  # time reversal
    still: Share = 0.0  # share of clips that are one frame, seen by a moving crop
    paste: Share = 0.0  # share of clips that get objects of other videos
    paste_most: AtLeastOne = 2  # objects pasted into a clip
    paste_zoom_min: Positive = 0.4  # their scale relative to the scale of inference, log-uniform
    paste_zoom_max: Positive = 1.3
    colour: Share = 0.8  # share of clips with changed brightness, contrast, saturation, hue
    corrupt: Share = 0.5  # share of clips with corrupted runs of frames (data/corruption)
    corrupt_share: ShareBelowOne = 0.4  # share of corrupted frames in such a clip
    run_min: AtLeastOne = 2  # frames of a corrupted run
    run_max: AtLeastOne = 8
    kinds: tuple[str, ...] = (  # of corruption
        "motion_blur", "defocus", "noise", "dark", "drop", "freeze", "occluder",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Optimisation, losses, data loading, and when a run logs, saves and validates."""

    steps: AtLeastOne = 10_000  # optimiser steps: windows
    batch: AtLeastOne = 8  # rows of a step, over all processes
    accumulate: AtLeastOne = 1  # gradient accumulation: batches per step and process
    # > 0: activation checkpointing; backbone and neck run in this many chunks of the images
    activation_checkpoints: Count = 0
    lr: NotNegative = 1e-3  # neck and head of the detector
    lr_backbone: NotNegative = 3e-4
    lr_temporal: NotNegative = 3e-3
    detection: NotNegative = 1.0  # weight of the detector's own losses
    distillation: NotNegative = 0.0  # of feature distillation from the clean frame
    output_distillation: NotNegative = 0.0  # of class scores and boxes on the clean frame
    # who sees the clean frame: "" is the model in training, without its temporal module; "init"
    # the weights of train.init, frozen; else a checkpoint or a name of shipped weights
    teacher: str = ""
    stability: NotNegative = 0.0  # of the loss on changes of an object's features between frames
    weight_decay: NotNegative = 1e-4
    warmup: Count = 200  # steps of linear warm-up
    # after the warm-up; cosine ends at 2 % of the rate, step divides it by 10 at each milestone
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    milestones: tuple[int, ...] = ()  # steps
    clip_norm: Positive = 3.0  # largest gradient norm
    ema: ShareBelowOne = 0.999  # decay of the averaged weights, which are saved and validated
    freeze: tuple[Literal["backbone", "neck", "head", "temporal"], ...] = ()
    unfreeze: Count = 0  # step at which the frozen parts begin to train; 0: never
    amp: Literal["bfloat16", "float16", "off"] = (
        "bfloat16"  # autocast on CUDA; float16 scales losses
    )
    # checkpoint, name of shipped weights or torchvision:NAME; tensors are loaded where names and
    # shapes agree
    init: str = ""
    seed: int = 0
    augment_on: Literal["cpu", "device"] = "cpu"  # by loader processes, or by threads on the device
    workers: Count = 0  # loader processes, or threads where augment_on = "device"
    prefetch: Count = 2  # augment_on = "device": steps whose clips are prepared in advance
    loader_timeout: AtLeastOne = 300  # seconds for one batch before the run ends with an error
    threads: int = 0  # of torch on the CPU; 0: torch's default
    log_every: AtLeastOne = 20  # steps
    tensorboard: bool = False  # also write events for TensorBoard into the run folder
    save_every: Count = 200
    validate_every: Count = 0  # 0: at the end only
    validate_videos: Count = 0  # 0: all held-out videos
    validate_frames: Count = 0  # of each video, from its beginning; 0: all


@dataclass(frozen=True, slots=True)
class Config:
    """A run: model, data, clips, augmentation, training."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


def load_config(path: str | Path, *, changes: Sequence[str] = ()) -> Config:
    """Read a TOML file and apply changes of the form `train.lr=0.001`.

    A top-level `base = "other.toml"`, beside the file, is read first and overlaid (one level). A
    relative path in the file (`PATHS`, and the roots of data sets) that does not exist in the
    current folder, but beside the file, is that one; paths in `changes` are of the current folder.
    Raises RnndetError that names the file and the key.
    """
    path = Path(path)
    tree = _with_paths(read_toml(path), path.parent)
    base = tree.pop("base", None)
    if base is not None:
        if not isinstance(base, str) or "\0" in base:
            raise RnndetError(f"{path}: base must be the name of a file, found {base!r}")
        under = _with_paths(read_toml(path.parent / base), (path.parent / base).parent)
        if "base" in under:
            raise RnndetError(f"{path}: base = {base!r} has a base itself; one level is allowed")
        tree = _overlay(under, tree)
    for change in changes:
        _apply(tree, change)
    return config_from_dict(tree, where=str(path))


def _with_paths(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The tree of a file in `folder`, with relative paths found; entries of a wrong type stay."""
    for path in PATHS:
        *tables, last = path.split(".")
        table: Any = tree
        for name in tables:
            table = table.get(name) if isinstance(table, dict) else None
        if isinstance(table, dict) and last in table:
            table[last] = _found(table[last], folder, may_be_name=path not in NO_NAMES)
    data = tree.get("data")
    for name in ("train", "val"):
        entries = data.get(name) if isinstance(data, dict) else None
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and "root" in entry:
                entry["root"] = _found(entry["root"], folder)
    return tree


def _found(value: Any, folder: Path, *, may_be_name: bool = False) -> Any:
    """The path of a relative path that exists in `folder` and not in the current folder."""
    if not isinstance(value, str) or not value or "\0" in value or os.path.isabs(value):
        return value
    if may_be_name and not (Path(value).suffix or os.path.dirname(value)):
        return value
    beside = os.path.join(folder, value)
    return beside if os.path.exists(beside) and not os.path.exists(value) else value


def where_looked(path: str) -> str:
    """The end of an error about a missing path of a configuration: where it was looked for.

    >>> where_looked("/data/clips")
    ''
    """
    if os.path.isabs(path):
        return ""
    return f"; looked in {Path.cwd()}, and in the folder of the configuration"


def config_from_dict(tree: dict[str, Any], *, where: str) -> Config:
    """Build a Config from plain data, as stored in a checkpoint; `where` prefixes the messages."""
    try:
        _check_renamed(tree)
        config = convert(Config, tree, what="")
        _check(config)
    except RnndetError as error:
        raise RnndetError(f"{where}: {error}") from None
    return config


def _check_renamed(tree: dict[str, Any]) -> None:
    """Raise RnndetError for a key that has been renamed."""
    for old, new in RENAMED.items():
        *path, last = old.split(".")
        table: Any = tree
        for part in path:
            table = table.get(part, {}) if isinstance(table, dict) else {}
        if isinstance(table, dict) and last in table:
            raise RnndetError(f"{old} is now called {new}; rename it")


def upgrade_config(tree: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a checkpoint of format 1 with the current names; see `RENAMED`."""
    tree = {name: dict(table) for name, table in tree.items()}
    for old, new in RENAMED.items():
        *path, last = old.split(".")
        table = tree
        for part in path:
            table = table.get(part, {})
        if last in table:
            table[new.rpartition(".")[2]] = table.pop(last)
    temporal = tree.get("model", {}).get("temporal", {})
    if temporal.get("site") in RENAMED_VALUES:
        tree["model"]["temporal"] = temporal | {"site": RENAMED_VALUES[temporal["site"]]}
    train = tree.get("train", {})
    if "freeze" in train:
        train["freeze"] = [RENAMED_VALUES.get(part, part) for part in train["freeze"]]
    return tree


def config_to_dict(config: Any) -> dict[str, Any]:
    """Plain dicts, lists, strings and numbers, as stored in a checkpoint."""
    plain = dataclasses.asdict(config)
    return _listed(plain)


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _listed(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_listed(v) for v in value]
    return value


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file of limited size. Raises RnndetError."""
    try:
        if path.exists() and not path.is_file():  # a device may be endless
            raise RnndetError(f"{path}: not a file; expected the path of a TOML file")
        if path.stat().st_size > MAX_BYTES:
            raise RnndetError(f"{path}: larger than 1 MB, not a configuration")
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise RnndetError(f"{path}: no such config file") from None
    except OSError as error:
        raise RnndetError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RnndetError(f"{path}: not valid TOML: {error}") from None


def _overlay(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _overlay(merged[key], value)
        else:
            merged[key] = value
    return merged


def parse_change(change: str, *, flag: str, example: str = "train.lr=0.001") -> tuple[str, Any]:
    """KEY=VALUE, as `flag` takes it: the key, and the value as TOML reads it.

    A value that is not TOML is text, so words need no quotes. Raises RnndetError.
    """
    key, sign, text = change.partition("=")
    if not sign or not key.strip():
        raise RnndetError(f"{flag} {change}: expected KEY=VALUE, for example {example}")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    return key.strip(), value


def _apply(tree: dict[str, Any], change: str) -> None:
    key, value = parse_change(change, flag="`changes`")
    *path, last = key.split(".")
    for part in path:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise RnndetError(f"`changes` {change}: {part} is not a table")
    tree[last] = value


def _check(config: Config) -> None:
    """Raise RnndetError for settings that do not fit together; single values are checked before."""
    clip, augment, train = config.clip, config.augment, config.train
    has_cell = config.model.temporal.cell != "none"
    is_trained = (
        train.detection > 0
        or train.output_distillation > 0
        or (train.distillation > 0 and has_cell)
    )
    rules = [
        (clip.stride_min <= clip.stride_max, "clip.stride_min must be at most clip.stride_max"),
        (augment.zoom_min <= augment.zoom_max, "augment.zoom_min must be at most augment.zoom_max"),
        (augment.paste_zoom_min <= augment.paste_zoom_max,
         "augment.paste_zoom_min must be at most augment.paste_zoom_max"),
        (augment.run_min <= augment.run_max, "augment.run_min must be at most augment.run_max"),
        (config.data.keep_gib == 0 or train.augment_on == "device",
         'data.keep_gib needs train.augment_on = "device"'),
        (is_trained, "train.detection must be above 0, unless train.output_distillation trains the "
         "model or train.distillation a temporal module"),
        (config.model.detector != "init" or train.init, 'model.detector = "init" needs train.init: '
         "set it to the weights of the detector, for example train.init=FILE.pt"),
        (train.teacher != "init" or train.init, 'train.teacher = "init" needs train.init'),
    ]  # fmt: skip
    for holds, message in rules:
        if not holds:
            raise RnndetError(message)
