"""Lock a folder of results so that one process writes to it at a time.

`filelock` is not used here: it leaves its file in the folder, and without waiting it reports a
file that its last holder has just removed as held.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Self

from rnndet.errors import OutputError
from rnndet.system.files import output_errors

NAME = ".lock"


class FolderLock:
    """Context manager that holds the lock of a folder; the folder is made where it is missing.

    The operating system releases the lock when the process ends in any way, so a lock file that
    was left behind does not block. At the end the lock file is removed, and an empty folder too.

    Raises OutputError: another process holds the lock, or the folder cannot be made or written to.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as parent, FolderLock(Path(parent) / "results"):
    ...     print("this process may write")
    this process may write
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / NAME
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        with output_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                while not self._try_to_lock():
                    pass  # its last holder has just removed the file: create a new one
            except BlockingIOError:
                raise OutputError(
                    f"{self._folder}: another run is writing its results there; wait for its end, "
                    "or use another folder"
                ) from None
        return self

    def __exit__(self, *error: object) -> None:
        assert self._descriptor is not None
        descriptor, self._descriptor = self._descriptor, None
        if sys.platform == "win32":  # an open file cannot be removed there
            os.close(descriptor)
        with contextlib.suppress(OSError):  # the disk may be gone; the lock ends in any case
            self._path.unlink(missing_ok=True)
        if sys.platform != "win32":
            os.close(descriptor)
        with contextlib.suppress(OSError):
            self._folder.rmdir()  # fails unless the folder is empty

    def _try_to_lock(self) -> bool:
        """Lock the file; False if the locked file is no longer the one in the folder."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
            is_current = os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            is_current = False
        except BaseException:
            os.close(descriptor)
            raise
        if is_current:
            self._descriptor = descriptor
        else:
            os.close(descriptor)
        return is_current


def check_writable(folder: Path) -> None:
    """Make a folder if it is missing; raises OutputError if no file can be made in it."""
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.open("wb").close()
        probe.unlink()


def _lock(descriptor: int) -> None:
    """Raises BlockingIOError if another process holds the lock."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            raise BlockingIOError from None
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
