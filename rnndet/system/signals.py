"""SIGINT and SIGTERM ask for the end after the step or frame under way; nothing is lost."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """A run ended early because it was asked to, after saving; `exit_code` as shells expect it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class StopRequest:
    """Which signal has asked for the end; 0 for none."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.number == signal.SIGINT == number:  # asked twice: no patience left
            raise KeyboardInterrupt
        self.number = number

    @property
    def exit_code(self) -> int:
        """As shells expect it: 130 for SIGINT, 143 for SIGTERM; 0 for none."""
        return 128 + self.number if self.number else 0


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Catch SIGNALS while the block runs; outside the main thread nothing is caught."""
    request = StopRequest()
    try:
        before = {number: signal.signal(number, request) for number in SIGNALS}
    except ValueError:
        before = {}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
