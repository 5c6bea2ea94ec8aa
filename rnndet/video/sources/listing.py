"""What the user typed -> sources: patterns, lists of sources."""

import glob
from pathlib import Path

from rnndet.errors import InputError
from rnndet.video.sources.base import exists, is_url
from rnndet.video.sources.image_folder import is_image, matches

LIST_SUFFIX = ".txt"
MAX_LIST_BYTES = 2**24


def expand(text: str) -> list[str]:
    """The sources that `text` stands for, each for `open_source`.

    A name that exists is that file, whatever signs are in it; a text file (.txt) is a list. A
    pattern with *, ? or [...] stands for what matches it, in natural order; images of one folder
    are one source. Anything else stands for itself, also what does not exist.

    Raises:
        InputError: a list cannot be read, or names no source.
    """
    path = Path(text)
    if is_list(path):
        return read_list(path)
    if exists(path) or is_url(text):
        return [text]
    return _matching(text)


def is_list(path: Path) -> bool:
    """By its suffix."""
    return path.suffix.lower() == LIST_SUFFIX and exists(path) and path.is_file()


def read_list(path: Path) -> list[str]:
    """The sources of a list: one a line, by their names beside the list; # begins a comment line.

    Patterns are as in `expand`. A line whose file does not exist is kept: opening it is that
    source's error and not the list's.

    Raises:
        InputError: it cannot be read, is no text, or names no source.
    """
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise InputError(f"{path}: too large for a list of sources")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8; expected one source a line") from None
    sources: list[str] = []
    for line in map(str.strip, lines):
        if line and not line.startswith("#"):
            sources += _listed(line, path.parent)
    if not sources:
        raise InputError(f"{path}: names no source; write one a line, and # before comments")
    return sources


def _listed(line: str, folder: Path) -> list[str]:
    beside = folder / line  # an absolute path stays as it is
    if exists(beside):
        return [str(beside)]
    if is_url(line) or line.isdecimal():
        return [line]
    return _matching(str(beside))


def _matching(text: str) -> list[str]:
    """What matches a pattern; the text itself if nothing does, or if it is no such pattern."""
    if not glob.has_magic(text):
        return [text]
    found = [path for path in matches(text) if not ("**" in text and path.is_dir())]
    sources = {}  # in order
    for path in found:
        is_image_file = is_image(path) and path.is_file()
        sources[_images_beside(path, text) if is_image_file else str(path)] = None
    return list(sources) or [text]


def _images_beside(path: Path, pattern: str) -> str:
    """The pattern for the images of one folder only."""
    name = Path(pattern).name
    return str(Path(glob.escape(str(path.parent)), "*" if name == "**" else name))
