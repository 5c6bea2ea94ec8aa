"""Read MOTChallenge and sets in its layout (DanceTrack, SportsMOT, CVAT, output of writers/mot.py).

    <root>/<split>/<sequence>/seqinfo.ini
                              img1/%06d.jpg, or <sequence>.mp4 where there is no img1
                              gt/gt.txt, det/det.txt, gt/labels.txt

Rows are `frame, identity, left, top, width, height, flag, class, visibility`. Rows of 7 or 10
columns (MOT15, detections), or with -1 as class, have no class; if they have no identity (-1)
either, their seventh column is a score, which is not read. A frame without rows is a labelled frame
without objects.

Frames count from 1. Pixels count from 1, as in MOTChallenge, but from 0 in exports of CVAT and in
sequences with the names of DanceTrack (dancetrack0001) and SportsMOT (v_..._c001) and without a
gt/labels.txt, which writers/mot.py adds. DanceTrack's kit adds 1 to the frames of its annotation
tool and nothing to the boxes; boxes of SportsMOT at the lower edge have top + height equal to the
height of the image.

A sequence with gt/labels.txt and without seqinfo.ini is CVAT's "MOT 1.1". Its frames are the images
of img1 in natural order of names, or those of the video; `frame` is the number that is the image's
name, or its place from 1 if the names are not all numbers.

Classes are, in this order of precedence: several names given as `classes`; the lines of
gt/labels.txt; those of MOTChallenge. With names, class n is the nth name, class 0 with flag 0 an
ignore region of no class, and another row with flag 0 an ignored object, a distractor in tracking
metrics; without an identity it is an ignore region of its class.

Of MOTChallenge's classes, pedestrians are read; persons that its evaluation leaves out (on a
vehicle, static, distractor, reflection) are ignored, and in sequences whose names begin with MOT20
non-motorised vehicles, too; the rest is counted and left out. For tracking metrics these persons
are distractors, and the rest and pedestrians with flag 0 take part in matching, as in trackeval.
"""

import configparser
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rnndet.data.formats.paired_videos import all_frames, frame_images, video_info
from rnndet.data.formats.text import inside, read_text, rows
from rnndet.data.formats.video_builder import MAX_FRAMES
from rnndet.data.orientation import Orientation, settle
from rnndet.data.problems import Problems
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.data.targets import ANY_CLASS, MAX_TRACK, Box, TargetBuilder
from rnndet.errors import InputError, NothingFoundError
from rnndet.messages import counted
from rnndet.structures import DEFAULT_FPS, Role, Target
from rnndet.video.sources.base import VIDEO_SUFFIXES
from rnndet.video.sources.image_folder import list_images, natural_key

GT = "gt/gt.txt"
LABELS = "gt/labels.txt"
COLUMNS = 7  # at least
PEDESTRIAN = 1
IGNORED = (2, 7, 8, 12)  # person on vehicle, static person, distractor, reflection
LEFT_OUT = (3, 4, 5, 6, 9, 10, 11, 13)  # vehicles, occluders, crowd
NON_MOTORISED = 6  # ignored in MOT20, left out in the other benchmarks
DETECTORS = re.compile(r"(MOT17-.+)-(?:DPM|FRCNN|SDP)")  # the same video under three names
COUNTS_FROM_0 = re.compile(r"dancetrack\d+|v_.+_c\d+")  # DanceTrack, SportsMOT


def read(
    root: Path,
    split: str,
    problems: Problems,
    *,
    classes: tuple[str, ...] = ("pedestrian",),
    file: str = GT,
    fps: float | None = None,
    first_pixel: Literal[0, 1] | None = None,
    orientation: Orientation = "auto",
) -> VideoSet:
    """Read the sequences of `root/split`, or that folder if it is a sequence; "." is `root`.

    Args:
        classes: one name for MOTChallenge's pedestrians, or several names for custom classes; see
            the module's docstring.
        file: the file with the boxes in each sequence; "det/det.txt" for the public detections.
            If no sequence has a gt/gt.txt (a test split), frames are unlabelled.
        fps: of sequences whose seqinfo.ini is missing or names no frame rate. None: that of the
            video file, or none, which is taken as 25.
        first_pixel: the number of the first pixel in the rows; None: see the module's docstring.

    Raises InputError: a frame rate that is not positive, no sequences, or no sequence has a `file`
    other than gt/gt.txt. Problems are: a sequence whose files are missing or broken, a row with
    impossible numbers or an unknown class, a frame without an image.
    """
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise InputError(f"fps {fps:g} is not a frame rate")
    top = root / split
    folders = top.iterdir() if top.is_dir() else []
    sequences = sorted((f for f in folders if _is_sequence(f)), key=lambda f: natural_key(f.name))
    if not sequences and _is_sequence(top):
        sequences = [top.resolve()]
    if not sequences:
        raise NothingFoundError(f"{top}: no sequences found; expected folders with a seqinfo.ini")
    is_labelled = any((sequence / file).is_file() for sequence in sequences)
    if not is_labelled and file != GT:
        raise NothingFoundError(f"{top}: no sequence has a file {file}")
    given = len(classes) > 1
    labels = None if given else _labels(sequences[0])
    names = labels or tuple(classes)
    has_names = given or labels is not None
    reader = _Reader(
        names, file if is_labelled else None, problems, has_names=has_names, fps=fps,
        first_pixel=first_pixel,
    )  # fmt: skip
    if file == GT:
        _warn_of_detectors([sequence.name for sequence in sequences], problems)
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


