"""Names of files and texts in the form that OpenCV takes: it ends the process at other ones."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def opencv_path(path: Path) -> Iterator[str]:
    r"""Yield a name under which OpenCV opens the file of an absolute path.

    OpenCV encodes names as UTF-8. A name that has other bytes on the disk, such as caf\xe9.mp4, is
    reached by a symbolic link, for as long as the block runs. Raises OSError if there can be none.
    """
    if _is_utf8(path):
        yield str(path)
        return
    with TemporaryDirectory(prefix="rnndet-name-") as folder:
        link = Path(folder) / (f"video{path.suffix}" if path.suffix.isascii() else "video")
        if not _is_utf8(link):
            raise OSError(0, "the folder for temporary files has a name that is not UTF-8")
        link.symlink_to(path)
        yield str(link)


def is_text(text: str) -> bool:
    r"""Whether a text can be encoded as UTF-8; the name of a file may hold other bytes.

    >>> is_text("größe"), is_text("caf\udce9")
    (True, False)
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def opencv_text(text: str) -> str:
    r"""The text with ? for each character that is not Unicode, as in names that are not UTF-8.

    >>> opencv_text("caf\udce9 größe")
    'caf? größe'
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def _is_utf8(path: Path) -> bool:
    """Whether the bytes of a name on the disk are its text in UTF-8."""
    return is_text(str(path)) and os.fsencode(path) == str(path).encode("utf-8")
