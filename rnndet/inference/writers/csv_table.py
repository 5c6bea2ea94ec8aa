"""Export detections.csv: a header, and a row for each box.

`track_label` is the class that is shown for the track, `id` is empty without a track; predicted
boxes have 1 in the last column.
"""

import csv
import io

import numpy as np

from rnndet.inference.writers.base import ExportedVideo, TextExport
from rnndet.structures import FrameResult
from rnndet.video.sink import describe_result

COLUMNS = (
    "frame", "time", "id", "label", "track_label", "score", "x1", "y1", "x2", "y2", "predicted",
)  # fmt: skip


class CsvExport(TextExport):
    names = ("detections.csv",)

    def begin(self, video: ExportedVideo) -> None:
        super().begin(video)
        self._row(COLUMNS)

    def write(self, result: FrameResult, image: np.ndarray | None) -> None:
        for entry in describe_result(result, self.video.classes):
            label = entry["label"]
            self._row((
                result.frame.index, round(result.frame.time, 6), entry.get("id", ""), label,
                entry.get("track_label", label), entry["score"], *entry["box"],
                int(entry.get("predicted", False)),
            ))  # fmt: skip

    def _row(self, values: tuple) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(values)
        self.files[0].write(line.getvalue())
