"""Export images: crops/<class>/ with a JPEG for each box, frames/ with each annotated frame.

Crops are named by frame, position in the frame and id. They are cut from the frame without
annotation, at full resolution; predicted boxes are left out. The folders are called `NAME.part`
until they are complete.
"""

import math
import re

import numpy as np

from rnndet.inference.writers.base import ExportedVideo, FolderExport
from rnndet.structures import FrameResult
from rnndet.system.files import output_errors
from rnndet.video.image import write_image
from rnndet.video.sources.base import safe_name


class FramesExport(FolderExport):
    names = ("frames",)
    needs_image = True
    pattern = re.compile(r"annotated_\d{6,}\.jpg")

    def write(self, result: FrameResult, image: np.ndarray | None) -> None:
        assert image is not None
        write_image(self.part / f"annotated_{result.frame.index:06d}.jpg", image)


class CropsExport(FolderExport):
    names = ("crops",)
    pattern = re.compile(r"\d{6,}_\d+(_id\d+)?\.jpg")

    def begin(self, video: ExportedVideo) -> None:
        super().begin(video)
        self._folders = [self.part / safe_name(name) for name in video.classes]
        with output_errors(self.place):
            for folder in self._folders:
                folder.mkdir(exist_ok=True)

    def write(self, result: FrameResult, image: np.ndarray | None) -> None:
        detections, pixels = result.detections, result.frame.image
        height, width = pixels.shape[:2]
        ids = [0] * len(detections) if detections.ids is None else detections.ids.tolist()
        rows = zip(detections.boxes.tolist(), detections.labels.tolist(), ids, strict=True)
        for number, ((x1, y1, x2, y2), label, track) in enumerate(rows, start=1):
            left, top = max(0, math.floor(x1)), max(0, math.floor(y1))
            crop = pixels[top : min(height, math.ceil(y2)), left : min(width, math.ceil(x2))]
            if crop.size:  # a box outside the image has no pixels
                suffix = f"_id{track}" if track > 0 else ""
                name = f"{result.frame.index:06d}_{number}{suffix}.jpg"
                write_image(self._folders[label] / name, np.ascontiguousarray(crop))
