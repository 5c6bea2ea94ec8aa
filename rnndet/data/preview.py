"""Draw the labels of a video onto its frames, to check them by eye."""

import difflib
import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from rnndet.data.frames import iterate
from rnndet.data.records import VideoRecord, VideoSet
from rnndet.errors import InputError, OutputError, RnndetError
from rnndet.structures import Detections, Target
from rnndet.system.files import atomic_folder
from rnndet.video.draw import draw
from rnndet.video.image import write_image
from rnndet.video.sink import VideoSink

logger = logging.getLogger(__name__)


def find_video(videos: VideoSet, name: str) -> VideoRecord:
    """Return the video of that name; raises RnndetError with the nearest names."""
    names = [video.name for video in videos.videos]
    if name in names:
        return videos.videos[names.index(name)]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.0)
    raise RnndetError(f"there is no video {name!r}; nearest: {', '.join(near)}")


def write_preview(
    video: VideoRecord, classes: Sequence[str], out: Path, *, frames: int | None = None
) -> int:
    """Write the first `frames` listed frames with their labels; returns the number written.

    `out` is a video NAME.mp4, or without a suffix a folder of %06d.jpg. Boxes are drawn like
    detections, with the score 1.00 and the object's identity if it is above 0. Ignored boxes are
    named "ignored"; nothing is drawn on unlabelled frames.

    Raises:
        OutputError: `out` exists already or cannot be written.
        InputError: a frame cannot be read, or has another size than the first of an mp4.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise OutputError(f"{out}: exists already; choose another name")
    count = len(video.frames) if frames is None else min(frames, len(video.frames))
    images = tqdm(
        itertools.islice(_drawn(video, classes), count), total=count, unit="frame", disable=None
    )
    if out.suffix:
        return _write_video(images, out, fps=video.fps)
    return _write_folder(images, out)


def as_detections(target: Target, classes: int) -> Detections:
    """Convert a target to detections for drawing; labels are indices into `names_of`.

    A label is the class, the ignored class, or "ignored" for a region of no class.
    """
    labels = target.labels + classes * target.ignore
    labels = torch.where(target.labels < 0, 2 * classes, labels)
    ids = None if target.ids is None else target.ids.clamp(min=0)
    return Detections(
        target.boxes.numpy(), np.ones(len(target), np.float32), labels.numpy(),
        None if ids is None else ids.numpy(),
    )  # fmt: skip


def names_of(classes: Sequence[str]) -> list[str]:
    """Return the names of the labels of `as_detections`.

    >>> names_of(["bird"])
    ['bird', 'bird ignored', 'ignored']
    """
    return [*classes, *(f"{name} ignored" for name in classes), "ignored"]


def _drawn(video: VideoRecord, classes: Sequence[str]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number and the drawn image of every frame."""
    names = names_of(classes)
    targets = {record.index: record.target for record in video.frames}
    for frame in iterate(video):
        target = targets[frame.index] or Target.empty()
        yield frame.index, draw(frame.image, as_detections(target, len(classes)), names)


def _write_video(images: Iterator[tuple[int, np.ndarray]], out: Path, *, fps: float | None) -> int:
    count = 0
    size_hw: tuple[int, ...] = ()
    with ExitStack() as stack:
        for index, image in images:
            if count == 0:
                size_hw = image.shape[:2]
                sink = stack.enter_context(VideoSink(out, size_hw=size_hw, fps=fps))
            if image.shape[:2] != size_hw:
                raise InputError(f"frame {index} has another size; write images, not a video")
            sink.write(image)
            count += 1
    if count and sink.note is not None:
        logger.info(sink.note)
    return count


def _write_folder(images: Iterator[tuple[int, np.ndarray]], out: Path) -> int:
    count = 0
    with atomic_folder(out) as part:
        for index, image in images:
            write_image(part / f"{index:06d}.jpg", image)
            count += 1
    return count
