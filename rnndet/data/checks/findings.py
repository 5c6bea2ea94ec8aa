"""What a check of a data set finds."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to correct, or only to know."""

    where: str  # the split, and the video or the file
    text: str
    is_error: bool

    def __str__(self) -> str:
        return f"{'error' if self.is_error else 'note'}: {self.where}: {self.text}"


def error(where: str, text: str) -> Finding:
    """A finding to correct: training stops at it, or figures are wrong."""
    return Finding(where, text, is_error=True)


def note(where: str, text: str) -> Finding:
    """A finding that may be as it should be."""
    return Finding(where, text, is_error=False)


def first_of(texts: Sequence[str]) -> str:
    """The first text and the number of the others, so that a video gives one line for a kind."""
    return texts[0] if len(texts) == 1 else f"{texts[0]}, and {len(texts) - 1} more such"
