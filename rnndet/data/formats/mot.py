"""Read MOTChallenge and sets in its layout (DanceTrack, SportsMOT, output of writers/mot.py).

    <root>/<split>/<sequence>/seqinfo.ini
                              img1/%06d.jpg, or <sequence>.mp4 where there is no img1
                              gt/gt.txt, det/det.txt, gt/labels.txt

Rows are `frame, identity, left, top, width, height, flag, class, visibility`; frames and pixels
count from 1 and become counts from 0. Rows of 7 or 10 columns (MOT15, detections), or with -1 as
class, have no class; if they have no identity (-1) either, their seventh column is a score, which
is not read. A frame without rows is a labelled frame without objects.

Classes are, in this order of precedence: several names given as `classes`; the lines of
gt/labels.txt; those of MOTChallenge. Of the latter, pedestrians are read; persons that its
evaluation leaves out (on a vehicle, static, distractor, reflection) are ignored; the rest is
counted and left out. With names, class n is the nth name, and class 0 with flag 0 an ignore region
of no class.
"""

import configparser
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from rnndet.data.formats.text import inside, read_text, rows
from rnndet.data.formats.video_builder import MAX_FRAMES
from rnndet.data.orientation import Orientation, settle
from rnndet.data.problems import Problems
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.data.targets import ANY_CLASS, MAX_TRACK, TargetBuilder
from rnndet.errors import InputError, NothingFoundError
from rnndet.structures import Target
from rnndet.video.sources.image_folder import list_images, natural_key
from rnndet.video.sources.open import VIDEO_SUFFIXES

GT = "gt/gt.txt"
LABELS = "gt/labels.txt"
PEDESTRIAN = 1
IGNORED = (2, 7, 8, 12)  # person on vehicle, static person, distractor, reflection
LEFT_OUT = (3, 4, 5, 6, 9, 10, 11, 13)  # vehicles, occluders, crowd


def read(
    root: Path,
    split: str,
    problems: Problems,
    *,
    classes: tuple[str, ...] = ("pedestrian",),
    file: str = GT,
    orientation: Orientation = "auto",
) -> VideoSet:
    """Read the sequences of `root/split`; the split "." is `root` itself.

    Args:
        classes: one name for MOTChallenge's pedestrians, or several names for custom classes; see
            the module's docstring.
        file: the file with the boxes in each sequence; "det/det.txt" for the public detections.
            If no sequence has a gt/gt.txt (a test split), frames are unlabelled.

    Raises InputError: no sequences, or no sequence has a `file` other than gt/gt.txt. Problems are:
    a sequence whose files are missing or broken, a row with impossible numbers or an unknown class,
    a frame without an image.
    """
    top = root / split
    folders = top.iterdir() if top.is_dir() else []
    sequences = sorted((f for f in folders if _is_sequence(f)), key=lambda f: natural_key(f.name))
    if not sequences:
        raise NothingFoundError(f"{top}: no sequences found; expected folders with a seqinfo.ini")
    is_labelled = any((sequence / file).is_file() for sequence in sequences)
    if not is_labelled and file != GT:
        raise NothingFoundError(f"{top}: no sequence has a file {file}")
    given = len(classes) > 1
    labels = None if given else _labels(sequences[0])
    names = labels or tuple(classes)
    has_names = given or labels is not None
    reader = _Reader(names, file if is_labelled else None, problems, has_names=has_names)
    records = []
    for sequence in sequences:
        try:
            if not given and _labels(sequence) != labels:
                raise InputError(f"{sequence / LABELS}: differs from that of {sequences[0].name}")
            records.append(reader.read(sequence))
        except InputError as error:
            where, _, reason = str(error).partition(": ")
            problems.add(where, "", reason)
    if not records:
        problems.stop_if_any()  # an empty set is an error even with --skip-bad
    return settle(VideoSet(names, tuple(records)), orientation, problems)


def _is_sequence(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("seqinfo.ini", "img1", "gt"))


def _labels(sequence: Path) -> tuple[str, ...] | None:
    """Return the names in gt/labels.txt; None without the file."""
    path = sequence / LABELS
    if not path.is_file():
        return None
    names = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    if not names:
        raise InputError(f"{path}: holds no names")
    return names


@dataclass(frozen=True, slots=True)
class _Info:
    """The content of seqinfo.ini."""

    length: int
    width: int
    height: int
    fps: float | None
    images: str  # folder of the images
    suffix: str  # of the images


