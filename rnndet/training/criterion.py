"""Training losses: the detector's losses, feature distillation from clean frames, and stability."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rnndet.config import TrainConfig
from rnndet.data.clips.dataset import ClipBatch
from rnndet.errors import RnndetError
from rnndet.models.detectors.base import Losses, Prepared
from rnndet.models.detectors.distillation import output_distillation_loss
from rnndet.models.temporal.losses import distillation_loss, object_cells, stability_loss
from rnndet.models.temporal.state import Features, State
from rnndet.models.video_detector import VideoDetector
from rnndet.structures import Target
from rnndet.training.teacher import CleanTeacher, Teaching, check_features, check_outputs

# Losses besides the detector's own. The setting of the same name is the weight. They are means over
# images or anchors; the detector's losses are means over the matched cells.
ADDED_LOSSES = ("distillation", "output_distillation", "stability")


@dataclass(frozen=True, slots=True)
class WindowLosses:
    """The losses of one window and the state after it."""

    terms: dict[str, Tensor]  # name -> scalar, without weights; empty if there is nothing to learn
    count: Tensor | None  # scalar, see `Losses`; None if no frame is supervised
    state: State


class Criterion(nn.Module):
    """The losses of a window of frames; DistributedDataParallel wraps it, since it runs the model.

    Has no parameters besides the model's. Needs train mode.

    - teacher: sees the clean frames where a batch has them; None: the model itself, without its
      temporal module.
    - output_distillation, stability: also compute these losses. "distillation" is computed wherever
      a batch has clean frames. It and "stability" need a temporal module.
    - activation_checkpoints: above 0, activations are recomputed in the backward pass instead of
      kept (Chen et al. 2016, arXiv 1604.06174); backbone and neck run in that many chunks of the
      T*B images.

    Raises RnndetError for output_distillation of a two-stage detector.
    """

    def __init__(
        self,
        model: VideoDetector,
        *,
        teacher: CleanTeacher | None = None,
        output_distillation: bool = False,
        stability: bool = False,
        activation_checkpoints: int = 0,
    ) -> None:
        super().__init__()
        if output_distillation and model.detector.head_spec is None:
            raise RnndetError(
                "train.output_distillation needs a one-stage detector; set it to 0 and use "
                "train.distillation, which compares features"
            )
        self.model = model
        self.teacher = teacher
        self.output_distillation = output_distillation
        self.stability = stability
        self.activation_checkpoints = activation_checkpoints

    def forward(
        self, batch: ClipBatch, state: State | None, supervised: Tensor | None = None
    ) -> WindowLosses:
        """Run the model over the window and compare it with the targets and the clean frames.

        state: returned for the previous window of the same rows. supervised: (T, B) bool, the
        labelled frames that the detector's losses are computed on; None for all of them. The other
        frames move the state only.
        """
        model, length = self.model, batch.frames.shape[0]
        teaching = None if batch.clean is None else self._teach(batch.clean)
        prepared = self._prepare(batch)
        features = self._extract(prepared.pixels)
        features, state = self._run(model.temporal, features, state, length)
        terms = {}
        if teaching is not None and model.temporal.levels:
            terms["distillation"] = self._distillation(batch, prepared, features, teaching)
        if self.stability and model.temporal.levels:
            terms["stability"] = self._stability(prepared, features, length)
        rows = supervised_images(batch.targets, supervised).to(batch.frames.device)
        compares_outputs = teaching is not None and self.output_distillation
        if not (len(rows) or compares_outputs):
            return WindowLosses(terms, None, state)
        features = model.head_features(features)
        if compares_outputs:
            terms["output_distillation"] = self._outputs(features, teaching)
        if not len(rows):
            return WindowLosses(terms, None, state)
        losses = self._detection(prepared, features, rows)
        return WindowLosses(losses.terms | terms, losses.count, state)

    def _prepare(self, batch: ClipBatch) -> Prepared:
        """The T*B images and their targets; an unlabelled frame gets an empty target."""
        device = batch.frames.device
        targets = [Target.empty().to(device) if t is None else t for t in flat(batch.targets)]
        return self.model.detector.prepare(list(batch.frames.flatten(0, 1)), targets)

    def _extract(self, pixels: Tensor) -> Features:
        if not self.activation_checkpoints:
            return self.model.extract(pixels)
        chunks = [
            checkpoint(self.model.extract, chunk, use_reentrant=False)
            for chunk in pixels.chunk(self.activation_checkpoints)
        ]
        return {level: torch.cat([chunk[level] for chunk in chunks]) for level in chunks[0]}

    def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a part of the network, with activation checkpointing if enabled."""
        if not self.activation_checkpoints:
            return function(*arguments)
        return checkpoint(function, *arguments, use_reentrant=False)

    def _detection(self, prepared: Prepared, features: Features, rows: Tensor) -> Losses:
        """The detector's losses on the images at `rows`."""
        chosen = {level: feature[rows] for level, feature in features.items()}
        return self._run(self.model.detector.losses, prepared.select(rows), chosen)

    @torch.no_grad()
    def _teach(self, clean: Tensor) -> Teaching:
        if self.teacher is not None:
            return self.teacher(clean)
        features = self.model.encode(clean).features
        outputs = {}
        if self.output_distillation:
            outputs = self.model.detector.raw_outputs(self.model.head_features(features))
        return Teaching(features, outputs, [])

    def _distillation(
        self, batch: ClipBatch, prepared: Prepared, features: Features, teaching: Teaching
    ) -> Tensor:
        """Feature distillation; objects are those of the targets, else of the teacher."""
        temporal = self.model.temporal
        boxes, _ = prepared.objects()
        if teaching.boxes:
            pairs = zip(flat(batch.targets), boxes, teaching.boxes, strict=True)
            boxes = [seen if target is None else known for target, known, seen in pairs]
        teacher = {level: teaching.features[level] for level in temporal.levels}
        check_features(features, teacher)
        objects = object_cells(boxes, teacher, size_hw=prepared.padded_hw)
        return distillation_loss(features, teacher, objects, spread=temporal.spread())

    def _outputs(self, features: Features, teaching: Teaching) -> Tensor:
        detector = self.model.detector
        outputs = detector.raw_outputs(features)
        check_outputs(outputs, teaching.outputs)
        return output_distillation_loss(outputs, teaching.outputs, scores=detector.head_spec.scores)

    def _stability(self, prepared: Prepared, features: Features, length: int) -> Tensor:
        temporal = self.model.temporal
        boxes, ids = prepared.objects()
        return stability_loss(
            {level: features[level] for level in temporal.levels},
            boxes,
            ids,
            length=length,
            size_hw=prepared.padded_hw,
            spread=temporal.spread(),
        )


