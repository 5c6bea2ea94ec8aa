"""Write a labelled set in another format and report what is lost in it."""

from pathlib import Path

from rnndet.data.formats.imagenet_vid import WNIDS
from rnndet.data.orientation import orientation_counts
from rnndet.data.records import VideoSet
from rnndet.data.writers import coco_vid, imagenet_vid, mot
from rnndet.registry import lookup


def convert(videos: VideoSet, root: Path, split: str, *, to: str, images: bool) -> list[str]:
    """Write one split in a format of WRITERS; returns notes on what was left out, one line each.

    Raises the errors of the writer, and RnndetError for an unknown format.
    """
    return lookup(to, WRITERS, what="`to`")(videos, root, split, images)


def _coco_vid(videos: VideoSet, root: Path, split: str, images: bool) -> list[str]:
    left_out = coco_vid.write(videos, root, split, images=images)
    lines = (
        [f"{left_out} unlabelled frames left out: CocoVID cannot store them"] if left_out else []
    )
    if images and (count := orientation_counts(videos.videos).total()):
        lines.append(f"{count} images with an EXIF orientation written anew, without it")
    elif any(video.as_stored for video in videos.videos):
        lines.append("the labels are for images as stored; read them with orientation=stored")
    return lines


def _imagenet_vid(videos: VideoSet, root: Path, split: str, images: bool) -> list[str]:
    has_names = not WNIDS.keys() >= set(videos.classes)
    ignored = imagenet_vid.write(videos, root, split, images=images, names=has_names)
    lines = [f"{ignored} ignored boxes left out: ImageNet VID cannot store them"] if ignored else []
    if has_names:
        lines.append("objects have class names; read them with the option classes")
    if any(video.fps for video in videos.videos):
        lines.append("frame rates left out: ImageNet VID has none")
    return lines + _notes_on_files(videos, images)


def _mot(videos: VideoSet, root: Path, split: str, images: bool) -> list[str]:
    mot.write(videos, root, split, images=images)
    return _notes_on_files(videos, images)


def _notes_on_files(videos: VideoSet, images: bool) -> list[str]:
    lines = []
    if any(video.group is not None for video in videos.videos):
        lines.append("scene groups left out: the format has none")
    if not images:
        lines.append("no images written, but the format needs them: use `images=True`")
    return lines


WRITERS = {"coco_vid": _coco_vid, "imagenet_vid": _imagenet_vid, "mot": _mot}
