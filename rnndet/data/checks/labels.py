"""Checks of a labelled set that need no image: frame numbers, identities, empty videos."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median_low

from rnndet.data.checks.findings import Finding, error, first_of, note
from rnndet.data.records import VideoRecord, VideoSet

ABSENT = 30  # labelled frames; after a longer absence an identity may have been given again


def check_labels(videos: VideoSet, split: str) -> list[Finding]:
    """At most one finding of a kind for each video.

    Errors: a video without frames, a name of two videos, a frame listed twice, an identity twice in
    one frame or of two classes in one video. Notes: gaps in the frame numbers, which are steps
    longer than the video's usual one; videos without labels or objects; objects that come back
    after more than ABSENT labelled frames.
    """
    findings = [
        error(split, f"{count} videos have the name {name!r}")
        for name, count in Counter(video.name for video in videos.videos).items()
        if count > 1
    ]
    for video in videos.videos:
        where = f"{split}: {video.name}"
        findings += _frame_numbers(video, where)
        findings += _emptiness(video, where)
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


def _emptiness(video: VideoRecord, where: str) -> Iterator[Finding]:
    targets = [record.target for record in video.frames if record.target is not None]
    if not video.frames:
        yield error(where, "has no frames")
    elif not targets:
        yield note(where, "no frame is labelled")
    elif not any(len(target) for target in targets):
        yield note(where, "holds no object")


def _identities(video: VideoRecord, classes: Sequence[str], where: str) -> Iterator[Finding]:
    twice: list[str] = []
    absences: list[str] = []
    changes: dict[int, str] = {}  # by identity
    first: dict[int, tuple[int, int]] = {}  # identity -> its label, and the frame that gives it
    last: dict[int, tuple[int, int]] = {}  # identity -> place and frame in which it was seen
    labelled = [record for record in video.frames if record.target is not None]
    for place, record in enumerate(labelled):
        target = record.target
        assert target is not None
        if target.ids is None:
            continue
        for track, label in zip(target.ids.tolist(), target.labels.tolist(), strict=True):
            if track < 0:
                continue
            seen, frame = last.get(track, (place - 1, record.index))
            if seen == place:
                twice.append(f"object {track} is in frame {frame} twice")
            if place - seen - 1 > ABSENT:
                absences.append(f"object {track} is absent from frame {frame} to {record.index}")
            last[track] = (place, record.index)
            if label < 0:
                continue
            known, since = first.setdefault(track, (label, record.index))
            if label != known:
                changes.setdefault(
                    track,
                    f"object {track} is {classes[known]!r} in frame {since} and "
                    f"{classes[label]!r} in frame {record.index}",
                )
    for texts in (twice, list(changes.values())):
        if texts:
            yield error(where, first_of(texts))
    if absences:
        yield note(where, first_of(absences))
