"""Check the labels of a set without its images: frame numbers, identities, empty videos."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median_low
from typing import NamedTuple

from rnndet.data.checks.findings import Finding, error, first_of, note
from rnndet.data.records import VideoRecord, VideoSet
from rnndet.data.targets import target_rows

ABSENT = 30  # labelled frames; after a longer absence an identity may have been reused


def check_labels(videos: VideoSet, split: str) -> list[Finding]:
    """Return at most one finding of each kind for each video.

    Errors: a video without frames, two videos of the same name, a frame listed twice, an identity
    twice in a frame, unless it is ignored, or with two classes in a video. Notes: gaps in the frame
    numbers, which are steps longer than the video's median step; videos without labels or objects,
    but only one note for a set that has no classes either; objects that return after more than
    ABSENT labelled frames.
    """
    findings = [
        error(split, f"{count} videos have the name {name!r}")
        for name, count in Counter(video.name for video in videos.videos).items()
        if count > 1
    ]
    has_labels = bool(videos.classes) or videos.is_labelled
    if not has_labels:
        findings.append(note(split, "the set has no classes, and no frame is labelled"))
    for video in videos.videos:
        where = f"{split}: {video.name}"
        findings += _frame_numbers(video, where)
        findings += _emptiness(video, where, note_unlabelled=has_labels)
        findings += _identities(video, videos.classes, where)
    return findings


def _frame_numbers(video: VideoRecord, where: str) -> Iterator[Finding]:
    times = Counter(record.index for record in video.frames)
    repeated = [f"frame {n} is listed {count} times" for n, count in times.items() if count > 1]
    if repeated:
        yield error(where, first_of(repeated))
    steps = list(pairwise(sorted(times)))
    if not steps:
        return
    usual = median_low(after - before for before, after in steps)
    gaps = [f"frame {a} is followed by frame {b}" for a, b in steps if b - a > usual]
    if gaps:
        yield note(where, first_of(gaps))


def _emptiness(video: VideoRecord, where: str, *, note_unlabelled: bool) -> Iterator[Finding]:
    targets = [record.target for record in video.frames if record.target is not None]
    if not video.frames:
        yield error(where, "has no frames")
    elif not targets:
        if note_unlabelled:
            yield note(where, "no frame is labelled")
    elif not any(len(target) for target in targets):
        yield note(where, "holds no object")


class _Sighting(NamedTuple):
    """One box with an identity."""

    place: int  # of its frame among the labelled frames
    frame: int
    track: int
    label: int
    ignore: bool


def _identities(video: VideoRecord, classes: Sequence[str], where: str) -> Iterator[Finding]:
    sightings = list(_sightings(video))
    for texts in (_repeated(sightings), _class_changes(sightings, classes)):
        if texts:
            yield error(where, first_of(texts))
    if absences := _absences(sightings):
        yield note(where, first_of(absences))


def _sightings(video: VideoRecord) -> Iterator[_Sighting]:
    targets = [(r.index, r.target) for r in video.frames if r.target is not None]
    for place, (frame, target) in enumerate(targets):
        for row in target_rows(target):
            if row.track >= 0:
                yield _Sighting(place, frame, row.track, row.label, row.ignore)


def _repeated(sightings: Sequence[_Sighting]) -> list[str]:
    count = Counter((s.frame, s.place, s.track) for s in sightings if not s.ignore)
    return [
        f"object {track} is in frame {frame} twice"
        for (frame, _, track), times in count.items()
        for _ in range(times - 1)
    ]


def _class_changes(sightings: Sequence[_Sighting], classes: Sequence[str]) -> list[str]:
    """Return one text for each identity that has several classes."""
    first: dict[int, _Sighting] = {}
    changes: dict[int, str] = {}
    for s in sightings:
        if s.label < 0:
            continue
        known = first.setdefault(s.track, s)
        if s.label != known.label:
            old, new = classes[known.label], classes[s.label]
            seen = f"{old!r} in frame {known.frame} and {new!r} in frame {s.frame}"
            changes.setdefault(s.track, f"object {s.track} is {seen}")
    return list(changes.values())


def _absences(sightings: Sequence[_Sighting]) -> list[str]:
    last: dict[int, _Sighting] = {}
    texts = []
    for s in sightings:
        before = last.get(s.track, s)
        if s.place - before.place - 1 > ABSENT:
            texts.append(f"object {s.track} is absent from frame {before.frame} to {s.frame}")
        last[s.track] = s
    return texts
