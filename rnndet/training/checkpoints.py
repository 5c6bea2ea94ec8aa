"""Save and resume a training run: last.pt, weights.pt and best.pt of a run folder."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnndet.config import Config, TrainConfig, config_from_dict, config_to_dict
from rnndet.errors import WeightsError
from rnndet.messages import counted, differences, first_of, listed
from rnndet.models.checkpoint import (
    NewerFormatError,
    model_from_checkpoint,
    previous_of,
    read_checkpoint,
    read_weights,
    save_checkpoint,
)
from rnndet.models.detectors.batch_norms import convert_norms
from rnndet.models.detectors.class_rows import (
    class_layers,
    pairs_by_name,
    warn_of_almost_equal_names,
)
from rnndet.models.video_detector import VideoDetector
from rnndet.models.zoo import find_weights
from rnndet.training.optim import rate_factor

logger = logging.getLogger(__name__)

LAST = "last.pt"  # everything needed to resume; the previous checkpoint is last.prev.pt
WEIGHTS = "weights.pt"  # the averaged weights of the last save
BEST = "best.pt"  # the averaged weights with the best validation
# What last.pt holds besides the model, and of which kind.
RUN_KEYS: dict[str, type | tuple[type, ...]] = {
    "config": dict, "classes": list, "step": int, "optimizer": dict, "scaler": dict,
    "average": dict, "average_steps": int, "best": (int, float), "random": list, "state": dict,
}  # fmt: skip
NOT_IN_CLIPS = ("val", "keep_gib", "cache")  # settings of [data] that change no training clip
SCHEDULE = ("steps", "warmup", "schedule", "milestones")  # settings of the learning rates


def save_run(folder: Path, *, run: dict[str, Any], weights: dict[str, Any]) -> None:
    """Write last.pt and weights.pt, each atomically. Raises OutputError.

    run: `Trainer.state_dict`; weights: the averaged weights as a checkpoint.
    """
    save_checkpoint(folder / LAST, run, keep_previous=True)
    save_checkpoint(folder / WEIGHTS, weights)


def save_best(folder: Path, weights: dict[str, Any]) -> None:
    """Write best.pt atomically. Raises OutputError."""
    save_checkpoint(folder / BEST, weights)


def holds_run(folder: Path) -> bool:
    """Whether the folder has a checkpoint to resume from."""
    last = folder / LAST
    return last.exists() or previous_of(last).exists()


def load_run(folder: Path, config: Config, classes: Sequence[str]) -> dict[str, Any]:
    """Load the `run` of `save_run` from last.pt, or from last.prev.pt if that is damaged.

    `best` is raised to the figure of best.pt: a step is saved before it is validated. Settings that
    change the clips cause a warning, and the recurrent state is left out; settings that change the
    schedule of the learning rate cause a warning. Raises WeightsError if there is no checkpoint to
    read, it or best.pt is of a newer version, it holds no run, or [model] or the classes are not
    those of `config` and `classes`.
    """
    path = folder / LAST
    run = _read_last(path)
    if lacks := [key for key in RUN_KEYS if key not in run]:
        raise WeightsError(
            f"{path}: weights without the state of a run ({lacks[0]} is missing); start a new run "
            f"with train.init={path}"
        )
    if damaged := _damaged_parts(run):
        raise WeightsError(
            f"{path}: the state of its run is damaged ({damaged[0]}); start a new run with "
            f"train.init={path}"
        )
    saved, current = _complete(run["config"], where=str(path)), config_to_dict(config)
    if changed := differences(saved["model"], current["model"], "model"):
        raise WeightsError(f"{path}: not resumed with another model: {first_of(changed)}")
    if (change := class_difference(run["classes"], classes)) is not None:
        raise WeightsError(f"{path}: not resumed with other classes: {change}")
    if changed := _changes_of_clips(saved, current):
        logger.warning(
            "settings of the clips have changed: %s; the clips will differ, and all rows start "
            "with an empty state",
            first_of(changed),
        )
        run["state"] = {}
    _report_schedule(saved["train"], config.train, step=run["step"])
    if run["step"] >= config.train.steps:
        done = f"{counted(run['step'], 'step')} {'is' if run['step'] == 1 else 'are'} done"
        logger.warning("%s and train.steps = %d: none is left to train", done, config.train.steps)
    return run | {"best": max(run["best"], _best_figure(folder / BEST))}


def _damaged_parts(run: Mapping[str, Any]) -> list[str]:
    """The keys of a run whose values are of another kind than `save_run` writes."""
    damaged = [key for key, kind in RUN_KEYS.items() if not isinstance(run[key], kind)]
    if damaged:
        return damaged
    if not all(isinstance(t, Tensor) and t.dtype == torch.uint8 for t in run["random"]):
        damaged.append("random")
    levels = list(run["state"].values())
    are_lists = all(isinstance(tensors, list | tuple) for tensors in levels)
    if not are_lists or not all(isinstance(t, Tensor) and t.dim() for ts in levels for t in ts):
        damaged.append("state")
    return damaged


def class_difference(saved: Sequence[str], current: Sequence[str]) -> str | None:
    """The first difference of two lists of classes in words; None if they are equal.

    >>> class_difference(["car", "bus"], ["bus", "car"])
    'class 1 was car, is bus'
    """
    for number, (old, new) in enumerate(zip_longest(saved, current), 1):
        if old != new:
            return f"class {number} was {old or 'none'}, is {new or 'none'}"
    return None


def _complete(config: dict[str, Any], *, where: str) -> dict[str, Any]:
    """A saved configuration with the defaults of settings that its version did not have.

    Settings that this version does not have remain in the sections that no model depends on.
    """
    sections = config_to_dict(Config()).keys()
    is_complete = {"model", "train"} <= config.keys()
    if not is_complete or not all(isinstance(config[s], dict) for s in sections & config.keys()):
        raise WeightsError(f"{where}: its configuration is missing or of another kind")
    complete = config_to_dict(Config()) | config
    model = config_from_dict({"model": config["model"]}, where=where)
    complete["model"] = config_to_dict(model)["model"]
    for section, defaults in config_to_dict(Config()).items():
        if section != "model":
            complete[section] = defaults | complete[section]
    return complete


def _changes_of_clips(saved: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """The differences of two configurations that change the training clips, in words."""
    found = []
    for section in ("data", "clip", "augment"):
        ignored = NOT_IN_CLIPS if section == "data" else ()
        trees = [
            {key: v for key, v in tree[section].items() if key not in ignored}
            for tree in (saved, current)
        ]
        found += differences(*trees, section)
    seeds = [{"seed": tree["train"]["seed"]} for tree in (saved, current)]
    return found + differences(*seeds, "train")


def start_from(model: VideoDetector, weights: str | Path) -> list[str]:
    """Load the weights of a checkpoint, by its name or path, where names and shapes agree.

    Batch norms are folded or not as in the model. If the checkpoint's list of classes is not that
    of the model, the class layers are matched by the classes' names: classes that the checkpoint
    lacks keep their initial values, as the log says. Track classes are taken over if the classes
    are the same. Returns the names of the tensors that are newly initialised. Raises WeightsError
    if the file is no complete checkpoint, or none of its weights fits.
    """
    content = read_weights(weights)
    where = str(find_weights(weights)[0])
    start = model_from_checkpoint(content, where=where)
    own = model.state_dict()
    tensors, converted = convert_norms(model, start)
    if converted:
        logger.info("%s: %s folded or unfolded", where, counted(converted, "batch norm"))
    fitting = {n: t for n, t in tensors.items() if n in own and own[n].shape == t.shape}
    if start.classes != model.classes:
        layers = _class_layers(model, start, where)
        fitting = {n: t for n, t in (fitting | layers).items() if t is not None}
    if not fitting:
        raise WeightsError(f"{where}: train.init: none of its weights fits this model")
    model.load_state_dict(fitting, strict=False)
    _take_track_classes(model, start, where)
    fresh = sorted(own.keys() - fitting.keys())
    logger.info(
        "%s: %s loaded, %d newly initialised", where, counted(len(fitting), "tensor"), len(fresh)
    )
    return fresh


def _take_track_classes(model: VideoDetector, start: VideoDetector, where: str) -> None:
    if start.track_classes is None:
        return
    if start.classes == model.classes:
        model.track_classes = start.track_classes
        logger.info("%s: its track classes are taken over", where)
    else:
        logger.warning(
            "%s: its track classes are for other classes and left out; fit them again: "
            "rnndet fit_track_classes",
            where,
        )


def _class_layers(
    model: VideoDetector, start: VideoDetector, where: str
) -> dict[str, Tensor | None]:
    """The tensors of the model's class layers with the rows of `start`, matched by class name.

    None for a layer that `start` has not, or has in another form. Logs the classes.
    """
    pairs = pairs_by_name(model.classes, start.classes)
    layers = class_layers(model.detector, start.detector, pairs)
    filled = sum(tensor is not None for tensor in layers.values())
    places = [place for place, _ in pairs] if filled else []
    part = f", in {filled} of {len(layers)} class tensors" if 0 < filled < len(layers) else ""
    untrained = [name for place, name in enumerate(model.classes) if place not in places]
    logger.info(
        "%s: has other classes; taken by name%s: %s; untrained: %s",
        where,
        part,
        listed([model.classes[place] for place in places], "class", "classes"),
        listed(untrained, "class", "classes"),
    )
    warn_of_almost_equal_names(model.classes, start.classes, where=where)
    return {f"detector.{name}": tensor for name, tensor in layers.items()}


def _read_last(path: Path) -> dict[str, Any]:
    try:
        return read_checkpoint(path)
    except NewerFormatError:  # not damaged: the run has gone on since last.prev.pt
        raise
    except WeightsError as error:
        if not previous_of(path).is_file():
            raise
        logger.warning("%s; resuming from %s", error, previous_of(path).name)
        return read_checkpoint(previous_of(path))


def _report_schedule(saved: Mapping[str, Any], train: TrainConfig, *, step: int) -> None:
    """Warn where other settings than at the start give other learning rates from `step` on."""
    now = config_to_dict(train)
    changed = {k: saved[k] for k in SCHEDULE if saved.get(k, now[k]) != now[k]}
    before = dataclasses.replace(train, **changed)
    steps = range(step, max(step + 1, before.steps))
    rates = [(rate_factor(k, before), rate_factor(k, train)) for k in steps]
    if any(old != new for old, new in rates):
        logger.warning(
            "%s: the learning rates follow the schedule of the new settings; at step %d they are "
            "%.3g of their peaks, not %.3g",
            ", ".join(f"train.{k} was {old}, is {now[k]}" for k, old in changed.items()),
            step, rates[0][1], rates[0][0],
        )  # fmt: skip


def _best_figure(path: Path) -> float:
    """The AP50 that best.pt reached in validation; -1 without the file."""
    try:
        return read_checkpoint(path).get("figures", {}).get("AP50", 0.0)
    except NewerFormatError:  # to be kept
        raise
    except WeightsError:
        return -1.0
