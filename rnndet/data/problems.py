"""Collect the problems of the files of a data set, so that one run reports all of them.

A reader reports a left-out entry with `add`, counts a harmless correction with `correct` and
something that may be wrong with `warn`, and continues. The caller decides whether data with
left-out entries may be used: `stop_if_any`.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rnndet.errors import InputError
from rnndet.messages import counted, numbered

SHOWN = 10  # problems in one message


@dataclass(frozen=True, slots=True)
class Problem:
    """One entry that was left out."""

    where: str  # the file, and the line or the entry in it
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class Problems:
    """The problems of one data set, in the order in which they were found.

    >>> problems = Problems()
    >>> problems.add("gt.txt", 3, "4 fields; expected 7")
    >>> problems.correct("boxes clipped to the image", 2)
    >>> print(problems.found[0], problems.notes())
    gt.txt: line 3: 4 fields; expected 7 ['2 boxes clipped to the image']
    """

    def __init__(self) -> None:
        self.found: list[Problem] = []
        self.corrected: Counter[str] = Counter()  # correction -> number of times
        self.doubtful: Counter[str] = Counter()  # warning -> number of times

    def __len__(self) -> int:
        return len(self.found)

    def add(self, file: str | Path, entry: str | int, reason: str) -> None:
        """Report an entry that is left out; an int is a line, counted from 1; "" is the file."""
        place = f"line {entry}" if isinstance(entry, int) else entry
        self.found.append(Problem(f"{file}: {place}" if place else str(file), reason))

    def add_error(self, file: str | Path, error: InputError) -> None:
        """Report a file that is left out; its name is not repeated if the message contains it."""
        self.add(file, "", str(error).removeprefix(f"{file}: "))

    def correct(self, what: str, count: int = 1) -> None:
        """Count a harmless correction, such as "boxes clipped to the image"."""
        self.corrected[what] += count

    def warn(self, what: str, count: int = 1) -> None:
        """Count something that may make results wrong, but is used."""
        self.doubtful[what] += count

    def stop_if_any(self) -> None:
        """Raise InputError with the first problems and their number, if there are any."""
        if not self.found:
            return
        lines = [str(problem) for problem in self.found[:SHOWN]]
        more = len(self.found) - len(lines)
        if more:
            lines.append(f"and {more} more")
        count = counted(len(self.found), "entry", "entries")
        raise InputError(
            f"{count} cannot be used; correct the files, or leave them out with `skip_bad=True`\n  "
            + "\n  ".join(lines)
        )

    def notes(self) -> list[str]:
        """Return one line for each kind of correction."""
        return [numbered(count, what) for what, count in sorted(self.corrected.items())]

    def warnings(self) -> list[str]:
        """Return one line for each kind of warning."""
        return [numbered(count, what) for what, count in sorted(self.doubtful.items())]
