"""The training run: clips -> windows -> backward -> step; the state is carried on, detached."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from rnndet.checkpoint import model_content, read_checkpoint, save_checkpoint
from rnndet.config import Config, TrainConfig, config_to_dict
from rnndet.data.clips import ClipBatch, ClipDataset, collate
from rnndet.errors import RnndetError, WeightsError
from rnndet.model import VideoDetector
from rnndet.structures import Truth
from rnndet.temporal.state import State, detach_state
from rnndet.training.log import MetricsLog
from rnndet.training.optim import AveragedWeights, build_optimizer, freeze_parts, rate_factor

logger = logging.getLogger(__name__)
BAD_STEPS = 5  # non-finite losses in a row that stop a run

Validate = Callable[[VideoDetector], dict[str, float]]


class Run:
    """One training run: what must be remembered between steps, and where it is kept.

    A memory that starts fresh is fitted to the amplitude of the first window's features.
    `folder` gets metrics.jsonl, last.pt (everything needed to go on), weights.pt (the averaged
    weights of the last save) and best.pt (those that validated best).
    """

    def __init__(
        self,
        config: Config,
        model: VideoDetector,
        folder: Path,
        *,
        device: torch.device,
        validate: Validate | None = None,
        memory_is_fresh: bool = True,
        quiet: bool = False,
    ) -> None:
        self.config, self.folder, self.device = config, folder, device
        self.memory_is_fresh = memory_is_fresh
        self.model = model.to(device, memory_format=torch.channels_last)
        freeze_parts(self.model, config.train.freeze)
        self.optimizer = build_optimizer(self.model, config.train)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.average = AveragedWeights(self.model, config.train.ema)
        self.validate = validate
        self.quiet = quiet
        self.step = 0
        self.best = -1.0
        self.bad_steps = 0
        self.log = MetricsLog(folder / "metrics.jsonl")

    # -- the loop

    def train(self, dataset: ClipDataset) -> None:
        """Train until config.train.steps windows are done, saving and validating on the way."""
        steps, windows = self.config.train.steps, self.config.clip.windows
        bar = tqdm(total=steps, initial=self.step, disable=self.quiet or None, unit="step")
        began, seen = time.perf_counter(), 0
        for batch in self._batches(dataset, first=self.step // windows):
            state: State | None = None
            for number in range(windows):
                if self.step >= steps:
                    break
                length = self.config.clip.length
                window = batch.window(number * length, length).to(self.device)
                if self.step == 0 and self.memory_is_fresh:
                    self._calibrate(window)
                losses, state = self._window(window, state)
                self.step += 1
                seen += window.frames.shape[0] * window.frames.shape[1]
                bar.update()
                if self.step % self.config.train.log_every == 0 and losses:
                    rate = seen / (time.perf_counter() - began)
                    self._report(losses, rate, bar)
            if self._due(self.config.train.save_every):
                self.save()
            if self._due(self.config.train.validate_every) and self.step < steps:
                self._validate()
        bar.close()
        self.save()
        self._validate()

    def _batches(self, dataset: ClipDataset, *, first: int) -> Iterator[ClipBatch]:
        """Batches from number `first` on; item i is the same clip in every run with this seed."""
        train = self.config.train
        rest = Subset(dataset, range(first * train.batch, len(dataset)))
        return iter(
            DataLoader(
                rest,
                batch_size=train.batch,
                num_workers=train.workers,
                collate_fn=collate,
                pin_memory=self.device.type == "cuda",
                persistent_workers=train.workers > 0,
                timeout=300 if train.workers else 0,
                worker_init_fn=one_thread,
                drop_last=True,
            )
        )

    def _window(
        self, window: ClipBatch, state: State | None
    ) -> tuple[dict[str, float], State | None]:
        """Forward, backward and one optimiser step on one window; returns losses and new state."""
        self.model.train()
        judged = judged_frames(window.truths, self.config.clip.labelled, seed=self.step)
        if self.config.train.detection == 0:
            judged[:] = False
        on_cuda = self.device.type == "cuda"
        with torch.autocast("cuda", torch.bfloat16, enabled=self.config.train.amp and on_cuda):
            output = self.model(
                window.frames, state, truths=window.truths, clean=window.clean, judged=judged
            )
        assert output.losses is not None
        after = detach_state(output.state)
        if not output.losses:
            return {}, after
        total = weighted_sum(output.losses, self.config.train)
        if not math.isfinite(total.item()):
            self._skip(output.losses)
            return {}, None
        self.bad_steps = 0
        factor = rate_factor(
            self.step, steps=self.config.train.steps, warmup=self.config.train.warmup
        )
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        trained = [p for g in self.optimizer.param_groups for p in g["params"]]
        norm = torch.nn.utils.clip_grad_norm_(trained, self.config.train.clip_norm)
        self.optimizer.step()
        self.average.update(self.model)
        losses = {name: loss.item() for name, loss in output.losses.items()}
        return {"loss": total.item(), "norm": float(norm), **losses}, after

    def _skip(self, losses: dict[str, Tensor]) -> None:
        """Leave out a step whose loss is not finite; several in a row end the run."""
        self.bad_steps += 1
        shown = ", ".join(f"{name} {loss.item():.3g}" for name, loss in losses.items())
        logger.warning("step %d: loss is not finite (%s); step skipped", self.step, shown)
        self.log.write(step=self.step, skipped=True)
        if self.bad_steps >= BAD_STEPS:
            raise RnndetError(
                f"{BAD_STEPS} steps in a row had a loss that is not finite ({shown}); lower the "
                f"learning rates; {self.folder / 'last.pt'} holds the last good state"
            )

    @torch.no_grad()
    def _calibrate(self, window: ClipBatch) -> None:
        """Give a fresh memory the amplitude of the features that it is blended with."""
        self.model.memory.calibrate(self.model.encode(window.frames).features)

    def _due(self, every: int) -> bool:
        """True once per `every` steps, at the end of a clip."""
        return every > 0 and self.step % every < self.config.clip.windows

    def _report(self, losses: dict[str, float], rate: float, bar: Any) -> None:
        bar.set_postfix_str(f"loss {losses['loss']:.3f}, {rate:.1f} frames/s")
        rounded = {name: round(value, 5) for name, value in losses.items()}
        lr = self.optimizer.param_groups[0]["lr"]
        self.log.write(step=self.step, lr=lr, frames_per_s=round(rate, 2), **rounded)

    # -- what is kept

    def save(self) -> None:
        """Write last.pt and weights.pt, each atomically."""
        content = model_content(self.model, self.config, step=self.step)
        content["optimizer"] = self.optimizer.state_dict()
        content["average"] = {n: t.cpu() for n, t in self.average.tensors.items()}
        content["average_steps"] = self.average.steps
        content["best"] = self.best
        content["random"] = torch.get_rng_state()
        save_checkpoint(self.folder / "last.pt", content)
        save_checkpoint(self.folder / "weights.pt", self._averaged({}))

    def resume(self) -> None:
        """Go on from last.pt. Raises WeightsError if there is none, or another model made it."""
        content = read_checkpoint(self.folder / "last.pt")
        mine = config_to_dict(self.config)
        if content["config"]["model"] != mine["model"]:
            raise WeightsError(f"{self.folder / 'last.pt'}: made with another [model]; not resumed")
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        for name, tensor in content["average"].items():
            self.average.tensors[name].copy_(tensor)
        self.average.steps = content["average_steps"]
        self.step, self.best = content["step"], content["best"]
        torch.set_rng_state(content["random"])

    def _averaged(self, figures: dict[str, float]) -> dict[str, Any]:
        content = model_content(self.model, self.config, step=self.step, figures=figures)
        content["model"] = {n: t.cpu().contiguous() for n, t in self.average.tensors.items()}
        return content

    def _validate(self) -> None:
        """Score the averaged weights, log the figures, keep them if they are the best so far."""
        if self.validate is None:
            return
        current = {n: t.detach().clone() for n, t in self.model.state_dict().items()}
        self.model.load_state_dict(self.average.tensors)
        self.model.eval()
        figures = self.validate(self.model)
        self.model.load_state_dict(current)
        self.log.write(step=self.step, **{f"val/{n}": round(v, 5) for n, v in figures.items()})
        shown = ", ".join(f"{n} {figures[n]:.4f}" for n in ("AP50", "AP") if n in figures)
        logger.info("step %d: %s", self.step, shown)
        if figures.get("AP50", 0.0) > self.best:
            self.best = figures.get("AP50", 0.0)
            save_checkpoint(self.folder / "best.pt", self._averaged(figures))


def weighted_sum(losses: dict[str, Tensor], config: TrainConfig) -> Tensor:
    """What is minimised: the detector's losses and the restoration, each with its weight."""
    weights = [config.restoration if name == "restoration" else config.detection for name in losses]
    return torch.stack([w * v for w, v in zip(weights, losses.values(), strict=True)]).sum()


