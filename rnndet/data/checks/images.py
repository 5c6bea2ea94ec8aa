"""Check the image and video files of a labelled set: present, readable, of the right size."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rnndet.data.checks.findings import Finding, error, first_of, note
from rnndet.data.orientation import orientation_counts, size_hint, turn_hint
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.errors import InputError
from rnndet.registry import lookup
from rnndet.video.exif import UPRIGHT
from rnndet.video.image import read_image
from rnndet.video.sources.capture import decode as decode_file
from rnndet.video.sources.capture import existing_file, open_capture
from rnndet.video.sources.open import open_source

# Number of frames decoded of each video; None for all.
DECODE: dict[str, int | None] = {"all": None, "sample": 5, "none": 0}
MAX_UNREADABLE = 0.001  # share of the frames; beyond, more decoding finds nothing new
ALWAYS_TOLERATED = 10  # unreadable frames that never end the check: small sets are checked fully
CELLS = 16  # a fingerprint has CELLS x CELLS mean values
FLAT = 4  # grey levels from the darkest to the brightest cell; black frames are not copies


@dataclass(slots=True)
class ImageReport:
    """Findings and fingerprints of the images of one split."""

    findings: list[Finding] = field(default_factory=list)
    prints: dict[bytes, tuple[str, int]] = field(default_factory=dict)  # -> video name, frame


def check_images(videos: VideoSet, split: str, *, decode: str = "sample") -> ImageReport:
    """Find files that are missing, empty or unreadable, or differ in size from the record.

    The presence of all files is checked. Then frames are decoded: "all", "none", or with "sample"
    five of each video including the first and the last, which finds a video file that ends too
    early. If more than 0.1 % of the frames, and more than ten, cannot be read, the check ends with
    an error.

    Raises RnndetError for an unknown `decode`.
    """
    limit = lookup(decode, DECODE, what="decode")
    result = ImageReport()
    usable: list[tuple[VideoRecord, list[FrameRecord]]] = []
    for video in tqdm(videos.videos, desc="files", unit="video", disable=None):
        findings, records = _present(video, f"{split}: {video.name}")
        result.findings += findings
        usable.append((video, records))
    turned = orientation_counts(videos.videos)
    result.findings += _counted(turned, UPRIGHT, split, "images have an EXIF orientation")
    total = sum(len(video.frames) for video in videos.videos)
    missing = total - sum(len(records) for _, records in usable)
    if limit == 0 or _stops(missing, total, split, result):
        return result
    rotations = Counter(_rotation(video.path) for video, _ in usable if video.path is not None)
    result.findings += _counted(rotations, 0, split, "video files are turned by their metadata")
    bad = seen = 0
    for video, records in tqdm(usable, desc="images", unit="video", disable=None):
        chosen = _spread(records, limit)
        bad += _decode(video, chosen, f"{split}: {video.name}", result)
        seen += len(chosen)
        if _stops(bad, seen, split, result):
            break
    return result


def fingerprint(image: np.ndarray) -> bytes | None:
    """Return 16 bytes that are equal for copies of an image (H, W, 3); None for a flat image.

    A copy that was compressed again has a different fingerprint. Flat images are not compared.
    """
    cells = image.mean(2, dtype=np.float32)
    for axis in (0, 1):
        edges = np.linspace(0, cells.shape[axis], min(CELLS, cells.shape[axis]) + 1).astype(int)
        sizes = np.expand_dims(np.diff(edges), 1 - axis)
        cells = np.add.reduceat(cells, edges[:-1], axis) / sizes
    if cells.max() - cells.min() < FLAT:
        return None
    return hashlib.blake2b(cells.round().astype(np.uint8).tobytes(), digest_size=16).digest()


def _counted(values: Counter[int], usual: int, split: str, what: str) -> Iterator[Finding]:
    """Yield a note with the numbers of the values other than the usual one, if there are any."""
    others = {value: number for value, number in sorted(values.items()) if value != usual}
    if others:
        each = ", ".join(f"{number} of {value}" for value, number in others.items())
        yield note(split, f"{sum(others.values())} {what}: {each}")


def _rotation(path: Path) -> int:
    """Return the degrees by which the metadata of a video turn it; 0 if it cannot be read."""
    try:
        with open_source(path) as source:
            return source.info.rotation
    except InputError:  # a finding of its own
        return 0


def _present(video: VideoRecord, where: str) -> tuple[list[Finding], list[FrameRecord]]:
    """Return findings on missing files, and the frames whose file is present."""
    if video.path is not None:
        if _is_there(video.path):
            return [], list(video.frames)
        return [error(where, f"{video.path}: video file is missing or empty")], []
    records, missing = [], []
    for record in video.frames:
        assert record.image is not None, video.name
        if _is_there(record.image):
            records.append(record)
        else:
            missing.append(str(record.image))
    if not missing:
        return [], records
    return [error(where, f"image is missing or empty: {first_of(missing)}")], records


def _is_there(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except OSError:
        return False


def _stops(bad: int, of: int, split: str, result: ImageReport) -> bool:
    """Return True, and add an error, if too many frames are unreadable to go on."""
    if bad <= max(ALWAYS_TOLERATED, MAX_UNREADABLE * of):
        return False
    text = f"{bad} of {of} frames cannot be read, more than 0.1 %; the check of images ends here"
    result.findings.append(error(split, text))
    return True


def _spread(records: Sequence[FrameRecord], count: int | None) -> Sequence[FrameRecord]:
    if count is None or len(records) <= count:
        return records
    return [records[place] for place in np.linspace(0, len(records) - 1, count).round().astype(int)]


def _decode(
    video: VideoRecord, records: Sequence[FrameRecord], where: str, result: ImageReport
) -> int:
    """Decode some frames and add findings to the result; returns how many are unreadable."""
    unreadable, sizes, hint = [], [], ""
    files = {record.index: record.image for record in records}
    for index, image in _images(video, records):
        if isinstance(image, str):
            unreadable.append(image)
            continue
        height, width = image.shape[:2]
        if (height, width) != (video.height, video.width):
            sizes.append(f"frame {index} has {width}x{height} pixels")
            file = video.path or files[index]
            assert file is not None, video.name
            labels_hw = (video.height, video.width)
            hint = hint or turn_hint(file, labels_hw, as_stored=video.as_stored)
        key = fingerprint(image)
        if key is not None:
            result.prints.setdefault(key, (video.name, index))
    if unreadable:
        result.findings.append(error(where, first_of(unreadable)))
    if sizes:
        text = f"{first_of(sizes)}; the labels are for {video.width}x{video.height}"
        if not video.states_size and video.path is None:
            hint = hint or size_hint(video)
        result.findings.append(error(where, f"{text}; {hint}" if hint else text))
    return len(unreadable)


def _images(
    video: VideoRecord, records: Sequence[FrameRecord]
) -> Iterator[tuple[int, np.ndarray | str]]:
    """Yield index and image of some frames, or the reason if a frame is unreadable."""
    if video.path is not None:
        yield from _images_of_file(video.path, {record.index for record in records})
        return
    for record in records:
        assert record.image is not None, video.name
        try:
            yield record.index, read_image(record.image, as_stored=video.as_stored)
        except InputError as reason:
            yield record.index, str(reason)


def _images_of_file(path: Path, indices: set[int]) -> Iterator[tuple[int, np.ndarray | str]]:
    if not indices:
        return
    last = -1
    missing = set(indices)
    try:
        capture = open_capture(existing_file(path))
    except InputError as reason:
        yield from ((index, str(reason)) for index in sorted(indices))
        return
    try:
        for index, image, _ in decode_file(capture, indices):
            if index in indices:
                missing.remove(index)
                last = index
                yield index, image
    finally:
        capture.release()
    for index in sorted(missing):
        is_end = index > last
        reason = f"ends before frame {index}" if is_end else f"frame {index} cannot be decoded"
        yield index, f"{path}: {reason}"
