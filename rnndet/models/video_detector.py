"""VideoDetector: a frame detector and a temporal module; the state is an argument and a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rnndet.config import ModelConfig, TemporalConfig
from rnndet.errors import RnndetError
from rnndet.models.detectors import build_for_classes
from rnndet.models.detectors.base import FrameDetector, Grids, Prepared
from rnndet.models.temporal.head import TemporalHead
from rnndet.models.temporal.state import Features, State
from rnndet.specs import TrackClassSpec
from rnndet.structures import DetectionLimits, Detections
from rnndet.system.timing import NO_TIMER, Timer


@dataclass(frozen=True, slots=True)
class Encoded:
    """The part of a window that does not depend on the past: the input of the temporal module."""

    prepared: Prepared
    features: Features  # of the backbone or the neck, each (T*B, C, H, W), time-major
    length: int  # T


@dataclass(frozen=True, slots=True)
class Output:
    """The result for a window of frames."""

    state: State
    detections: list[list[Detections]]  # [T][B]


class VideoDetector(nn.Module):
    """Detects objects in windows of T >= 1 frames; how a clip is cut does not change the result.

    Stateless: `forward` takes the state that the previous call returned, None at the
    start of a video. Training losses are computed by `rnndet.training.criterion.Criterion`.

    >>> config = ModelConfig(options={"size": [64, 96], "backbone": "mobilenet_v3_small"})
    >>> model = build_model(config, ("bird", "drone")).eval()
    >>> frames = torch.zeros(2, 1, 3, 64, 96, dtype=torch.uint8)  # T = 2 frames of B = 1 video
    >>> with torch.inference_mode():
    ...     output = model(frames)
    ...     output = model(frames, output.state)  # the next two frames
    >>> len(output.detections), len(output.detections[0])
    (2, 1)
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
        self.site = site  # "neck" or "backbone": the temporal module comes after it
        # Names tracks by their shape and motion; a stream uses it after the model, see
        # `rnndet.tracking.track_classes`.
        self.track_classes: TrackClassSpec | None = None

    @property
    def score_threshold(self) -> float:
        """Minimum score of `forward`, and of other calls without limits; a stream has its own."""
        return self.detector.score_threshold

    @score_threshold.setter
    def score_threshold(self, value: float) -> None:
        self.detector.score_threshold = value

    def forward(self, frames: Tensor, state: State | None = None) -> Output:
        """Detections and the new state; needs eval mode.

        frames: (T, B, 3, H, W) uint8 RGB, the next T frames of B videos. state: what the previous
        window of the same videos returned.
        """
        return self.decode(self.encode(frames), state)

    def step(
        self,
        frames: Tensor,
        state: State | None,
        *,
        original_sizes: Sequence[tuple[int, int]],
        limits: Sequence[DetectionLimits] | None = None,
        timer: Timer = NO_TIMER,
    ) -> Output:
        """`forward` of frames that are scaled for the network already, (T, B, 3, h, w) uint8.

        original_sizes: height and width of each of the T*B original frames, time-major; boxes are
        in their pixels. limits: of each of these frames, see `FrameDetector.detect`. timer:
        measures the stages preprocess, network, temporal and head. Computes no gradients. Raises
        RnndetError in training mode.
        """
        self.check_not_training()
        with torch.inference_mode():
            encoded = self.encode(frames, original_sizes=original_sizes, timer=timer)
            return self.decode(encoded, state, limits=limits, timer=timer)

    def check_not_training(self) -> None:
        """Raise RnndetError in training mode."""
        if self.training:
            raise RnndetError("the model is in training mode; call model.eval() before streaming")

    def raw_step(self, pixels: Tensor, state: State) -> tuple[dict[str, Tensor], State, Grids]:
        """The network alone, one frame of each video: the part that is exported and compiled.

        pixels: (B, 3, H, W) float32, normalised and padded. Returns the raw outputs of a one-stage
        head (see `FrameDetector.head`), the new state, and the sizes of the head's levels.
        """
        features = self.extract(pixels)
        features, state = self.temporal(features, state or None, 1)
        features = self.head_features(features)
        return self.detector.head(features), state, self.detector.grids(features)

    def encode(
        self,
        frames: Tensor,
        *,
        original_sizes: Sequence[tuple[int, int]] | None = None,
        timer: Timer = NO_TIMER,
    ) -> Encoded:
        """The part of `forward` before the temporal module; original_sizes, timer: see `step`."""
        images = list(frames.flatten(0, 1))  # T*B of (3, H, W)
        with timer.stage("preprocess"):
            prepared = self.detector.prepare(images, original_sizes=original_sizes)
        with timer.stage("network"):
            features = self.extract(prepared.pixels)
        return Encoded(prepared, features, frames.shape[0])

    def decode(
        self,
        encoded: Encoded,
        state: State | None = None,
        *,
        limits: Sequence[DetectionLimits] | None = None,
        timer: Timer = NO_TIMER,
    ) -> Output:
        """The rest of `forward`: temporal module and detection head; limits, timer: see `step`."""
        with timer.stage("temporal"):
            features, state = self.temporal(encoded.features, state, encoded.length)
        with timer.stage("network"):
            features = self.head_features(features)
        with timer.stage("head"):
            flat = self.detector.detect(encoded.prepared, features, limits)
        batch = len(flat) // encoded.length
        rows = [flat[t * batch : (t + 1) * batch] for t in range(encoded.length)]
        return Output(state, rows)

    def extract(self, pixels: Tensor) -> Features:
        """Features of (N, 3, h, w) pixels at `site`, the input of the temporal module."""
        features = self.detector.backbone(pixels)
        return self.detector.neck(features) if self.site == "neck" else features

    def head_features(self, features: Features) -> Features:
        """Features for the detection head, from the output of the temporal module."""
        return self.detector.neck(features) if self.site == "backbone" else features


def build_model(config: ModelConfig, classes: tuple[str, ...]) -> VideoDetector:
    """Assemble the model that a configuration describes; the temporal module has fresh weights.

    cell = "none" gives the per-frame baseline: the same code path with an empty state.
    Raises RnndetError on unknown names and options.
    """
    detector = build_for_classes(config.detector, classes, config.options)
    settings = config.temporal
    at_neck = settings.site == "neck"
    channels = detector.neck_channels if at_neck else detector.backbone_channels
    if settings.cell == "none":
        settings = TemporalConfig(cell="conv_lstm", levels=())  # no level: no cell is built
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
