"""Decode a source in a child process, so that a crash or a hang costs that source only.

The child is `python -m rnndet.video.sources.isolated`. The parent reads bytes and JSON from a
pipe, and never unpickles.
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
from dataclasses import asdict, astuple, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rnndet.errors import InputError, RnndetError
from rnndet.structures import Frame, VideoInfo
from rnndet.video.colour import ColourTags
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

FRAME_LIMIT = 60.0  # seconds without a frame that count as a hang, start of the child included
QUEUED_FRAMES = 2  # in the parent; more wait in the pipe
POLL = 0.1  # seconds between calls of `stop` while there is no frame
MAX_PIXELS_RECEIVED = 2**30  # of a frame
MAX_LINE = 1_000_000  # bytes of JSON; a frame has about 100
FRACTIONS = ("fps", "sample_aspect")  # of `VideoInfo`, sent as text
ROOT = Path(__file__).resolve().parent.parent.parent.parent  # the folder of the package


class IsolatedSource(Source):
    """The source that `open_source` opens, with the same frames, decoded in a child process.

    limit: seconds without a frame after which the child is killed; cameras and URLs have no limit.

    Raises:
        InputError: as `open_source`; or the child crashed, or had no frame for `limit` seconds.

    >>> with IsolatedSource("clip.mp4") as source:  # doctest: +SKIP
    ...     indices = [frame.index for frame in source]
    """

    def __init__(
        self,
        source: str,
        *,
        max_pixels: int = MAX_PIXELS,
        live: LiveOptions | None = None,
        limit: float = FRAME_LIMIT,
    ) -> None:
        live = live or LiveOptions()
        self._stop = live.stop
        network = [live.allow_network, live.timeout, live.max_reconnects]
        self._source, self._limit = source, math.inf if _is_live(source) else limit
        self._request = json.dumps([source, max_pixels, network])
        self._counts: ReadCounts | None = None
        self._child: _Child | None = None
        self._child, self.info = self._start()
        self._is_fresh = True

    @property
    def pid(self) -> int | None:
        """Process id of the child; None without a child."""
        return None if self._child is None else self._child.pid

    @property
    def counts(self) -> ReadCounts | None:
        return self._counts

    def colour_tags(self) -> ColourTags | None:
        return self._colour_tags

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
        """Kill the child; may be called twice."""
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def _start(self) -> tuple[_Child, VideoInfo]:
        child = _Child(self._request)
        try:
            head, _ = self._receive(child)
        except BaseException:
            child.end()
            raise
        if "end" in head:
            child.end()
            raise InputError(f"{without_password(self._source)}: stopped before it was opened")
        for key in FRACTIONS:
            head[key] = None if head[key] is None else Fraction(head[key])
        tags = head.pop("colour_tags")
        self._colour_tags = None if tags is None else ColourTags(*map(int, tags))
        return child, VideoInfo(**head)

    def _receive(self, child: _Child) -> tuple[dict[str, Any], np.ndarray | None]:
        """The next message of the child, or its end after `stop`; raises InputError."""
        shown = without_password(self._source)
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
                f"{shown}: the decoder sent nothing for {self._limit:g} s and was stopped; "
                "the file is damaged or malicious"
            )
        if message is None:
            code = child.end()
            self.close()
            raise InputError(
                f"{shown}: the decoder crashed ({_reason(code)}); the file is damaged or malicious"
            )
        head, pixels = message
        if "error" in head:
            self.close()
            error = InputError(head["error"])
            error.exit_code = int(head["exit_code"])
            raise error
        return head, pixels


class _Child:
    """The child process, and a thread that reads its messages from the pipe.

    messages: (head, pixels), with pixels None except for frames; None where the pipe ended without
    a final message.
    """

    def __init__(self, request: str) -> None:
        # -P keeps the working folder, which may hold any files, off the import path of the child.
        # A new session, since Ctrl-C is for the parent, which finishes its frame.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "rnndet.video.sources.isolated"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            env=os.environ | {"PYTHONPATH": _python_path()},
        )  # fmt: skip
        self.pid = self._process.pid
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once, and the pipe is closed
            # not on the command line, where every user could read the password of a URL
            self._process.stdin.write(request.encode() + b"\n")
            self._process.stdin.flush()
        self.messages: queue.Queue[tuple[dict[str, Any], np.ndarray | None] | None]
        self.messages = queue.Queue(QUEUED_FRAMES)
        self._is_ending = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def end(self) -> int:
        """Kill the process if it runs, and return its exit code. May be called twice."""
        self._is_ending = True
        if self._process.poll() is None and not self._has_ended():
            self._process.kill()
        code = self._process.wait()
        while self._thread.is_alive():  # it may wait for space in the queue
            with contextlib.suppress(queue.Empty):
                self.messages.get_nowait()
            self._thread.join(0.01)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        return code

    def _has_ended(self) -> bool:
        """Whether the pipe has ended and the process exits by itself."""
        if self._thread.is_alive():
            return False
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        return self._process.poll() is not None

    def _read(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # treated as a crash
            while not self._is_ending:
                line = pipe.readline(MAX_LINE)
                head = json.loads(line)
                pixels = _read_pixels(pipe, head) if "shape" in head else None
                self.messages.put((head, pixels))
                if "end" in head or "error" in head:
                    return
        self.messages.put(None)


def _python_path() -> str:
    """PYTHONPATH for the child: the folder of this package first, and never the working folder."""
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join([str(ROOT), *filter(None, others)])


def _read_pixels(pipe: BinaryIO, head: dict[str, Any]) -> np.ndarray:
    """The image that follows a head; raises ValueError if it is incomplete."""
    height, width = map(int, head["shape"])
    if not 0 < height * width <= MAX_PIXELS_RECEIVED:
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
    """Main function of the child: open the requested source and write its frames to stdout."""
    request = b""
    while not request.endswith(b"\n"):  # without sys.stdin, whose lock must be free at exit
        part = os.read(0, 65536)
        if not part:
            os._exit(1)
        request += part
    source, max_pixels, network = json.loads(request)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries must not mix with the frames
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        live = LiveOptions(*network)
        with open_source(source, max_pixels=max_pixels, live=live) as opened:
            info = {field.name: getattr(opened.info, field.name) for field in fields(VideoInfo)}
            info |= {key: str(info[key]) for key in FRACTIONS if info[key] is not None}
            tags = opened.colour_tags()
            _send(out, info | {"colour_tags": None if tags is None else astuple(tags)})
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
        os._exit(1)  # the parent reads no more


def _counts(source: Source) -> dict[str, Any]:
    counts = {} if source.counts is None else {"counts": asdict(source.counts)}
    return counts | ({"notes": source.notes} if source.notes else {})


def _send(out: BinaryIO, head: dict[str, Any], image: np.ndarray | None = None) -> None:
    out.write(json.dumps(head).encode() + b"\n")
    if image is not None:
        out.write(np.ascontiguousarray(image).data)
    out.flush()


def _end_with_parent() -> None:
    """Exit when stdin ends, which means that the parent has ended: it writes a request only."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    serve()
