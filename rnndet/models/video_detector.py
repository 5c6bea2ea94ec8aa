"""VideoDetector: a frame detector and a memory; the state is an explicit argument and result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import call

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rnndet.config import ModelConfig, TemporalConfig
from rnndet.errors import RnndetError
from rnndet.models.detectors import build_detector
from rnndet.models.detectors.base import FrameDetector, Grids, Prepared
from rnndet.models.temporal.distillation import distillation_loss, object_cells
from rnndet.models.temporal.head import TemporalHead
from rnndet.models.temporal.stability import stability_loss
from rnndet.models.temporal.state import Features, State
from rnndet.structures import Detections, Target
from rnndet.system.timing import NO_TIMER, Timer


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a window of frames is before any memory: the part that does not depend on the past."""

    prepared: Prepared
    features: Features  # of the backbone or of the neck, each (T*B, C, H, W), time-major
    length: int  # T
    labelled: Tensor | None  # (M,) int64, the images that give losses; None outside training


@dataclass(frozen=True, slots=True)
class Output:
    """What a window of frames gives."""

    state: State
    detections: list[list[Detections]] | None  # [T][B], when truths were not given
    losses: dict[str, Tensor] | None  # when truths were given; empty if no frame is labelled
    count: Tensor | None = None  # scalar; what the detector's losses are means over, see `Losses`


