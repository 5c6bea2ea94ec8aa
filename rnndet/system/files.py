"""Write files and folders atomically, and read lists: text files with an item per line."""

import codecs
import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rnndet.errors import InputError, OutputError

MAX_LIST_BYTES = 2**24


def part_of(path: Path) -> Path:
    """The temporary path of a file that is being written; encoders need the suffix, so it stays.

    >>> part_of(Path("report.json")).name
    'report.part.json'
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

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "report.txt"
    ...     with atomic_file(path) as part:
    ...         _ = part.write_text("complete")
    ...     path.read_text()
    'complete'
    """
    path = Path(path)
    check_name(path)
    part = part_of(path)
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            if durable:
                sync(part)
            if previous is not None and path.exists():
                os.replace(path, previous)
            os.replace(part, path)
            if durable:
                _sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise


def check_name(path: Path) -> None:
    """Raise OutputError if a path cannot be that of a file: it is empty or a folder."""
    with output_errors(path):
        if not path.name or path.is_dir():
            raise OutputError(f"{path}: is a folder; expected the path of a file")


def write_text(path: str | Path, text: str) -> None:
    r"""Write a UTF-8 text file atomically. Raises OutputError.

    A byte of a name that is not UTF-8 is written as \udce9, which JSON reads as Python's character
    for it: `os.fsencode` gives the name back.
    """
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new empty folder NAME.part; when the block ends, put it in the place of `path`.

    Parent folders are made as needed. An older folder `path`, with all its contents, is removed
    only then. After an error the temporary folder is removed and `path` is as it was.
    Raises OutputError, one line, for an OSError inside the block or at the rename.

    >>> with atomic_folder("out/frames") as part:  # doctest: +SKIP
    ...     (part / "000000.txt").write_text("complete or not there at all")
    """
    path = Path(path)
    with output_errors(path), temporary_folder(path.with_name(f"{path.name}.part")) as part:
        yield part
        replace_folder(part, path)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Create an empty folder, replacing a leftover of that name; remove it at the end."""
    try:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def replace_folder(part: Path, path: Path) -> None:
    """Rename a complete file or folder to `path`; an existing folder is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    part.replace(path)


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
        reason = error.strerror or error
        raise OutputError(
            f"{path}: cannot be written ({reason}); check the folder and the disk"
        ) from None


def read_lines(
    path: Path, *, item: str, is_name: Callable[[str], bool] = lambda line: False
) -> list[str]:
    """Read a list in UTF-8: stripped lines, without empty ones and comments (#).

    item: what a line of the list is, for messages. is_name: whether a line that is not UTF-8 is the
    name of a file; if one is, all such lines are taken as names. Raises InputError.
    """
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise InputError(f"{path}: too large for a list; the limit is 16 MiB")
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    lines, others = [], []
    for data in content.splitlines():
        try:
            line = data.decode("utf-8").strip()
        except UnicodeDecodeError:
            line = os.fsdecode(data.strip())
            others.append(line)
        lines.append(line)
    if others and not any(map(is_name, others)):
        raise InputError(f"{path}: not a text file in UTF-8; expected one {item} per line")
    return [line for line in lines if line and not line.startswith("#")]


def sync(path: Path) -> None:
    """Wait until the data of a file is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Sync the names in a folder to the disk; no effect where folders cannot be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
