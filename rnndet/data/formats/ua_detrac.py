"""Read UA-DETRAC (Wen et al. 2020): one XML file and one folder of images per sequence.

`DETRAC-Train-Annotations-XML/MVI_20011.xml` labels the images
`Insight-MVT_Annotation_Train/MVI_20011/img00001.jpg`; the files count frames from 1. An
`<ignored_region>` is an ignore region of no class in every frame. The left and top edge of the
image are at 1 for targets and at 0.5 for ignored regions. Frames that the XML does not
list are labelled frames without objects.

The improved labels "XML-v3" have other vehicle types and are not read.
"""

from pathlib import Path
from xml.etree.ElementTree import Element

from rnndet.data.formats.text import read_xml
from rnndet.data.formats.video_builder import (
    VideoBuilder,
    folders_in,
    images_by_number,
    label_files,
    read_each,
)
from rnndet.data.orientation import Orientation, settle
from rnndet.data.problems import Problems
from rnndet.data.records import VideoRecord, VideoSet
from rnndet.data.targets import Box
from rnndet.errors import InputError

CLASSES = ("car", "bus", "van", "others")
FPS = 25.0
# Where the image begins. In the published files (960 x 540) targets reach from 1 to 961 and 541,
# ignored regions from 0.5 to 960.5 and 540.5: pixels count from 1, and regions are rectangles of
# Matlab, in which pixel 1 reaches from 0.5 to 1.5.
TARGET_FIRST, REGION_FIRST = 1.0, 0.5


def read(
    root: Path,
    split: str,
    problems: Problems,
    *,
    annotations: str = "DETRAC-{split}-Annotations-XML",
    images: str = "Insight-MVT_Annotation_{split}",
    orientation: Orientation = "auto",
) -> VideoSet:
    """Read the split "train" or "test"; {split} in the folders is replaced by it, capitalised.

    Raises InputError if there are no labels. A target without a box, an id or a known type is a
    problem.
    """
    labels = root / annotations.replace("{split}", split.capitalize())
    folders = root / images.replace("{split}", split.capitalize())
    files = label_files(labels, "*.xml", videos=folders_in(folders), problems=problems)

    def read_file(file: Path) -> VideoRecord:
        frames = images_by_number(folders / file.stem, first=1)
        builder = VideoBuilder(frames, file=file, problems=problems, orientation=orientation)
        return _video(file, builder, problems)

    videos = read_each(files, read_file, problems)
    return settle(VideoSet(CLASSES, videos), orientation, problems)


def _video(file: Path, builder: VideoBuilder, problems: Problems) -> VideoRecord:
    tree = read_xml(file)
    if tree.tag != "sequence":
        raise InputError(f"{file}: not in UA-DETRAC form: is <{tree.tag}>, expected <sequence>")
    for place, element in enumerate(tree.iterfind("ignored_region/box"), start=1):
        where = f"ignored region {place}"
        try:
            builder.add_region(_box(element, first=REGION_FIRST), entry=where)
        except ValueError:
            problems.add(file, where, "the box is not made of numbers")
    for element in tree.iterfind("frame"):
        _add_targets(element, builder, file, problems)
    return builder.build(file.stem, fps=FPS)


def _add_targets(frame: Element, builder: VideoBuilder, file: Path, problems: Problems) -> None:
    for target in frame.iterfind("target_list/target"):
        where = f"frame {frame.get('num')} target {target.get('id')}"
        attribute = target.find("attribute")
        kind = "" if attribute is None else attribute.get("vehicle_type", "")
        try:
            number, track = int(frame.get("num", "")), int(target.get("id", ""))
            box = _box(target.find("box"), first=TARGET_FIRST)
        except ValueError:
            problems.add(file, where, "the frame, the id or the box is not made of numbers")
            continue
        if kind in CLASSES:
            builder.add(number - 1, box, CLASSES.index(kind), entry=where, track=track)
        else:
            problems.add(file, where, f"vehicle_type {kind!r} is unknown")


def _box(element: Element | None, *, first: float) -> Box:
    """Read a `<box>` of an image whose left and top edges are at `first`; raises ValueError."""
    attributes = {} if element is None else element.attrib
    x, y, w, h = (float(attributes.get(k, "")) for k in ("left", "top", "width", "height"))
    x, y = x - first, y - first
    return x, y, x + w, y + h