def flat(targets: list[list[Target | None]]) -> list[Target | None]:
    """[T][B] -> T*B, time-major."""
    return [target for row in targets for target in row]


def supervised_images(targets: list[list[Target | None]], supervised: Tensor | None) -> Tensor:
    """Indices of the labelled frames, of those in `supervised` unless it is None, (M,) int64."""
    labelled = torch.tensor([target is not None for target in flat(targets)])
    if supervised is not None:
        labelled &= supervised.flatten()
    return labelled.nonzero().flatten()


def choose_supervised(targets: list[list[Target | None]], share: float, *, seed: int) -> Tensor:
    """A random share of the labelled frames, at least one if there is any, (T, B) bool.

    Fewer frames pass through the detection head while the temporal module still sees all of them.
    """
    labelled = torch.tensor([[target is not None for target in row] for row in targets])
    places = labelled.nonzero()
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
    chosen = places[order[: max(1, round(share * len(places)))]]
    supervised = torch.zeros_like(labelled)
    supervised[chosen[:, 0], chosen[:, 1]] = True
    return supervised


def weighted_sum(losses: dict[str, Tensor], config: TrainConfig, *, zero: Tensor) -> Tensor:
    """The loss that is minimised; starts at `zero`.

    `train.detection` weighs the detector's losses, the setting of the same name each of
    ADDED_LOSSES.
    """
    weights = {name: getattr(config, name) for name in ADDED_LOSSES}
    total = zero
    for name, loss in losses.items():
        total = total + weights.get(name, config.detection) * loss
    return total
