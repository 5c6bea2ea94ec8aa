"""Draw training clips, decode and augment them, and collate their windows to batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset, Sampler

from rnndet.config import AugmentConfig, ClipConfig
from rnndet.data.clips import paste, transforms
from rnndet.data.clips.sampling import ClipSampler
from rnndet.data.clips.transforms import Clip, Region
from rnndet.data.corruption.plan import Plan, corrupt
from rnndet.data.corruption.plan import plan as draw_plan
from rnndet.data.frames import FrameStore
from rnndet.data.records import VideoSet
from rnndet.structures import Target

# First seeds of streamed clips and of corruption plans; seeds of random clips start at 0.
STREAMS, PLANS = 1 << 40, 1 << 41


@dataclass(frozen=True, slots=True)
class Window:
    """T consecutive frames for one row of a batch."""

    frames: Tensor  # (T, 3, H, W) uint8 RGB
    targets: list[Target | None]
    begins: bool  # the first window of a clip: the row's recurrent state must be reset
    place: str  # video and frames, for messages
    clean: Tensor | None = None  # like frames, before corruption; with keep_clean only


@dataclass(frozen=True, slots=True)
class ClipBatch:
    """B windows of T frames; row b continues row b of the previous batch or begins a clip."""

    frames: Tensor  # (T, B, 3, H, W) uint8 RGB
    targets: list[list[Target | None]]  # [T][B]
    begins: Tensor  # (B,) bool
    places: list[str]  # of each row
    clean: Tensor | None = None  # like frames, before corruption

    def to(self, device: torch.device | str) -> ClipBatch:
        moved = [[None if t is None else t.to(device) for t in row] for row in self.targets]
        clean = None if self.clean is None else self.clean.to(device, non_blocking=True)
        frames = self.frames.to(device, non_blocking=True)
        return ClipBatch(frames, moved, self.begins.to(device), self.places, clean)


class ClipDataset(Dataset[Window]):
    """Item step * rows + row is the window of a row at a step; it depends on (seed, item) alone.

    Therefore a run can be resumed at any step, and several processes can share the rows. A streamed
    row passes through a clip of `clip.windows` windows and then begins another; rows begin at
    different steps. The other rows begin a clip of one window at each step. The last
    round(clip.streamed * rows) rows are streamed.

    Args:
        sources: (set, weight, its cache folder or None).
        size_hw: the model's input size, which determines the scale of the images; the clips have
            size `augment.crop`, already at network scale.
        keep_clean: a window also contains its frames before corruption.
        device: on which frames are augmented and up to keep_bytes of decoded frames are cached.
    """

    def __init__(
        self,
        sources: Sequence[tuple[VideoSet, float, Path | None]],
        *,
        size_hw: tuple[int, int],
        clip: ClipConfig,
        augment: AugmentConfig,
        rows: int,
        steps: int,
        seed: int = 0,
        keep_clean: bool = False,
        device: torch.device | str = "cpu",
        keep_bytes: int = 0,
    ) -> None:
        self.samplers = [
            ClipSampler(video_set, classes=clip.classes) for video_set, _, _ in sources
        ]
        self.weights = torch.tensor([weight for _, weight, _ in sources])
        self.caches = [cache for _, _, cache in sources]
        self.store = FrameStore(device, budget=keep_bytes)
        self.size_hw, self.clip, self.augment = size_hw, clip, augment
        self.rows, self.steps, self.seed, self.keep_clean = rows, steps, seed, keep_clean

    def __len__(self) -> int:
        return self.rows * self.steps

    def __getitem__(self, index: int) -> Window:
        step, row = divmod(index, self.rows)
        windows, part, number = 1, 0, index
        if row >= self.rows - round(self.clip.streamed * self.rows):
            windows = self.clip.windows
            clip_number, part = divmod(step + row % windows, windows)
            number = STREAMS + clip_number * self.rows + row
        length = self.clip.length
        plan = self._plan(length * windows, self._generator(PLANS + number))
        first = part * length
        lead = frozen_source(plan, first)
        shown = [*([] if lead is None else [lead]), *range(first, first + length)]
        clip, places = self._clip(shown, length * windows, self._generator(number))
        frames, targets = clip.frames[-length:], clip.targets[-length:]
        before = None if lead is None else clip.frames[0]
        boxes = [torch.zeros(0, 4) if t is None else t.boxes for t in targets]
        corrupted = corrupt(frames, plan[first : first + length], boxes=boxes, previous=before)
        clean = frames if self.keep_clean else None
        return Window(corrupted, targets, part == 0 or step == 0, " + ".join(places), clean)

    def _generator(self, number: int) -> Generator:
        return Generator().manual_seed(self.seed * 1_000_000_007 + number)

    def _plan(self, length: int, generator: Generator) -> Plan:
        augment = self.augment
        if not transforms.happens(augment.corrupt, generator):
            return [None] * length
        return draw_plan(
            length,
            generator,
            share=augment.corrupt_share,
            run=(augment.run_min, augment.run_max),
            kinds=augment.kinds,
        )

    def _clip(
        self, shown: Sequence[int], total: int, generator: Generator
    ) -> tuple[Clip, list[str]]:
        """Return the frames numbered `shown` of a clip of `total`, augmented, and their places."""
        height, width = self.augment.crop
        if transforms.happens(self.augment.mosaic, generator):
            half = (height // 2, width // 2)
            parts = [self._piece(half, shown, total, generator) for _ in range(4)]
            return transforms.mosaic([clip for clip, _ in parts]), [place for _, place in parts]
        clip, place = self._piece((height, width), shown, total, generator)
        return clip, [place]

    def _piece(
        self, out_hw: tuple[int, int], shown: Sequence[int], total: int, generator: Generator
    ) -> tuple[Clip, str]:
        """Return frames of one clip of one video: cropped, resized, flipped, reversed, recoloured.

        All random draws are for the whole clip and in the same order for each of its windows.
        """
        augment = self.augment
        which = int(torch.multinomial(self.weights, 1, generator=generator))
        choice = self.samplers[which].draw(
            generator, length=total, stride=(self.clip.stride_min, self.clip.stride_max)
        )
        reverse = transforms.happens(augment.reverse, generator)
        records = choice.records[::-1] if reverse else choice.records
        is_still = len(choice.video.frames) == 1
        if augment.still > 0:  # without it the draws are those of earlier versions
            is_still |= transforms.happens(augment.still, generator)
        if is_still:
            records = (records[total // 2],) * total
        chosen = [records[i] for i in shown]
        stacked = self.store.load(choice.video, chosen, cache=self.caches[which])  # (T, 3, H, W)
        frame_hw = (stacked.shape[-2], stacked.shape[-1])
        regions = [
            self._region(out_hw, frame_hw, [r.target for r in records], generator)
            for _ in range(2 if is_still else 1)
        ]
        clip = Clip(stacked, [record.target for record in chosen])
        if is_still:
            shares = [position / max(1, total - 1) for position in shown]
            clip = transforms.moving_crop(clip, *regions, shares=shares, out_hw=out_hw)
        else:
            clip = transforms.crop_resize(clip, regions[0], out_hw=out_hw)
        flipped = transforms.happens(augment.flip, generator)
        if flipped:
            clip = transforms.flip(clip)
        if augment.paste > 0 and transforms.happens(augment.paste, generator):
            targets = [
                transforms.crop_target(
                    record.target,
                    transforms.between(regions[0], regions[-1], position / max(1, total - 1)),
                    out_hw=out_hw,
                )
                for position, record in enumerate(records)
            ]
            if flipped:
                targets = [transforms.flip_target(t, width=out_hw[1]) for t in targets]
            clip = self._pasted(clip, targets, shown, generator)
        if transforms.happens(augment.colour, generator):
            clip = transforms.colour(clip, generator)
        return clip, f"{choice.video.name} frames {chosen[0].index} to {chosen[-1].index}"

    def _pasted(
        self,
        clip: Clip,
        targets: Sequence[Target | None],
        shown: Sequence[int],
        generator: Generator,
    ) -> Clip:
        """Paste objects of other videos into the frames numbered `shown` of a clip.

        targets: of all frames of the whole clip.
        """
        augment, out_hw, total = self.augment, clip.frames.shape[-2:], len(targets)
        taken = [np.zeros((0, 4), np.float32) if t is None else t.boxes.numpy() for t in targets]
        numbers = [t.ids.max() for t in targets if t is not None and t.ids is not None and len(t)]
        first = 1 + int(max(numbers, default=0))
        for number in range(
            int(torch.randint(1, augment.paste_most + 1, (1,), generator=generator))
        ):
            which = int(torch.multinomial(self.weights, 1, generator=generator))
            choice = self.samplers[which].draw(
                generator, length=total, stride=(self.clip.stride_min, self.clip.stride_max)
            )
            zoom = paste.draw_zoom(augment.paste_zoom_min, augment.paste_zoom_max, generator)
            frame_hw = (choice.video.height, choice.video.width)
            tracks = paste.complete_tracks(choice.records, frame_hw=frame_hw)
            if not tracks:
                continue
            placement = paste.place(
                tracks[int(torch.randint(len(tracks), (1,), generator=generator))],
                frame_hw=frame_hw,
                scale=zoom * transforms.inference_scale(self.size_hw, frame_hw),
                out_hw=(out_hw[0], out_hw[1]),
                taken=taken,
                flip=augment.flip,
                generator=generator,
            )
            if placement is None:
                continue
            taken = [
                np.concatenate([boxes, region[None]])
                for boxes, region in zip(taken, placement.regions, strict=True)
            ]
            donors = [choice.records[i] for i in shown]
            donor = self.store.load(choice.video, donors, cache=self.caches[which])
            clip = paste.paste(clip, donor, placement, shown=shown, number=first + number)
        return clip

    def _region(
        self,
        out_hw: tuple[int, int],
        frame_hw: tuple[int, int],
        targets: Sequence[Target | None],
        generator: Generator,
    ) -> Region:
        """Draw the region of a frame that becomes the image."""
        augment = self.augment
        zoom = torch.tensor([augment.zoom_min, augment.zoom_max]).log().tolist()
        scale = transforms.inference_scale(self.size_hw, frame_hw)
        scale *= float(np.exp(transforms.uniform(zoom[0], zoom[1], generator)))
        return transforms.choose_region(
            frame_hw,
            targets,
            out_hw=out_hw,
            scale=scale,
            on_object=transforms.happens(augment.on_object, generator),
            generator=generator,
        )


class WindowSampler(Sampler[list[int]]):
    """Yield the items of each step in order, in batches of `batch` rows, from `first_step` on.

    rows: rows of the dataset to use; their number is a multiple of `batch`.
    """

    def __init__(self, dataset: ClipDataset, rows: range, *, batch: int, first_step: int) -> None:
        assert len(rows) % batch == 0, (len(rows), batch)
        self.dataset, self.rows, self.batch, self.first_step = dataset, rows, batch, first_step

    def __len__(self) -> int:
        return (self.dataset.steps - self.first_step) * (len(self.rows) // self.batch)

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first_step, self.dataset.steps):
            items = [step * self.dataset.rows + row for row in self.rows]
            for start in range(0, len(items), self.batch):
                yield items[start : start + self.batch]


def frozen_source(plan: Sequence[Any], first: int) -> int | None:
    """Return the frame before `first` that a freeze at `first` repeats; None without a freeze."""
    at = first
    while at > 0 and plan[at] is not None and plan[at].kind == "freeze":
        at -= 1
    return at if at < first else None


def collate(windows: Sequence[Window]) -> ClipBatch:
    """Stack windows of one length and size to a batch."""
    frames = torch.stack([window.frames for window in windows], 1)  # (T, B, 3, H, W)
    targets = [list(row) for row in zip(*(window.targets for window in windows), strict=True)]
    begins = torch.tensor([window.begins for window in windows])
    known = [window.clean for window in windows if window.clean is not None]
    clean = torch.stack(known, 1) if len(known) == len(windows) else None
    return ClipBatch(
        frames.contiguous(), targets, begins, [window.place for window in windows], clean
    )
