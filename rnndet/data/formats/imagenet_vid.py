"""Read ImageNet VID and DET in the layout of the ILSVRC archives, and their list files.

    Data/VID/<split>/[<part>/]<video>/%06d.JPEG    Annotations/VID/<the same>.xml
    Data/DET/<path>.JPEG                           Annotations/DET/<path>.xml

XML corners are pixels and inclusive: x2 = xmax + 1, y2 = ymax + 1. The size of a video is that of
its first XML; images are not opened for it. The second object with the same trackid in a frame is
read without an identity, with a warning: the benchmark does not use trackids. The lists are those
of the development kit and of Flow-Guided Feature Aggregation (Zhu et al. 2017). A line is one of

    path id                     one frame if path ends in six digits or more, else a DET image
    path 1 number length        one frame of a video (the "15 frames" training list)
    path id number length       a whole video: `length` frames from `number` on

A list of several lines with 1 in every second column has lines of the second kind. `number` is the
number in the file's name. Paths start with the split, or with a folder of the split.
"""

import os
import re
from pathlib import Path
from xml.etree.ElementTree import Element

from rnndet.data.formats.text import inside, read_xml, rows
from rnndet.data.formats.video_builder import MAX_FRAMES
from rnndet.data.formats.voc_xml import ClassNames, corners, size_wh, track_id
from rnndet.data.orientation import Orientation, settle
from rnndet.data.problems import Problems
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.data.targets import TargetBuilder
from rnndet.errors import InputError, NothingFoundError
from rnndet.structures import Target
from rnndet.video.image import read_image

WNIDS = {  # the 30 classes in the order of the benchmark, and their WordNet ids
    "airplane": "n02691156", "antelope": "n02419796", "bear": "n02131653", "bicycle": "n02834778",
    "bird": "n01503061", "bus": "n02924116", "car": "n02958343", "cattle": "n02402425",
    "dog": "n02084071", "domestic_cat": "n02121808", "elephant": "n02503517", "fox": "n02118333",
    "giant_panda": "n02510455", "hamster": "n02342885", "horse": "n02374451", "lion": "n02129165",
    "lizard": "n01674464", "monkey": "n02484322", "motorcycle": "n03790512", "rabbit": "n02324045",
    "red_panda": "n02509815", "sheep": "n02411705", "snake": "n01726692", "squirrel": "n02355227",
    "tiger": "n02129604", "train": "n04468005", "turtle": "n01662784", "watercraft": "n04530566",
    "whale": "n02062744", "zebra": "n02391049",
}  # fmt: skip
SPLITS = ("train", "val", "test")

Selection = dict[str, set[int] | None]  # path of a video -> its frames; of a DET image -> None


def read(
    root: Path,
    split: str,
    problems: Problems,
    *,
    index: str | None = None,
    classes: tuple[str, ...] | None = None,
    ignore_unknown: bool = False,
    unlabelled: bool = False,
    orientation: Orientation = "auto",
) -> VideoSet:
    """Read all frames of `Data/VID/<split>`, or the frames of a list file.

    A DET image becomes a video of one frame without identities; its objects of other classes are
    counted and left out. A frame without an image, without XML, or whose XML is broken or has
    a different size than the first frame of its video is a problem and left out.

    Args:
        root: holds Data and Annotations, or exactly one folder ILSVRC* that does.
        split: "test" has no XML; its frames are unlabelled.
        index: a list file, below `root`, ImageSets or Lists.
        classes: names or WordNet ids, in the order of the labels; None for the 30 of the benchmark.
        ignore_unknown: count objects of other classes in VID instead of reporting them.
        unlabelled: a frame without XML is unlabelled instead of a problem.
        orientation: of the labels, see `data/orientation.py`.

    Raises InputError: the folders or the list are missing, a list names a path outside the
    folder, nothing can be read.
    """
    base = _base(root)
    labels = _class_names(classes or tuple(WNIDS))
    if index is None:
        source = base / "Data" / "VID" / split
        selection = _all_frames(base, split)
    else:
        source = _index_file(index, root, base)
        selection = _listed(source, base, split, problems)
    no_xml = unlabelled or (split == "test" and not (base / "Annotations/VID/test").is_dir())
    records = _Reader(base, labels, problems, unlabelled=no_xml).read(selection)
    labels.report(base / "Annotations" / "VID", problems, ignore_unknown=ignore_unknown)
    if not records:
        problems.stop_if_any()
        raise NothingFoundError(f"{source}: no videos found; expected folders of %06d.JPEG")
    return settle(VideoSet(labels.names, tuple(records)), orientation, problems)


