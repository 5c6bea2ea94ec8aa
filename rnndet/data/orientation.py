"""Orientation of images under labels: as stored, or turned by their EXIF orientation.

Cameras store photographs sideways or upside down and note in the EXIF orientation (tag 274, 1 for
upright) how to turn them. Most tools for labelling show the turned image; some programs that
write labels ignore the tag. `settle` decides it when a set is read, `labelled_image` reads
images accordingly and refuses sizes that the labels do not have.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from rnndet.data.problems import Problems
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.errors import InputError
from rnndet.video.exif import UPRIGHT, ImageHeader, read_header
from rnndet.video.image import read_image
from rnndet.video.sources.base import size_text
from rnndet.video.sources.image_folder import is_image
from rnndet.video.sources.open import open_source

# An option of every format with labels: how the labels were made. "auto": the sizes that the
# labels state decide; where they cannot, the images are turned, and a warning says so.
Orientation = Literal["auto", "shown", "stored"]

AS_SHOWN = "images turned by their EXIF orientation, since the labels state that size"
AS_STORED = "images not turned by their EXIF orientation, since the labels state the stored size"
UNDECIDED = (
    "images turned by their EXIF orientation, though no size in the labels confirms it; if the "
    "labels were made on the stored pixels, set the option orientation=stored, otherwise "
    "orientation=shown"
)


def settle(videos: VideoSet, orientation: Orientation, problems: Problems) -> VideoSet:
    """Return the set with `VideoRecord.as_stored` decided; counts images with an orientation.

    With "auto", the images with an EXIF orientation of a video decide for it by their size, or else
    those of the whole set, if they agree.
    """
    if orientation == "shown":
        return videos
    if orientation == "stored":
        return replace(videos, videos=tuple(_as_stored(video) for video in videos.videos))
    votes = [_votes(video) for video in videos.videos]
    shared = {vote.choice for vote in votes} - {None}
    settled = []
    for video, vote in zip(videos.videos, votes, strict=True):
        choice = vote.choice
        if choice is None and len(shared) == 1 and vote.is_open:
            choice = next(iter(shared))
        if vote.images:
            if choice is None:
                problems.warn(UNDECIDED, vote.images)
            else:
                problems.correct(AS_STORED if choice == "stored" else AS_SHOWN, vote.images)
        settled.append(_as_stored(video) if choice == "stored" else video)
    return replace(videos, videos=tuple(settled))


def _as_stored(video: VideoRecord) -> VideoRecord:
    return video if video.path is not None else replace(video, as_stored=True)


@dataclass(frozen=True, slots=True)
class _Vote:
    """What the images with an EXIF orientation of a video tell about its labels."""

    images: int  # with an orientation other than upright
    choice: str | None  # "shown" or "stored"; None if they do not tell
    is_open: bool  # the size is right for either choice


def _votes(video: VideoRecord) -> _Vote:
    size_hw = (video.height, video.width)
    headers = list(turned_images(video))
    telling = [header for header in headers if header.stored_hw != header.shown_hw]
    fits = {
        "stored" if header.stored_hw == size_hw else "shown"
        for header in telling
        if size_hw in (header.stored_hw, header.shown_hw)
    }
    choice = fits.pop() if video.states_size and len(fits) == 1 else None
    return _Vote(len(headers), choice, is_open=not telling)


def turned_images(video: VideoRecord) -> Iterator[ImageHeader]:
    """Yield the headers of the images of a video that have an EXIF orientation, unless upright."""
    for file in dict.fromkeys(record.image for record in video.frames):
        header = None if file is None else read_header(file)
        if header is not None and header.orientation != UPRIGHT:
            yield header


def orientation_counts(videos: Sequence[VideoRecord]) -> Counter[int]:
    """Return the number of images of each EXIF orientation other than upright."""
    return Counter(header.orientation for video in videos for header in turned_images(video))


def image_size_hw(image: Path, orientation: Orientation) -> tuple[int, int]:
    """Return the size of an image for labels that state none. Raises InputError."""
    height, width = read_image(image, as_stored=orientation == "stored").shape[:2]
    return height, width


def stated_size_hw(
    image: Path | None,
    shown_hw: tuple[int, int],
    stated_hw: tuple[int, int] | None,
    orientation: Orientation,
) -> tuple[int, int]:
    """Return the size of the frames on which labels were made.

    image: the first frame; None for a video file. stated_hw: the size that the labels state; None
    if they state none. The result may differ from it: then they belong to other images.
    """
    header = None if image is None else read_header(image)
    if header is None or orientation == "shown":
        return shown_hw
    if orientation == "stored" or stated_hw == header.stored_hw:
        return header.stored_hw
    return shown_hw


def labelled_image(video: VideoRecord, record: FrameRecord, path: Path) -> np.ndarray:
    """Read the image of a frame, (H, W, 3) uint8 RGB, as its labels need it.

    Raises InputError if it cannot be read, or has another size than its labels were made for.
    """
    image = read_image(path, as_stored=video.as_stored)
    check_size(video, record, path, image)
    return image


def check_size(video: VideoRecord, record: FrameRecord, path: Path, image: np.ndarray) -> None:
    """Raise InputError if a labelled frame has another size than its labels were made for."""
    if record.target is not None and image.shape[:2] != (video.height, video.width):
        hint = turn_hint(path, (video.height, video.width), as_stored=video.as_stored)
        hint = hint or size_hint(video)
        raise InputError(
            f"{path}: the image is {size_text(image.shape)}, but its labels are for "
            f"{video.width}x{video.height}; {hint}"
        )


def size_hint(video: VideoRecord) -> str:
    """What to do about an image of another size than the labels of its video."""
    if video.states_size or video.path is not None:
        return "correct the size in the labels, or use the images that were labelled"
    return (
        "they state no size, so it is that of the first image: give all images of a video this size"
    )


def turn_hint(path: Path, labels_hw: tuple[int, int], *, as_stored: bool = False) -> str:
    """Explain why an image or a video is not of the size `labels_hw`; "" if it is not turned.

    as_stored: the image was read without turning it.
    """
    if not is_image(path):
        with open_source(path) as source:
            rotation, shown_hw = source.info.rotation, (source.info.height, source.info.width)
        if not rotation or shown_hw[::-1] != labels_hw:
            return ""
        return (
            f"its metadata turn the video by {rotation} degrees: label the turned video, or take a "
            "copy that is not turned (ffmpeg -display_rotation 0 -i IN -c copy OUT)"
        )
    header = read_header(path)
    if header is None or header.orientation == UPRIGHT:
        return ""
    if labels_hw != (header.shown_hw if as_stored else header.stored_hw):
        return ""
    other = "shown" if as_stored else "stored"
    return (
        f"its EXIF orientation is {header.orientation}: set the option orientation={other} if the "
        f"labels were made on the image as {other}"
    )
