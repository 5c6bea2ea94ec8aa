"""Findings of the checks of a data set: errors and notes."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """An error to correct, or a note.

    >>> print(error("train: v0", "has no frames"))
    error: train: v0: has no frames
    """

    where: str  # the split, and the video or the file
    text: str
    is_error: bool

    def __str__(self) -> str:
        return f"{'error' if self.is_error else 'note'}: {self.where}: {self.text}"


def error(where: str, text: str) -> Finding:
    """Return a finding to correct: training stops at it, or results are wrong."""
    return Finding(where, text, is_error=True)


def note(where: str, text: str) -> Finding:
    """Return a finding that may be correct."""
    return Finding(where, text, is_error=False)


def first_of(texts: Sequence[str]) -> str:
    """Shorten to the first text and the number of further texts: one line per kind and video.

    >>> first_of(["frame 3 is listed 2 times", "frame 5 is listed 2 times"])
    'frame 3 is listed 2 times, and 1 more such'
    """
    return texts[0] if len(texts) == 1 else f"{texts[0]}, and {len(texts) - 1} more such"
