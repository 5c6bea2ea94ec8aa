"""What a run writes to go on later, and how it goes on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from rnndet.config import config_to_dict
from rnndet.errors import WeightsError
from rnndet.models.checkpoint import model_content, read_checkpoint, save_checkpoint
from rnndet.models.temporal.state import State, join_states, state_rows, state_to
from rnndet.training.restart import read_last

if TYPE_CHECKING:
    from rnndet.training.loop import Run

logger = logging.getLogger(__name__)


def save_run(run: Run) -> None:
    """See `Run.save`."""
    state = None if run.state is None else state_to(run.state, "cpu")
    every = run.world.gather((state, torch.get_rng_state()))
    if not run.world.is_first:
        return
    states = [state for state, _ in every if state is not None]
    content = model_content(run.model, run.config, step=run.step)
    content["optimizer"] = run.optimizer.state_dict()
    content["scaler"] = run.scaler.state_dict()
    content["average"] = {n: t.cpu() for n, t in run.average.tensors.items()}
    content["average_steps"] = run.average.steps
    content["best"] = run.best
    content["random"] = [random for _, random in every]
    content["state"] = join_states(states) if states else {}
    save_checkpoint(run.folder / "last.pt", content, keep_previous=True)
    save_checkpoint(run.folder / "weights.pt", averaged_content(run, {}))


def resume_run(run: Run) -> None:
    """See `Run.resume`."""
    content = read_last(run.folder / "last.pt")
    mine = config_to_dict(run.config)
    if content["config"]["model"] != mine["model"]:
        raise WeightsError(f"{run.folder / 'last.pt'}: made with another [model]; not resumed")
    for part in ("data", "clip", "augment"):
        if content["config"].get(part) != mine[part]:
            logger.warning("[%s] is not what the run began with: other clips follow", part)
    run.model.load_state_dict(content["model"])
    run.optimizer.load_state_dict(content["optimizer"])
    run.scaler.load_state_dict(content["scaler"])
    for name, tensor in content["average"].items():
        run.average.tensors[name].copy_(tensor)
    run.average.steps = content["average_steps"]
    run.step = content["step"]
    run.best = max(content["best"], _best_kept(run))
    if len(content["random"]) == run.world.size:
        torch.set_rng_state(content["random"][run.world.rank])
    run.state = _carried(run, content["state"])


def _carried(run: Run, state: State) -> State | None:
    """This process's rows of a saved state; None where the number of rows has changed."""
    rows = {len(t) for tensors in state.values() for t in tensors}
    if rows - {run.config.train.batch}:
        logger.warning("train.batch has changed: the rows begin with an empty memory")
        return None
    if not state:
        return None
    mine = state_rows(state, run.rows)
    return state_to(mine, run.device)


def _best_kept(run: Run) -> float:
    """What best.pt validated at, -1 without one; last.pt is saved before its step is validated."""
    try:
        return read_checkpoint(run.folder / "best.pt").get("figures", {}).get("AP50", 0.0)
    except WeightsError:
        return -1.0


def averaged_content(run: Run, figures: dict[str, float]) -> dict[str, Any]:
    """The averaged weights as a checkpoint; figures: what they validated at."""
    content = model_content(run.model, run.config, step=run.step, figures=figures)
    content["model"] = {n: t.cpu().contiguous() for n, t in run.average.tensors.items()}
    return content
