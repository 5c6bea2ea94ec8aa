"""A source that is decoded in a process of its own, so that a crash or a hang costs one source.

The parent reads plain bytes and JSON from a pipe, and never objects.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rnndet.errors import InputError, RnndetError
from rnndet.structures import Frame, VideoInfo
from rnndet.video.sources.base import (
    MAX_PIXELS,
    ReadCounts,
    Source,
    exists,
    is_url,
    without_password,
)
from rnndet.video.sources.live import LiveOptions
from rnndet.video.sources.open import open_source

FRAME_LIMIT = 60.0  # seconds without a frame, start of the process included, that are a hang
AHEAD = 2  # frames that wait in the parent; more wait in the pipe
POLL = 0.1  # seconds between looks at `stop` while no frame comes
SANE_PIXELS = 2**30  # of one frame
MAX_LINE = 1_000_000  # bytes of JSON; a frame's are about 100
ROOT = Path(__file__).resolve().parent.parent.parent.parent
# -P keeps the working folder, which may hold anything, off the child's import path
CHILD = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from rnndet.video.sources import isolated; isolated.serve()"
)


class IsolatedSource(Source):
    """What `open_source` opens, with the same frames, read by a child process.

    Raises:
        InputError: as from `open_source`; or the child crashed, or gave nothing for `limit` s,
            which a camera or an address may.
    """

    def __init__(
        self,
        source: str,
        *,
        name: str | None = None,
        max_pixels: int = MAX_PIXELS,
        live: LiveOptions | None = None,
        limit: float = FRAME_LIMIT,
    ) -> None:
        live = live or LiveOptions()
        self._stop = live.stop
        network = [live.allow_network, live.timeout, live.max_reconnects]
        self._source, self._limit = source, math.inf if _is_live(source) else limit
        self._order = json.dumps([source, name, max_pixels, network])
        self._counts: ReadCounts | None = None
        self._child: _Child | None = None
        self._child, self.info = self._start()
        self._is_fresh = True

    @property
    def pid(self) -> int | None:
        """Of the process that decodes; None when there is none."""
        return None if self._child is None else self._child.pid

    @property
    def counts(self) -> ReadCounts | None:
        return self._counts

    def __iter__(self) -> Iterator[Frame]:
        if not self._is_fresh:
            self.close()
            self._child, self.info = self._start()
        self._is_fresh = False
        assert self._child is not None
        while True:
            head, pixels = self._receive(self._child)
            if "counts" in head:
                self._counts = ReadCounts(**head["counts"])
            if "notes" in head:
                self.notes = tuple(head["notes"])
            if pixels is None:
                return
            yield Frame(pixels, head["index"], head["time"], head["gap"], head["restart"])

    def close(self) -> None:
        """End the child; may be called twice."""
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def _start(self) -> tuple[_Child, VideoInfo]:
        child = _Child(self._order)
        try:
            head, _ = self._receive(child)
        except BaseException:
            child.end()
            raise
        if "end" in head:
            child.end()
            raise InputError(f"{without_password(self._source)}: stopped before it was opened")
        head["fps"] = None if head["fps"] is None else Fraction(head["fps"])
        return child, VideoInfo(**head)

    def _receive(self, child: _Child) -> tuple[dict[str, Any], np.ndarray | None]:
        """The child's next message, or the end if that is asked for; raises InputError."""
        where = without_password(self._source)
        end = time.monotonic() + self._limit
        while True:
            with contextlib.suppress(queue.Empty):
                message = child.messages.get(timeout=min(POLL, self._limit))
                break
            if self._stop():
                return {"end": True}, None
            if time.monotonic() < end:
                continue
            self.close()
            raise InputError(
                f"{where}: the decoder gave nothing for {self._limit:g} s and was ended; "
                "the file is damaged or made to do harm"
            )
        if message is None:
            code = child.end()
            self.close()
            raise InputError(
                f"{where}: the decoder crashed ({_reason(code)}); "
                "the file is damaged or made to do harm"
            )
        head, pixels = message
        if "error" in head:
            self.close()
            error = InputError(head["error"])
            error.exit_code = int(head["exit_code"])
            raise error
        return head, pixels


