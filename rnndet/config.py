"""What describes a run: frozen dataclasses, read from TOML, changed by --set, kept in checkpoints.

An unknown key, a wrong type and a value outside its range are errors that name the key.
"""

import dataclasses
import difflib
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rnndet.errors import RnndetError

RENAMED = {  # keys and names of rnndet 0.1 before December 2026; checkpoints of then still load
    "train.lr_trunk": "train.lr_backbone",
    "train.lr_memory": "train.lr_temporal",
    "train.restoration": "train.distillation",
    "train.recompute": "train.activation_checkpoints",
    "train.thaw": "train.unfreeze",
    "model.options.trainable_trunk_from": "model.options.trainable_backbone_from",
}
RENAMED_VALUES = {"trunk": "backbone", "memory": "temporal"}  # of train.freeze, model.temporal.site
MAX_BYTES = 1_000_000  # a configuration is small; anything larger is another kind of file


@dataclass(frozen=True, slots=True)
class TemporalConfig:
    """The memory. Defaults: gated blend whose gate starts open (temporal/head.py)."""

    # none | conv_rnn | conv_lstm | conv_gru | bottleneck_lstm | min_gru | gated_hold | two_frame
    cell: str = "conv_lstm"
    site: str = "neck"  # neck: after the FPN; backbone: before it
    levels: tuple[str, ...] = ("0", "1", "2")  # feature levels that get a memory, finest first
    hidden: int = 32  # channels of the state; 0: as many as the features have
    fusion: str = "blend"  # blend | residual | replace; state for cells that hold features
    gate_bias: float = 2.0  # blend: 2 starts the gate at 0.88 in favour of the memory
    memory_scale: float = 8.0  # amplitude of the memory; training calibrates it per level
    options: dict[str, Any] = field(default_factory=dict)  # of the cell


