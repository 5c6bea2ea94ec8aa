"""Read Pascal VOC: one XML file per image, as labelImg, CVAT and Roboflow write it.

    JPEGImages/<path>.jpg    Annotations/<path>.xml    ImageSets/Main/<split>.txt    [labelmap.txt]
    <split>/<path>.jpg       <split>/<path>.xml

Images are joined to videos as in `single_images`. Objects are `name`, `bndbox`, and, if present,
`difficult` (1: ignored, as in the evaluation of VOC) and an identity: `trackid`, or CVAT's
attribute `track_id`. Parts, poses and other attributes are not read.

In VOC pixels count from 1 and `xmax` is the last pixel. CVAT, labelImg and others write the edges
of the box instead, from 0. The edges at the right and below are the same numbers in both, those at
the left and above differ by 1. Roboflow adds 1 to all four edges. The `source/database` of the
files tells which program wrote them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element

from rnndet.data.formats.single_images import (
    ANY_SIZE,
    LabelledImage,
    Pictures,
    images_below,
    videos_of,
)
from rnndet.data.formats.text import inside, is_path_inside, read_text, read_xml
from rnndet.data.formats.voc_xml import ClassNames, corners, size_wh, track_id
from rnndet.data.orientation import Orientation, settle
from rnndet.data.problems import Problems
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.data.targets import TargetBuilder, relabelled
from rnndet.errors import InputError, NothingFoundError
from rnndet.structures import Target

LABELS = ("Annotations", "annotations")
IMAGES = ("JPEGImages", "images")
# The databases in files of programs that write edges of the box: CVAT, labelImg and VoTT; Label
# Studio; makesense.ai.
EDGES_FROM_0 = ("Unknown", "MyDatabase", "Unspecified")
EDGES_FROM_1 = ("roboflow.ai", "roboflow.com")
BEGINS_AT_0 = (
    "boxes with an edge at pixel 0, although pixels count from 1; if the labels are edges from 0, "
    "set the option first_pixel=0"
)


def read(
    root: Path,
    split: str,
    problems: Problems,
    *,
    classes: Sequence[str] | None = None,
    ignore_unknown: bool = False,
    pictures: Pictures = "frames",
    first_pixel: Literal[0, 1] | None = None,
    orientation: Orientation = "auto",
) -> VideoSet:
    """Read `Annotations` in `root` or `root/<split>`, or XML beside the images in `root/<split>`.

    With `root/Annotations`, the split is a list `ImageSets/Main/<split>.txt` or a folder in
    Annotations; "." is all of it. An image without XML is an unlabelled frame; videos without any
    XML are left out. Both are counted.

    Args:
        classes: all classes, in the order of their labels; None for those of labelmap.txt, or
            without it those of the objects, sorted. Give them where two splits must agree.
        ignore_unknown: count objects of other classes instead of reporting them.
        pictures: "frames" joins images to videos; "stills", each is a video of one frame.
        first_pixel: 1, as in VOC; 0, the corners are edges from 0; None, as the module's docstring
            says.
        orientation: of the labels, see `data/orientation.py`.

    Raises InputError: no labels. Problems are: XML without an image, that cannot be read or has
    another size than the first of its video; an object that cannot be read or is of another class.
    """
    folder, images = _pairs(root, split, problems)
    known = tuple(classes or _label_map(root) or ())
    reader = _Reader(known, problems, first_pixel=first_pixel)
    videos = []
    for name, frames in videos_of(images, pictures, problems):
        video = reader.read(name, frames)
        if video is not None:
            videos.append(video)
    if not videos:
        problems.stop_if_any()
        raise NothingFoundError(f"no videos found; expected labels {folder}/*.xml")
    if known:
        reader.classes.report(folder, problems, ignore_unknown=ignore_unknown)
        return settle(VideoSet(known, tuple(videos)), orientation, problems)
    names = sorted(reader.found)
    videos = [relabelled(video, list(reader.found), names) for video in videos]
    return settle(VideoSet(tuple(names), tuple(videos)), orientation, problems)


def _pairs(root: Path, split: str, problems: Problems) -> tuple[Path, dict[str, LabelledImage]]:
    """Return the folder of the XML files, and the images of the split by their path in it.

    XML without an image is a problem. Raises InputError if there is no such split.
    """
    folder, chosen = root / split, None
    labels = _first_folder(folder, LABELS)
    if labels is None and (labels := _first_folder(root, LABELS)) is not None:
        folder = root
        chosen = _split(root, labels, split)
    images_in = folder if labels is None else _first_folder(folder, IMAGES) or labels
    labels = folder if labels is None else labels
    if not labels.is_dir():
        raise NothingFoundError(
            f"{root}: no videos found; expected labels in Annotations or {split}, *.xml"
        )
    found = images_below(images_in)
    xml = {
        path.relative_to(labels).with_suffix("").as_posix(): path
        for path in sorted(labels.rglob("*.xml"))
        if not any(part.startswith(".") for part in path.relative_to(labels).parts)
    }
    if chosen is None:
        chosen = sorted(found.keys() | xml.keys())
    pairs = {}
    for name in chosen:
        labels_file = xml.get(name, labels / f"{name}.xml")
        if name in found:
            pairs[name] = LabelledImage(found[name], labels_file)
        else:
            problems.add(labels_file, "", f"no image {images_in / name}.jpg or the like")
    return labels, pairs


def _first_folder(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _split(root: Path, labels: Path, split: str) -> list[str] | None:
    """Return the images of a split, None for all. Raises InputError: no such split."""
    lists = root / "ImageSets" / "Main"
    file = inside(lists, f"{split}.txt", where=f"split {split}")
    if file.is_file():
        lines = read_text(file, of_names=True).splitlines()
        return [_listed(line, file) for line in lines if line.strip()]
    if split == ".":
        return None
    part = inside(labels, split, where=f"split {split}")
    if part.is_dir():
        prefix = part.relative_to(labels)
        return [
            (prefix / p.relative_to(part)).with_suffix("").as_posix() for p in part.rglob("*.xml")
        ]
    known = sorted(path.stem for path in lists.glob("*.txt"))
    hint = f"choose one of: {', '.join(known)}" if known else 'use the split "." for all of it'
    raise NothingFoundError(f"{root}: no list {file} and no folder {part}; {hint}")


def _listed(line: str, file: Path) -> str:
    """Return the image that a line of a list names: `name`, `"name"` or `name -1`."""
    text = line.strip()
    name, _, flag = text.rpartition(" ")
    if not name or flag not in ("-1", "0", "1"):
        name = text
    name = name.strip().strip('"')
    if not is_path_inside(name):
        raise InputError(f"{file}: {name!r} is no path in the folder of the images")
    return name


def _label_map(root: Path) -> list[str]:
    """Return the classes of CVAT's labelmap.txt, without the background; empty without it."""
    file = root / "labelmap.txt"
    if not file.is_file():
        return []
    lines = (line.strip() for line in read_text(file).splitlines())
    names = [line.partition(":")[0] for line in lines if line and not line.startswith("#")]
    return [name for name in names if name != "background"]


