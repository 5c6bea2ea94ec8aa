"""Run a training from its configuration: read the data, build the model, train, validate."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch

from rnndet.config import Config, ModelConfig, SourceConfig, config_to_dict
from rnndet.data.clips.dataset import ClipDataset
from rnndet.data.clips.sampling import hold_out
from rnndet.data.formats import check_names, read_set
from rnndet.data.frames import iterate
from rnndet.data.records import VideoRecord, VideoSet
from rnndet.errors import OutputError, RnndetError
from rnndet.evaluation.metrics.base import compute
from rnndet.evaluation.metrics.coco_ap import CocoAP
from rnndet.evaluation.predict import SCORE_FLOOR, predict
from rnndet.inference.stream import Stream
from rnndet.models.video_detector import VideoDetector, build_model
from rnndet.system.device import choose_device
from rnndet.system.distributed import World
from rnndet.system.environment import versions
from rnndet.system.files import write_text
from rnndet.training.checkpoints import holds_run, start_from
from rnndet.training.samples import sample_sheet
from rnndet.training.trainer import Trainer

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
    chosen, why = choose_device(device)
    logger.info("device %s (%s)", chosen, why)
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    torch.manual_seed(config.train.seed)
    if world.is_first:
        prepare_folder(folder, config, device=chosen, resume=resume)
    world.wait()
    train_sets, held_out = read_sources(config)
    model, temporal_is_fresh = start_model(config, train_sets[0].classes, resume=resume)
    dataset = build_dataset(config, train_sets, device=chosen)
    cache = cache_folder(config)

    def evaluate(model: VideoDetector) -> dict[str, float]:
        sample_sheet(model, spread(held_out, 4), folder / "samples.jpg", cache=cache)
        return score(model, held_out, config, cache=cache)

    trainer = Trainer(
        config,
        model,
        folder,
        device=chosen,
        evaluate=evaluate if held_out.videos else None,
        calibrate=temporal_is_fresh,
        quiet=quiet,
        world=world,
        exact_timing=exact_timing,
    )
    if resume:
        trainer.resume()
    return trainer, dataset


def prepare_folder(folder: Path, config: Config, *, device: torch.device, resume: bool) -> None:
    """Create the run folder with config.json and versions.json.

    Raises OutputError if it cannot be written, or holds a run that is not to be resumed.
    """
    if holds_run(folder) and not resume:
        raise OutputError(f"{folder}: contains a run; use --resume, or choose another --out")
    write_text(folder / "config.json", json.dumps(config_to_dict(config), indent=2) + "\n")
    write_text(folder / "versions.json", json.dumps(versions(device), indent=2) + "\n")


def read_sources(config: Config) -> tuple[list[VideoSet], VideoSet]:
    """The training sets and the validation set: data.holdout of the first one, and data.val.

    Raises RnndetError, among others for sets with different classes and for two validation videos
    of one name.
    """
    if not config.data.train:
        raise RnndetError("data.train is empty")
    train = {f"data.train.{i}": source for i, source in enumerate(config.data.train)}
    val = {f"data.val.{i}": source for i, source in enumerate(config.data.val)}
    sets = {name: read_source(source, what=name) for name, source in (train | val).items()}
    classes = sets["data.train.0"].classes
    for name, video_set in sets.items():
        if video_set.classes != classes:
            raise RnndetError(
                f"{name} has the classes {', '.join(video_set.classes)}; the first source "
                f"has {', '.join(classes)}"
            )
    train_sets = [sets[name] for name in train]
    train_sets[0], held_out = hold_out(train_sets[0], config.data.holdout)
    validated = {"data.holdout": held_out} | {name: sets[name] for name in val}
    check_unique_names(validated)
    videos = tuple(video for video_set in validated.values() for video in video_set.videos)
    logger.info(
        "%d training videos, %d validation videos",
        sum(len(video_set.videos) for video_set in train_sets),
        len(videos),
    )
    return train_sets, VideoSet(classes, videos)


def read_source(source: SourceConfig, *, what: str) -> VideoSet:
    """Read one source of the configuration, called `what` in messages. Raises RnndetError."""
    check_names(source.options, what=f"{what}.options.")
    return read_set(source.format, source.root, source.split, **source.options)


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
        fresh = start_from(model, config.train.init)
    return model, any(name.startswith("temporal.") for name in fresh)


def model_to_build(config: Config, *, resume: bool) -> ModelConfig:
    """The [model] to build: without backbone weights if a checkpoint provides all weights."""
    options = dict(config.model.options)
    if config.train.init or resume:
        options.pop("backbone_weights", None)
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
        keep_clean=train.distillation > 0,
        device=device if train.augment_on == "device" else "cpu",
        keep_bytes=int(config.data.keep_gib * 2**30),
    )


def cache_folder(config: Config) -> Path | None:
    """The folder of decoded frames, or None."""
    return Path(config.data.cache) if config.data.cache else None


def spread(held_out: VideoSet, limit: int) -> Sequence[VideoRecord]:
    """At most `limit` videos, spread over the set, so that a few still show all classes."""
    return held_out.videos[:: max(1, len(held_out.videos) // limit)][:limit]


def score(
    model: VideoDetector, held_out: VideoSet, config: Config, *, cache: Path | None
) -> dict[str, float]:
    """COCO metrics of a model on the validation videos, streamed as in inference."""
    train = config.train
    chosen = spread(held_out, train.validate_videos or len(held_out.videos))
    limit = train.validate_frames or None
    videos = ((video, islice(iterate(video, cache=cache), limit)) for video in chosen)
    threshold, model.score_threshold = model.score_threshold, SCORE_FLOOR
    predictions = predict(Stream(model, min_score=0.0), videos)
    model.score_threshold = threshold
    return compute(CocoAP(held_out.classes), predictions)
