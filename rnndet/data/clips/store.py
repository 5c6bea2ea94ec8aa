"""Decoded frames on the training device, kept there as far as they fit."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from rnndet.data.frames import load as load_frames
from rnndet.data.records import FrameRecord, VideoRecord


class FrameStore:
    """Loads frames as tensors of one device and keeps the first `budget` bytes of them.

    What is kept stays, so after one pass over data that fits nothing is decoded any more; what does
    not fit is decoded each time. May be used from several threads.
    """

    def __init__(self, device: torch.device | str, *, budget: int) -> None:
        self.device, self.budget = torch.device(device), budget
        self.used = 0  # bytes
        self._kept: dict[tuple[Path | None, int], Tensor] = {}
        self._lock = Lock()

    def load(
        self, video: VideoRecord, records: Sequence[FrameRecord], *, cache: Path | None = None
    ) -> Tensor:
        """(T, 3, H, W) uint8 RGB; raises InputError as `frames.load`."""
        known = {r.index: self._kept.get(_key(video, r)) for r in records}
        missing = [r for r in records if known[r.index] is None]
        images = load_frames(video, missing, cache=cache) if missing else []
        for record, image in zip(missing, images, strict=True):
            frame = torch.from_numpy(np.ascontiguousarray(image)).to(self.device).permute(2, 0, 1)
            known[record.index] = frame
            self._keep(_key(video, record), frame)
        return torch.stack([known[r.index] for r in records])

    def _keep(self, key: tuple[Path | None, int], frame: Tensor) -> None:
        with self._lock:
            if key not in self._kept and self.used + frame.nbytes <= self.budget:
                self._kept[key] = frame
                self.used += frame.nbytes


def _key(video: VideoRecord, record: FrameRecord) -> tuple[Path | None, int]:
    """By file, for names of videos are unique within their set only."""
    return record.image or video.path, record.index
