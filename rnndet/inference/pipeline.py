"""Reading and writing beside the model: each on a thread of its own, at most a few frames away.

Order, results and errors are those of one thread: an error of the source comes where the frame
would have come, an error of a file at the next frame or at the end, and what was found before
either is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from queue import Full, Queue
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

from rnndet.inference.results import StageClock
from rnndet.structures import Frame, FrameResult

DEPTH = 3  # frames that may wait: enough to even out slow ones, little memory
POLL = 0.1  # seconds between looks at whether the other side still goes on
PATIENCE = 10.0  # seconds that a reader gets to come back from a decoder when nobody reads on


def prefetch(frames: Iterable[Frame], clock: StageClock, *, depth: int = DEPTH) -> Iterator[Frame]:
    """The frames, read by another thread while the caller works; close it to stop that thread."""
    waiting: Queue[tuple[str, Any]] = Queue(depth)
    stopped = Event()

    def put(kind: str, value: Any) -> None:
        while not stopped.is_set():
            try:
                return waiting.put((kind, value), timeout=POLL)
            except Full:
                continue

    def read() -> None:
        source = timed(frames, clock)
        try:
            while not stopped.is_set():
                frame = next(source, None)
                if frame is None:
                    return put("end", None)
                put("frame", frame)
        except BaseException as error:  # it belongs to the caller
            put("error", error)

    thread = Thread(target=read, name="read ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = waiting.get()
            if kind == "frame":
                yield value
            elif kind == "error":
                raise value
            else:
                return
    finally:
        stopped.set()
        thread.join(PATIENCE)


def timed(frames: Iterable[Frame], clock: StageClock) -> Iterator[Frame]:
    """The frames, read by the caller's own thread."""
    source = iter(frames)
    while True:
        with clock.stage("decode"):
            frame = next(source, None)
        if frame is None:
            return
        yield frame


class WriteBehind:
    """Writes results on another thread, in order. A context manager, which waits for the last one.

    write: called with each result. depth: results that may wait; 0 writes at once, on this thread,
    as a window needs it. An error of `write` is raised by the next `put`, or on leaving; no result
    is written after it.
    """

    def __init__(self, write: Callable[[FrameResult], None], *, depth: int = DEPTH) -> None:
        self._write = write
        self._waiting: Queue[FrameResult | None] = Queue(depth)
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="write behind", daemon=True)
        self._is_direct = depth == 0

    def put(self, result: FrameResult) -> None:
        """Hand over the next result; waits while too many do."""
        if self._is_direct:
            return self._write(result)
        if self._error is not None:
            raise self._error
        self._waiting.put(result)

    def _run(self) -> None:
        while (result := self._waiting.get()) is not None:
            if self._error is None:
                try:
                    self._write(result)
                except BaseException as error:  # it belongs to the caller
                    self._error = error

    def __enter__(self) -> Self:
        if not self._is_direct:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_direct:
            return
        self._waiting.put(None)
        self._thread.join()
        if self._error is not None and error is not self._error:
            raise self._error  # also at Ctrl-C: the files are not what they should be