class VideoDetector(nn.Module):
    """Detects objects in windows of T >= 1 frames; the result does not depend on how a clip is cut.

    Remembers nothing itself: `forward` takes the state that the previous call returned, None at the
    beginning of a video.
    """

    def __init__(
        self,
        detector: FrameDetector,
        temporal: TemporalHead,
        classes: tuple[str, ...],
        *,
        site: str,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.temporal = temporal
        self.classes = classes
        self.site = site  # "neck" or "backbone": whose features the memory sees

    @property
    def score_threshold(self) -> float:
        """Detections below this score are not returned; the evaluation floor is 0.001."""
        return self.detector.score_threshold

    @score_threshold.setter
    def score_threshold(self, value: float) -> None:
        self.detector.score_threshold = value

    def forward(
        self,
        frames: Tensor,
        state: State | None = None,
        *,
        targets: list[list[Target | None]] | None = None,
        clean: Tensor | None = None,
        supervised: Tensor | None = None,
        stable: bool = False,
        activation_checkpoints: int = 0,
    ) -> Output:
        """Detections, or losses if truths are given (then the model must be in training mode).

        frames: (T, B, 3, H, W) uint8 RGB, the next T frames of B videos; state: what the previous
        window of the same videos returned; truths[t][b] is None where a frame is not labelled;
        clean: the same frames before they were corrupted, for the loss "distillation"; judged:
        (T, B) bool, which labelled frames the detector's losses are of, None for all; stable: give
        the loss "stability" as well;
        recompute: activations are not kept for the backward pass but computed again (Chen et al.
        2016, arXiv 1604.06174), those of backbone and neck in so many parts of the T*B images.
        """
        wanted = None
        if clean is not None:
            with torch.no_grad():
                wanted = self.encode(clean).features
        encoded = self.encode(
            frames,
            targets=targets,
            supervised=supervised,
            activation_checkpoints=activation_checkpoints,
        )
        return self.decode(
            encoded, state, clean=wanted, stable=stable, again=activation_checkpoints > 0
        )

    def step(
        self,
        frames: Tensor,
        state: State | None,
        *,
        original_sizes: Sequence[tuple[int, int]],
        timer: Timer = NO_TIMER,
    ) -> Output:
        """`forward` of frames that have been scaled for the network, (T, B, 3, h, w) uint8.

        original_sizes: T*B heights and widths of the frames in whose pixels the boxes are wanted,
        time-major. timer: measures the stages preprocess, network, temporal and head. In inference
        mode: no gradients. Raises RnndetError in training mode.
        """
        self.check_not_training()
        with torch.inference_mode():
            encoded = self.encode(frames, original_sizes=original_sizes, timer=timer)
            return self.decode(encoded, state, timer=timer)

    def check_not_training(self) -> None:
        """Raise RnndetError in training mode."""
        if self.training:
            raise RnndetError("the model is in training mode; call model.eval() before streaming")

    def raw_step(self, pixels: Tensor, state: State) -> tuple[dict[str, Tensor], State, Grids]:
        """One frame of each video without what comes before and after: exported, and compiled.

        pixels: (B, 3, H, W) float32, normalised and padded. The raw outputs of a one-stage head,
        see `FrameDetector.head`, the new state, and the sizes of the head's levels.
        """
        features = self._features(pixels)
        features, state = self.temporal(features, state or None, 1)
        if self.site == "backbone":
            features = self.detector.neck(features)
        return self.detector.head(features), state, self.detector.grids(features)

    def encode(
        self,
        frames: Tensor,
        *,
        targets: list[list[Target | None]] | None = None,
        supervised: Tensor | None = None,
        activation_checkpoints: int = 0,
        original_sizes: Sequence[tuple[int, int]] | None = None,
        timer: Timer = NO_TIMER,
    ) -> Encoded:
        """The memory-free part of `forward`: everything up to where the state enters.

        original_sizes, timer: see `step`.
        """
        length = frames.shape[0]
        images = frames.flatten(0, 1)  # (T*B, 3, H, W)
        labelled = given = None
        if targets is not None:
            flat = [target for row in targets for target in row]
            known = torch.tensor([target is not None for target in flat])
            if supervised is not None:
                known &= supervised.flatten()
            labelled = known.nonzero().flatten().to(frames.device)
            given = [Target.empty().to(frames.device) if t is None else t for t in flat]
        with timer.stage("preprocess"):
            prepared = self.detector.prepare(list(images), given, original_sizes=original_sizes)
        if activation_checkpoints:
            parts = [
                checkpoint(self._features, part, use_reentrant=False)
                for part in prepared.pixels.chunk(activation_checkpoints)
            ]
            features = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        else:
            with timer.stage("network"):
                features = self._features(prepared.pixels)
        return Encoded(prepared, features, length, labelled)

    def _features(self, pixels: Tensor) -> Features:
        """Of (N, 3, h, w) pixels, up to where the memory is."""
        features = self.detector.backbone(pixels)
        return self.detector.neck(features) if self.site == "neck" else features

    def decode(
        self,
        encoded: Encoded,
        state: State | None = None,
        *,
        clean: Features | None = None,
        stable: bool = False,
        again: bool = False,
        timer: Timer = NO_TIMER,
    ) -> Output:
        """The rest of `forward`: memory, detection head, and the new state.

        clean: what `encode` makes of the frames before they were corrupted; stable: as in
        `forward`; again: memory and losses are computed again in the backward pass; timer: see
        `step`.
        """
        run = partial(checkpoint, use_reentrant=False) if again else call
        with timer.stage("temporal"):
            features, state = run(self.temporal, encoded.features, state, encoded.length)
        extra = {} if clean is None else self._distillation(encoded, features, clean)
        if stable:
            extra |= self._stability(encoded, features)
        if self.site == "backbone":
            with timer.stage("network"):
                features = self.detector.neck(features)
        if encoded.labelled is None:
            with timer.stage("head"):
                flat = self.detector.detect(encoded.prepared, features)
            batch = len(flat) // encoded.length
            rows = [flat[t * batch : (t + 1) * batch] for t in range(encoded.length)]
            return Output(state, rows, None)
        if len(encoded.labelled) == 0:
            return Output(state, None, extra)
        prepared = encoded.prepared.select(encoded.labelled)
        chosen = {name: feature[encoded.labelled] for name, feature in features.items()}
        losses = run(self.detector.losses, prepared, chosen)
        return Output(state, None, losses.terms | extra, losses.count)

    def _distillation(
        self, encoded: Encoded, features: Features, clean: Features
    ) -> dict[str, Tensor]:
        """The loss "distillation" of the levels that have a memory; none without a memory."""
        levels = self.temporal.levels
        if not levels:
            return {}
        boxes, _ = encoded.prepared.objects()
        clean = {level: clean[level] for level in levels}
        objects = object_cells(boxes, clean, size_hw=encoded.prepared.padded_hw)
        spread = self.temporal.spread()
        return {"distillation": distillation_loss(features, clean, objects, spread=spread)}

    def _stability(self, encoded: Encoded, features: Features) -> dict[str, Tensor]:
        """The loss "stability" of the levels that have a memory; none without a memory."""
        levels = self.temporal.levels
        if not levels:
            return {}
        boxes, ids = encoded.prepared.objects()
        loss = stability_loss(
            {level: features[level] for level in levels},
            boxes,
            ids,
            length=encoded.length,
            size_hw=encoded.prepared.padded_hw,
            spread=self.temporal.spread(),
        )
        return {"stability": loss}


def build_model(config: ModelConfig, classes: tuple[str, ...]) -> VideoDetector:
    """Assemble the model that a configuration describes, with fresh weights for the memory.

    cell = "none" gives the per-frame baseline: the same code path with an empty state.
    Raises RnndetError on unknown names and options.
    """
    detector = build_detector(config.detector, len(classes), config.options)
    settings = config.temporal
    at_neck = settings.site == "neck"
    channels = detector.neck_channels if at_neck else detector.backbone_channels
    if settings.cell == "none":
        settings = TemporalConfig(cell="conv_lstm", levels=())  # of no level: nothing is built
    temporal = TemporalHead(
        channels,
        cell=settings.cell,
        levels=settings.levels,
        hidden=settings.hidden,
        fusion=settings.fusion,
        gate_bias=settings.gate_bias,
        memory_scale=settings.memory_scale,
        options=settings.options,
    )
    return VideoDetector(detector, temporal, classes, site=config.temporal.site)
