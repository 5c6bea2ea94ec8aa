"""Run a training from its configuration: read the data, build the model, train."""

import dataclasses
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from rnndet.config import (
    Config,
    ModelConfig,
    SourceConfig,
    config_from_dict,
    config_to_dict,
    where_looked,
)
from rnndet.data.clips.dataset import ClipDataset
from rnndet.data.clips.sampling import hold_out
from rnndet.data.formats import check_names, read_set
from rnndet.data.records import VideoSet
from rnndet.errors import InputError, OutputError, RnndetError, WeightsError
from rnndet.messages import counted
from rnndet.models.checkpoint import load_model, model_from_checkpoint, read_weights
from rnndet.models.video_detector import VideoDetector, build_model
from rnndet.models.zoo import TORCHVISION, find_weights
from rnndet.system.device import choose_device
from rnndet.system.distributed import World
from rnndet.system.environment import versions
from rnndet.system.files import write_text
from rnndet.training.checkpoints import LAST, holds_run, start_from
from rnndet.training.teacher import CleanTeacher
from rnndet.training.trainer import Trainer
from rnndet.training.validation import cache_folder, validation

logger = logging.getLogger(__name__)


def run_training(
    config: Config,
    folder: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    quiet: bool = False,
    world: World | None = None,
) -> None:
    """Train a configuration and write the run folder.

    world: the processes that torchrun started; None for this process alone. Raises RnndetError:
    bad configuration or data, a folder that holds a run already (without `resume`), or none (with
    it).

    >>> from rnndet.config import load_config
    >>> from rnndet.system.shipped import find_recipe
    >>> config = load_config(find_recipe("aerial"), changes=["train.steps=100"])
    >>> run_training(config, Path("runs/aerial"))  # doctest: +SKIP
    """
    trainer, dataset = build_run(
        config, folder, device=device, resume=resume, quiet=quiet, world=world
    )
    trainer.train(dataset)


def build_run(
    config: Config,
    folder: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    quiet: bool = False,
    world: World | None = None,
    exact_timing: bool = False,
) -> tuple[Trainer, ClipDataset]:
    """Everything of `run_training` before the first step; exact_timing: see `Trainer`."""
    world = world or World()
    config = with_detector_of_init(config)
    chosen, why = choose_device(device)
    logger.info("device %s (%s)", chosen, why)
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    torch.manual_seed(config.train.seed)
    if world.is_first:
        check_folder(folder, resume=resume)
        if not resume:
            write_settings(folder, config, device=chosen)
    world.wait()
    train_sets, held_out = read_sources(config)
    model, temporal_is_fresh = start_model(config, train_sets[0].classes, resume=resume)
    dataset = build_dataset(config, train_sets, device=chosen)
    trainer = Trainer(
        config,
        model,
        folder,
        device=chosen,
        evaluate=validation(config, held_out, folder, device=chosen),
        teacher=build_teacher(config, model.classes, device=chosen),
        calibrate=temporal_is_fresh,
        quiet=quiet,
        world=world,
        exact_timing=exact_timing,
    )
    if resume:
        trainer.resume()
        if world.is_first:  # of a run that is refused, they stay as they are
            write_settings(folder, config, device=chosen)
    return trainer, dataset


def with_detector_of_init(config: Config) -> Config:
    """The configuration with `model.detector = "init"` replaced by the detector of `train.init`.

    The options are those of its checkpoint where [model.options] does not set them; without levels,
    the temporal module gets all levels of its site. Any other configuration is returned unchanged.
    Raises WeightsError if `train.init` cannot be read.
    """
    if config.model.detector != "init":
        return config
    name, temporal = check_found(config.train.init, what="train.init"), config.model.temporal
    content = read_weights(name)
    start = model_from_checkpoint(content, where=name)  # also checks the content
    tree = {"model": content["config"]["model"]}
    found = config_from_dict(tree, where=name).model
    options = found.options | {"resize_in_training": False} | config.model.options
    for key in ("weights", "backbone_weights"):  # the checkpoint holds all weights
        options.pop(key, None)
    at_neck = temporal.site == "neck"
    levels = start.detector.neck_channels if at_neck else start.detector.backbone_channels
    temporal = dataclasses.replace(temporal, levels=temporal.levels or tuple(levels))
    logger.info(
        "detector %s of %s; %s after the %s, levels %s",
        found.detector, name, temporal.cell, temporal.site, ", ".join(temporal.levels),
    )  # fmt: skip
    return dataclasses.replace(config, model=ModelConfig(found.detector, options, temporal))


def check_folder(folder: Path, *, resume: bool) -> None:
    """Raise OutputError if a folder holds a run that is not to be resumed, WeightsError if none."""
    if holds_run(folder) and not resume:
        raise OutputError(f"{folder}: contains a run; use `resume=True`, or choose another folder")
    if resume and not holds_run(folder):
        raise WeightsError(f"{folder / LAST}: no such file; there is no run to resume")


def write_settings(folder: Path, config: Config, *, device: torch.device) -> None:
    """Write config.json and versions.json of a run folder. Raises OutputError."""
    write_text(folder / "config.json", json.dumps(config_to_dict(config), indent=2) + "\n")
    write_text(folder / "versions.json", json.dumps(versions(device), indent=2) + "\n")


