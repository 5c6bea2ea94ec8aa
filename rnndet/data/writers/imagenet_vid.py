"""Writes a VideoSet in the layout of ImageNet VID, as `imagenet_vid` reads it."""

import shutil
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from rnndet.data.formats.imagenet_vid import WNIDS
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
    names: bool = False,
    overwrite: bool = False,
) -> int:
    """Write one split; returns the number of ignored boxes left out, which the format cannot hold.

    Makes Annotations/VID/<split>/<video>/%06d.xml for labelled frames, a list of all frames in
    ImageSets/VID/<split>.txt and, with `images`, Data/VID/<split>/<video>/%06d.JPEG (JPEG of
    quality 92). Everything is written under another name first and renamed when complete.

    Corners are written inclusive (xmax = x2 - 1), with decimals where boxes have them; nine digits
    give the same float32 back. Identities of -1 are left out. `occluded` and `generated` are 0,
    for loaders that need them. Rates and scene groups have no place in this format.

    Args:
        names: objects bear the names of their classes, which may then be any, instead of WordNet
            ids; read such a set with the option `classes`.
        overwrite: replace what the split holds.

    Raises:
        OutputError: the split holds files, a name does not fit, or a file cannot be written.
        InputError: an image of the source cannot be read.
    """
    objects = videos.classes if names else _wnids(videos.classes)
    check_folder_names(split, [video.name for video in videos.videos])
    folders = [Path("Annotations/VID") / split]
    if images:
        folders.insert(0, Path("Data/VID") / split)  # first in place: no labels without images
    index = Path("ImageSets/VID") / f"{split}.txt"
    part = root / f"{split}.part"
    ignored = 0
    try:
        for path in (*folders, index):
            _check_free(root / path, overwrite=overwrite)
        shutil.rmtree(part, ignore_errors=True)
        for path in (*folders, index.parent):
            (part / path).mkdir(parents=True)
        for video in videos.videos:
            ignored += _write_labels(video, objects, part / "Annotations/VID" / split / video.name)
            if images:
                _write_images(video, part / "Data/VID" / split / video.name)
        (part / index).write_text(_index(videos), encoding="utf-8")
        for path in (*folders, index):
            _put(part / path, root / path)
    except OSError as error:
        raise OutputError(f"{root}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return ignored


def _wnids(classes: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [name for name in classes if name not in WNIDS]
    if unknown:
        raise OutputError(
            f"class {unknown[0]!r} is none of ImageNet VID's 30; write names instead of WordNet ids"
        )
    return tuple(WNIDS[name] for name in classes)


def _check_free(path: Path, *, overwrite: bool) -> None:
    if overwrite or not path.exists():
        return
    if path.is_file() or any(path.iterdir()):
        raise OutputError(f"{path}: is there already; allow overwriting or choose another folder")


def _put(part: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        shutil.rmtree(target)
    part.replace(target)


def _write_labels(video: VideoRecord, objects: tuple[str, ...], folder: Path) -> int:
    folder.mkdir()
    ignored = 0
    for record in video.frames:
        if record.target is None:
            continue
        ignored += int(record.target.ignore.sum())
        (folder / f"{record.index:06d}.xml").write_bytes(_xml(video, record, objects))
    return ignored


def _write_images(video: VideoRecord, folder: Path) -> None:
    folder.mkdir()
    for frame in iterate(video):
        write_image(folder / f"{frame.index:06d}.JPEG", frame.image)


def _index(videos: VideoSet) -> str:
    """One line for each frame: its path below the split, and a number that counts from 1."""
    paths = [f"{v.name}/{record.index:06d}" for v in videos.videos for record in v.frames]
    return "".join(f"{path} {number}\n" for number, path in enumerate(paths, start=1))


def _xml(video: VideoRecord, record: FrameRecord, objects: tuple[str, ...]) -> bytes:
    assert record.target is not None
    target = record.target[~record.target.ignore]
    tracks = [-1] * len(target) if target.ids is None else target.ids.tolist()
    root = Element("annotation")
    _add(root, folder=video.name, filename=f"{record.index:06d}")
    _add(SubElement(root, "size"), width=video.width, height=video.height)
    for (x1, y1, x2, y2), label, track in zip(
        target.boxes.tolist(), target.labels.tolist(), tracks, strict=True
    ):
        entry = SubElement(root, "object")
        if track >= 0:
            _add(entry, trackid=track)
        _add(entry, name=objects[label])
        box = SubElement(entry, "bndbox")
        _add(box, xmin=f"{x1:.9g}", ymin=f"{y1:.9g}", xmax=f"{x2 - 1:.9g}", ymax=f"{y2 - 1:.9g}")
        _add(entry, occluded=0, generated=0)
    indent(root)
    return tostring(root, encoding="utf-8")


def _add(parent: Element, **values: str | int) -> None:
    for tag, value in values.items():
        SubElement(parent, tag).text = str(value)
