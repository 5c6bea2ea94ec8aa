"""Export mot.txt: result rows of MOTChallenge, `frame,id,left,top,width,height,score,class,-1`.

Frames, pixels and classes count from 1; mot_labels.txt has the name of a class per line. Id -1: no
track. The last column, visibility, is not known. Predicted boxes are left out.
"""

import numpy as np

from rnndet.inference.writers.base import ExportedVideo, TextExport
from rnndet.structures import FrameResult
from rnndet.video.sink import describe


class MotExport(TextExport):
    names = ("mot.txt", "mot_labels.txt")

    def begin(self, video: ExportedVideo) -> None:
        super().begin(video)
        self._number = {name: number for number, name in enumerate(video.classes, start=1)}
        self.files[1].write("".join(f"{name}\n" for name in video.classes))

    def write(self, result: FrameResult, image: np.ndarray | None) -> None:
        for entry in describe(result.detections, self.video.classes):
            x1, y1, x2, y2 = entry["box"]
            box = ",".join(f"{v:.2f}" for v in (x1 + 1, y1 + 1, x2 - x1, y2 - y1))
            number, label = result.frame.index + 1, self._number[entry["label"]]
            row = f"{number},{entry.get('id', -1)},{box},{entry['score']:.4f},{label},-1\n"
            self.files[0].write(row)
