"""Expand an argument of the command line into sources: patterns and lists of sources."""

import glob
from pathlib import Path

from rnndet.errors import InputError
from rnndet.system.files import read_lines
from rnndet.video.sources.base import exists, is_url
from rnndet.video.sources.image_folder import is_image, matches

LIST_SUFFIX = ".txt"


def expand(text: str) -> list[str]:
    """Expand `text` into sources for `open_source`.

    An existing name is that file, with any characters; a text file (.txt) is a list. A
    pattern with *, ? or [...] stands for its matches in natural order; images of the same folder
    are a single source. Other text is returned unchanged, even if no such file exists.

    Raises:
        InputError: a list cannot be read, or names no source.

    >>> expand("rtsp://camera/1")
    ['rtsp://camera/1']
    """
    path = Path(text)
    if is_list(path):
        return read_list(path)
    if exists(path) or is_url(text):
        return [text]
    return _matching(text)


def is_list(path: Path) -> bool:
    """Whether a file is a list of sources, by its suffix."""
    return path.suffix.lower() == LIST_SUFFIX and exists(path) and path.is_file()


def read_list(path: Path) -> list[str]:
    """The sources of a list: one per line, relative to the folder of the list; # is a comment.

    Patterns are as in `expand`. The names of files may have any bytes. A line whose file does not
    exist is kept, so that opening it fails for that source only.

    Raises:
        InputError: the list cannot be read, is not a text file, or names no source.
    """
    sources: list[str] = []
    lines = read_lines(path, item="source", is_name=lambda line: exists(path.parent / line))
    for line in lines:
        sources += _listed(line, path.parent)
    if not sources:
        raise InputError(f"{path}: lists no source; expected one per line, and # before comments")
    return sources


def _listed(line: str, folder: Path) -> list[str]:
    path = folder / line  # an absolute path stays as it is
    if exists(path):
        return [str(path)]
    if is_url(line) or line.isdecimal():
        return [line]
    return _matching(str(path))


def _matching(text: str) -> list[str]:
    """The matches of a pattern; the text itself without a match, or if it is not a pattern."""
    if not glob.has_magic(text):
        return [text]
    paths = [path for path in matches(text) if not ("**" in text and path.is_dir())]
    sources = {}  # without repetitions, in order
    for path in paths:
        is_image_file = is_image(path) and path.is_file()
        sources[_images_of_folder(path, text) if is_image_file else str(path)] = None
    return list(sources) or [text]


def _images_of_folder(path: Path, pattern: str) -> str:
    """The pattern restricted to the folder of an image."""
    name = Path(pattern).name
    return str(Path(glob.escape(str(path.parent)), "*" if name == "**" else name))
