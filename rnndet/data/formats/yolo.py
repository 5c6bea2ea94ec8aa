"""Read YOLO: one text file per image, as Ultralytics, Roboflow, CVAT and labelImg write it.

    data.yaml    images/<split>/<path>.jpg     labels/<split>/<path>.txt
    data.yaml    <split>/images/<path>.jpg     <split>/labels/<path>.txt
    classes.txt  <split>/<path>.jpg            <split>/<path>.txt

A row is `class cx cy w h [id]`: the number of the class, from 0; centre, width and height as shares
of the width and the height of the image; and, from "Ultralytics YOLO Detection Track" of CVAT, the
identity of the object. A row of six numbers or more after the class is a polygon `x1 y1 x2 y2 ...`,
of which the upright box around it is read, unless data.yaml has `kpt_shape`: then the numbers after
the box are key points, which are not read. An image without a text file is a labelled frame without
objects. Images are joined to videos as in `single_images`.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from rnndet.data.formats.data_yaml import DataYaml
from rnndet.data.formats.single_images import (
    ANY_SIZE,
    LabelledImage,
    Pictures,
    images_below,
    videos_of,
)
from rnndet.data.formats.text import inside, is_path_inside, read_text, rows
from rnndet.data.orientation import Orientation, image_size_hw, settle
from rnndet.data.problems import Problems
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.data.targets import LARGEST, Box, TargetBuilder
from rnndet.errors import InputError, NothingFoundError
from rnndet.structures import Target
from rnndet.video.exif import read_header
from rnndet.video.sources.base import size_text
from rnndet.video.sources.image_folder import is_image

YAML = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
NAMES = ("classes.txt", "obj.names")
FOLDERS = {"val": ("val", "valid")}  # Roboflow and Darknet call it valid
LARGEST_SHARE = 10  # an object may leave the image, but not so far: the row is in pixels
POLYGONS = "polygons read as boxes"  # a correction


def read(
    root: Path,
    split: str,
    problems: Problems,
    *,
    classes: Sequence[str] | None = None,
    pictures: Pictures = "frames",
    orientation: Orientation = "auto",
) -> VideoSet:
    """Read the place that data.yaml names for the split, or else the first of the layouts above.

    Places are looked for in `root`: an absolute `path` is not read, and `../` at the beginning of a
    place is left out where there is no such place, as Ultralytics does. Lines of a list count from
    `root` or from the folder of the list, which comes first for those that begin with a dot.

    Args:
        classes: all classes, in the order of their numbers; None for those of data.yaml,
            classes.txt or obj.names, in `root` or beside the labels.
        pictures: "frames" joins images to videos; "stills", each is a video of one frame.
        orientation: of the labels, see `data/orientation.py`.

    Raises InputError: no images or labels, no classes, a place outside `root`. Problems are: labels
    without an image or that cannot be read; a row that is not as above; an unknown class.
    """
    data = next((DataYaml(root / name) for name in YAML if (root / name).is_file()), None)
    images = _images(root, split, data)
    labels = [pair.labels for pair in images.values() if pair.labels.is_file()]
    names = tuple(classes or _names(root, data, labels))
    if not labels:
        first = next(iter(images.values()))
        raise NothingFoundError(f"no videos found; expected labels such as {first.labels}")
    reader = _Reader(
        names, problems, orientation, has_points=data is not None and "kpt_shape" in data
    )
    videos = []
    for name, frames in videos_of(images, pictures, problems):
        try:
            videos.append(reader.read(name, frames))
        except InputError as error:
            problems.add_error(next(iter(frames.values())).image, error)
    if not videos:
        problems.stop_if_any()
    return settle(VideoSet(names, tuple(videos)), orientation, problems)


def _names(root: Path, data: DataYaml | None, labels: Sequence[Path]) -> list[str]:
    """Return the names of the classes. Raises InputError: none, or folders with other names."""
    if data is not None and (names := data.texts("names")):
        return names
    file = next((root / name for name in NAMES if (root / name).is_file()), None)
    if file is not None:
        return _lines(file)
    folders = dict.fromkeys(path.parent for path in labels)
    files = [place / name for place in folders for name in NAMES if (place / name).is_file()]
    for other in files[1:]:
        if _lines(other) != _lines(files[0]):
            raise InputError(f"{other}: has other classes than {files[0]}, or in another order")
    if files:
        return _lines(files[0])
    raise InputError(
        f"{root}: no names of the classes; expected names in data.yaml, or a file "
        f"{' or '.join(NAMES)} there or beside the labels, or the option classes"
    )


def _lines(file: Path) -> list[str]:
    return [line.strip() for line in read_text(file).splitlines() if line.strip()]


def _images(root: Path, split: str, data: DataYaml | None) -> dict[str, LabelledImage]:
    """Return the images of a split by their path in its folder, without the suffix."""
    if data is not None and (places := data.texts(split)):
        base = _base(root, data)
        named = [_named(place, root, base, data) for place in places]
    else:
        named = [_folder(root, split)]
    images: dict[str, LabelledImage] = {}
    for place in named:
        found = images_below(place) if place.is_dir() else _listed(place, root)
        for name, image in found.items():
            if name in images:
                name = (place.relative_to(root) / name).as_posix()
            images[name] = LabelledImage(image, _labels_of(image, root))
    if not images:
        places_text = " and ".join(map(str, named))
        raise NothingFoundError(f"no videos found; expected images in {places_text}")
    return images


def _base(root: Path, data: DataYaml) -> Path:
    """Return the folder that places are relative to: `path` where it is one in `root`."""
    text = next(iter(data.texts("path")), ".")
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or not (root / path).is_dir():
        return root
    return root / path


def _named(place: str, root: Path, base: Path, data: DataYaml) -> Path:
    """Return the folder or list that data.yaml names. Raises InputError: missing, or outside."""
    path = PurePosixPath(place.replace("\\", "/"))
    if (below := _below(path, root)) is not None:
        path, base = below, root
    while path.parts[:1] == ("..",):
        path = PurePosixPath(*path.parts[1:])
    found = inside(base, str(path), where=str(data.path))
    if not found.exists():
        raise NothingFoundError(f"{data.path}: names {place}, but there is no {found}")
    return found


def _folder(root: Path, split: str) -> Path:
    """Return the folder of the images of a split that data.yaml does not name."""
    tried = []
    for name in FOLDERS.get(split, (split,)):
        part = inside(root, name, where=f"split {split}")
        places = [part / "images", root / "images" / name, root / f"obj_{name}_data", part]
        tried += [str(place) for place in places]
        found = next((place for place in places if place.is_dir()), None)
        if found is not None:
            return found
    raise NothingFoundError(f"no videos found; expected images in any of {', '.join(tried)}")


def _below(path: PurePosixPath, root: Path) -> PurePosixPath | None:
    """Return an absolute path relative to `root`; None if it is relative or outside."""
    top = root.absolute()
    if not path.is_absolute() or not path.is_relative_to(top.as_posix()):
        return None
    return path.relative_to(top.as_posix())


def _listed(file: Path, root: Path) -> dict[str, Path]:
    """Return the images that a list names, by their path without the suffix."""
    found = {}
    for line, (name, *_) in rows(file, Problems(), columns=1, separator="\n", of_names=True):
        places = [
            inside(root, place, where=f"{file}: line {line}")
            for place in _places(name.replace("\\", "/"), file.parent, root)
        ]
        image = next((place for place in places if place.is_file() and is_image(place)), None)
        if image is None:
            raise InputError(f"{file}: line {line}: there is no image {places[0]}")
        top = file.parent if image.is_relative_to(file.parent) else root
        found[_in_split(image.relative_to(top), file.stem)] = image
    return found


def _places(name: str, folder: Path, root: Path) -> list[str]:
    """Return where in `root` the image of a line may be, in a list in `folder`; one place at least.

    `data/` is a folder of the training machine in exports of CVAT.
    """
    if (below := _below(PurePosixPath(name), root)) is not None:
        return [str(below)]
    beside = (folder.relative_to(root) / name).as_posix()
    if name.startswith("."):
        return [place for place in (beside, name) if is_path_inside(place)] or [name]
    return [name, name.removeprefix("data/"), beside]


def _in_split(image: Path, split: str) -> str:
    """Return the path of an image in the folder of its split, without the suffix.

    >>> _in_split(Path("images/train/yard/1.jpg"), "train")
    'yard/1'
    """
    parts = list(image.with_suffix("").parts)
    for folder in ("images", f"obj_{split}_data", split, "images"):
        if len(parts) > 1 and parts[0] == folder:
            del parts[0]
    return "/".join(parts)


def _labels_of(image: Path, root: Path) -> Path:
    """Return the labels of an image: the last folder `images` is `labels`, or else beside it."""
    parts = list(image.relative_to(root).parts)
    for place in reversed(range(len(parts) - 1)):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return root.joinpath(*parts).with_suffix(".txt")


def _size_hw(image: Path, orientation: Orientation) -> tuple[int, int]:
    """Return the size of an image, without decoding it where its header has it."""
    return _size_in_header(image, orientation) or image_size_hw(image, orientation)


def _size_in_header(image: Path, orientation: Orientation) -> tuple[int, int] | None:
    """Return the size of an image; None if its header does not have it."""
    header = read_header(image)
    if header is None:
        return None
    return header.stored_hw if orientation == "stored" else header.shown_hw


class _Reader:
    """Read the labels of videos."""

    def __init__(
        self,
        classes: Sequence[str],
        problems: Problems,
        orientation: Orientation,
        *,
        has_points: bool,
    ) -> None:
        self._count, self._problems, self._orientation = len(classes), problems, orientation
        self._has_points = has_points

    def read(self, name: str, images: dict[int, LabelledImage]) -> VideoRecord:
        """Read a video; its size is that of the first image, and others of another are left out."""
        height, width = _size_hw(next(iter(images.values())).image, self._orientation)
        frames = []
        others: list[tuple[Path, tuple[int, int]]] = []
        for index, pair in images.items():
            size = _size_in_header(pair.image, self._orientation)
            if size is not None and size != (height, width):
                others.append((pair.image, size))
                continue
            try:
                target = self._target(pair.labels, width, height)
            except InputError as error:
                self._problems.add_error(pair.labels, error)
                continue
            frames.append(FrameRecord(index, target, pair.image))
        if others:
            image, size = others[0]
            self._problems.add(
                image, "", f"is {size_text(size)}, but the first image of the video {name} is "
                f"{width}x{height}, as {len(images) - len(others)} of {len(images)}; {ANY_SIZE}"
            )  # fmt: skip
        return VideoRecord(name, height, width, None, tuple(frames), states_size=False)

    def _target(self, file: Path, width: int, height: int) -> Target:
        if not file.is_file():
            self._problems.correct("images without a text file taken as empty")
            return Target.empty()
        builder = TargetBuilder(width=width, height=height, file=file, problems=self._problems)
        for line, fields in rows(file, self._problems, columns=5, separator=None):
            try:
                label, shares, track = self._row(fields)
            except ValueError as error:
                self._problems.add(file, line, str(error))
                continue
            x1, y1, x2, y2 = shares
            box = (x1 * width, y1 * height, x2 * width, y2 * height)
            if max(map(abs, shares)) > LARGEST_SHARE and max(map(abs, box)) <= LARGEST:
                reason = "the box is not in shares of the image; expected cx cy w h from 0 to 1"
                self._problems.add(file, line, reason)
                continue
            builder.add(box, label, entry=line, track=track)
        return builder.build()

    def _row(self, fields: list[str]) -> tuple[int, Box, int]:
        """Return label, box in shares and identity of a row; raises ValueError with the reason."""
        try:
            label, numbers = float(fields[0]), [float(field) for field in fields[1:]]
        except ValueError:
            raise ValueError("a field is not a number") from None
        if label not in range(self._count):
            raise ValueError(f"class {fields[0]} is unknown; expected 0 to {self._count - 1}")
        if len(numbers) > 5 and not self._has_points:
            if len(numbers) % 2:
                raise ValueError(f"{len(numbers)} numbers are no polygon")
            if len(numbers) == 6 and fields[6].isdecimal() and fields[6] not in ("0", "1"):
                raise ValueError(
                    "seven fields with an identity at the end are no polygon; "
                    "leave out the score in the sixth"
                )
            self._problems.correct(POLYGONS)
            xs, ys = numbers[::2], numbers[1::2]
            return int(label), (min(xs), min(ys), max(xs), max(ys)), -1
        cx, cy, w, h = numbers[:4]
        track = -1
        if len(numbers) == 5:
            if not fields[5].isdecimal():
                raise ValueError(f"the sixth field {fields[5]} is no identity")
            track = int(fields[5])
        return int(label), (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), track
