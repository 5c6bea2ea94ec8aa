"""Export yolo/: a text file for each frame, with a row for each box, and classes.txt.

yolo/000012.txt is frame 12. A row is `class cx cy w h conf id`: the number of the class, from 0, by
the lines of classes.txt; centre, width and height as shares of the frame's width and height; score;
id of the track, 0 without one. Rows are in the order of detections.jsonl, by descending score.
Boxes are cut at the edges of the frame, predicted boxes are left out, and a frame without boxes has
an empty file.
"""

import re

import numpy as np

from rnndet.boxes import clip
from rnndet.inference.writers.base import ExportedVideo, FolderExport
from rnndet.structures import FrameResult
from rnndet.system.files import output_errors
from rnndet.video.sink import describe


class YoloExport(FolderExport):
    names = ("yolo",)
    pattern = re.compile(r"\d{6,}\.txt|classes\.txt")

    def begin(self, video: ExportedVideo) -> None:
        super().begin(video)
        self._write("classes.txt", "".join(f"{name}\n" for name in video.classes))

    def write(self, result: FrameResult, image: np.ndarray | None) -> None:
        entries = describe(result.detections, self.video.classes)
        boxes = np.array([entry["box"] for entry in entries], np.float64).reshape(-1, 4)
        height, width = self.video.size_hw
        boxes = clip(boxes, size_hw=(height, width)) / [width, height, width, height]
        low, high = boxes[:, :2], boxes[:, 2:]
        shares = np.concatenate([(low + high) / 2, high - low], 1)  # (D, 4) cx cy w h
        labels = result.detections.labels.tolist()
        rows = [
            f"{label} {cx:.6f} {cy:.6f} {w:.6f} {h:.6f} {entry['score']:.4f} {entry.get('id', 0)}\n"
            for entry, label, (cx, cy, w, h) in zip(entries, labels, shares.tolist(), strict=True)
        ]
        self._write(f"{result.frame.index:06d}.txt", "".join(rows))

    def _write(self, name: str, text: str) -> None:
        with output_errors(self.place):
            (self.part / name).write_text(text, encoding="utf-8", newline="")
