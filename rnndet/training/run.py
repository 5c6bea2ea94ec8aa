"""From a configuration to a finished run: read the data, build the model, train, validate."""

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
from rnndet.models.checkpoint import previous_of
from rnndet.models.video_detector import VideoDetector, build_model
from rnndet.models.zoo import find_weights
from rnndet.system.device import choose_device
from rnndet.system.distributed import World
from rnndet.training.loop import Run
from rnndet.training.restart import start_from
from rnndet.training.samples import sample_sheet
from rnndet.training.surroundings import surroundings

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
    """Train what the configuration describes into a run folder.

    world: the processes that torchrun started; alone without it. Raises RnndetError: bad
    configuration or data, a run folder that holds a run already (without `resume`), or one that
    does not (with it).
    """
    run, dataset = build_run(
        config, folder, device=device, resume=resume, quiet=quiet, world=world or World()
    )
    run.train(dataset)


def build_run(
    config: Config,
    folder: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    quiet: bool = False,
    world: World | None = None,
    exact: bool = False,
) -> tuple[Run, ClipDataset]:
    """Everything of `run_training` up to the first step; exact: see `StepClock`."""
    chosen, why = choose_device(device)
    logger.info("device %s (%s)", chosen, why)
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    torch.manual_seed(config.train.seed)
    world = world or World()
    if world.is_first:
        prepare_folder(folder, config, device=chosen, resume=resume)
    world.wait()
    sets, held = read_sources(config)
    model = build_model(model_to_build(config, resume=resume), sets[0].classes)
    size_hw = tuple(config.model.options.get("size", (0, 0)))
    if min(size_hw) <= 0:
        raise RnndetError("model.options.size = [height, width] is needed for training")
    fresh = list(model.state_dict())
    if config.train.init and not resume:
        fresh = start_from(model, find_weights(config.train.init)[0])
    cache = Path(config.data.cache) if config.data.cache else None
    dataset = ClipDataset(
        [(s, c.weight, cache) for s, c in zip(sets, config.data.train, strict=True)],
        size_hw=size_hw,
        clip=config.clip,
        augment=config.augment,
        rows=config.train.batch,
        steps=config.train.steps,
        seed=config.train.seed,
        keep_clean=config.train.distillation > 0,
        device=chosen if config.train.augment_on == "device" else "cpu",
        keep_bytes=int(config.data.keep_gib * 2**30),
    )

    def validate(model: VideoDetector) -> dict[str, float]:
        sample_sheet(model, spread(held, 4), folder / "samples.jpg", cache=cache)
        return score(model, held, config, cache=cache)

    wanted = validate if held.videos else None
    run = Run(
        config,
        model,
        folder,
        device=chosen,
        validate=wanted,
        temporal_is_fresh=any(name.startswith("temporal.") for name in fresh),
        quiet=quiet,
        world=world,
        exact=exact,
    )
    if resume:
        run.resume()
    return run, dataset


def model_to_build(config: Config, *, resume: bool) -> ModelConfig:
    """The [model] to build: without backbone weights where a checkpoint fills in all of them."""
    options = dict(config.model.options)
    if config.train.init or resume:
        options.pop("backbone_weights", None)
    return dataclasses.replace(config.model, options=options)


def holds_run(folder: Path) -> bool:
    """True if there is something in the folder to go on from."""
    last = folder / "last.pt"
    return last.exists() or previous_of(last).exists()


def prepare_folder(folder: Path, config: Config, *, device: torch.device, resume: bool) -> None:
    """Make the run folder; write the resolved configuration and the versions into it."""
    if holds_run(folder) and not resume:
        raise OutputError(f"{folder}: holds a run; --resume goes on, or choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(config_to_dict(config), indent=2)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")
        text = json.dumps(surroundings(device), indent=2)
        (folder / "versions.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from None


def read_sources(config: Config) -> tuple[list[VideoSet], VideoSet]:
    """The training sets, and what is validated on: what is held out of the first, and data.val."""
    named = [(f"data.train.{i}", source) for i, source in enumerate(config.data.train)]
    if not named:
        raise RnndetError("data.train is empty")
    named += [(f"data.val.{i}", source) for i, source in enumerate(config.data.val)]
    sets = [read_source(source, what=name) for name, source in named]
    for (name, _), other in zip(named, sets, strict=True):
        if other.classes != sets[0].classes:
            raise RnndetError(
                f"{name} has the classes {', '.join(other.classes)}; the first source "
                f"has {', '.join(sets[0].classes)}"
            )
    train, val = sets[: len(config.data.train)], sets[len(config.data.train) :]
    train[0], held = hold_out(train[0], config.data.holdout)
    held = VideoSet(held.classes, held.videos + tuple(v for each in val for v in each.videos))
    logger.info(
        "%d training videos, %d validated on", sum(len(s.videos) for s in train), len(held.videos)
    )
    return train, held


def read_source(source: SourceConfig, *, what: str) -> VideoSet:
    """Read one entry of the configuration, which messages call `what`. Raises RnndetError."""
    check_names(source.options, what=f"{what}.options.")
    return read_set(source.format, source.root, source.split, **source.options)


def spread(held: VideoSet, limit: int) -> Sequence[VideoRecord]:
    """`limit` videos spread over the set, so that a few still show all classes."""
    return held.videos[:: max(1, len(held.videos) // limit)][:limit]


def score(
    model: VideoDetector, held: VideoSet, config: Config, *, cache: Path | None
) -> dict[str, float]:
    """COCO figures of a model on the held-out videos, streamed as inference does."""
    train = config.train
    chosen = spread(held, train.validate_videos or len(held.videos))
    before, model.score_threshold = model.score_threshold, SCORE_FLOOR
    frames = train.validate_frames or None
    shown = ((video, islice(iterate(video, cache=cache), frames)) for video in chosen)
    predictions = predict(Stream(model, min_score=0.0), shown)
    model.score_threshold = before
    return compute(CocoAP(held.classes), predictions)
