"""Progress of a run over frames."""

import logging
import sys
from time import monotonic
from types import TracebackType
from typing import Self

from tqdm import tqdm

log = logging.getLogger(__name__)

LINE_EVERY = 30.0  # seconds: a log of a long run stays short


class Progress:
    """A bar with frames per second on a terminal; elsewhere one logged line every 30 s.

    total is None where the length is not known; quiet shows nothing. Use as a context manager.
    """

    def __init__(self, name: str, total: int | None, *, quiet: bool) -> None:
        is_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            desc=name, total=total, unit=" frames", leave=False, disable=quiet or not is_terminal
        )
        self._has_lines = not quiet and not is_terminal
        self._name, self._total, self._count = name, total, 0
        self._start = self._last = monotonic()

    def step(self, _: object = None) -> None:
        """One frame more; takes and ignores what a callback is given."""
        self._bar.update()
        self._count += 1
        now = monotonic()
        if self._has_lines and now - self._last >= LINE_EVERY:
            self._last = now
            of = "" if self._total is None else f" of {self._total}"
            rate = self._count / (now - self._start)
            log.info("%s: %d%s frames, %.1f per second", self._name, self._count, of, rate)

    def step_of(self, total: int) -> None:
        """One frame more, of a number that was not known at the beginning."""
        self._bar.total = self._total = total
        self.step()

    @property
    def count(self) -> int:
        """Frames so far."""
        return self._count

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return monotonic() - self._start

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