def _info(path: Path) -> _Info:
    """Read a seqinfo.ini. Raises InputError."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(read_text(path, limit=1_000_000))
        section = parser["Sequence"]
        length, width, height = (int(section[k]) for k in ("seqLength", "imWidth", "imHeight"))
        fps = float(section.get("frameRate", "0"))
    except KeyError as error:
        raise InputError(f"{path}: lacks {error}") from None
    except (configparser.Error, ValueError) as error:
        raise InputError(f"{path}: not valid: {str(error).splitlines()[0]}") from None
    if not 1 <= length <= MAX_FRAMES:
        raise InputError(f"{path}: seqLength {length} is not that of a video")
    if not (1 <= width <= 1e6 and 1 <= height <= 1e6):
        raise InputError(f"{path}: size {width}x{height} is not that of an image")
    if not (math.isfinite(fps) and fps >= 0):
        raise InputError(f"{path}: frameRate {fps} is not a rate")
    images, suffix = section.get("imDir", "img1"), section.get("imExt", ".jpg")
    return _Info(length, width, height, fps or None, images, suffix.lower())


class _Reader:
    """Read sequences that share their classes."""

    def __init__(
        self, names: tuple[str, ...], file: str | None, problems: Problems, *, has_names: bool
    ) -> None:
        self.names, self.file, self.problems = names, file, problems
        self.has_names = has_names  # the class column counts in `names`

    def read(self, sequence: Path) -> VideoRecord:
        """Read a sequence. Raises InputError if the sequence as a whole cannot be used."""
        info = _info(sequence / "seqinfo.ini")
        where = f"{sequence / 'seqinfo.ini'}: imDir"
        folder = inside(sequence, info.images, where=where)
        path, images = None, {}
        if folder.is_dir():
            images = self._images(folder, info)
        else:
            path = _video_file(sequence, folder)
        targets = None if self.file is None else self._targets(sequence / self.file, info)
        frames = []
        for number in range(1, info.length + 1):
            if path is None and number not in images:
                self.problems.add(folder, f"frame {number}", f"no image {number:06d}{info.suffix}")
                continue
            target = None if targets is None else targets.get(number, Target.empty())
            frames.append(FrameRecord(number - 1, target, images.get(number)))
        if not frames:
            raise InputError(f"{folder}: no frame can be used")
        return VideoRecord(sequence.name, info.height, info.width, info.fps, tuple(frames), path)

    def _images(self, folder: Path, info: _Info) -> dict[int, Path]:
        """Return the images by number, of any number of digits: DanceTrack has eight."""
        images = {
            int(file.stem): file
            for file in list_images(folder)
            if file.suffix.lower() == info.suffix and file.stem.isdecimal()
        }
        if not images:
            raise InputError(f"{folder}: holds no images %06d{info.suffix}")
        beyond = sum(number > info.length for number in images)
        if beyond:
            reason = f"images beyond the {info.length} frames of seqinfo.ini: {beyond}"
            self.problems.add(folder, "", reason)
        return images

    def _targets(self, file: Path, info: _Info) -> dict[int, Target]:
        """Return the target of every frame that has rows, by its number from 1."""
        builders: dict[int, TargetBuilder] = defaultdict(
            lambda: TargetBuilder(width=info.width, height=info.height, file=file,
                                 problems=self.problems)
        )  # fmt: skip
        seen: set[tuple[int, int]] = set()
        for line, fields in rows(file, self.problems, columns=7):
            try:
                values = [float(field) for field in fields]
                number, track = _whole(values[0]), _whole(values[1])
                if not 1 <= number <= info.length:
                    raise ValueError(f"frame {number} of a sequence of {info.length}")
                if not -1 <= track <= MAX_TRACK:
                    raise ValueError(f"identity {track}; expected a number from 0, or -1 for none")
                if track >= 0 and (number, track) in seen:
                    raise ValueError(f"identity {track} comes twice in frame {number}")
                seen.add((number, track))
                kind = self._kind(values)
            except ValueError as error:
                self.problems.add(file, line, str(error))
                continue
            if kind is None:
                self.problems.correct("boxes of other classes than pedestrian left out")
                continue
            left, top, width, height = values[2:6]
            box = (left - 1, top - 1, left - 1 + width, top - 1 + height)
            label, ignore = kind
            builders[number].add(box, label, entry=line, track=track, ignore=ignore)
        return {number: builder.build() for number, builder in builders.items()}

    def _kind(self, values: list[float]) -> tuple[int, bool] | None:
        """Return the label and ignore flag of a row; None to leave it out. Raises ValueError."""
        has_class = len(values) == 9 and values[7] != -1
        is_score = not has_class and values[1] == -1
        ignore = values[6] == 0 and not is_score
        if not has_class:
            if len(self.names) > 1:
                raise ValueError(f"has no class, of which there are {len(self.names)}")
            return 0, ignore
        number = _whole(values[7])
        if self.has_names:
            if number == 0 and ignore:
                return ANY_CLASS, True
            if 1 <= number <= len(self.names):
                return number - 1, ignore
            raise ValueError(f"class {number} is unknown; expected 1 to {len(self.names)}")
        if number in LEFT_OUT:
            return None
        if number == PEDESTRIAN or number in IGNORED:
            return 0, ignore or number in IGNORED
        raise ValueError(f"class {number} is unknown; name custom classes with the option classes")


def _video_file(sequence: Path, images: Path) -> Path:
    """Return the video file of a sequence without images; raises InputError."""
    for suffix in VIDEO_SUFFIXES:
        path = sequence / f"{sequence.name}{suffix}"
        if path.is_file():
            return path
    raise InputError(f"{sequence}: has neither {images.name}/ nor a video {sequence.name}.mp4")


def _whole(value: float) -> int:
    """Convert to int; raises ValueError for a fraction."""
    if not value.is_integer():
        raise ValueError(f"{value:g} where a whole number is expected")
    return int(value)
