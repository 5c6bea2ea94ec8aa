"""Write a VideoSet in MOTChallenge layout, which the `mot` format reads back."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rnndet.data.frames import iterate
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.data.targets import unclipped_rows
from rnndet.data.writers.names import check_folder_names, check_free
from rnndet.errors import OutputError
from rnndet.system.files import atomic_folder, output_errors
from rnndet.video.image import write_image
from rnndet.video.names import is_text


def write(
    videos: VideoSet,
    root: Path,
    split: str,
    *,
    images: bool = True,
    overwrite: bool = False,
) -> None:
    """Write one split: seqinfo.ini, gt/gt.txt, gt/labels.txt and, with `images`, img1/%06d.jpg.

    Rows have 9 columns. The class is the line in labels.txt, from 1. Ignored boxes have flag 0, and
    class 0 if they belong to no class. Boxes without an identity have -1; visibility is always 1.
    Boxes are as they were labelled, also outside the image; boxes that only take part in the
    matching of tracking are not written. Nine digits give the same float32 back; boxes that are not
    float32 have twelve. Images are JPEG of quality 92. Scene groups are not
    written. If no frame is labelled, no gt.txt is written. The folder is written atomically.

    Args:
        overwrite: replace the folder of the split with everything in it.

    Raises:
        OutputError: the split holds files; a name cannot be written; frames are missing, or only
            some are labelled, which the format cannot express; a file cannot be written.
        InputError: an image of the source cannot be read.
    """
    _check(videos, split)
    is_labelled = any(record.target is not None for v in videos.videos for record in v.frames)
    names = "".join(f"{name}\n" for name in videos.classes)
    with output_errors(root / split):
        check_free(root / split, overwrite=overwrite)
    with atomic_folder(root / split) as part:
        for video in videos.videos:
            sequence = part / video.name
            (sequence / "gt").mkdir(parents=True)
            (sequence / "seqinfo.ini").write_text(_seqinfo(video), encoding="utf-8")
            (sequence / "gt" / "labels.txt").write_text(names, encoding="utf-8")
            if is_labelled:
                text = "".join(row for record in video.frames for row in _rows(record))
                (sequence / "gt" / "gt.txt").write_text(text, encoding="utf-8")
            if images:
                _write_images(video, sequence / "img1")


def _check(videos: VideoSet, split: str) -> None:
    check_folder_names(split, [video.name for video in videos.videos])
    for name in videos.classes:
        if name.splitlines() != [name.strip()] or not is_text(name):
            raise OutputError(f"class {name!r} cannot be a line of labels.txt")
    kinds = set()
    for video in videos.videos:
        for place, record in enumerate(video.frames):
            kinds.add(record.target is None)
            if record.index != place:
                raise OutputError(
                    f"video {video.name}: frame {place} is missing; MOTChallenge needs all frames"
                )
    if len(kinds) > 1:
        raise OutputError(
            "only some frames are labelled; in MOTChallenge a frame without boxes counts as empty"
        )


def _seqinfo(video: VideoRecord) -> str:
    rate = [] if video.fps is None else [f"frameRate={video.fps:.9g}"]
    lines = [
        "[Sequence]",
        f"name={video.name}",
        "imDir=img1",
        *rate,
        f"seqLength={len(video.frames)}",
        f"imWidth={video.width}",
        f"imHeight={video.height}",
        "imExt=.jpg",
    ]
    return "".join(f"{line}\n" for line in lines)


def _rows(record: FrameRecord) -> Iterator[str]:
    assert record.target is not None
    for (x1, y1, x2, y2), label, track, ignore in unclipped_rows(record.target):
        digits = 9 if np.array_equal(np.float32((x1, y1, x2, y2)), (x1, y1, x2, y2)) else 12
        box = ",".join(f"{v:.{digits}g}" for v in (x1 + 1, y1 + 1, x2 - x1, y2 - y1))
        yield f"{record.index + 1},{track},{box},{int(not ignore)},{label + 1},1\n"


def _write_images(video: VideoRecord, folder: Path) -> None:
    folder.mkdir()
    for frame in iterate(video):
        write_image(folder / f"{frame.index + 1:06d}.jpg", frame.image)
