"""Read and write on separate threads, at most a few frames ahead of or behind the model.

Order, results and errors are as on a single thread: an error of the source is raised where the
frame would have come, an error of a file at the next frame or at the end, and results before either
are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, Self, TypeVar

from rnndet.structures import FrameResult
from rnndet.system.timing import NO_TIMER, Timer

Item = TypeVar("Item")  # a frame, with or without what was computed from it

DEPTH = 3  # frames in a queue: enough to even out slow ones, little memory
POLL = 0.1  # seconds between checks whether the other side has stopped
PATIENCE = 10.0  # seconds that a reader gets to return from a decoder after the consumer stopped


def prefetch(frames: Iterable[Item], timer: Timer = NO_TIMER) -> Iterator[Item]:
    """Yield the frames, read by another thread ahead of the caller; close it to stop the thread.

    timer: measures the stage decode.
    """
    queue: Queue[tuple[str, Any]] = Queue(DEPTH)
    stopped = Event()

    def put(kind: str, value: Any) -> None:
        while not stopped.is_set():
            try:
                return queue.put((kind, value), timeout=POLL)
            except Full:
                continue

    def read() -> None:
        source = timed(frames, timer)
        try:
            while not stopped.is_set():
                frame = next(source, None)
                if frame is None:
                    return put("end", None)
                put("frame", frame)
        except BaseException as error:  # raised again in the caller
            put("error", error)

    thread = Thread(target=read, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = queue.get()
            if kind == "frame":
                yield value
            elif kind == "error":
                raise value
            else:
                return
    finally:
        stopped.set()
        thread.join(PATIENCE)


def timed(frames: Iterable[Item], timer: Timer) -> Iterator[Item]:
    """Yield the frames, read by the caller's thread; measures the stage decode."""
    source = iter(frames)
    while True:
        with timer.stage("decode"):
            frame = next(source, None)
        if frame is None:
            return
        yield frame


class WriteBehind:
    """Writes results on another thread, in order; a context manager, which waits for the last one.

    write: called with each result. depth: results in the queue; 0 writes at once, on this thread,
    as a window needs it. An error of `write` is raised by the next `put`, or on leaving; no result
    is written after it.
    """

    def __init__(self, write: Callable[[FrameResult], None], *, depth: int = DEPTH) -> None:
        self._write = write
        self._queue: Queue[FrameResult | None] = Queue(depth)
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="write behind", daemon=True)
        self._is_direct = depth == 0

    def put(self, result: FrameResult) -> None:
        """Hand over the next result; waits while the queue is full."""
        if self._is_direct:
            return self._write(result)
        if self._error is not None:
            raise self._error
        self._queue.put(result)

    def _run(self) -> None:
        while (result := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._write(result)
                except BaseException as error:  # raised again in the caller
                    self._error = error

    def __enter__(self) -> Self:
        if not self._is_direct:
            self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, *rest: object) -> None:
        if self._is_direct:
            return
        self._queue.put(None)
        self._thread.join()
        if self._error is not None and error is not self._error:
            raise self._error  # also at Ctrl-C: the files are incomplete