def _warn_of_detectors(names: Sequence[str], problems: Problems) -> None:
    """Count the sequences that are in the set under the name of another detector, too."""
    videos = [match[1] for name in names if (match := DETECTORS.fullmatch(name))]
    if repeated := len(videos) - len(set(videos)):
        problems.warn(
            "sequences with the video of another detector's; keep one of DPM, FRCNN and SDP",
            repeated,
        )


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


@dataclass(frozen=True, slots=True)
class _Sequence:
    """The frames of a sequence, before its rows are read."""

    name: str
    width: int
    height: int
    fps: float | None
    images: dict[int, Path | None]  # in order, by the number in the rows; None: of the video
    indices: dict[int, int]  # from 0, of the same numbers
    video: Path | None
    length: int | None  # of the sequence where frames may be missing in `images`
    first_pixel: int
    ignored: tuple[int, ...]  # classes of MOTChallenge


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
        self,
        names: tuple[str, ...],
        file: str | None,
        problems: Problems,
        *,
        has_names: bool,
        fps: float | None,
        first_pixel: int | None,
    ) -> None:
        self.names, self.file, self.problems = names, file, problems
        self.has_names = has_names  # the class column counts in `names`
        self.fps, self.first_pixel = fps, first_pixel

    def read(self, folder: Path) -> VideoRecord:
        """Read a sequence. Raises InputError if the sequence as a whole cannot be used."""
        info = folder / "seqinfo.ini"
        is_cvat = not info.is_file() and (folder / LABELS).is_file()
        sequence = self._cvat_sequence(folder) if is_cvat else self._sequence(folder, info)
        if sequence.fps is None:
            sequence = replace(sequence, fps=self.fps)
        if sequence.fps is None and is_cvat:
            note = f"sequences without a frame rate, taken as {DEFAULT_FPS} (option fps)"
            self.problems.correct(note)
        targets = None if self.file is None else self._targets(folder / self.file, sequence)
        frames = []
        for number, image in sequence.images.items():
            target = None if targets is None else targets.get(number, Target.empty())
            frames.append(FrameRecord(sequence.indices[number], target, image))
        size_hw = (sequence.height, sequence.width)
        return VideoRecord(sequence.name, *size_hw, sequence.fps, tuple(frames), sequence.video)

    def _sequence(self, folder: Path, path: Path) -> _Sequence:
        """Find the frames that a seqinfo.ini describes."""
        info = _info(path)
        image_folder = inside(folder, info.images, where=f"{path}: imDir")
        numbers = range(1, info.length + 1)
        if image_folder.is_dir():
            video, found = None, self._images(image_folder, info)
            for number in numbers:
                if number not in found:
                    reason = f"no image {number:06d}{info.suffix}"
                    self.problems.add(image_folder, f"frame {number}", reason)
            images: dict[int, Path | None] = {n: found[n] for n in numbers if n in found}
        else:
            video, images = _video_file(folder, image_folder), dict.fromkeys(numbers)
        if not images:
            raise InputError(f"{image_folder}: no frame can be used")
        first_pixel = self.first_pixel
        if first_pixel is None:
            is_named = COUNTS_FROM_0.fullmatch(folder.name) is not None
            first_pixel = int(not is_named or (folder / LABELS).is_file())
        ignored = (*IGNORED, NON_MOTORISED) if folder.name.startswith("MOT20") else IGNORED
        return _Sequence(
            folder.name, info.width, info.height, info.fps, images,
            {number: number - 1 for number in numbers}, video, info.length, first_pixel, ignored,
        )  # fmt: skip

    def _cvat_sequence(self, folder: Path) -> _Sequence:
        """Find the frames of an export of CVAT, which has no seqinfo.ini."""
        image_folder = folder / "img1"
        has_images = image_folder.is_dir() and bool(list_images(image_folder))
        source = image_folder if has_images else _video_file(folder, image_folder)
        info = video_info(source)
        last = 0 if self.file is None or has_images else _last_frame(folder / self.file)
        files = frame_images(source, all_frames(source, info, last=last - 1))
        names = [file.stem for file in files.values() if file is not None]
        numbers = list(range(1, len(files) + 1))
        if names and all(name.isdecimal() for name in names):
            numbers = [int(name) for name in names]
            if len(set(numbers)) < len(numbers):
                raise InputError(f"{image_folder}: two images have the same number")
        fps = None if has_images or info.fps is None else float(info.fps)
        return _Sequence(
            folder.name, info.width, info.height, fps,
            dict(zip(numbers, files.values(), strict=True)),
            {number: index for index, number in enumerate(numbers)},
            None if has_images else source, None,
            0 if self.first_pixel is None else self.first_pixel, IGNORED,
        )  # fmt: skip

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
            reason = f"images beyond the {counted(info.length, 'frame')} of seqinfo.ini: {beyond}"
            self.problems.add(folder, "", reason)
        return images

    def _targets(self, file: Path, sequence: _Sequence) -> dict[int, Target]:
        """Return the target of every frame that has rows, by its number in them."""
        builders: dict[int, TargetBuilder] = defaultdict(
            lambda: TargetBuilder(width=sequence.width, height=sequence.height, file=file,
                                  problems=self.problems)
        )  # fmt: skip
        seen: set[tuple[int, int]] = set()
        for line, fields in rows(file, self.problems, columns=COLUMNS):
            try:
                values = _numbers(fields)
                number, track = _whole(values[0]), _whole(values[1])
                if number not in sequence.indices:
                    length = sequence.length or len(sequence.images)
                    raise ValueError(f"frame {number} of a sequence of {length}")
                if not -1 <= track <= MAX_TRACK:
                    raise ValueError(f"identity {track}; expected a number from 0, or -1 for none")
                if track >= 0 and (number, track) in seen:
                    raise ValueError(f"identity {track} comes twice in frame {number}")
                seen.add((number, track))
                kind = self._kind(values, sequence.ignored)
            except ValueError as error:
                self.problems.add(file, line, str(error))
                continue
            box = _box(values, sequence.first_pixel)
            if kind is None:
                self.problems.correct("boxes of other classes than pedestrian left out")
                builders[number].add_uncounted(box, track=track)
                continue
            label, ignore, role = kind
            builders[number].add(box, label, entry=line, track=track, ignore=ignore, role=role)
        return {number: builder.build() for number, builder in builders.items()}

    def _kind(
        self, values: list[float], ignored: tuple[int, ...]
    ) -> tuple[int, bool, Role | None] | None:
        """Return the label, ignore flag and role of a row; None to leave it out.

        ignored: classes of MOTChallenge. Raises ValueError.
        """
        has_class = len(values) == 9 and values[7] != -1
        is_object = values[1] != -1
        is_score = not has_class and not is_object
        ignore = values[6] == 0 and not is_score
        role = None
        if ignore and is_object:
            role = Role.DISTRACTOR if self.has_names else Role.UNCOUNTED
        if not has_class:
            if len(self.names) > 1:
                raise ValueError(f"has no class, of which there are {len(self.names)}")
            return 0, ignore, role
        number = _whole(values[7])
        if self.has_names:
            if number == 0 and ignore:
                return ANY_CLASS, True, None
            if 1 <= number <= len(self.names):
                return number - 1, ignore, role
            raise ValueError(f"class {number} is unknown; expected 1 to {len(self.names)}")
        if number in ignored:
            return 0, True, Role.DISTRACTOR
        if number in LEFT_OUT:
            return None
        if number == PEDESTRIAN:
            return 0, ignore, role
        raise ValueError(f"class {number} is unknown; name custom classes with the option classes")


def _numbers(fields: list[str]) -> list[float]:
    """Convert the fields of a row, which may end with a comma. Raises ValueError."""
    while fields and not fields[-1]:
        fields = fields[:-1]
    if len(fields) < COLUMNS:
        raise ValueError(f"{counted(len(fields), 'field')}; expected {COLUMNS}")
    try:
        return [float(field) for field in fields]
    except ValueError:
        raise ValueError("a field is not a number") from None


def _box(values: list[float], first_pixel: int) -> Box:
    left, top, width, height = values[2:6]
    left, top = left - first_pixel, top - first_pixel
    return left, top, left + width, top + height


def _last_frame(file: Path) -> int:
    """Return the largest frame number of the rows; broken ones are reported when they are read."""
    last = 0
    for _, fields in rows(file, Problems(), columns=COLUMNS):
        number = float(fields[0]) if fields[0].strip().isdecimal() else 0
        last = max(last, int(number))
    return last


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