class _Reader:
    """Read the XML files of videos.

    Without `classes`, labels are places in `found`, the names in the order of first occurrence.
    """

    def __init__(
        self, classes: Sequence[str], problems: Problems, *, first_pixel: int | None
    ) -> None:
        self.classes = ClassNames(classes)
        self.found: dict[str, int] = {}
        self._problems, self._first_pixel = problems, first_pixel

    def read(self, name: str, images: dict[int, LabelledImage]) -> VideoRecord | None:
        """Read a video; None if it has no XML that can be used."""
        frames: list[FrameRecord] = []
        first_wh: tuple[int, int] | None = None
        without = 0
        for index, pair in images.items():
            target = None
            if not pair.labels.is_file():
                without += 1
            else:
                try:
                    tree = read_xml(pair.labels)
                    first_wh = size_wh(tree, pair.labels, first=first_wh, hint=ANY_SIZE)
                except InputError as error:
                    self._problems.add_error(pair.labels, error)
                    continue
                target = self._target(tree, pair.labels, first_wh)
            frames.append(FrameRecord(index, target, pair.image))
        if first_wh is None:
            if without:
                self._problems.correct("videos without labels left out")
            return None
        if without:
            self._problems.correct("images without XML taken as unlabelled", without)
        return VideoRecord(name, first_wh[1], first_wh[0], None, tuple(frames))

    def _target(self, tree: Element, xml: Path, wh: tuple[int, int]) -> Target:
        builder = TargetBuilder(width=wh[0], height=wh[1], file=xml, problems=self._problems)
        database = tree.findtext("source/database", "").strip()
        first, last = self._first_pixel, 0  # subtracted from the edges
        if first is None:
            first = int(database not in EDGES_FROM_0)
            last = int(database in EDGES_FROM_1)
        for place, entry in enumerate(tree.findall("object"), start=1):
            try:
                label = self._label(entry.findtext("name", "").strip(), xml)
                x1, y1, x2, y2 = corners(entry)
                track = track_id(_identity(entry))
            except ValueError as error:
                self._problems.add(xml, f"object {place}", str(error))
                continue
            if label is None:
                continue
            if first == 1 and 0 in (x1, y1):
                self._problems.warn(BEGINS_AT_0)
            box = (x1 - first, y1 - first, x2 - last, y2 - last)
            ignore = entry.findtext("difficult", "").strip() == "1"
            builder.add(box, label, entry=f"object {place}", track=track, ignore=ignore)
        return builder.build()

    def _label(self, name: str, xml: Path) -> int | None:
        """Return the label of a class, None for one that is not known; raises ValueError."""
        if not name:
            raise ValueError("lacks name")
        if not self.classes.names:
            return self.found.setdefault(name, len(self.found))
        label = self.classes.find(name)
        if label is None:
            self.classes.note_unknown(name, xml)
        return label


def _identity(entry: Element) -> str | None:
    """Return the identity of an object, None without one."""
    for attribute in entry.iterfind("attributes/attribute"):
        if attribute.findtext("name", "").strip() == "track_id":
            return attribute.findtext("value")
    return entry.findtext("trackid")