def read_sources(config: Config) -> tuple[list[VideoSet], VideoSet]:
    """The training sets and the validation set: data.holdout of the first one, and data.val.

    All of them get the same classes, see `common_classes`. Raises RnndetError, among others for
    sets with different classes, for two validation videos of one name, and for train.detection
    above 0 without a label.
    """
    if not config.data.train:
        raise RnndetError("data.train is empty")
    train = {f"data.train.{i}": source for i, source in enumerate(config.data.train)}
    val = {f"data.val.{i}": source for i, source in enumerate(config.data.val)}
    sets = {name: read_source(source, what=name) for name, source in (train | val).items()}
    classes = common_classes(sets, init=config.train.init)
    sets = {name: dataclasses.replace(found, classes=classes) for name, found in sets.items()}
    train_sets = [sets[name] for name in train]
    train_sets[0], held_out = hold_out(train_sets[0], config.data.holdout)
    if config.train.detection > 0 and not any(found.is_labelled for found in train_sets):
        raise RnndetError(
            "no training source has labels, which train.detection > 0 needs; set "
            "train.detection=0 and train.distillation=1 to train the temporal module without labels"
        )
    validated = {"data.holdout": held_out} | {name: sets[name] for name in val}
    check_unique_names(validated)
    if len({found.is_labelled for found in validated.values() if found.videos}) > 1:
        raise RnndetError("validation has sources with and without labels; leave one kind out")
    videos = tuple(video for video_set in validated.values() for video in video_set.videos)
    logger.info(
        "%s, %s",
        counted(sum(len(video_set.videos) for video_set in train_sets), "training video"),
        counted(len(videos), "validation video"),
    )
    return train_sets, VideoSet(classes, videos)


def common_classes(sets: Mapping[str, VideoSet], *, init: str) -> tuple[str, ...]:
    """The classes of the sets that have classes, which must agree; without any, of the weights.

    sets: by the names of their sources. Raises RnndetError.
    """
    named = {name: found.classes for name, found in sets.items() if found.classes}
    if not named:
        if not init:
            raise RnndetError(
                "no source has classes; set train.init to weights, whose classes are used then"
            )
        return tuple(read_weights(init)["classes"])
    first, classes = next(iter(named.items()))
    for name, others in named.items():
        if others != classes:
            raise RnndetError(
                f"{name} has the classes {', '.join(others)}; {first} has {', '.join(classes)}"
            )
    return classes


def read_source(source: SourceConfig, *, what: str) -> VideoSet:
    """Read one source of the configuration, called `what` in messages. Raises RnndetError."""
    check_names(source.options, what=f"{what}.options.")
    try:
        return read_set(source.format, source.root, source.split, **source.options)
    except InputError as error:
        if os.path.exists(source.root):
            raise
        raise type(error)(f"{error}{where_looked(source.root)}") from None


def check_found(name: str, *, what: str) -> str:
    """Return a name or path of weights; raises WeightsError, with where it looked, if missing."""
    try:
        if not name.startswith(TORCHVISION):  # found by a download, which has errors of its own
            find_weights(name)
    except WeightsError as error:
        raise WeightsError(f"{what}: {error}{where_looked(name)}") from None
    return name


def check_unique_names(sets: dict[str, VideoSet]) -> None:
    """Raise RnndetError if two videos have the same name: evaluation identifies videos by name."""
    origin: dict[str, str] = {}
    for name, video_set in sets.items():
        for video in video_set.videos:
            if video.name in origin:
                raise RnndetError(
                    f"validation video {video.name!r} is in {origin[video.name]} and in {name}; "
                    "names must be unique: remove or rename one"
                )
            origin[video.name] = name


def start_model(
    config: Config, classes: tuple[str, ...], *, resume: bool
) -> tuple[VideoDetector, bool]:
    """The model to train, and whether its temporal module has fresh weights.

    The weights come from `train.init`, except in a resumed run.
    """
    model = build_model(model_to_build(config, resume=resume), classes)
    fresh = list(model.state_dict())
    if config.train.init and not resume:
        fresh = start_from(model, check_found(config.train.init, what="train.init"))
    return model, any(name.startswith("temporal.") for name in fresh)


def build_teacher(
    config: Config, classes: Sequence[str], *, device: torch.device
) -> CleanTeacher | None:
    """The model of `train.teacher`, or None if the model in training is its own teacher.

    classes: of the model in training. Raises RnndetError for a teacher of other classes with
    `train.output_distillation`, and WeightsError.
    """
    setting = "init" if config.train.teacher == "init" else "teacher"
    name = getattr(config.train, setting)
    if not name:
        return None
    check_found(name, what=f"train.{setting}")
    resizes = config.model.options.get("resize_in_training", True)
    model = load_model(name, device=device)
    compared = classes if config.train.output_distillation > 0 else None
    return CleanTeacher(model, site=config.model.temporal.site, resizes=resizes, classes=compared)


def model_to_build(config: Config, *, resume: bool) -> ModelConfig:
    """The [model] to build: without weights that a checkpoint replaces in any case."""
    options = dict(config.model.options)
    if config.train.init or resume:
        options.pop("backbone_weights", None)
    if resume:
        options.pop("weights", None)
    return dataclasses.replace(config.model, options=options)


def build_dataset(
    config: Config, train_sets: Sequence[VideoSet], *, device: torch.device
) -> ClipDataset:
    """The clips of a training. Raises RnndetError without model.options.size."""
    size_hw = tuple(config.model.options.get("size", (0, 0)))
    if min(size_hw) <= 0:
        raise RnndetError("model.options.size = [height, width] is needed for training")
    train, cache = config.train, cache_folder(config)
    sources = zip(train_sets, config.data.train, strict=True)
    return ClipDataset(
        [(video_set, source.weight, cache) for video_set, source in sources],
        size_hw=size_hw,
        clip=config.clip,
        augment=config.augment,
        rows=train.batch,
        steps=train.steps,
        seed=train.seed,
        keep_clean=train.distillation > 0 or train.output_distillation > 0,
        device=device if train.augment_on == "device" else "cpu",
        keep_bytes=int(config.data.keep_gib * 2**30),
    )
