"""Name, size and fingerprint of a source without opening it."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rnndet.errors import InputError
from rnndet.video.sources.base import exists, is_url, safe_name, without_password
from rnndet.video.sources.capture import existing_file
from rnndet.video.sources.image_folder import (
    image_files,
    images_name,
    is_image,
    is_image_pattern,
)
from rnndet.video.sources.live import url_name

END_BYTES = 2**20  # of a file's beginning and end; containers keep their index in one of them


def source_names(sources: Sequence[str]) -> list[str]:
    """A unique folder name for each source: clip, and clip-2 for another source of that name.

    The names depend on the list only, not on which sources can be opened or are run here.

    >>> source_names(["a/clip.mp4", "b/clip.mp4", "rtsp://camera/door"])
    ['clip', 'clip-2', 'camera_door']
    """
    names: list[str] = []
    taken: set[str] = set()
    for source in sources:
        name = base = source_name(source)
        copy = 1
        while name.casefold() in taken:  # some file systems ignore case
            copy += 1
            name = f"{base}-{copy}"
        taken.add(name.casefold())
        names.append(name)
    return names


def source_name(source: str) -> str:
    """The `info.name` of the source that `open_source` returns."""
    path = Path(source)
    if not exists(path) and source.isdecimal():
        return f"camera-{int(source)}"
    if not exists(path) and is_url(source):
        return url_name(source)
    if (exists(path) and path.is_dir()) or is_image(path) or _is_pattern(source):
        return images_name(path)
    return safe_name(path.absolute().stem)


def source_bytes(source: str) -> int:
    """The size of a file, or of the images of a folder or pattern; 0 for other sources."""
    try:
        path = Path(source)
        if path.is_dir() or _is_pattern(source):
            return sum(file.stat().st_size for file in image_files(path))
        return path.stat().st_size if path.is_file() else 0
    except (OSError, ValueError):  # ValueError: a null byte; opening the source reports it
        return 0


def fingerprint(source: str) -> dict[str, Any]:
    """Plain data that identifies the content of a source; the same on every machine.

    A file: its size and the sha256 of its first and last MiB. A folder or pattern of images:
    their names and sizes. A camera or a URL: its text. Raises InputError.
    """
    path = Path(source)
    try:
        if path.is_dir() or _is_pattern(source):
            files = image_files(path)
            listing = "".join(f"{file.name}\0{file.stat().st_size}\n" for file in files)
            digest = hashlib.sha256(listing.encode("utf-8", "surrogateescape"))
            return {"images": len(files), "sha256": digest.hexdigest()}
        if path.is_file():
            return {"bytes": path.stat().st_size, "sha256_of_ends": _ends_sha256(path)}
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror}); check the path") from None
    if is_url(source):  # the hash distinguishes URLs that differ only in the masked query
        hidden = hashlib.sha256(re.sub(r":/+.*@", "://", source).encode("utf-8", "surrogateescape"))
        return {"text": without_password(source), "sha256": hidden.hexdigest()}
    if not source.isdecimal():
        existing_file(path)  # raises with the reason
    return {"text": source}


def _is_pattern(source: str) -> bool:
    """Whether a source is a pattern of images, and neither an existing file nor a URL."""
    return is_image_pattern(source) and not exists(Path(source)) and not is_url(source)


def _ends_sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(END_BYTES))
        size = file.seek(0, 2)
        file.seek(max(min(size, END_BYTES), size - END_BYTES))
        digest.update(file.read())
    return digest.hexdigest()
