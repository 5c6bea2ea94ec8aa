"""Training clips: drawn, decoded, augmented, and put together in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from rnndet import degradation
from rnndet.config import AugmentConfig, ClipConfig
from rnndet.data import frames as pictures
from rnndet.data import transforms
from rnndet.data.records import VideoSet
from rnndet.data.sampling import ClipSampler
from rnndet.data.transforms import Clip
from rnndet.structures import Truth


@dataclass(frozen=True, slots=True)
class ClipBatch:
    """B clips of T frames, all of one size."""

    frames: Tensor  # (T, B, 3, H, W) uint8 RGB
    truths: list[list[Truth | None]]  # [T][B]
    clean: Tensor | None = None  # like frames, before corruption

    def window(self, start: int, length: int) -> ClipBatch:
        """Frames start .. start+length of every clip."""
        part = slice(start, start + length)
        clean = None if self.clean is None else self.clean[part]
        return ClipBatch(self.frames[part], self.truths[part], clean)

    def to(self, device: torch.device | str) -> ClipBatch:
        moved = [[None if t is None else t.to(device) for t in row] for row in self.truths]
        clean = None if self.clean is None else self.clean.to(device, non_blocking=True)
        return ClipBatch(self.frames.to(device, non_blocking=True), moved, clean)


class ClipDataset(Dataset[Clip]):
    """Item i is a clip that depends on (seed, i) alone, so a run can go on where it stopped.

    sources: (set, weight, its cache folder or None). size_hw: the model's input size, which fixes
    the scale of the pictures; the clips come at `augment.crop`, already at network scale.
    keep_clean: a clip also holds its frames as they were before corruption.
    """

    def __init__(
        self,
        sources: Sequence[tuple[VideoSet, float, Path | None]],
        *,
        size_hw: tuple[int, int],
        clip: ClipConfig,
        augment: AugmentConfig,
        count: int,
        seed: int = 0,
        keep_clean: bool = False,
    ) -> None:
        self.samplers = [
            ClipSampler(video_set, classes=clip.classes) for video_set, _, _ in sources
        ]
        self.weights = torch.tensor([weight for _, weight, _ in sources])
        self.caches = [cache for _, _, cache in sources]
        self.size_hw, self.clip, self.augment = size_hw, clip, augment
        self.count, self.seed, self.keep_clean = count, seed, keep_clean

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Clip:
        generator = Generator().manual_seed(self.seed * 1_000_000_007 + index)
        augment = self.augment
        height, width = augment.crop
        if transforms.happens(augment.mosaic, generator):
            parts = [self._piece((height // 2, width // 2), generator) for _ in range(4)]
            clip = transforms.mosaic(parts)
        else:
            clip = self._piece((height, width), generator)
        spoilt = self._corrupted(clip, generator)
        return replace(spoilt, clean=clip.frames) if self.keep_clean else spoilt

    def _piece(self, out_hw: tuple[int, int], generator: Generator) -> Clip:
        """One clip of one video, cropped and resized to out_hw, flipped, reversed, recoloured."""
        augment = self.augment
        which = int(torch.multinomial(self.weights, 1, generator=generator))
        choice = self.samplers[which].draw(
            generator,
            length=self.clip.length * self.clip.windows,
            stride=(self.clip.stride_min, self.clip.stride_max),
        )
        images = pictures.load(choice.video, choice.records, cache=self.caches[which])
        stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)  # (T, 3, H, W)
        clip = Clip(stacked, [record.truth for record in choice.records])
        zoom = torch.tensor([augment.zoom_min, augment.zoom_max]).log().tolist()
        scale = transforms.inference_scale(self.size_hw, tuple(stacked.shape[-2:]))
        scale *= float(np.exp(transforms.uniform(zoom[0], zoom[1], generator)))
        on_object = transforms.happens(augment.on_object, generator)
        region = transforms.choose_region(
            clip, out_hw=out_hw, scale=scale, on_object=on_object, generator=generator
        )
        clip = transforms.crop_resize(clip, region, out_hw=out_hw)
        if transforms.happens(augment.flip, generator):
            clip = transforms.flip(clip)
        if transforms.happens(augment.reverse, generator):
            clip = transforms.reverse(clip)
        if transforms.happens(augment.colour, generator):
            clip = transforms.colour(clip, generator)
        return clip

    def _corrupted(self, clip: Clip, generator: Generator) -> Clip:
        augment = self.augment
        if not transforms.happens(augment.corrupt, generator):
            return clip
        plan = degradation.plan(
            len(clip.truths),
            generator,
            share=augment.corrupt_share,
            run=(augment.run_min, augment.run_max),
            kinds=augment.kinds,
        )
        boxes = [torch.zeros(0, 4) if t is None else t.boxes for t in clip.truths]
        return Clip(degradation.corrupt(clip.frames, plan, boxes=boxes), clip.truths)


def collate(clips: Sequence[Clip]) -> ClipBatch:
    """Clips of one length and size -> a batch."""
    frames = torch.stack([clip.frames for clip in clips], 1)  # (T, B, 3, H, W)
    truths = [list(row) for row in zip(*(clip.truths for clip in clips), strict=True)]
    known = [clip.clean for clip in clips if clip.clean is not None]
    clean = torch.stack(known, 1) if len(known) == len(clips) else None
    return ClipBatch(frames.contiguous(), truths, clean)
