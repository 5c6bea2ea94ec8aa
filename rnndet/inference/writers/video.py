"""annotated.mp4: the frames with everything that is shown, see `VideoSink`."""

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

    def begin(self, video: ExportedVideo) -> None:
        self.sink = VideoSink(self.paths[0], size_hw=video.size_hw, fps=video.info.fps)

    def write(self, result: FrameResult, image: np.ndarray | None) -> None:
        assert self.sink is not None and image is not None
        self.sink.write(image, time=result.frame.time)

    def close(self) -> None:
        if self.sink is not None:
            self.sink.close()

    def abort(self) -> None:
        if self.sink is not None:
            self.sink.abort()
