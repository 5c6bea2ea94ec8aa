"""Writes a VideoSet in the layout of MOTChallenge, as `mot` reads it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from rnndet.data.formats.text import check_folder_names
from rnndet.data.frames import iterate
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.errors import OutputError
from rnndet.video.image import write_image


def write(
    videos: VideoSet,
    root: Path,
    split: str,
    *,
    images: bool = True,
    overwrite: bool = False,
) -> None:
    """Write one split: seqinfo.ini, gt/gt.txt, gt/labels.txt and, with `images`, img1/%06d.jpg.

    Rows have 9 columns; the class counts from 1 in labels.txt, ignored boxes have flag 0 (and class
    0 if they belong to none), boxes without identity have -1, visibility is always 1. Nine digits
    give the same boxes back. Images are JPEG of quality 92. Scene groups have no place in this
    format. If no frame is labelled, no gt.txt is written.

    Everything is written to a folder `<split>.part`, which is renamed when complete.

    Args:
        overwrite: replace the folder of the split, with all that it holds.

    Raises:
        OutputError: the split holds files; a name does not fit; frames are missing or not labelled
            amid labelled ones, which the format cannot say; a file cannot be written.
        InputError: an image of the source cannot be read.
    """
    _check(videos, split)
    is_labelled = any(record.target is not None for v in videos.videos for record in v.frames)
    folder, part = root / split, root / f"{split}.part"
    try:
        if folder.exists() and not overwrite and any(folder.iterdir()):
            raise OutputError(
                f"{folder}: is there already; allow overwriting or choose another folder"
            )
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for video in videos.videos:
            sequence = part / video.name
            (sequence / "gt").mkdir(parents=True)
            (sequence / "seqinfo.ini").write_text(_seqinfo(video), encoding="utf-8")
            names = "".join(f"{name}\n" for name in videos.classes)
            (sequence / "gt" / "labels.txt").write_text(names, encoding="utf-8")
            if is_labelled:
                text = "".join(row for record in video.frames for row in _rows(record))
                (sequence / "gt" / "gt.txt").write_text(text, encoding="utf-8")
            if images:
                _write_images(video, sequence / "img1")
        if folder.is_dir():
            shutil.rmtree(folder)
        part.rename(folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check(videos: VideoSet, split: str) -> None:
    check_folder_names(split, [video.name for video in videos.videos])
    for name in videos.classes:
        if name.splitlines() != [name.strip()]:
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
            "some frames are labelled and some not; in MOTChallenge a frame without boxes is empty"
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
    target = record.target
    assert target is not None
    tracks = [-1] * len(target) if target.ids is None else target.ids.tolist()
    for (x1, y1, x2, y2), label, track, ignore in zip(
        target.boxes.tolist(), target.labels.tolist(), tracks, target.ignore.tolist(), strict=True
    ):
        box = ",".join(f"{v:.9g}" for v in (x1 + 1, y1 + 1, x2 - x1, y2 - y1))
        yield f"{record.index + 1},{track},{box},{int(not ignore)},{label + 1},1\n"


def _write_images(video: VideoRecord, folder: Path) -> None:
    folder.mkdir()
    for frame in iterate(video):
        write_image(folder / f"{frame.index + 1:06d}.jpg", frame.image)
