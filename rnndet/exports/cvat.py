"""cvat.xml: CVAT for video 1.1, to be corrected by hand there; `data/cvat_video` reads it, too.

An id becomes a track of one class, the one with the largest sum of scores; a detection without a
track becomes a track of one frame, numbered after the ids. Predicted boxes are written with
occluded="1". The format goes by tracks, so all boxes of the video are kept in memory, 44 bytes
each, until it ends.
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from rnndet.exports.base import ExportedVideo, TextExport, TextFile
from rnndet.structures import FrameResult
from rnndet.video import describe_result


class _Track:
    """The boxes of one track in order of frames."""

    def __init__(self) -> None:
        self.votes: Counter[str] = Counter()
        self.frames = array("q")
        self.corners = array("d")  # 4 for each frame
        self.occluded = bytearray()


class CvatExport(TextExport):
    names = ("cvat.xml",)

    def begin(self, video: ExportedVideo) -> None:
        super().begin(video)
        self._tracks: dict[int, _Track] = {}
        self._single: list[_Track] = []  # detections without a track
        self._first: int | None = None
        self._last = 0
        self._step = 0  # between frames, their greatest common divisor

    def write(self, result: FrameResult, picture: np.ndarray | None) -> None:
        index = result.frame.index
        if self._first is None:
            self._first = index
        else:
            self._step = math.gcd(self._step, index - self._last)
        self._last = index
        for entry in describe_result(result, self.video.classes):
            if "id" in entry:
                track = self._tracks.setdefault(entry["id"], _Track())
            else:
                track = _Track()
                self._single.append(track)
            is_predicted = "predicted" in entry
            track.frames.append(index)
            track.corners.extend(entry["box"])
            track.occluded.append(is_predicted)
            if not is_predicted:
                track.votes[entry["label"]] += entry["score"]

    def close(self) -> None:
        (file,) = self.files
        _write_head(file, self.video, range(self._first or 0, self._last + 1, self._step or 1))
        number = max(self._tracks, default=0)
        for number_of, track in self._tracks.items():
            self._write_track(file, number_of, track)
        for place, track in enumerate(self._single, start=1):
            self._write_track(file, number + place, track)
        file.write("</annotations>\n")
        super().close()

    def _write_track(self, file: TextFile, number: int, track: _Track) -> None:
        label = quoteattr(track.votes.most_common(1)[0][0])
        file.write(f'  <track id="{number}" label={label} source="auto">\n')
        for line in _boxes(track, step=self._step or 1, last=self._last):
            file.write(line)
        file.write("  </track>\n")


def _boxes(track: _Track, *, step: int, last: int) -> Iterator[str]:
    """Boxes, and where the track is gone until its next box one with outside="1"."""
    for place, frame in enumerate(track.frames):
        box = track.corners[4 * place : 4 * place + 4]
        yield _box(frame, box, outside=0, occluded=track.occluded[place])
        following = track.frames[place + 1] if place + 1 < len(track.frames) else last + 1
        if frame + step < following and frame + step <= last:
            yield _box(frame + step, box, outside=1, occluded=0)


def _box(frame: int, box: array, *, outside: int, occluded: int) -> str:
    corners = zip(("xtl", "ytl", "xbr", "ybr"), box, strict=True)
    edges = " ".join(f'{name}="{edge:.2f}"' for name, edge in corners)
    flags = f'outside="{outside}" occluded="{occluded}" keyframe="1"'
    return f'    <box frame="{frame}" {flags} {edges} z_order="0"></box>\n'


def _write_head(file: TextFile, video: ExportedVideo, frames: range) -> None:
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
