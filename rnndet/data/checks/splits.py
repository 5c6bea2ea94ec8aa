"""Compare the splits of one data set: shared videos, files and images, different classes."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path

from rnndet.data.checks.findings import Finding, error, first_of, note
from rnndet.data.records import VideoSet

Prints = Mapping[bytes, tuple[str, int]]  # fingerprint -> name of the video, frame


def check_splits(sets: Mapping[str, VideoSet], prints: Mapping[str, Prints]) -> list[Finding]:
    """Compare every pair of splits. `prints` are the fingerprints of `check_images`, by split.

    Errors: different classes, a video of the same name, the same file, the same image under another
    name. Note: the same scene group, since scenes seen in training make results look better.
    """
    findings = []
    for a, b in combinations(sets, 2):
        where = f"{a} and {b}"
        findings += _pair(sets[a], sets[b], where)
        findings += _copies(prints.get(a, {}), prints.get(b, {}), where)
    return findings


def _pair(a: VideoSet, b: VideoSet, where: str) -> Iterator[Finding]:
    if a.classes != b.classes:
        yield error(where, f"classes differ: {', '.join(a.classes)}; {', '.join(b.classes)}")
    names = {video.name for video in a.videos}
    shared = [f"video {video.name!r} is in both" for video in b.videos if video.name in names]
    if shared:
        yield error(where, first_of(shared))
    files = _files(a)
    same = [f"{file} is in both" for file in _files(b) if file in files]
    if same:
        yield error(where, first_of(same))
    groups = {video.group for video in b.videos} - {None}
    both = dict.fromkeys(video.group for video in a.videos if video.group in groups)
    if both:
        yield note(where, first_of([f"scene group {group!r} is in both" for group in both]))


def _files(videos: VideoSet) -> dict[Path, None]:
    """Video files and images, in order."""
    files = [video.path for video in videos.videos]
    files += [record.image for video in videos.videos for record in video.frames]
    return dict.fromkeys(file for file in files if file is not None)


def _copies(a: Prints, b: Prints, where: str) -> Iterator[Finding]:
    pairs: dict[tuple[str, str], str] = {}  # one text for two videos, however many images
    for key, (name, frame) in a.items():
        if key not in b:
            continue
        other, other_frame = b[key]
        if other == name:
            continue  # reported already: a video of this name is in both
        text = f"frame {frame} of {name!r} is the same image as frame {other_frame} of {other!r}"
        pairs.setdefault((name, other), text)
    if pairs:
        yield error(where, first_of(list(pairs.values())))
