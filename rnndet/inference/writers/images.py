"""Images: crops/<class>/ with one JPEG for each box, frames/ with each annotated frame.

Crops are named by frame, place in the frame and id, and cut from the frame without annotation, at
full pixels; predicted boxes are left out. The folders are `NAME.part` until they are complete.
"""

import contextlib
import math
import os
import re
import shutil
from pathlib import Path

import numpy as np

from rnndet.errors import OutputError
from rnndet.inference.writers.base import Export, ExportedVideo, reported
from rnndet.structures import FrameResult
from rnndet.video.image import write_image
from rnndet.video.sources.base import safe_name


class PicturesExport(Export):
    """A folder of images; an old one is replaced if it holds nothing else."""

    pattern: re.Pattern[str]  # of the images' names, by which those of an earlier run are known

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (self._folder,) = self.paths
        self._part = self._folder.with_name(f"{self._folder.name}.part")
        self._begun = False

    def begin(self, video: ExportedVideo) -> None:
        self.video = video
        with reported(self._folder):
            shutil.rmtree(self._part, ignore_errors=True)
            self._part.mkdir(parents=True)
        self._begun = True

    def close(self) -> None:
        with reported(self._folder):
            if self._folder.exists():
                self.check_old()
                shutil.rmtree(self._folder)
            os.replace(self._part, self._folder)

    def abort(self) -> None:
        if self._begun:
            shutil.rmtree(self._part, ignore_errors=True)

    def remove_old(self) -> None:
        if self._folder.is_dir():
            with contextlib.suppress(OutputError), reported(self._folder):
                self.check_old()  # what is not ours stays
                shutil.rmtree(self._folder)

    def check_old(self) -> None:
        """Raise OutputError if there is a folder that holds anything but images of a run."""
        if not self._folder.exists():
            return
        if not self._folder.is_dir():
            raise OutputError(f"{self._folder}: is a file; remove it or use another --out")
        for path in self._folder.rglob("*"):
            if path.is_symlink() or not (path.is_dir() or self.pattern.fullmatch(path.name)):
                raise OutputError(
                    f"{path}: is not of an earlier run and would be lost; move it away, or use "
                    "another --out"
                )


class FramesExport(PicturesExport):
    names = ("frames",)
    needs_image = True
    pattern = re.compile(r"annotated_\d{6,}\.jpg")

    def write(self, result: FrameResult, image: np.ndarray | None) -> None:
        assert image is not None
        write_image(self._part / f"annotated_{result.frame.index:06d}.jpg", image)


class CropsExport(PicturesExport):
    names = ("crops",)
    pattern = re.compile(r"\d{6,}_\d+(_id\d+)?\.jpg")

    def begin(self, video: ExportedVideo) -> None:
        super().begin(video)
        self._folders = [self._part / safe_name(name) for name in video.classes]
        with reported(self._folder):
            for folder in self._folders:
                folder.mkdir(exist_ok=True)

    def write(self, result: FrameResult, image: np.ndarray | None) -> None:
        found, pixels = result.detections, result.frame.image
        height, width = pixels.shape[:2]
        ids = [0] * len(found) if found.ids is None else found.ids.tolist()
        rows = zip(found.boxes.tolist(), found.labels.tolist(), ids, strict=True)
        for place, ((x1, y1, x2, y2), label, track) in enumerate(rows, start=1):
            left, top = max(0, math.floor(x1)), max(0, math.floor(y1))
            crop = pixels[top : min(height, math.ceil(y2)), left : min(width, math.ceil(x2))]
            if crop.size:  # a box beside the image has none
                of = f"_id{track}" if track > 0 else ""
                name = f"{result.frame.index:06d}_{place}{of}.jpg"
                write_image(self._folders[label] / name, np.ascontiguousarray(crop))
