"""Save and resume a training run: last.pt, weights.pt and best.pt of a run folder."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from rnndet.config import Config, TrainConfig, config_to_dict
from rnndet.errors import WeightsError
from rnndet.models.checkpoint import (
    model_from_checkpoint,
    previous_of,
    read_checkpoint,
    read_weights,
    save_checkpoint,
)
from rnndet.models.detectors.class_rows import pairs_by_name
from rnndet.models.video_detector import VideoDetector
from rnndet.models.zoo import find_weights
from rnndet.training.optim import rate_factor

logger = logging.getLogger(__name__)

LAST = "last.pt"  # everything needed to resume; the previous checkpoint is last.prev.pt
WEIGHTS = "weights.pt"  # the averaged weights of the last save
BEST = "best.pt"  # the averaged weights with the best validation
SCHEDULE = ("steps", "warmup", "schedule", "milestones")  # settings of the learning rates
MOST_NAMES = 8  # of classes, in a line of the log


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


def load_run(folder: Path, config: Config) -> dict[str, Any]:
    """Load the `run` of `save_run` from last.pt, or from last.prev.pt if that is damaged.

    `best` is raised to the figure of best.pt: a step is saved before it is validated. Sections of
    the configuration that change the clips, and settings that change the schedule of the learning
    rate, cause a warning. Raises WeightsError if there is no
    checkpoint to read, or if its [model] is not that of `config`.
    """
    path = folder / LAST
    run = _read_last(path)
    saved, current = run["config"], config_to_dict(config)
    if saved["model"] != current["model"]:
        raise WeightsError(f"{path}: trained with another [model]; not resumed")
    for section in ("data", "clip", "augment"):
        if saved.get(section) != current[section]:
            logger.warning("[%s] has changed since the run began: the clips will differ", section)
    _report_schedule(saved["train"], config.train, step=run["step"])
    return run | {"best": max(run["best"], _best_figure(folder / BEST))}


def start_from(model: VideoDetector, weights: str | Path) -> list[str]:
    """Load the weights of a checkpoint, by its name or path, where names and shapes agree.

    If its list of classes is not that of the model, the class layers are matched by the classes'
    names: classes that the checkpoint lacks keep their initial values, as the log says. Returns
    the names of the tensors that are newly initialised. Raises WeightsError if the file is no
    checkpoint, none of its weights fits, or other classes are asked for and it is not complete.
    """
    content = read_weights(weights)
    path, _ = find_weights(weights)
    own = model.state_dict()
    fitting = {n: t for n, t in content["model"].items() if n in own and own[n].shape == t.shape}
    if content.get("classes") != list(model.classes):
        layers = _class_layers(model, model_from_checkpoint(content, where=str(path)), str(path))
        fitting = {n: t for n, t in (fitting | layers).items() if t is not None}
    if not fitting:
        raise WeightsError(f"{path}: train.init: none of its weights fits this model")
    model.load_state_dict(fitting, strict=False)
    fresh = sorted(own.keys() - fitting.keys())
    logger.info("%s: %d tensors loaded, %d newly initialised", path, len(fitting), len(fresh))
    return fresh


def _class_layers(
    model: VideoDetector, start: VideoDetector, where: str
) -> dict[str, Tensor | None]:
    """The tensors of the model's class layers with the rows of `start`, matched by class name.

    None for a layer that `start` has not, or has in another form. Logs the classes.
    """
    own, theirs = model.detector.state_dict(), start.detector.state_dict()
    rows = start.detector.class_rows()
    pairs = pairs_by_name(model.classes, start.classes)
    layers = {
        name: mine.fill(own[name], theirs[name], rows[name], pairs) if name in rows else None
        for name, mine in model.detector.class_rows().items()
    }
    filled = sum(tensor is not None for tensor in layers.values())
    places = [place for place, _ in pairs] if filled else []
    part = f", in {filled} of {len(layers)} class tensors" if 0 < filled < len(layers) else ""
    logger.info(
        "%s: has other classes; taken by name%s: %s; untrained: %s",
        where,
        part,
        _some([model.classes[place] for place in places]),
        _some([name for place, name in enumerate(model.classes) if place not in places]),
    )
    return {f"detector.{name}": tensor for name, tensor in layers.items()}


def _some(names: Sequence[str]) -> str:
    """The names; if they are many, their number and the first ones."""
    if len(names) <= MOST_NAMES:
        return ", ".join(names) or "none"
    return f"{len(names)} classes ({', '.join(names[:MOST_NAMES])}, ...)"


def _read_last(path: Path) -> dict[str, Any]:
    try:
        return read_checkpoint(path)
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
    except WeightsError:
        return -1.0