def _base(root: Path) -> Path:
    for folders in ([root], sorted(root.glob("ILSVRC*"))):
        found = [folder for folder in folders if _is_base(folder)]
        if len(found) == 1:
            return found[0]
    raise NothingFoundError(
        f"{root}: expected Data/VID and Annotations/VID in it, or in exactly one folder ILSVRC*"
    )


def _is_base(folder: Path) -> bool:
    return any(
        (folder / "Data" / kind).is_dir() and (folder / "Annotations" / kind).is_dir()
        for kind in ("VID", "DET")
    )


def _all_frames(base: Path, split: str) -> Selection:
    """Select every video below the split, with the frames that have an image, XML or both."""
    selection: dict[str, set[int]] = {}
    for kind, suffix in (("Data", ".JPEG"), ("Annotations", ".xml")):
        top = base / kind / "VID" / split
        name = re.compile(r"([0-9]{6,})" + re.escape(suffix))
        walk = os.walk(top, followlinks=True, onerror=_raise) if top.is_dir() else ()
        for folder, below, files in walk:
            path = Path(folder).relative_to(top)
            if len(path.parts) == 2:
                below.clear()  # <part>/<video> is the deepest level; ends a circle of links
            numbers = {int(match[1]) for file in files if (match := name.fullmatch(file))}
            if numbers:
                selection.setdefault((split / path).as_posix(), set()).update(numbers)
    return dict(sorted(selection.items()))


def _raise(error: OSError) -> None:
    """Raise the error: os.walk would silently skip folders that it cannot read."""
    raise error


def _index_file(index: str, root: Path, base: Path) -> Path:
    places = [folder / index for folder in (root, base, base / "ImageSets", base / "Lists")]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise InputError(f"{root}: no list {index!r} in it, in ImageSets or in Lists")
    return found


def _listed(file: Path, base: Path, split: str, problems: Problems) -> Selection:
    """Select the frames and videos of a list file; the module's docstring defines its lines."""
    lines = list(rows(file, problems, columns=2, separator=None, of_names=True))
    seconds = [fields[1] for _, fields in lines if len(fields) == 4]
    names_frames = len(seconds) > 1 and set(seconds) == {"1"}
    selection: Selection = {}
    for line, fields in lines:
        try:
            path, numbers = _line(fields, names_frames=names_frames)
        except ValueError:
            problems.add(file, line, f"{' '.join(fields)!r} is no line of a known kind of list")
            continue
        data = base / "Data" / ("DET" if numbers is None else "VID")
        below = inside(data, path, where=f"{file}: line {line}").relative_to(data)
        if below.parts[:1] not in [(name,) for name in (*SPLITS, split)]:
            below = split / below
        name = below.as_posix()
        is_known = name in selection
        known = selection.setdefault(name, None if numbers is None else set())
        if known is None or numbers is None:
            repeated = int(is_known)
        else:
            repeated = len(known.intersection(numbers))
            known.update(numbers)
        if repeated:
            problems.correct("duplicate frames in a list used once", repeated)
    return selection


def _line(fields: list[str], *, names_frames: bool) -> tuple[str, range | None]:
    """Return the path of a video or image, and its frames; raises ValueError."""
    path = fields[0]
    if len(fields) == 2:
        folder, _, stem = path.rpartition("/")
        if not re.fullmatch(r"[0-9]{6,}", stem):
            return path, None
        return folder, range(int(stem), int(stem) + 1)
    _, number, length = (int(field) for field in fields[1:])
    if number < 0 or not 0 < length <= MAX_FRAMES:
        raise ValueError
    return path, range(number, number + (1 if names_frames else length))


