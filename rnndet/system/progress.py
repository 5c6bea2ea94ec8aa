"""Progress bars and progress lines of a run over frames, and log messages as JSON lines."""

import json
import logging
import sys
from time import monotonic
from typing import Self

from tqdm import tqdm

from rnndet.system.streams import is_utf8

log = logging.getLogger(__name__)

LINE_EVERY = 30.0  # seconds, which keeps the log of a long run short


class Progress:
    """A progress bar with frames per second on a terminal; elsewhere a log line every 30 s.

    total: None where the length is unknown. quiet: show nothing. lines: log lines on a terminal
    too. part: the number of this source and the number of sources; with several sources the bar
    is drawn below that of `SourcesBar`. Use as a context manager.

    >>> with Progress("clip", 3, quiet=True) as progress:
    ...     for _ in range(3):
    ...         progress.step()
    >>> progress.count
    3
    """

    def __init__(
        self,
        name: str,
        total: int | None,
        *,
        quiet: bool,
        lines: bool = False,
        part: tuple[int, int] = (1, 1),
    ) -> None:
        has_bar = sys.stderr.isatty() and not lines
        self._bar = tqdm(
            desc=name, total=total, unit=" frames", leave=False, disable=quiet or not has_bar,
            position=int(part[1] > 1),
        )  # fmt: skip
        self._has_lines = not quiet and not has_bar
        self._name, self._total, self._part, self._count = name, total, part, 0
        self._start = self._last = monotonic()

    def step(self, _: object = None) -> None:
        """Count a frame; the argument, which callbacks pass, is ignored."""
        self._bar.update()
        self._count += 1
        now = monotonic()
        if self._has_lines and now - self._last >= LINE_EVERY:
            self._last = now
            self._log(now - self._start)

    def _log(self, seconds: float) -> None:
        number, count = self._part
        name = self._name if count == 1 else f"{self._name} ({number} of {count})"
        of = "" if self._total is None else f" of {self._total}"
        rate = self._count / seconds
        facts = {
            "event": "progress", "source": self._name, "source_number": number, "sources": count,
            "frames": self._count, "total": self._total, "fps": round(rate, 2),
        }  # fmt: skip
        log.info(
            "%s: %d%s frames, %.1f per second", name, self._count, of, rate, extra={"facts": facts}
        )

    def step_of(self, total: int) -> None:
        """Count a frame, and set a total that was unknown at the start."""
        self._bar.total = self._total = total
        self.step()

    @property
    def count(self) -> int:
        """Frames so far."""
        return self._count

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return monotonic() - self._start

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()


class SourcesBar:
    """A progress bar over several sources, on a terminal only."""

    def __init__(self, count: int, *, quiet: bool) -> None:
        hidden = quiet or count < 2 or not sys.stderr.isatty()
        self._bar = tqdm(
            desc="all sources", total=count, unit=" sources", leave=False, disable=hidden
        )

    def step(self) -> None:
        """Count a finished source."""
        self._bar.update()

    def close(self) -> None:
        self._bar.close()


class JsonFormatter(logging.Formatter):
    """Format a log record as a line of JSON for stderr: time (seconds since 1970), level, event...

    The `facts` attribute of a record, a mapping, adds and replaces keys.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "event": "message",
            "text": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=not is_utf8(sys.stderr), default=str)
