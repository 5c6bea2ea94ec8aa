"""Standard streams that print any text, and that a closed pipe does not end."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rnndet.errors import OutputError


class StreamError(OutputError):
    """Standard output or standard error cannot be written."""


@contextmanager
def standard_streams() -> Iterator[None]:
    r"""Make stdout and stderr of the process safe while the block runs; flush them at its end.

    Characters that the encoding of a stream lacks are escaped, as in caf\xe9; names of files may
    have any. What is written to a closed pipe (`| head`) is discarded, and the block runs on.
    Raises StreamError where output cannot be written for another reason, such as a full disk.
    Streams that are not those of a process, as in a notebook, stay as they are.
    """
    before = sys.stdout, sys.stderr
    sys.stdout = safe = _safe(before[0], "standard output")
    sys.stderr = _safe(before[1], "standard error")
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        safe.flush()


def is_utf8(stream: object) -> bool:
    """Whether a stream encodes text as UTF-8.

    >>> is_utf8(io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    False
    """
    return str(getattr(stream, "encoding", "")).lower().replace("_", "-") in ("utf-8", "utf8")


def _safe(stream: TextIO | None, name: str) -> TextIO:
    if stream is None:  # closed by the caller (`>&-`)
        return open(os.devnull, "w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.reconfigure(errors="backslashreplace")
    raw = getattr(stream.buffer, "raw", stream.buffer)
    if type(raw) is not io.FileIO:  # for example a console of Windows, or a file of pytest
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(raw.fileno(), name)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering or stream.write_through,
        write_through=stream.write_through,
    )


class _Output(io.RawIOBase):
    """Write to a file descriptor, which stays open; see `standard_streams`."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor, self._name = descriptor, name

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int | None:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            return None  # as of a raw stream
        except OSError as error:
            self._discard_rest()
            if isinstance(error, BrokenPipeError):
                return len(data)
            raise StreamError(f"{self._name}: cannot be written ({error.strerror})") from None

    def _discard_rest(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._descriptor)
        os.close(nowhere)