class _Child:
    """The process, and a thread that takes its messages from the pipe.

    messages: (head, pixels) with pixels None for all but frames; None when the pipe has ended
    without the last message.
    """

    def __init__(self, order: str) -> None:
        command = [sys.executable, "-P", "-c", CHILD, str(ROOT)]
        # a session of its own: Ctrl-C is for the parent, which finishes its frame
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self.pid = self._process.pid
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once, which its pipe will say
            # not on the command line, where an address would show its password to everybody
            self._process.stdin.write(order.encode() + b"\n")
            self._process.stdin.flush()
        self.messages: queue.Queue[tuple[dict[str, Any], np.ndarray | None] | None]
        self.messages = queue.Queue(AHEAD)
        self._is_ending = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def end(self) -> int:
        """Kill what still runs; the exit code. May be called twice."""
        self._is_ending = True
        if self._process.poll() is None and not self._has_ended():
            self._process.kill()
        code = self._process.wait()
        while self._thread.is_alive():  # it may wait for a place in the queue
            with contextlib.suppress(queue.Empty):
                self.messages.get_nowait()
            self._thread.join(0.01)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        return code

    def _has_ended(self) -> bool:
        """Whether the pipe is at its end, so that the process is about to be."""
        if self._thread.is_alive():
            return False
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        return self._process.poll() is not None

    def _read(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # then a crash
            while not self._is_ending:
                line = pipe.readline(MAX_LINE)
                head = json.loads(line)
                pixels = _read_pixels(pipe, head) if "shape" in head else None
                self.messages.put((head, pixels))
                if "end" in head or "error" in head:
                    return
        self.messages.put(None)


def _read_pixels(pipe: BinaryIO, head: dict[str, Any]) -> np.ndarray:
    """Raises ValueError if they are not whole."""
    height, width = map(int, head["shape"])
    if not 0 < height * width <= SANE_PIXELS:
        raise ValueError(head)
    data = bytearray(height * width * 3)
    view = memoryview(data)
    while view:
        count = pipe.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise ValueError("the pipe has ended")
        view = view[count:]
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)


def _is_live(source: str) -> bool:
    return not exists(Path(source)) and (source.isdecimal() or is_url(source))


def _reason(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def serve() -> None:
    """The child: open the source that the parent asks for, and write it to the pipe."""
    order = b""
    while not order.endswith(b"\n"):  # not by sys.stdin, whose lock must be free when Python ends
        part = os.read(0, 65536)
        if not part:
            os._exit(1)
        order += part
    source, name, max_pixels, network = json.loads(order)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not come between the frames
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        live = LiveOptions(*network)
        with open_source(source, name=name, max_pixels=max_pixels, live=live) as opened:
            info = {field.name: getattr(opened.info, field.name) for field in fields(VideoInfo)}
            info["fps"] = None if info["fps"] is None else str(info["fps"])
            _send(out, info)
            for frame in opened:
                head = {
                    "index": frame.index, "time": frame.time, "gap": frame.gap,
                    "restart": frame.restart, "shape": frame.image.shape[:2],
                }  # fmt: skip
                _send(out, head | _counts(opened), frame.image)
            _send(out, {"end": True} | _counts(opened))
    except RnndetError as error:
        _send(out, {"error": str(error), "exit_code": error.exit_code})
    except BrokenPipeError:
        os._exit(1)  # the parent wants no more


def _counts(source: Source) -> dict[str, Any]:
    counts = source.counts
    about: dict[str, Any] = {} if counts is None else {"counts": asdict(counts)}
    return about | ({"notes": source.notes} if source.notes else {})


def _send(out: BinaryIO, head: dict[str, Any], image: np.ndarray | None = None) -> None:
    out.write(json.dumps(head).encode() + b"\n")
    if image is not None:
        out.write(np.ascontiguousarray(image).data)
    out.flush()


def _end_with_parent() -> None:
    """The parent writes nothing after its order: that the pipe ends means that it is gone."""
    os.read(0, 1)
    os._exit(1)
