"""Export counts.json: the counts of regions and lines at the end, and where these are.

`--regions` always writes it. "inside" and "outside" are those of the last frame.
"""

import json
from dataclasses import asdict

import numpy as np

from rnndet.inference.writers.base import ExportedVideo, TextExport
from rnndet.structures import Counts, FrameResult


class CountsExport(TextExport):
    names = ("counts.json",)

    def begin(self, video: ExportedVideo) -> None:
        super().begin(video)
        self._frames = 0
        self._counts: Counts | None = None

    def write(self, result: FrameResult, image: np.ndarray | None) -> None:
        self._frames += 1
        self._counts = result.counts

    def close(self) -> None:
        regions = self.video.regions
        content = {
            "source": self.video.info.source,
            "frames": self._frames,
            "counts": None if self._counts is None else asdict(self._counts),
            "where": None if regions is None else regions.to_dict(),
        }
        self.files[0].write(json.dumps(content, ensure_ascii=False, indent=2) + "\n")
        super().close()
