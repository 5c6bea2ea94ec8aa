"""Train a model: windows -> losses -> gradients -> optimiser step; the state is carried on."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from rnndet.config import Config, TrainConfig, config_to_dict
from rnndet.data.clips.dataset import ClipBatch, ClipDataset
from rnndet.errors import RnndetError
from rnndet.messages import counted
from rnndet.models.checkpoint import check_fit, model_content
from rnndet.models.temporal.gates import watch_gates
from rnndet.models.temporal.state import (
    State,
    detach_state,
    join_states,
    reset_state,
    state_rows,
    state_to,
)
from rnndet.models.video_detector import VideoDetector
from rnndet.specs import TrackClassSpec
from rnndet.system.distributed import World
from rnndet.system.signals import SIGNALS, Stopped, StopRequest, stop_on_signals
from rnndet.system.timing import StageTimer
from rnndet.training.checkpoints import LAST, load_run, save_best, save_run
from rnndet.training.criterion import (
    ADDED_LOSSES,
    Criterion,
    WindowLosses,
    choose_supervised,
    weighted_sum,
)
from rnndet.training.loader import StepLoader
from rnndet.training.log import MetricsLog
from rnndet.training.optim import (
    AveragedWeights,
    Schedule,
    build_optimizer,
    groups_by_rate,
    load_optimizer,
)
from rnndet.training.teacher import CleanTeacher

logger = logging.getLogger(__name__)

STAGES = ("load", "move", "forward", "backward", "optimise")  # of a step, as the timer has them
BAD_STEPS = 5  # consecutive steps with a non-finite loss that end a run
AMP = {"bfloat16": torch.bfloat16, "float16": torch.float16, "off": torch.float32}

Evaluate = Callable[[VideoDetector], dict[str, float]]


@dataclass(slots=True)
class TrainState:
    """The state of a run that changes per step, besides weights and optimiser."""

    step: int = 0  # steps done, skipped ones included
    bad_steps: int = 0  # consecutive steps that were skipped
    best: float = -1.0  # highest AP50 in validation; -1 before the first
    recurrent: State | None = None  # of this process's rows, detached; None before the first step


class Trainer:
    """Trains a model and writes a run folder.

    `folder` gets metrics.jsonl and the files of `rnndet.training.checkpoints`. With several
    processes each takes an equal share of the rows of every step, and the first one writes.

    - evaluate: gives the figures of a model in eval mode on the validation videos; None: no
      validation.
    - teacher: the frozen model that sees the clean frames; None: the model itself.
    - calibrate: fit the temporal module's amplitude to the features of the first window; for a
      module with fresh weights.
    - exact_timing: wait for the GPU around each timed stage.

    Raises RnndetError if train.batch cannot be divided, or no parameter is trained.
    """

    def __init__(
        self,
        config: Config,
        model: VideoDetector,
        folder: Path,
        *,
        device: torch.device,
        evaluate: Evaluate | None = None,
        teacher: CleanTeacher | None = None,
        calibrate: bool = True,
        quiet: bool = False,
        world: World | None = None,
        exact_timing: bool = False,
    ) -> None:
        train, on_cuda = config.train, device.type == "cuda"
        self.config, self.folder, self.device = config, folder, device
        self.world = world or World()
        self.rows = local_rows(config, self.world)
        self.state = TrainState()
        self.model = model.to(device, memory_format=torch.channels_last)
        self.trainable = {n for n, p in model.named_parameters() if p.requires_grad}
        self.optimizer, frozen = build_optimizer(self.model, train)
        self.schedule = Schedule(self.optimizer, frozen, train)
        self.scaler = torch.amp.GradScaler("cuda", enabled=on_cuda and train.amp == "float16")
        self.average = AveragedWeights(self.model, train.ema)
        self.criterion = Criterion(
            self.model,
            teacher=teacher,
            output_distillation=train.output_distillation > 0,
            stability=train.stability > 0,
            activation_checkpoints=train.activation_checkpoints,
        )
        self.parallel = self.world.parallel(self.criterion, device)
        self.evaluate = evaluate
        self.calibrate = calibrate
        self.quiet = quiet or not self.world.is_first
        self.stop = StopRequest()
        self.timer = StageTimer(wait=torch.cuda.synchronize if exact_timing and on_cuda else None)
        self.log: MetricsLog | None = None
        if self.world.is_first:
            self.log = MetricsLog(folder / "metrics.jsonl", board=train.tensorboard)

    # -- the loop

    def train(self, dataset: ClipDataset) -> None:
        """Train until train.steps are done; save and validate on the way and at the end.

        Raises Stopped after SIGINT or SIGTERM; everything is saved then.
        """
        with stop_on_signals() as self.stop:
            self.run(self.loader(dataset), self.config.train.steps)
        self.save()
        self.validate()

    def loader(self, dataset: ClipDataset) -> StepLoader:
        """This process's share of the data, from the current step on."""
        return StepLoader(
            dataset,
            self.config.train,
            rows=self.rows,
            first_step=self.state.step,
            device=self.device,
        )

    def run(self, loader: StepLoader, end: int) -> None:
        """Train until `end` steps are done; save and validate at their intervals."""
        train, state = self.config.train, self.state
        reported = state.step
        self.timer.reset()
        with tqdm(total=end, initial=state.step, disable=self.quiet or None, unit="step") as bar:
            while state.step < end:
                with self.timer.stage("load"):
                    batches = next(loader)
                figures = self.train_one_step(batches)
                bar.update()
                if figures and self._is_due(train.log_every):
                    self._report(figures, steps=state.step - reported, bar=bar)
                    reported = state.step
                    self.timer.reset()
                signal = self._signal()
                if signal or self._is_due(train.save_every):
                    self.save()
                if signal:
                    raise Stopped(signal)
                if self._is_due(train.validate_every) and state.step < train.steps:
                    self.validate()

    def train_one_step(self, batches: list[ClipBatch]) -> dict[str, float]:
        """One optimiser step on this process's rows, which come in train.accumulate batches.

        Returns the losses by name, over all processes, with the gradient's `norm`, and on steps
        that are logged the gates; {} if the step had no loss or was skipped.
        """
        self.model.train()
        if self.schedule.begin_step(self.state.step):  # DDP reads requires_grad when built
            self.parallel = self.world.parallel(self.criterion, self.device)
        self.optimizer.zero_grad(set_to_none=True)
        with self._out_of_memory(), self._gates() as gates:
            if self.state.step == 0 and self.calibrate:
                self._calibrate(batches[0])
            figures = self.backward(batches)
        if figures:
            with self.timer.stage("optimise"):
                figures["norm"] = self._clip_gradient()
            if self._is_finite(figures):
                self._update_weights()
                figures |= gates()
            else:
                self._skip(figures, batches)
                figures = {}
        self.state.step += 1
        return figures

    def backward(self, batches: list[ClipBatch]) -> dict[str, float]:
        """Accumulate the gradient of all rows of the step, and carry the state on.

        Returns the losses by name, means over the batches and the processes.
        """
        states: list[State] = []
        means: dict[str, Tensor] = {}
        for number, batch in enumerate(batches):
            with self.timer.stage("move"):
                batch = batch.to(self.device)
            with self._exchange(number == len(batches) - 1):
                with self.timer.stage("forward"), self._autocast():
                    output = self.parallel(
                        batch, self._state_before(batch, number), self._supervised(batch)
                    )
                losses = self._total(output)
                if losses:
                    with self.timer.stage("backward"):
                        self.scaler.scale(losses["loss"] * (1 / len(batches))).backward()
            states.append(detach_state(output.state))
            for name, loss in losses.items():
                mean = means.get(name, torch.zeros_like(loss))
                means[name] = mean + loss.detach() / len(batches)
        self.state.recurrent = join_states(states)
        return self._over_processes(means)

    # -- forward

    def _exchange(self, is_last: bool) -> Any:
        """Exchange gradients between processes with the last batch of a step only."""
        return nullcontext() if self.world.size == 1 or is_last else self.parallel.no_sync()

    def _autocast(self) -> torch.autocast:
        amp = self.config.train.amp
        is_on = self.device.type == "cuda" and amp != "off"
        return torch.autocast("cuda", AMP[amp], enabled=is_on)

    def _state_before(self, batch: ClipBatch, number: int) -> State | None:
        """The recurrent state of the rows of the step's n-th batch, zero where a clip begins."""
        if self.state.recurrent is None:
            return None
        size = len(batch.begins)
        rows = range(number * size, (number + 1) * size)
        return reset_state(state_rows(self.state.recurrent, rows), batch.begins)

    def _supervised(self, batch: ClipBatch) -> Tensor:
        """The labelled frames that the detector's losses are computed on, (T, B) bool."""
        share = self.config.clip.labelled
        supervised = choose_supervised(batch.targets, share, seed=self.state.step)
        return supervised & (self.config.train.detection > 0)

    def _total(self, output: WindowLosses) -> dict[str, Tensor]:
        """The terms, and their weighted sum as `loss`; {} if there is nothing to minimise."""
        weight = self._count_weight(output.count)
        terms = {n: x if n in ADDED_LOSSES else x * weight for n, x in output.terms.items()}
        if self.world.size > 1:  # every process must reach every parameter, also without losses
            sums = [p.sum() for p in self.model.parameters() if p.requires_grad]
            zero = 0 * torch.stack(sums).sum()
        elif terms:
            zero = torch.zeros((), device=self.device)
        else:
            return {}
        return terms | {"loss": weighted_sum(terms, self.config.train, zero=zero)}

    def _count_weight(self, count: Tensor | None) -> Tensor | float:
        """Factor that turns a mean over processes into the mean over all counted items."""
        if self.world.size == 1:
            return 1.0
        local = torch.zeros((), device=self.device) if count is None else count.detach().float()
        total = self.world.sum(local.clone())
        return local * self.world.size / total.clamp(min=1)

    def _over_processes(self, means: dict[str, Tensor]) -> dict[str, float]:
        """Means over the processes; a process may lack terms that another has."""
        local = {name: float(value) for name, value in means.items()}
        if self.world.size == 1:
            return local
        gathered = self.world.gather_all(local)
        names = dict.fromkeys(name for losses in gathered for name in losses)
        return {
            name: sum(losses.get(name, 0.0) for losses in gathered) / len(gathered)
            for name in names
        }

    @torch.no_grad()
    def _calibrate(self, batch: ClipBatch) -> None:
        """Fit the temporal module's amplitude to the features.

        The first row of the first process decides, so the number of processes does not matter.
        """
        frames = batch.frames[:, :1].to(self.device)
        self.model.temporal.calibrate(self.model.encode(frames).features)
        for buffer in self.model.temporal.buffers():
            self.world.from_first(buffer)

    @contextmanager
    def _gates(self) -> Iterator[Callable[[], dict[str, float]]]:
        """Watch the gates of the temporal module, in a step that will be logged."""
        if self.log is None or (self.state.step + 1) % self.config.train.log_every:
            yield dict
            return
        with watch_gates(self.model.temporal) as statistics:
            yield lambda: {f"gate/{name}": round(x, 4) for name, x in statistics().items()}

    @contextmanager
    def _out_of_memory(self) -> Iterator[None]:
        """Convert torch's out-of-memory error: report the sizes and settings that reduce them."""
        train, clip = self.config.train, self.config.clip
        try:
            yield
        except torch.OutOfMemoryError as error:
            height, width = self.config.augment.crop
            peak = ""
            if self.device.type == "cuda":
                mib = torch.cuda.max_memory_allocated(self.device) / 2**20
                peak = f", peak {mib:.0f} MiB"
            raise RnndetError(
                f"step {self.state.step}: out of memory with {len(self.rows) // train.accumulate} "
                f"rows of {counted(clip.length, 'frame')} of {height}x{width} at once{peak}; try "
                f"train.accumulate = {2 * train.accumulate} or "
                f"clip.length = {max(1, clip.length // 2)} ({str(error).splitlines()[0][:100]})"
            ) from None

    # -- the optimiser step

    def _clip_gradient(self) -> float:
        """Limit the gradient's norm to train.clip_norm; returns the norm before that."""
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        return float(torch.nn.utils.clip_grad_norm_(parameters, self.config.train.clip_norm))

    def _is_finite(self, figures: dict[str, float]) -> bool:
        """Whether loss and norm are; a loss scaler handles a norm that is not by itself."""
        norm_is_fine = math.isfinite(figures["norm"]) or self.scaler.is_enabled()
        return math.isfinite(figures["loss"]) and norm_is_fine

    def _update_weights(self) -> None:
        self.state.bad_steps = 0
        with self.timer.stage("optimise"):
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.average.update(self.model)

    def _skip(self, figures: dict[str, float], batches: list[ClipBatch]) -> None:
        """Skip a step with a non-finite loss, and reset the state after it.

        Raises RnndetError after BAD_STEPS such steps in a row.
        """
        state = self.state
        state.bad_steps += 1
        losses = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
        places = "; ".join(place for batch in batches for place in batch.places)
        logger.warning("step %d: not finite (%s) on %s; step skipped", state.step, losses, places)
        if self.log is not None:
            self.log.write(step=state.step, skipped=True, places=places)
        if state.bad_steps >= BAD_STEPS:
            raise RnndetError(
                f"{BAD_STEPS} steps in a row had a loss that is not finite ({losses}), the last "
                f"one on {places}; lower the learning rates or check these frames; "
                f"{self.folder / 'last.pt'} has the last finite state"
            )
        if state.recurrent is not None:
            all_rows = torch.ones(len(self.rows), dtype=torch.bool, device=self.device)
            state.recurrent = reset_state(state.recurrent, all_rows)

    # -- validation and reporting

    def validate(self) -> None:
        """Evaluate the averaged weights, log the figures, and save the weights if they are best."""
        if self.evaluate is None or self.log is None:
            return
        current = {n: t.detach().clone() for n, t in self.model.state_dict().items()}
        self.model.load_state_dict(self.average.tensors)
        self.model.eval()
        figures = self.evaluate(self.model)
        self.model.load_state_dict(current)
        step = self.state.step
        self.log.write(step=step, **{f"val/{n}": round(v, 5) for n, v in figures.items()})
        main = ", ".join(f"{n} {figures[n]:.4f}" for n in ("AP50", "AP") if n in figures)
        logger.info("step %d: %s", step, main)
        if figures.get("AP50", 0.0) > self.state.best:
            self.state.best = figures.get("AP50", 0.0)
            save_best(self.folder, self.averaged_content(figures))

    def _report(self, figures: dict[str, float], *, steps: int, bar: tqdm) -> None:
        """Log a step, with the speed of the last `steps` and the share of it spent on loading."""
        if self.log is None:
            return
        seconds = self.timer.total
        rate = steps * self.config.train.batch * self.config.clip.length / seconds
        load = round(self.timer.seconds["load"] / seconds, 3)
        bar.set_postfix_str(f"loss {figures['loss']:.3f}, {rate:.1f} frames/s")
        rounded = {name: round(value, 5) for name, value in figures.items()}
        lr = self.optimizer.param_groups[0]["lr"]
        speed = {"lr": lr, "frames_per_s": round(rate, 2), "load": load}
        self.log.write(step=self.state.step, **speed, **rounded)

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.state.step % every == 0

    def _signal(self) -> int:
        """The signal that any of the processes got, or 0."""
        if self.world.size == 1:
            return self.stop.number
        local = torch.tensor([float(self.stop.number == number) for number in SIGNALS])
        received = self.world.sum(local).nonzero().flatten().tolist()
        return int(SIGNALS[received[0]]) if received else 0

    # -- saving and resuming

    def save(self) -> None:
        """Write last.pt and weights.pt, each atomically; every process must call it."""
        run = self.state_dict()
        if self.world.is_first:
            save_run(self.folder, run=run, weights=self.averaged_content({}))

    def resume(self) -> None:
        """Continue the run in the folder. Raises WeightsError, see `load_run`."""
        run = load_run(self.folder, self.config, self.model.classes)
        self.load_state_dict(run, where=str(self.folder / LAST))

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to resume, as plain data; {} in all processes but the first.

        Every process must call it: the rows' states and the random states are gathered.
        """
        recurrent = None if self.state.recurrent is None else state_to(self.state.recurrent, "cpu")
        on_cuda = self.device.type == "cuda"
        cuda = torch.cuda.get_rng_state(self.device) if on_cuda else None
        gathered = self.world.gather((recurrent, torch.get_rng_state(), cuda))
        if not self.world.is_first:
            return {}
        states = [state for state, _, _ in gathered if state is not None]
        return model_content(self.model, self.config, step=self.state.step) | {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": {n: t.cpu() for n, t in self.average.tensors.items()},
            "average_steps": self.average.steps,
            "best": self.state.best,
            "random": [random for _, random, _ in gathered],
            "random_cuda": [cuda for _, _, cuda in gathered if cuda is not None],
            "state": join_states(states) if states else {},
        }

    def load_state_dict(self, content: dict[str, Any], *, where: str = "the state") -> None:
        """Restore the state of `state_dict`, from `where`.

        Raises WeightsError if weights or the optimiser's state are of other parameters.
        """
        for kind in ("model", "average"):
            check_fit(self.model, content[kind], where=f"{where}: {kind}")
        settings = config_to_dict(TrainConfig()) | content["config"]["train"]
        names = groups_by_rate(self.model, self.trainable, settings)
        load_optimizer(self.optimizer, content["optimizer"], unnamed=names, where=where)
        self.model.load_state_dict(content["model"])
        if (tree := content.get("track_classes")) is not None:
            classes = self.model.classes
            self.model.track_classes = TrackClassSpec.from_dict(tree, classes=classes, where=where)
        if self.scaler.is_enabled() and content["scaler"]:  # {} from a run without a loss scale
            self.scaler.load_state_dict(content["scaler"])
        self.average.load(content["average"], steps=content["average_steps"])
        self.state.step, self.state.best = content["step"], content["best"]
        self.state.recurrent = self._local_state(content["state"])
        self._restore_random(content["random"], content.get("random_cuda", []))

    def _restore_random(self, cpu: list[Tensor], cuda: list[Tensor]) -> None:
        """Restore the random states of this process, saved by as many processes as there are."""
        if len(cpu) != self.world.size:
            logger.warning(
                "saved by %s, now %d: the random draws of the detector's losses start anew",
                counted(len(cpu), "process", "processes"),
                self.world.size,
            )
            return
        torch.set_rng_state(cpu[self.world.rank])
        if self.device.type == "cuda" and len(cuda) == self.world.size:
            torch.cuda.set_rng_state(cuda[self.world.rank], self.device)

    def _local_state(self, state: State) -> State | None:
        """This process's rows of the state of all rows; None if their number has changed."""
        saved_rows = {len(t) for tensors in state.values() for t in tensors}
        if saved_rows - {self.config.train.batch}:
            logger.warning("train.batch has changed: all rows start with an empty state")
            return None
        return state_to(state_rows(state, self.rows), self.device) if state else None

    def averaged_content(self, figures: dict[str, float]) -> dict[str, Any]:
        """The averaged weights as a checkpoint; figures: their validation."""
        content = model_content(self.model, self.config, step=self.state.step, figures=figures)
        content["model"] = {n: t.cpu().contiguous() for n, t in self.average.tensors.items()}
        return content


def local_rows(config: Config, world: World) -> range:
    """The rows of a step that this process has. Raises RnndetError if they cannot be shared out."""
    train = config.train
    if train.batch % (world.size * train.accumulate):
        raise RnndetError(
            f"train.batch = {train.batch} must be a multiple of processes x train.accumulate = "
            f"{world.size} x {train.accumulate}"
        )
    share = train.batch // world.size
    return range(world.rank * share, (world.rank + 1) * share)
