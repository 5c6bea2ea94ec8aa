"""Select, relabel and corrupt labelled videos for an evaluation."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rnndet.data.corruption.plan import Degrader, Plan
from rnndet.data.frames import load
from rnndet.data.records import VideoRecord, VideoSet
from rnndet.data.targets import relabelled
from rnndet.errors import RnndetError
from rnndet.structures import Frame

SOME_CLASSES = "evaluate some of them with `only_classes`, or under other names with `ClassMap`"


def match_classes(
    data: VideoSet, classes: tuple[str, ...], *, remedy: str = SOME_CLASSES
) -> VideoSet:
    """The data with the labels of a model that has these classes; classes are matched by name.

    Raises RnndetError if the data has a class that the model does not have, which ends with what
    to do, `remedy`.

    >>> match_classes(VideoSet(("bird",), ()), ("drone", "bird")).classes
    ('drone', 'bird')
    """
    unknown = [name for name in data.classes if name not in classes]
    if unknown:
        raise RnndetError(
            f"the data has classes that the model does not know: {', '.join(unknown)}; "
            f"it knows {', '.join(classes)}; {remedy}"
        )
    return only_classes(data, classes)


def only_classes(data: VideoSet, classes: tuple[str, ...]) -> VideoSet:
    """The data with these classes; targets of other classes are left out.

    >>> only_classes(VideoSet(("fox", "bird"), ()), ("bird",)).classes
    ('bird',)
    """
    if data.classes == classes:
        return data
    return VideoSet(
        classes, tuple(relabelled(video, data.classes, classes) for video in data.videos)
    )


def spread(videos: Sequence[VideoRecord], limit: int | None) -> Sequence[VideoRecord]:
    """At most `limit` videos, evenly spaced in the list, since neighbours are often similar."""
    if limit is None or limit >= len(videos):
        return videos
    if limit < 1:
        raise RnndetError(f"videos to evaluate = {limit}; expected 1 or more")
    return [videos[i * len(videos) // limit] for i in range(limit)]


def thinned(video: VideoRecord, every: int) -> VideoRecord:
    """Only the first, the (every + 1)-th, ... frame: the video at a lower frame rate."""
    if every < 1:
        raise RnndetError(f"every = {every}; expected 1 (all frames) or more")
    return replace(video, frames=video.frames[::every])


def degraded(video: VideoRecord, frames: Iterable[Frame], plan: Plan) -> Iterator[Frame]:
    """The frames of the video, corrupted by a plan with one entry for each of `video.frames`."""
    degrader = Degrader(plan, {i: record.target for i, record in enumerate(video.frames)})
    position = {record.index: i for i, record in enumerate(video.frames)}
    for frame in frames:
        yield replace(frame, image=degrader.apply(position[frame.index], frame.image))


def corrupted_frames(video: VideoRecord, plan: Plan) -> set[int]:
    """Indices of the frames that a plan corrupts."""
    pairs = zip(video.frames, plan, strict=True)
    return {record.index for record, entry in pairs if entry is not None}


def images_of(
    data: VideoSet, frames: Sequence[tuple[str, int]], *, cache: Path | None = None
) -> dict[tuple[str, int], np.ndarray]:
    """The images, (H, W, 3) uint8, of frames given by video name and frame index."""
    selected = set(frames)
    images = {}
    for video in data.videos:
        records = [r for r in video.frames if (video.name, r.index) in selected]
        if records:
            loaded = load(video, records, cache=cache)
            images |= {(video.name, r.index): i for r, i in zip(records, loaded, strict=True)}
    return images