def one_thread(_: int) -> None:
    """A loader process uses one core; it is the number of processes that scales."""
    torch.set_num_threads(1)


def judged_frames(truths: list[list[Truth | None]], share: float, *, seed: int) -> Tensor:
    """A random share of the labelled frames (one per window at least, if any), (T, B) bool.

    Fewer frames pass through the detection head while the memory still sees all of them.
    """
    known = torch.tensor([[truth is not None for truth in row] for row in truths])
    places = known.nonzero()
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
    kept = places[order[: max(1, round(share * len(places)))]]
    judged = torch.zeros_like(known)
    judged[kept[:, 0], kept[:, 1]] = True
    return judged


def start_from(model: VideoDetector, path: str | Path) -> list[str]:
    """Fill in the weights of a checkpoint where names and shapes agree, and say what was left.

    Returns the names that start fresh.
    """
    content = read_checkpoint(path)
    own = model.state_dict()
    fitting = {n: t for n, t in content["model"].items() if n in own and own[n].shape == t.shape}
    if not fitting:
        raise WeightsError(f"{path}: train.init: no weight of it fits this model")
    model.load_state_dict(fitting, strict=False)
    fresh = sorted(own.keys() - fitting.keys())
    logger.info("%s: %d tensors taken, %d start fresh", path, len(fitting), len(fresh))
    return fresh
