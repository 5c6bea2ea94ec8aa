"""Read the frames of a VideoRecord: from image files, the video file, or a cache of JPEG files.

The cache holds, for each video, a folder `<cache>/<video name>/` of `%06d.jpg` files and a
`source.json` that describes the video file they were decoded from. Each folder is written
atomically, so an interrupted run leaves no incomplete folder under that name.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from rnndet.data.orientation import check_size, labelled_image
from rnndet.data.records import FrameRecord, VideoRecord
from rnndet.errors import InputError
from rnndet.structures import DEFAULT_FPS, Frame
from rnndet.system.files import atomic_folder
from rnndet.video.image import write_image
from rnndet.video.sources.open import open_source, read_frames

QUALITY = 92  # JPEG, 0 to 100


def iterate(video: VideoRecord, *, cache: Path | None = None) -> Iterator[Frame]:
    """Yield the record's frames in order, decoding once; `Frame.index` is FrameRecord.index.

    With a cache that holds the video, frames are read from it. Raises InputError when a frame
    is missing or has another size than its labels.
    """
    rate = video.fps or float(DEFAULT_FPS)
    if video.path is None or is_cached(video, cache):
        for record in video.frames:
            image = labelled_image(video, record, image_path(video, record, cache))
            yield Frame(image, record.index, record.index / rate)
        return
    remaining = {record.index: record for record in video.frames}
    with open_source(video.path) as source:
        for frame in source:
            if frame.index in remaining:
                check_size(video, remaining.pop(frame.index), video.path, frame.image)
                yield Frame(frame.image, frame.index, frame.index / rate)
            if not remaining:
                return
    raise InputError(f"{video.path}: ends before frame {min(remaining)}, which is labelled")


def load(
    video: VideoRecord, records: Sequence[FrameRecord], *, cache: Path | None = None
) -> list[np.ndarray]:
    """Load some frames of one video for a training clip, each (H, W, 3) uint8 RGB."""
    if video.path is None or is_cached(video, cache):
        return [labelled_image(video, r, image_path(video, r, cache)) for r in records]
    images = read_frames(video.path, [record.index for record in records])
    for record, image in zip(records, images, strict=True):
        check_size(video, record, video.path, image)
    return images


class FrameStore:
    """Load frames as tensors on one device and keep the first `budget` bytes of them there.

    Stored frames are never evicted: after one pass over data that fits, nothing is decoded again.
    Frames beyond the budget are decoded each time. Safe to use from several threads.
    """

    def __init__(self, device: torch.device | str, *, budget: int) -> None:
        self.device, self.budget = torch.device(device), budget
        self.used = 0  # bytes
        self._kept: dict[tuple[Path | None, int, bool], Tensor] = {}
        self._lock = Lock()

    def load(
        self, video: VideoRecord, records: Sequence[FrameRecord], *, cache: Path | None = None
    ) -> Tensor:
        """Load frames as (T, 3, H, W) uint8 RGB; raises InputError like `frames.load`."""
        tensors = {r.index: self._kept.get(_store_key(video, r)) for r in records}
        # each once: a clip of a still picture repeats its only frame
        missing = list({r.index: r for r in records if tensors[r.index] is None}.values())
        images = load(video, missing, cache=cache) if missing else []
        for record, image in zip(missing, images, strict=True):
            frame = torch.from_numpy(np.ascontiguousarray(image)).to(self.device).permute(2, 0, 1)
            tensors[record.index] = frame
            self._keep(_store_key(video, record), frame)
        return torch.stack([tensors[r.index] for r in records])

    def _keep(self, key: tuple[Path | None, int, bool], frame: Tensor) -> None:
        with self._lock:
            if key not in self._kept and self.used + frame.nbytes <= self.budget:
                self._kept[key] = frame
                self.used += frame.nbytes


def _store_key(video: VideoRecord, record: FrameRecord) -> tuple[Path | None, int, bool]:
    """The file, frame number and orientation: names of videos are unique within one set only."""
    return record.image or video.path, record.index, video.as_stored


def image_path(video: VideoRecord, record: FrameRecord, cache: Path | None) -> Path:
    """Return the path of a frame's image: the file of the data set, or the cached file."""
    if record.image is not None:
        return record.image
    assert cache is not None, video.name
    return cache / video.name / f"{record.index:06d}.jpg"


def is_cached(video: VideoRecord, cache: Path | None) -> bool:
    """True if the cache holds all frames of this video, decoded from the current file.

    A cache without the video files, as on another machine, is trusted.
    """
    if cache is None or video.path is None:
        return False
    note = cache / video.name / "source.json"
    if not note.is_file():
        return False
    try:
        made_from = json.loads(note.read_text(encoding="utf-8"))
    except ValueError:
        return False  # a damaged note: decode again
    return not video.path.is_file() or made_from["bytes"] == video.path.stat().st_size


def make_cache(video: VideoRecord, cache: Path) -> int:
    """Decode one video file into the cache; returns the number of frames, 0 if already cached.

    Raises InputError (the video) or OutputError (the cache folder).
    """
    if video.path is None or is_cached(video, cache):
        return 0
    count = 0
    with atomic_folder(cache / video.name) as part, open_source(video.path) as source:
        for frame in source:
            write_image(part / f"{frame.index:06d}.jpg", frame.image, quality=QUALITY)
            count += 1
        note = {"bytes": video.path.stat().st_size, "frames": count, "quality": QUALITY}
        (part / "source.json").write_text(json.dumps(note), encoding="utf-8")
    return count
