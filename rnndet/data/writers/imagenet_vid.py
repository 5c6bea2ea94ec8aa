"""Write a VideoSet in ImageNet VID layout, which the `imagenet_vid` format reads back."""

from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from rnndet.data.formats.imagenet_vid import WNIDS
from rnndet.data.frames import iterate
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.data.targets import target_rows
from rnndet.data.writers.names import check_folder_names, check_free
from rnndet.errors import OutputError
from rnndet.system.files import output_errors, replace_folder, temporary_folder
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

    Writes Annotations/VID/<split>/<video>/%06d.xml for labelled frames, a list of all frames in
    ImageSets/VID/<split>.txt and, with `images`, Data/VID/<split>/<video>/%06d.JPEG (JPEG of
    quality 92). Everything is written to <split>.part first and moved into place when complete.

    Corners are written inclusive (xmax = x2 - 1), with decimals where boxes have them; nine digits
    give the same float32 back. Identities of -1 are left out. `occluded` and `generated` are 0,
    for loaders that need them. Frame rates and scene groups are not written.

    Args:
        names: write class names instead of WordNet ids, so that any class can be written; read
            such a set with the option `classes`.
        overwrite: replace the split's files.

    Raises:
        OutputError: the split holds files, a name cannot be written, or a file cannot be written.
        InputError: an image of the source cannot be read.
    """
    objects = videos.classes if names else _wnids(videos.classes)
    check_folder_names(split, [video.name for video in videos.videos])
    folders = [Path("Annotations/VID") / split]
    if images:
        folders.insert(0, Path("Data/VID") / split)  # moved first: no labels without images
    index = Path("ImageSets/VID") / f"{split}.txt"
    ignored = 0
    with output_errors(root):
        for path in (*folders, index):
            check_free(root / path, overwrite=overwrite)
    with output_errors(root), temporary_folder(root / f"{split}.part") as part:
        for path in (*folders, index.parent):
            (part / path).mkdir(parents=True)
        for video in videos.videos:
            ignored += _write_labels(video, objects, part / "Annotations/VID" / split / video.name)
            if images:
                _write_images(video, part / "Data/VID" / split / video.name)
        (part / index).write_text(_index(videos), encoding="utf-8")
        for path in (*folders, index):
            replace_folder(part / path, root / path)
    return ignored


def _wnids(classes: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [name for name in classes if name not in WNIDS]
    if unknown:
        raise OutputError(
            f"class {unknown[0]!r} is not among ImageNet VID's 30; write names, not WordNet ids"
        )
    return tuple(WNIDS[name] for name in classes)


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
    """Return one line per frame: its path below the split, and its number, from 1."""
    paths = [f"{v.name}/{record.index:06d}" for v in videos.videos for record in v.frames]
    return "".join(f"{path} {number}\n" for number, path in enumerate(paths, start=1))


def _xml(video: VideoRecord, record: FrameRecord, objects: tuple[str, ...]) -> bytes:
    assert record.target is not None
    target = record.target[~record.target.ignore]
    root = Element("annotation")
    _add(root, folder=video.name, filename=f"{record.index:06d}")
    _add(SubElement(root, "size"), width=video.width, height=video.height)
    for (x1, y1, x2, y2), label, track, _ in target_rows(target):
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
