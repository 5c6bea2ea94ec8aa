"""Checks of the files that a labelled set names: are they there, whole, and of the right size?"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rnndet.data.checks.findings import Finding, error, first_of
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.errors import InputError
from rnndet.registry import lookup
from rnndet.video.image import read_image
from rnndet.video.sources.capture import decode as decode_file
from rnndet.video.sources.capture import existing_file, open_capture

# How many frames of each video are decoded; None for all.
DECODE: dict[str, int | None] = {"all": None, "sample": 5, "none": 0}
MOST_BAD = 0.001  # share of the frames; with more, decoding on finds nothing new
FEW = 10  # so many bad frames never end the check: small sets are checked whole
CELLS = 16  # a fingerprint has CELLS x CELLS mean values
FLAT = 4  # grey levels from the darkest to the brightest cell: black frames are no copies


@dataclass(slots=True)
class Pictures:
    """What is known of the images of one split."""

    findings: list[Finding] = field(default_factory=list)
    prints: dict[bytes, tuple[str, int]] = field(default_factory=dict)  # -> video name, frame


def check_images(videos: VideoSet, split: str, *, decode: str = "sample") -> Pictures:
    """Errors: files that are missing, empty or unreadable, or have another size than the record.

    All files are looked for. Then frames are decoded: "all", "none", or as "sample" five of each
    video with the first and the last, so that a video file that ends too early is found. If more
    than 0.1 % of the frames, and more than ten, cannot be read, that is said and the check ends.

    Raises RnndetError for an unknown `decode`.
    """
    most = lookup(decode, DECODE, what="decode")
    result = Pictures()
    usable: list[tuple[VideoRecord, list[FrameRecord]]] = []
    for video in tqdm(videos.videos, desc="files", unit="video", disable=None):
        findings, records = _present(video, f"{split}: {video.name}")
        result.findings += findings
        usable.append((video, records))
    total = sum(len(video.frames) for video in videos.videos)
    missing = total - sum(len(records) for _, records in usable)
    if most == 0 or _stops(missing, total, split, result):
        return result
    bad = seen = 0
    for video, records in tqdm(usable, desc="images", unit="video", disable=None):
        chosen = _spread(records, most)
        bad += _look(video, chosen, f"{split}: {video.name}", result)
        seen += len(chosen)
        if _stops(bad, seen, split, result):
            break
    return result


def fingerprint(image: np.ndarray) -> bytes | None:
    """16 bytes, equal for copies of an image (H, W, 3); None for a flat one, which is no sign.

    A copy that was compressed again has another.
    """
    cells = image.mean(2, dtype=np.float32)
    for axis in (0, 1):
        edges = np.linspace(0, cells.shape[axis], min(CELLS, cells.shape[axis]) + 1).astype(int)
        sizes = np.expand_dims(np.diff(edges), 1 - axis)
        cells = np.add.reduceat(cells, edges[:-1], axis) / sizes
    if cells.max() - cells.min() < FLAT:
        return None
    return hashlib.blake2b(cells.round().astype(np.uint8).tobytes(), digest_size=16).digest()


def _present(video: VideoRecord, where: str) -> tuple[list[Finding], list[FrameRecord]]:
    """What is missing, and the frames whose file is there."""
    if video.path is not None:
        if _is_there(video.path):
            return [], list(video.frames)
        return [error(where, f"{video.path}: no such video file, or an empty one")], []
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


def _stops(bad: int, of: int, split: str, result: Pictures) -> bool:
    """Whether too many frames are bad to go on; says so."""
    if bad <= max(FEW, MOST_BAD * of):
        return False
    text = f"{bad} of {of} frames cannot be read, more than 0.1 %; the check of images ends here"
    result.findings.append(error(split, text))
    return True


def _spread(records: Sequence[FrameRecord], most: int | None) -> Sequence[FrameRecord]:
    if most is None or len(records) <= most:
        return records
    return [records[place] for place in np.linspace(0, len(records) - 1, most).round().astype(int)]


def _look(video: VideoRecord, records: Sequence[FrameRecord], where: str, result: Pictures) -> int:
    """Decode some frames, add what is found to the result; returns how many cannot be read."""
    unreadable, sizes = [], []
    for index, image in _images(video, records):
        if isinstance(image, str):
            unreadable.append(image)
            continue
        height, width = image.shape[:2]
        if (height, width) != (video.height, video.width):
            sizes.append(f"frame {index} has {width}x{height} pixels")
        key = fingerprint(image)
        if key is not None:
            result.prints.setdefault(key, (video.name, index))
    if unreadable:
        result.findings.append(error(where, first_of(unreadable)))
    if sizes:
        text = f"{first_of(sizes)}; the labels are for {video.width}x{video.height}"
        result.findings.append(error(where, text))
    return len(unreadable)


def _images(
    video: VideoRecord, records: Sequence[FrameRecord]
) -> Iterator[tuple[int, np.ndarray | str]]:
    """Index and image of some frames; in place of one that cannot be read, the reason."""
    if video.path is not None:
        yield from _images_of_file(video.path, {record.index for record in records})
        return
    for record in records:
        assert record.image is not None, video.name
        try:
            yield record.index, read_image(record.image)
        except InputError as reason:
            yield record.index, str(reason)


def _images_of_file(path: Path, wanted: set[int]) -> Iterator[tuple[int, np.ndarray | str]]:
    if not wanted:
        return
    last = -1
    missing = set(wanted)
    try:
        capture = open_capture(existing_file(path))
    except InputError as reason:
        yield from ((index, str(reason)) for index in sorted(wanted))
        return
    try:
        for index, image, _ in decode_file(capture, wanted):
            if index in wanted:
                missing.remove(index)
                last = index
                yield index, image
    finally:
        capture.release()
    for index in sorted(missing):
        is_end = index > last
        reason = f"ends before frame {index}" if is_end else f"frame {index} cannot be decoded"
        yield index, f"{path}: {reason}"