def _class_names(classes: tuple[str, ...]) -> ClassNames:
    """Return the classes, given by name or WordNet id, to be found by either."""
    name_of = {wnid: name for name, wnid in WNIDS.items()}
    return ClassNames([name_of.get(given, given) for given in classes], name_of)


class _Reader:
    """Read videos below one folder with Data and Annotations."""

    def __init__(
        self, base: Path, labels: ClassNames, problems: Problems, *, unlabelled: bool
    ) -> None:
        self.base, self.labels, self.problems = base, labels, problems
        self.unlabelled = unlabelled

    def read(self, selection: Selection) -> list[VideoRecord]:
        records: dict[str, VideoRecord] = {}
        for path, numbers in selection.items():
            kind = "DET" if numbers is None else "VID"
            names = {0: path} if numbers is None else {n: f"{path}/{n:06d}" for n in numbers}
            video = self._video(path.rpartition("/")[2], kind, names)
            if video is None:
                continue
            if video.name in records:
                file = self.base / "Data" / kind / path
                self.problems.add(file, "", "another video of this list has the same folder name")
                continue
            records[video.name] = video
        return list(records.values())

    def _video(self, name: str, kind: str, names: dict[int, str]) -> VideoRecord | None:
        """Read a video with the frames `names` (number -> path); None if no frame can be used."""
        frames: list[FrameRecord] = []
        first_wh: tuple[int, int] | None = None
        for number in sorted(names):
            image = self.base / "Data" / kind / f"{names[number]}.JPEG"
            xml = self.base / "Annotations" / kind / f"{names[number]}.xml"
            if not image.is_file():
                self.problems.add(image, "", "no such image")
                continue
            if self.unlabelled and not xml.is_file():
                frames.append(FrameRecord(number, None, image))
                continue
            try:
                tree = read_xml(xml)
                first_wh = size_wh(tree, xml, first=first_wh)
            except InputError as error:
                self.problems.add_error(xml, error)
                continue
            target = self._target(tree, xml, first_wh, is_det=kind == "DET")
            frames.append(FrameRecord(number, target, image))
        if frames and first_wh is None:
            first_wh = self._image_size_wh(frames[0].image)
        if first_wh is None:
            return None
        return VideoRecord(name, first_wh[1], first_wh[0], None, tuple(frames))

    def _image_size_wh(self, image: Path | None) -> tuple[int, int] | None:
        """Return the size of an image, for videos without any XML."""
        assert image is not None
        try:
            height, width = read_image(image).shape[:2]
        except InputError as error:
            self.problems.add_error(image, error)
            return None
        return width, height

    def _target(
        self, tree: Element, xml: Path, size_wh: tuple[int, int], *, is_det: bool
    ) -> Target:
        builder = TargetBuilder(width=size_wh[0], height=size_wh[1], file=xml,
                               problems=self.problems)  # fmt: skip
        seen: set[int] = set()
        for place, entry in enumerate(tree.findall("object"), start=1):
            name = entry.findtext("name", "").strip()
            label = self.labels.find(name)
            if label is None and is_det:
                self.problems.correct("objects of other classes in DET images left out")
                continue
            if label is None:
                self.labels.note_unknown(name, xml)
                continue
            try:
                x1, y1, x2, y2 = corners(entry)
                track = track_id(entry.findtext("trackid"))
            except ValueError as error:
                self.problems.add(xml, f"object {place}", str(error))
                continue
            if track in seen:
                self.problems.warn("trackids that a frame has twice, read as unknown")
                track = -1
            seen |= {track} - {-1}
            is_share = max(x1, y1, x2, y2) <= 1 and not (x2.is_integer() and y2.is_integer())
            last = 0 if is_share else 1  # a pixel more would make boxes of shares
            box = (x1, y1, x2 + last, y2 + last)
            builder.add(box, label, entry=f"object {place}", track=track)
        return builder.build()
