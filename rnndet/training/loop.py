"""The training run: windows -> backward -> step; the state of each row is carried on, detached."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from rnndet.config import Config
from rnndet.data.clips.dataset import ClipBatch, ClipDataset
from rnndet.errors import RnndetError
from rnndet.models.checkpoint import save_checkpoint
from rnndet.models.temporal.gates import watch_gates
from rnndet.models.temporal.state import State, detach_state, join_states, reset_state, state_rows
from rnndet.models.video_detector import VideoDetector
from rnndet.system.distributed import World
from rnndet.system.signals import SIGNALS, Stopped, StopRequest, stop_on_signals
from rnndet.training.clock import StepClock
from rnndet.training.faults import out_of_memory
from rnndet.training.keeping import averaged_content, resume_run, save_run
from rnndet.training.loader import StepLoader
from rnndet.training.log import MetricsLog
from rnndet.training.losses import TEMPORAL_LOSSES, supervised_frames, weighted_sum
from rnndet.training.optim import AveragedWeights, build_optimizer, freeze_parts, rate_factor

logger = logging.getLogger(__name__)
BAD_STEPS = 5  # non-finite losses in a row that stop a run
AMP = {"bfloat16": torch.bfloat16, "float16": torch.float16, "off": torch.float32}

Validate = Callable[[VideoDetector], dict[str, float]]


class Run:
    """One training run: what must be remembered between steps, and where it is kept.

    A memory that starts fresh is fitted to the amplitude of the first window's features.
    `folder` gets metrics.jsonl, last.pt (everything needed to go on; the one before it is
    last.prev.pt), weights.pt (the averaged weights of the last save) and best.pt (those that
    validated best). With several processes each takes an equal part of the rows of every step, and
    the first one writes.
    """

    def __init__(
        self,
        config: Config,
        model: VideoDetector,
        folder: Path,
        *,
        device: torch.device,
        validate: Validate | None = None,
        temporal_is_fresh: bool = True,
        quiet: bool = False,
        world: World | None = None,
        exact: bool = False,
    ) -> None:
        train = config.train
        self.config, self.folder, self.device = config, folder, device
        self.world = world or World()
        self.temporal_is_fresh = temporal_is_fresh
        self.model = model.to(device, memory_format=torch.channels_last)
        if train.unfreeze:  # what trains later has its place in the optimiser from the start
            self.optimizer = build_optimizer(self.model, train)
            self.frozen = freeze_parts(self.model, train.freeze)
        else:
            self.frozen = freeze_parts(self.model, train.freeze)
            self.optimizer = build_optimizer(self.model, train)
        self.parallel = self.world.parallel(self.model, device)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        on_cuda = device.type == "cuda"
        self.scaler = torch.amp.GradScaler("cuda", enabled=on_cuda and train.amp == "float16")
        self.average = AveragedWeights(self.model, train.ema)
        self.validate = validate
        self.quiet = quiet or not self.world.is_first
        self.step = 0
        self.best = -1.0
        self.bad_steps = 0
        self.rows = self._own_rows()
        self.state: State | None = None  # of this process's rows
        self.stop = StopRequest()
        self.clock = StepClock(device, exact=exact)
        self.log: MetricsLog | None = None
        if self.world.is_first:
            self.log = MetricsLog(folder / "metrics.jsonl", board=train.tensorboard)
        self.gates: dict[str, float] = {}  # of the last step that was watched

    def _own_rows(self) -> range:
        """Which of the rows of a step are this process's."""
        train = self.config.train
        pieces = self.world.size * train.accumulate
        if train.batch % pieces:
            raise RnndetError(
                f"train.batch = {train.batch} must be a multiple of processes x train.accumulate = "
                f"{self.world.size} x {train.accumulate}"
            )
        share = train.batch // self.world.size
        return range(self.world.rank * share, (self.world.rank + 1) * share)

    # -- the loop

    def train(self, dataset: ClipDataset) -> None:
        """Train until config.train.steps are done, saving and validating on the way.

        Raises Stopped when SIGINT or SIGTERM asked for the end; everything is saved then.
        """
        with stop_on_signals() as self.stop:
            self.until(self.batches(dataset), self.config.train.steps)
        self.save()
        self._validate()

    def batches(self, dataset: ClipDataset) -> StepLoader:
        """This process's part of the data, from the current step on."""
        return StepLoader(
            dataset, self.config.train, rows=self.rows, first_step=self.step, device=self.device
        )

    def until(self, batches: StepLoader, end: int) -> None:
        """Train until `end` steps are done; see `train`, which also saves and validates then."""
        train = self.config.train
        bar = tqdm(total=end, initial=self.step, disable=self.quiet or None, unit="step")
        self.clock.reset()
        counted = self.step
        while self.step < end:
            with self.clock.stage("load"):
                loaded = next(batches)
            losses = self._step(loaded)
            bar.update()
            if self.step % train.log_every == 0 and losses:
                self._report(losses, self.step - counted, bar)
                counted = self.step
                self.clock.reset()
            stopped = self._asked_to_stop()
            if stopped or self._due(train.save_every):
                self.save()
            if stopped:
                bar.close()
                raise Stopped(stopped)
            if self._due(train.validate_every) and self.step < train.steps:
                self._validate()
        bar.close()

    def _step(self, batches: list[ClipBatch]) -> dict[str, float]:
        """One optimiser step on this process's rows; the losses, of all processes, by name."""
        self.model.train()
        self._set_rates()
        self.optimizer.zero_grad(set_to_none=True)
        try:
            with self._watched():
                losses = self._backward(batches)
        except torch.OutOfMemoryError as error:
            raise out_of_memory(
                error, self.config, step=self.step, rows=len(self.rows), device=self.device
            ) from None
        if not losses:
            self.step += 1
            return {}
        with self.clock.stage("optimise"):
            norm = self._clipped_norm()
        if not math.isfinite(losses["loss"]) or not (
            math.isfinite(norm) or self.scaler.is_enabled()
        ):
            self._skip(losses | {"norm": norm}, batches)
            return {}
        self.bad_steps = 0
        with self.clock.stage("optimise"):
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.average.update(self.model)
        self.step += 1
        return losses | {"norm": norm}

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Look at the gates of the memory in a step that will be logged."""
        if self.log is None or (self.step + 1) % self.config.train.log_every:
            yield
            return
        with watch_gates(self.model.temporal) as statistics:
            yield
        self.gates = {f"gate/{name}": round(value, 4) for name, value in statistics().items()}

    def _clipped_norm(self) -> float:
        """The gradient's norm before it is cut to train.clip_norm."""
        self.scaler.unscale_(self.optimizer)
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        return float(torch.nn.utils.clip_grad_norm_(trained, self.config.train.clip_norm))

    def _set_rates(self) -> None:
        """The rates of this step; and the end of freezing, if this is where it ends."""
        factor = rate_factor(self.step, self.config.train)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        if self.frozen and 0 < self.config.train.unfreeze <= self.step:
            for parameter in self.frozen:
                parameter.requires_grad_(True)
            self.frozen = []
            self.parallel = self.world.parallel(self.model, self.device)
            logger.info("step %d: %s train as well", self.step, ", ".join(self.config.train.freeze))

    def _backward(self, batches: list[ClipBatch]) -> dict[str, float]:
        """Forward and backward on every batch; the gradient is that of all rows of the step."""
        size = len(self.rows) // len(batches)
        states: list[State] = []
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(batches):
            with self.clock.stage("move"):
                batch = batch.to(self.device)
            if self.step == number == 0 and self.temporal_is_fresh:
                self._calibrate(batch)
            state = None
            if self.state is not None:
                mine = range(number * size, (number + 1) * size)
                state = reset_state(state_rows(self.state, mine), batch.begins)
            is_last = number == len(batches) - 1
            alone = self.world.size == 1 or is_last
            with nullcontext() if alone else self.parallel.no_sync():
                losses, after = self._backward_one(batch, state, share=1 / len(batches))
            states.append(after)
            for name, loss in losses.items():
                sums[name] = sums.get(name, torch.zeros_like(loss)) + loss / len(batches)
        self.state = join_states(states)
        return self._over_processes(sums)

    def _backward_one(
        self, batch: ClipBatch, state: State | None, *, share: float
    ) -> tuple[dict[str, Tensor], State]:
        train = self.config.train
        supervised = supervised_frames(batch.targets, self.config.clip.labelled, seed=self.step)
        if train.detection == 0:
            supervised[:] = False
        on_cuda = self.device.type == "cuda"
        kind = AMP[train.amp]
        autocast = torch.autocast("cuda", kind, enabled=on_cuda and train.amp != "off")
        with self.clock.stage("forward"), autocast:
            output = self.parallel(
                batch.frames,
                state,
                targets=batch.targets,
                clean=batch.clean,
                supervised=supervised,
                stable=train.stability > 0,
                activation_checkpoints=train.activation_checkpoints,
            )
        after = detach_state(output.state)
        weight = self._weight(output.count)
        losses = {n: x if n in TEMPORAL_LOSSES else x * weight for n, x in output.losses.items()}
        if self.world.size > 1:  # every process must reach every parameter, also without losses
            every = torch.stack([p.sum() for p in self.model.parameters() if p.requires_grad])
            total = weighted_sum(losses, train, zero=0 * every.sum())
        elif losses:
            total = weighted_sum(losses, train, zero=torch.zeros((), device=self.device))
        else:
            return {}, after
        with self.clock.stage("backward"):
            self.scaler.scale(total * share).backward()
        return {name: loss.detach() for name, loss in losses.items()} | {
            "loss": total.detach()
        }, after

    def _weight(self, count: Tensor | None) -> Tensor | float:
        """So that the mean over processes is the mean over all that was counted in all of them."""
        if self.world.size == 1:
            return 1.0
        own = torch.zeros((), device=self.device) if count is None else count.detach().float()
        every = self.world.sum(own.clone())
        return own * self.world.size / every.clamp(min=1)

    def _over_processes(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """The losses as means over the processes; a process may know fewer names than another."""
        if self.world.size == 1:
            return {name: float(value) for name, value in sums.items()}
        every = self.world.gather_all({name: float(value) for name, value in sums.items()})
        names = dict.fromkeys(name for one in every for name in one)
        return {name: sum(one.get(name, 0.0) for one in every) / len(every) for name in names}

    def _asked_to_stop(self) -> int:
        """The signal that any of the processes got, or 0."""
        if self.world.size == 1:
            return self.stop.number
        asked = torch.tensor([float(self.stop.number == number) for number in SIGNALS])
        found = self.world.sum(asked).nonzero().flatten().tolist()
        return int(SIGNALS[found[0]]) if found else 0

    def _skip(self, losses: dict[str, float], batches: list[ClipBatch]) -> None:
        """Leave out a step whose loss is not finite; several in a row end the run."""
        self.bad_steps += 1
        shown = ", ".join(f"{name} {loss:.3g}" for name, loss in losses.items())
        places = "; ".join(place for batch in batches for place in batch.places)
        logger.warning("step %d: not finite (%s) on %s; step skipped", self.step, shown, places)
        if self.log is not None:
            self.log.write(step=self.step, skipped=True, places=places)
        if self.bad_steps >= BAD_STEPS:
            raise RnndetError(
                f"{BAD_STEPS} steps in a row had a loss that is not finite ({shown}), the last one "
                f"on {places}; lower the learning rates or look at these frames; "
                f"{self.folder / 'last.pt'} holds the last good state"
            )
        if self.state is not None:
            everyone = torch.ones(len(self.rows), dtype=torch.bool, device=self.device)
            self.state = reset_state(self.state, everyone)
        self.step += 1

    @torch.no_grad()
    def _calibrate(self, batch: ClipBatch) -> None:
        """Give a fresh memory the amplitude of the features that it is blended with.

        The first row of the first process decides, so the number of processes does not matter.
        """
        self.model.temporal.calibrate(self.model.encode(batch.frames[:, :1]).features)
        for buffer in self.model.temporal.buffers():
            self.world.from_first(buffer)

    def _due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

    def _report(self, losses: dict[str, float], steps: int, bar: Any) -> None:
        """Log a step, with the speed of the last `steps` and the share of it that was waiting."""
        if self.log is None:
            return
        seconds = self.clock.total
        rate = steps * self.config.train.batch * self.config.clip.length / seconds
        load = round(self.clock.seconds["load"] / seconds, 3)
        bar.set_postfix_str(f"loss {losses['loss']:.3f}, {rate:.1f} frames/s")
        rounded = {name: round(value, 5) for name, value in losses.items()}
        lr = self.optimizer.param_groups[0]["lr"]
        speed = {"lr": lr, "frames_per_s": round(rate, 2), "load": load}
        self.log.write(step=self.step, **speed, **rounded, **self.gates)

    # -- what is kept

    def save(self) -> None:
        """Write last.pt and weights.pt, each atomically; every process must call it."""
        save_run(self)

    def resume(self) -> None:
        """Go on from last.pt, or where that is missing or damaged from the one before.

        Raises WeightsError if there is none, or another model made it.
        """
        resume_run(self)

    def _validate(self) -> None:
        """Score the averaged weights, log the figures, keep them if they are the best so far."""
        if self.validate is None or self.log is None:
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
            save_checkpoint(self.folder / "best.pt", averaged_content(self, figures))
