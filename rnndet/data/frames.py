"""Images of a VideoRecord: from image files, from the video file, or from a cache of frames.

The cache holds, for each video, a folder `<cache>/<video name>/` of `%06d.jpg` files and a
`source.json` that says what they were made from. A folder is made under another name and renamed
when it is complete, so an interrupted run leaves nothing that could be mistaken for a whole one.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rnndet.data.records import FrameRecord, VideoRecord
from rnndet.errors import InputError, OutputError
from rnndet.structures import Frame
from rnndet.video.image import read_image, write_image
from rnndet.video.sources.open import open_source, read_frames

QUALITY = 92  # JPEG, 0 to 100


def iterate(video: VideoRecord, *, cache: Path | None = None) -> Iterator[Frame]:
    """Yield the record's frames in order, decoding once; `Frame.index` is FrameRecord.index.

    With a cache that holds the video, frames are read from it. Raises InputError when a frame
    is missing.
    """
    rate = video.fps or 25.0
    if video.path is None or is_cached(video, cache):
        for record in video.frames:
            image = read_image(image_path(video, record, cache))
            yield Frame(image, record.index, record.index / rate)
        return
    wanted = {record.index for record in video.frames}
    with open_source(video.path) as source:
        for frame in source:
            if frame.index in wanted:
                wanted.remove(frame.index)
                yield Frame(frame.image, frame.index, frame.index / rate)
            if not wanted:
                return
    raise InputError(f"{video.path}: ends before frame {min(wanted)}, which is labelled")


def load(
    video: VideoRecord, records: Sequence[FrameRecord], *, cache: Path | None = None
) -> list[np.ndarray]:
    """The images of some frames of one video, each (H, W, 3) uint8 RGB, for training clips."""
    if video.path is None or is_cached(video, cache):
        return [read_image(image_path(video, record, cache)) for record in records]
    return read_frames(video.path, [record.index for record in records])


def image_path(video: VideoRecord, record: FrameRecord, cache: Path | None) -> Path:
    """Where a frame's image lies: the data's own file, or the one in the cache."""
    if record.image is not None:
        return record.image
    assert cache is not None, video.name
    return cache / video.name / f"{record.index:06d}.jpg"


def is_cached(video: VideoRecord, cache: Path | None) -> bool:
    """True if the cache holds all frames of this video, made from the file as it is now.

    A cache that travels without its videos is taken at its word.
    """
    if cache is None or video.path is None:
        return False
    note = cache / video.name / "source.json"
    if not note.is_file():
        return False
    try:
        made_from = json.loads(note.read_text(encoding="utf-8"))
    except ValueError:
        return False  # damaged: as good as none
    return not video.path.is_file() or made_from["bytes"] == video.path.stat().st_size


def make_cache(video: VideoRecord, cache: Path) -> int:
    """Decode one video file into the cache; returns the number of frames, 0 if it was there.

    Raises InputError (the video) or OutputError (the cache folder).
    """
    if video.path is None or is_cached(video, cache):
        return 0
    folder, part = cache / video.name, cache / (video.name + ".part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        count = 0
        with open_source(video.path) as source:
            for frame in source:
                write_image(part / f"{frame.index:06d}.jpg", frame.image, quality=QUALITY)
                count += 1
        note = {"bytes": video.path.stat().st_size, "frames": count, "quality": QUALITY}
        (part / "source.json").write_text(json.dumps(note), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    except OSError as error:
        raise OutputError(f"{folder}: cache cannot be written: {error.strerror}") from None
    return count
