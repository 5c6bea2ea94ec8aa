"""Export images: crops/<class>/ with a JPEG for each box, frames/ with each annotated frame.

Crops are named by frame, position in the frame and id. They are cut from the frame without
annotation, at full resolution; predicted boxes are left out. The folders are called `NAME.part`
until they are complete.
"""

import contextlib
import math
import re
import shutil
from pathlib import Path

import numpy as np

from rnndet.errors import OutputError
from rnndet.inference.writers.base import Export, ExportedVideo
from rnndet.structures import FrameResult
from rnndet.system.files import output_errors, part_of, replace
from rnndet.video.image import write_image
from rnndet.video.sources.base import safe_name


class ImagesExport(Export):
    """A folder of images; an older folder is replaced if it contains nothing else."""

    pattern: re.Pattern[str]  # names of images, which identify those of an earlier run

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (self._folder,) = self.paths
        self._part = part_of(self._folder)
        self._begun = False

    def begin(self, video: ExportedVideo) -> None:
        self.video = video
        with output_errors(self._folder):
            shutil.rmtree(self._part, ignore_errors=True)
            self._part.mkdir(parents=True)
        self._begun = True

    def close(self) -> None:
        with output_errors(self._folder):
            if self._folder.exists():
                self.check_old()
                shutil.rmtree(self._folder)
        replace(self._part, self._folder)

    def abort(self) -> None:
        if self._begun:
            shutil.rmtree(self._part, ignore_errors=True)

    def remove_old(self) -> None:
        if self._folder.is_dir():
            with contextlib.suppress(OutputError), output_errors(self._folder):
                self.check_old()  # files of the user stay
                shutil.rmtree(self._folder)

    def check_old(self) -> None:
        """Raise OutputError if the folder contains anything but images of a run."""
        if not self._folder.exists():
            return
        if not self._folder.is_dir():
            raise OutputError(f"{self._folder}: is a file; remove it or use another `out_dir`")
        for path in self._folder.rglob("*"):
            if path.is_symlink() or not (path.is_dir() or self.pattern.fullmatch(path.name)):
                raise OutputError(
                    f"{path}: is no result of a run and would be lost; move it away, or use "
                    "another `out_dir`"
                )


class FramesExport(ImagesExport):
    names = ("frames",)
    needs_image = True
    pattern = re.compile(r"annotated_\d{6,}\.jpg")

    def write(self, result: FrameResult, image: np.ndarray | None) -> None:
        assert image is not None
        write_image(self._part / f"annotated_{result.frame.index:06d}.jpg", image)


class CropsExport(ImagesExport):
    names = ("crops",)
    pattern = re.compile(r"\d{6,}_\d+(_id\d+)?\.jpg")

    def begin(self, video: ExportedVideo) -> None:
        super().begin(video)
        self._folders = [self._part / safe_name(name) for name in video.classes]
        with output_errors(self._folder):
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