@dataclass(frozen=True, slots=True)
class ModelConfig:
    detector: str = "fcos"  # ssdlite | fcos | retinanet | faster_rcnn
    options: dict[str, Any] = field(default_factory=dict)  # of the detector's constructor
    temporal: TemporalConfig = field(default_factory=TemporalConfig)


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One set of labelled videos."""

    format: str = "coco_vid"
    root: str = "data"
    split: str = "train"
    weight: float = 1.0  # share of the training clips, relative to the other sources
    options: dict[str, Any] = field(default_factory=dict)  # of the format's reader


@dataclass(frozen=True, slots=True)
class DataConfig:
    train: tuple[SourceConfig, ...] = (SourceConfig(),)
    val: tuple[SourceConfig, ...] = ()  # validated on, never trained on
    holdout: tuple[str, ...] = ()  # scene groups of the first train set, kept out: to val as well
    keep_gib: float = 0.0  # of decoded frames kept on the device; needs train.augment_on = "device"
    cache: str = ""  # folder of decoded frames (tools/cache_frames.py); "" decodes videos each time


@dataclass(frozen=True, slots=True)
class ClipConfig:
    """Which frames make a training clip."""

    length: int = 8  # frames of one window: what is back-propagated through
    windows: int = 1  # windows of one clip; the state is carried from one to the next, detached
    streamed: float = 1.0  # share of the rows whose clips have all windows; the others have one
    stride_min: int = 1  # a clip takes every n-th frame, n drawn from here ...
    stride_max: int = 3  # ... to here: slow and fast motion from the same videos
    classes: str = "even"  # even: rare classes as often as common ones; natural: as they come
    labelled: float = 1.0  # share of the frames whose loss is computed; memory sees all of them


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """One random draw per clip: all its frames are changed alike, except by corruption."""

    crop: tuple[int, int] = (256, 256)  # height, width of the training image, network pixels
    zoom_min: float = 0.6  # scale relative to the one that inference uses, log-uniform
    zoom_max: float = 1.5
    on_object: float = 0.85  # share of crops placed so that a random object is inside
    mosaic: float = 0.0  # share of clips made of four clips side by side
    flip: float = 0.5
    reverse: float = 0.5  # time reversal
    colour: float = 0.8  # share of clips with changed brightness, contrast, saturation, hue
    corrupt: float = 0.5  # share of clips with corrupted runs of frames (data/corruption)
    corrupt_share: float = 0.4  # share of corrupted frames in such a clip
    run_min: int = 2  # frames of a corrupted run
    run_max: int = 8
    kinds: tuple[str, ...] = (  # what a run may be
        "motion_blur", "defocus", "noise", "dark", "drop", "freeze", "occluder",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrainConfig:
    steps: int = 10_000  # optimiser steps: windows
    batch: int = 8  # rows of a step, over all processes
    accumulate: int = 1  # pieces in which each process takes its rows, to save memory
    activation_checkpoints: int = 0  # > 0: recompute activations; backbone and neck in N chunks
    lr: float = 1e-3  # neck and head of the detector
    lr_backbone: float = 3e-4
    lr_temporal: float = 3e-3
    detection: float = 1.0  # weight of the detector's own losses
    distillation: float = 0.0  # of corrupted frames' features being those of the clean frames
    stability: float = 0.0  # of an object's features being alike in consecutive frames
    weight_decay: float = 1e-4
    warmup: int = 200  # steps of linear warm-up
    schedule: str = "cosine"  # then: cosine, down to 2 % of the rate; step, a tenth at each of ...
    milestones: tuple[int, ...] = ()  # ... these steps; constant
    clip_norm: float = 3.0  # largest gradient norm
    ema: float = 0.999  # decay of the averaged weights, which are the ones that are kept
    freeze: tuple[str, ...] = ()  # of: backbone, neck, head, temporal
    unfreeze: int = 0  # step at which the frozen parts begin to train; 0: never
    amp: str = "bfloat16"  # autocast on CUDA: bfloat16, float16 (with a loss scale) or off
    init: str = ""  # checkpoint whose weights are taken where names and shapes agree
    seed: int = 0
    augment_on: str = "cpu"  # cpu: by loader processes; device: where it trains, by threads
    workers: int = 0  # loader processes, or threads where augment_on = "device"
    ahead: int = 2  # augment_on = "device": steps whose clips are made before they are needed
    loader_timeout: int = 300  # seconds that a batch may take before the run ends with an error
    threads: int = 0  # of torch on the CPU; 0 leaves it alone
    log_every: int = 20  # steps
    tensorboard: bool = False  # also write events for TensorBoard into the run folder
    save_every: int = 200
    validate_every: int = 0  # 0: at the end only
    validate_videos: int = 0  # 0: all of the held-out ones
    validate_frames: int = 0  # of each video, from its beginning; 0: all


@dataclass(frozen=True, slots=True)
class Config:
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


def load_config(path: str | Path, *, changes: typing.Sequence[str] = ()) -> Config:
    """Read a TOML file and apply changes of the form `train.lr=0.001`.

    A top-level `base = "other.toml"`, beside the file, is read first and overlaid (one level).
    Raises RnndetError that names the file and the key.
    """
    path = Path(path)
    tree = _read_toml(path)
    base = tree.pop("base", None)
    if base is not None:
        if not isinstance(base, str) or "\0" in base:
            raise RnndetError(f"{path}: base must be the name of a file, found {base!r}")
        under = _read_toml(path.parent / base)
        if "base" in under:
            raise RnndetError(f"{path}: base = {base!r} has a base itself; one level is allowed")
        tree = _overlay(under, tree)
    for change in changes:
        _apply(tree, change)
    return config_from_dict(tree, where=str(path))


def config_from_dict(tree: dict[str, Any], *, where: str) -> Config:
    """Build a Config from plain data, as stored in a checkpoint; `where` begins the messages."""
    config = _build(Config, tree, where=where, key="")
    _check(config, where=where)
    return config


def upgrade_config(tree: dict[str, Any]) -> dict[str, Any]:
    """The plain data of a checkpoint of format 1 with the names of today; see `RENAMED`."""
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
    """Plain dicts, lists, strings and numbers: what a checkpoint stores."""
    plain = dataclasses.asdict(config)
    return _listed(plain)


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _listed(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_listed(v) for v in value]
    return value


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():  # a device may be endless
            raise RnndetError(f"{path}: not a file; give the path of a TOML file")
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


def parse_change(change: str, *, flag: str) -> tuple[str, Any]:
    """KEY=VALUE, as `flag` takes it on the command line: the key, and the value as TOML reads it.

    What is not TOML is text: a bare word needs no quotes. Raises RnndetError.
    """
    key, sign, text = change.partition("=")
    if not sign or not key.strip():
        raise RnndetError(f"{flag} {change}: expected KEY=VALUE, for example train.lr=0.001")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    return key.strip(), value


def _apply(tree: dict[str, Any], change: str) -> None:
    key, value = parse_change(change, flag="--set")
    *path, last = key.split(".")
    for part in path:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise RnndetError(f"--set {change}: {part} is not a table")
    tree[last] = value


def _build(cls: type, tree: Any, *, where: str, key: str) -> Any:
    if not isinstance(tree, dict):
        raise RnndetError(f"{where}: {key} must be a table, found {tree!r}")
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    values = {}
    for name, value in tree.items():
        path = f"{key}.{name}" if key else name
        if path in RENAMED:
            raise RnndetError(f"{where}: {path} is now called {RENAMED[path]}; rename it")
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise RnndetError(f"{where}: {path} is unknown; {hint}keys here: {', '.join(names)}")
        values[name] = _convert(hints[name], value, where=where, key=path)
    return cls(**values)


def _convert(kind: Any, value: Any, *, where: str, key: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, where=where, key=key)
    origin = typing.get_origin(kind)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise RnndetError(f"{where}: {key} must be a list, found {value!r}")
        kinds = typing.get_args(kind)
        if kinds[-1] is Ellipsis:
            kinds = (kinds[0],) * len(value)
        if len(kinds) != len(value):
            raise RnndetError(f"{where}: {key} must have {len(kinds)} values, found {value!r}")
        pairs = enumerate(zip(kinds, value, strict=True))
        return tuple(_convert(k, v, where=where, key=f"{key}.{i}") for i, (k, v) in pairs)
    if origin is dict:
        if not isinstance(value, dict):
            raise RnndetError(f"{where}: {key} must be a table, found {value!r}")
        return dict(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        wanted = kind.__name__ if not isinstance(kind, types.UnionType) else str(kind)
        raise RnndetError(f"{where}: {key} must be {wanted}, found {value!r}")
    return value


def _check(config: Config, *, where: str) -> None:
    clip, augment, train = config.clip, config.augment, config.train
    rules = [
        (clip.length >= 1, "clip.length", "at least 1"),
        (clip.windows >= 1, "clip.windows", "at least 1"),
        (1 <= clip.stride_min <= clip.stride_max, "clip.stride_min", "1 .. clip.stride_max"),
        (clip.classes in ("even", "natural"), "clip.classes", "even or natural"),
        (0 <= clip.streamed <= 1, "clip.streamed", "in [0, 1]"),
        (0 < clip.labelled <= 1, "clip.labelled", "in (0, 1]"),
        (min(augment.crop) >= 32, "augment.crop", "at least 32 x 32"),
        (0 < augment.zoom_min <= augment.zoom_max, "augment.zoom_min", "0 .. augment.zoom_max"),
        (1 <= augment.run_min <= augment.run_max, "augment.run_min", "1 .. augment.run_max"),
        (0 <= augment.corrupt_share < 1, "augment.corrupt_share", "in [0, 1)"),
        (train.steps >= 1, "train.steps", "at least 1"),
        (train.batch >= 1, "train.batch", "at least 1"),
        (train.log_every >= 1, "train.log_every", "at least 1"),
        (train.accumulate >= 1, "train.accumulate", "at least 1"),
        (train.activation_checkpoints >= 0, "train.activation_checkpoints", "not negative"),
        (train.schedule in ("cosine", "step", "constant"), "train.schedule",
         "cosine, step or constant"),
        (train.amp in ("bfloat16", "float16", "off"), "train.amp", "bfloat16, float16 or off"),
        (train.augment_on in ("cpu", "device"), "train.augment_on", "cpu or device"),
        (train.ahead >= 0, "train.ahead", "not negative"),
        (config.data.keep_gib == 0 or (config.data.keep_gib > 0 and train.augment_on == "device"),
         "data.keep_gib", "0, or above 0 with train.augment_on = \"device\""),
        (train.unfreeze >= 0, "train.unfreeze", "not negative"),
        (train.loader_timeout >= 1, "train.loader_timeout", "at least 1"),
        (min(train.lr, train.lr_backbone, train.lr_temporal) >= 0, "train.lr", "not negative"),
        (train.detection >= 0, "train.detection", "not negative"),
        (train.distillation >= 0, "train.distillation", "not negative"),
        (train.stability >= 0, "train.stability", "not negative"),
        (train.detection > 0 or (train.distillation > 0 and config.model.temporal.cell != "none"),
         "train.detection", "above 0, unless a memory is trained by train.distillation"),
        (0 <= train.ema < 1, "train.ema", "in [0, 1)"),
        (train.clip_norm > 0, "train.clip_norm", "greater than 0"),
        (set(train.freeze) <= {"backbone", "neck", "head", "temporal"}, "train.freeze",
         "a list of backbone, neck, head, temporal"),
        (config.model.temporal.site in ("neck", "backbone"), "model.temporal.site",
         "neck or backbone"),
    ]  # fmt: skip
    for share in ("on_object", "mosaic", "flip", "reverse", "colour", "corrupt"):
        rules.append((0 <= getattr(augment, share) <= 1, f"augment.{share}", "in [0, 1]"))
    for good, key, wanted in rules:
        if not good:
            value: Any = config
            for part in key.split("."):
                value = getattr(value, part)
            raise RnndetError(f"{where}: {key} = {value!r} must be {wanted}")
