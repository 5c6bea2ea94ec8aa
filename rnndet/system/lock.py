"""One process for each folder of results."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from rnndet.errors import OutputError

NAME = ".lock"


class FolderLock:
    """Holds a folder while the block runs; makes it where it is missing.

    The system lets go of the lock when its process ends, however it ends, so that a lock file
    that was left behind blocks nobody. At the end the file goes, and the folder if it is empty.

    Raises OutputError: another process holds the folder, or it cannot be made or written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / NAME
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            while not self._try():
                pass  # its last holder has just removed the file: there is a new one to be made
        except BlockingIOError:
            raise OutputError(
                f"{self._folder}: another run is writing its results there; wait for its end, or "
                "use another --out"
            ) from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(
                f"{self._folder}: cannot be written ({reason}); check the folder and the disk"
            ) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._descriptor is not None
        descriptor, self._descriptor = self._descriptor, None
        if sys.platform == "win32":  # an open file cannot be removed there
            os.close(descriptor)
        with contextlib.suppress(OSError):  # the disk is gone; the lock ends in any case
            self._path.unlink(missing_ok=True)
        if sys.platform != "win32":
            os.close(descriptor)
        with contextlib.suppress(OSError):
            self._folder.rmdir()  # only an empty one goes

    def _try(self) -> bool:
        """Lock the file; False if it is not the one in the folder any more."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
            there = self._path.stat()
        except FileNotFoundError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        mine = os.fstat(descriptor)
        if (mine.st_dev, mine.st_ino) != (there.st_dev, there.st_ino):
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True


def _lock(descriptor: int) -> None:
    """Raises BlockingIOError if another process has it."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            raise BlockingIOError from None
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def check_writable(folder: Path) -> None:
    """Make a folder if it is missing; raises OutputError if it cannot take a file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.open("wb").close()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{folder}: cannot be written ({reason}); check --out and the rights of the folder"
        ) from None
