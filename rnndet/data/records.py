"""Records of labelled videos: the result of every dataset format."""

from dataclasses import dataclass
from pathlib import Path

from rnndet.structures import Target


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """One frame of a video and its labels."""

    index: int  # 0-based frame number in the video (in the video file where there is one)
    target: Target | None  # None = unlabelled; an empty Target = labelled, without objects
    image: Path | None = None  # image file; None where the frame is read from the video file


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """One video: frames as image files, or as frames of one video file."""

    name: str  # unique within the set, safe as a folder name
    height: int
    width: int
    fps: float | None
    frames: tuple[FrameRecord, ...]  # in temporal order
    path: Path | None = None  # the video file; None where frames are images
    group: str | None = None  # scene group: videos of the same place, for one split
    states_size: bool = True  # height and width are stated by the labels, not taken from an image
    as_stored: bool = False  # labelled on images as stored, not turned by their EXIF orientation


@dataclass(frozen=True, slots=True)
class VideoSet:
    """A set of videos; labels are indices into `classes`."""

    classes: tuple[str, ...]
    videos: tuple[VideoRecord, ...]

    @property
    def is_labelled(self) -> bool:
        """Whether any frame is labelled."""
        return any(frame.target is not None for video in self.videos for frame in video.frames)
