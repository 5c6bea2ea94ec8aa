"""Export annotated.mp4: the frames with boxes, labels and tracks, see `VideoSink`."""

from pathlib import Path

import numpy as np

from rnndet.inference.writers.base import Export, ExportedVideo
from rnndet.structures import FrameResult
from rnndet.video.sink import VideoSink


class VideoExport(Export):
    names = ("annotated.mp4",)
    needs_image = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.sink: VideoSink | None = None

    @property
    def codec(self) -> str | None:
        return None if self.sink is None else self.sink.codec

    @property
    def note(self) -> str | None:
        return None if self.sink is None else self.sink.note

    def begin(self, video: ExportedVideo) -> None:
        self.sink = VideoSink(
            self.paths[0], size_hw=video.size_hw, fps=video.info.fps,
            sample_aspect=video.info.sample_aspect, colours=video.colours,
        )  # fmt: skip

    def write(self, result: FrameResult, image: np.ndarray | None) -> None:
        assert self.sink is not None and image is not None
        self.sink.write(image, time=result.frame.time)

    def close(self) -> None:
        if self.sink is not None:
            self.sink.close()

    def abort(self) -> None:
        if self.sink is not None:
            self.sink.abort()
