"""Export cvat.xml (CVAT for video 1.1) for correction by hand; `data/formats/cvat_video` reads it.

Each id becomes a track of the class with the largest sum of scores. A detection without a
track becomes a track of one frame, numbered after the ids. Predicted boxes are written with
occluded="1". The format is ordered by tracks, so all boxes of the video are kept in memory, about
45 bytes each, until it ends.
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterator

import numpy as np

from rnndet.inference.writers.base import ExportedVideo, TextExport, TextFile
from rnndet.structures import FrameResult
from rnndet.video.sink import describe_result


class _Boxes:
    """Boxes in the order of frames."""

    def __init__(self) -> None:
        self.frames = array("q")
        self.corners = array("d")  # 4 for each box
        self.labels = array("h")  # indices into the classes
        self.occluded = bytearray()

    def add(self, frame: int, corners: list[float], label: int, *, occluded: bool) -> None:
        self.frames.append(frame)
        self.corners.extend(corners)
        self.labels.append(label)
        self.occluded.append(occluded)

    def __getitem__(self, row: int) -> array:
        """Return x1 y1 x2 y2."""
        return self.corners[4 * row : 4 * row + 4]


class CvatExport(TextExport):
    names = ("cvat.xml",)

    def begin(self, video: ExportedVideo) -> None:
        super().begin(video)
        self._tracks: dict[int, _Boxes] = {}
        self._votes: dict[int, Counter[int]] = {}  # sums of scores by track and class
        self._single = _Boxes()  # detections without a track
        self._first: int | None = None
        self._last = 0
        self._step = 0  # between frames, their greatest common divisor

    def write(self, result: FrameResult, image: np.ndarray | None) -> None:
        index = result.frame.index
        if self._first is None:
            self._first = index
        else:
            self._step = math.gcd(self._step, index - self._last)
        self._last = index
        for entry in describe_result(result, self.video.classes):
            label, is_predicted = self.video.classes.index(entry["label"]), "predicted" in entry
            boxes = self._single
            if "id" in entry:
                boxes = self._tracks.setdefault(entry["id"], _Boxes())
                votes = self._votes.setdefault(entry["id"], Counter())
                votes[label] += 0 if is_predicted else entry["score"]
            boxes.add(index, entry["box"], label, occluded=is_predicted)

    def close(self) -> None:
        (file,) = self.files
        _write_head(file, self.video, range(self._first or 0, self._last + 1, self._step or 1))
        for number, boxes in self._tracks.items():
            label = self._votes[number].most_common(1)[0][0]
            self._write_track(file, number, label, boxes, range(len(boxes.frames)))
        first_free = max(self._tracks, default=0) + 1
        for row, label in enumerate(self._single.labels):
            self._write_track(file, first_free + row, label, self._single, range(row, row + 1))
        file.write("</annotations>\n")
        super().close()

    def _write_track(
        self, file: TextFile, number: int, label: int, boxes: _Boxes, rows: range
    ) -> None:
        from xml.sax.saxutils import quoteattr  # imports urllib, which takes 0.04 s

        name = quoteattr(self.video.classes[label])
        file.write(f'  <track id="{number}" label={name} source="auto">\n')
        for line in _lines(boxes, rows, step=self._step or 1, last=self._last):
            file.write(line)
        file.write("  </track>\n")


def _lines(boxes: _Boxes, rows: range, *, step: int, last: int) -> Iterator[str]:
    """Yield the boxes of a track; before a gap in it, the last box again with outside="1"."""
    for row in rows:
        frame = boxes.frames[row]
        yield _line(frame, boxes[row], outside=0, occluded=boxes.occluded[row])
        following = boxes.frames[row + 1] if row + 1 in rows else last + 1
        if frame + step < following and frame + step <= last:
            yield _line(frame + step, boxes[row], outside=1, occluded=0)


def _line(frame: int, box: array, *, outside: int, occluded: int) -> str:
    corners = zip(("xtl", "ytl", "xbr", "ybr"), box, strict=True)
    edges = " ".join(f'{name}="{edge:.2f}"' for name, edge in corners)
    flags = f'outside="{outside}" occluded="{occluded}" keyframe="1"'
    return f'    <box frame="{frame}" {flags} {edges} z_order="0"></box>\n'


def _write_head(file: TextFile, video: ExportedVideo, frames: range) -> None:
    from xml.sax.saxutils import escape

    labels = "".join(
        f"<label><name>{escape(name)}</name><attributes></attributes></label>"
        for name in video.classes
    )
    height, width = video.size_hw
    file.write(
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
        f"  <meta><task><name>{escape(video.info.name)}</name><size>{len(frames)}</size>"
        f"<mode>interpolation</mode><start_frame>{frames.start}</start_frame>"
        f"<stop_frame>{frames[-1]}</stop_frame><frame_filter>step={frames.step}</frame_filter>"
        f"<labels>{labels}</labels><original_size><width>{width}</width>"
        f"<height>{height}</height></original_size></task></meta>\n"
    )
