"""Write files atomically: under their name there is the old file or the complete new one."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rnndet.errors import OutputError


def part_of(path: Path) -> Path:
    """Where a file is written before it is complete: report.part.json of report.json.

    The suffix stays, since encoders go by it.
    """
    return path.with_name(f"{path.stem}.part{path.suffix}")


@contextmanager
def atomic_file(
    path: str | Path, *, durable: bool = False, previous: Path | None = None
) -> Iterator[Path]:
    """Yield a temporary path; when the block ends, rename the file there to `path`.

    Folders are made as needed. After an error the temporary file is removed and `path` is as it
    was. durable: wait until the data is on the disk before the rename. previous: the file that is
    at `path` already is renamed to this first.
    Raises OutputError, one line, for an OSError inside the block or at the rename.

    >>> with atomic_file("out/report.txt") as part:  # doctest: +SKIP
    ...     part.write_text("complete or not there at all")
    """
    path = Path(path)
    part = part_of(path)
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            if durable:
                _sync(part)
            if previous is not None and path.exists():
                os.replace(path, previous)
            os.replace(part, path)
            if durable:
                _sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file atomically. Raises OutputError."""
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8")


def replace(part: Path, path: Path) -> None:
    """Rename a complete temporary file to `path`. Raises OutputError."""
    with output_errors(path):
        os.replace(part, path)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into an OutputError of one line that names `path`."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from None


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Put the folder's new names on the disk; where folders cannot be opened this does nothing."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
