"""Check a data set: problems of its reader, labels, files, and splits against each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnndet.data.checks.findings import Finding, error, note
from rnndet.data.checks.images import check_images
from rnndet.data.checks.labels import check_labels
from rnndet.data.checks.splits import check_splits
from rnndet.data.formats import read_set
from rnndet.data.problems import Problems
from rnndet.data.records import VideoSet
from rnndet.data.targets import SHARES_HINT
from rnndet.messages import numbered

NEARLY_ALL = 0.9  # share of the boxes


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, and the size of the checked set."""

    findings: tuple[Finding, ...]
    videos: int
    frames: int

    @property
    def errors(self) -> int:
        return sum(finding.is_error for finding in self.findings)

    def summary(self) -> str:
        """Return the numbers in one line."""
        counts = {
            "error": self.errors,
            "note": len(self.findings) - self.errors,
            "video": self.videos,
            "frame": self.frames,
        }
        return ", ".join(f"{n} {what}{'s' * (n != 1)}" for what, n in counts.items())


def check_dataset(
    format: str,
    root: str | Path,
    splits: Sequence[str],
    *,
    decode: str = "sample",
    skip_bad: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Report:
    """Read the splits, check each, and compare them with each other.

    Entries that the reader leaves out are errors, with `skip_bad` notes. `decode` selects how many
    images are decoded, see `check_images`; only those are compared between splits.

    Raises InputError if a split cannot be read, RnndetError for an unknown choice.
    """
    findings: list[Finding] = []
    sets: dict[str, VideoSet] = {}
    for split in dict.fromkeys(splits):  # all are read before the first long check
        problems = Problems()
        sets[split] = read_set(
            format, root, split, skip_bad=True, problems=problems, **(options or {})
        )
        findings += read_findings(problems, sets[split], split, skip_bad=skip_bad)
    prints = {}
    for split, videos in sets.items():
        findings += check_labels(videos, split)
        images = check_images(videos, split, decode=decode)
        findings += images.findings
        prints[split] = images.prints
    findings += check_splits(sets, prints)
    records = [video for videos in sets.values() for video in videos.videos]
    frames = sum(len(video.frames) for video in records)
    return Report(tuple(findings), len(records), frames)


def read_findings(
    problems: Problems, videos: VideoSet, split: str, *, skip_bad: bool
) -> list[Finding]:
    """Convert the problems and corrections reported by the reader of `videos` to findings.

    It is an error if nearly all boxes lie within 0..1: the reader has dropped them as too small.
    """
    add = note if skip_bad else error
    findings = [add(f"{split}: {problem.where}", problem.reason) for problem in problems.found]
    kept = sum(
        len(record.target)
        for v in videos.videos
        for record in v.frames
        if record.target is not None
    )
    for what, count in sorted(problems.corrected.items()):
        is_wrong = what == SHARES_HINT and count > NEARLY_ALL * (count + kept)
        findings.append((error if is_wrong else note)(split, numbered(count, what)))
    findings += [note(split, warning) for warning in problems.warnings()]
    return findings
