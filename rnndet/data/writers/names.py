"""Check the names and folders of a labelled set before a writer uses them."""

import re
from collections.abc import Sequence
from pathlib import Path

from rnndet.errors import OutputError

# Also a value of an ini file and a field of a list file.
FOLDER_NAME = re.compile(r"\w[\w.-]*")


def check_folder_names(split: str, videos: Sequence[str]) -> None:
    """Raise OutputError unless a split and its videos can be written as folders of these names.

    >>> check_folder_names("train", ["field_01", "field_02"])
    """
    for name in (split, *videos):
        if not FOLDER_NAME.fullmatch(name):
            raise OutputError(f"{name!r} cannot be a folder; use letters, digits, '_', '-', '.'")
    check_unique(videos)


def check_unique(videos: Sequence[str]) -> None:
    """Raise OutputError if two videos have the same name."""
    if len(set(videos)) < len(videos):
        raise OutputError("two videos have the same name; names must be unique")


def check_free(path: Path, *, overwrite: bool = False) -> None:
    """Raise OutputError if `path` is a file or a folder with files, unless it may be replaced."""
    if overwrite or not path.exists():
        return
    if path.is_file() or any(path.iterdir()):
        raise OutputError(f"{path}: exists already; allow overwriting or choose another folder")
