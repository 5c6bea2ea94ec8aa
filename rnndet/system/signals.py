"""Stop a run at SIGINT or SIGTERM after its current step or frame, without loss of results."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """Raised after saving, when a run was stopped by a signal; `exit_code` is the shell's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class StopRequest:
    """A signal handler that records the signal in `number`; 0 for none.

    A second SIGINT raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.number == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.number = number

    @property
    def exit_code(self) -> int:
        """The shell's exit code: 130 for SIGINT, 143 for SIGTERM; 0 for no signal."""
        return 128 + self.number if self.number else 0


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Catch SIGINT and SIGTERM while the block runs; no effect outside the main thread."""
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
