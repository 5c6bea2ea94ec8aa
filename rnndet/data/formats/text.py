"""Read annotation files safely: text, rows, JSON and XML of limited size, and paths in them."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError, TreeBuilder
from xml.parsers import expat

from rnndet.data.problems import Problems
from rnndet.errors import InputError
from rnndet.messages import counted

MAX_XML = 64_000_000  # bytes; the largest annotation files of the field are below 20 MB
MAX_JSON = 4_000_000_000
MAX_TEXT = 1_000_000_000


def read_text(path: Path, *, limit: int = MAX_TEXT, of_names: bool = False) -> str:
    """Read a UTF-8 file without its byte order mark. Raises InputError in one line.

    of_names: the text has names of files, which may have any bytes.
    """
    try:
        size = path.stat().st_size
        if not (path.is_file() or path.is_dir()):  # a device or a pipe may have no end
            raise InputError(f"{path}: not a regular file")
        if size > limit:
            raise InputError(f"{path}: {size} bytes; larger than any annotation file of this kind")
        errors = "surrogateescape" if of_names else "strict"
        return path.read_text(encoding="utf-8-sig", errors=errors)
    except FileNotFoundError:
        raise InputError(f"{path}: no such annotation file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises InputError in one line."""
    text = read_text(path, limit=MAX_JSON)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None


def read_xml(path: Path) -> Element:
    """Read an XML file and return its root; refuses a DOCTYPE. Raises InputError.

    A DOCTYPE may define entities that expand without end or name other files; annotations do not
    need one.
    """
    text = read_text(path, limit=MAX_XML)
    builder = TreeBuilder()
    parser = expat.ParserCreate()

    def refuse(*_: Any) -> None:
        raise InputError(f"{path}: has a DOCTYPE, which annotations do not need; refused")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(text, True)
        return builder.close()
    except expat.ExpatError as error:
        raise InputError(f"{path}: not valid XML: {error}") from None
    except (ParseError, AssertionError):
        raise InputError(f"{path}: not valid XML: it ends too early") from None


def rows(
    path: Path,
    problems: Problems,
    *,
    columns: int,
    separator: str | None = ",",
    of_names: bool = False,
) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number (from 1) and the fields of every line that is not blank.

    A line with fewer than `columns` fields is reported and left out. `separator` None splits at
    white space. of_names: see `read_text`.
    """
    for number, line in enumerate(read_text(path, of_names=of_names).splitlines(), start=1):
        fields = [field.strip() for field in line.split(separator)]
        if not line.strip():
            continue
        if len(fields) < columns:
            hint = " with commas between them" if separator == "," and len(fields) == 1 else ""
            found = counted(len(fields), "field")
            problems.add(path, number, f"{found}; expected {columns}{hint}")
            continue
        yield number, fields


def inside(root: Path, name: str, *, where: str, allow_outside: bool = False) -> Path:
    """Return the path of the file that an annotation names, relative to `root`.

    Raises InputError if the name is absolute, leads out of `root` or is not a path: an annotation
    must not choose which other files are read, unless the user allows it. Symbolic links, which
    the user has made, are followed.

    >>> inside(Path("data"), "a/./b.jpg", where="gt.json: image 1").as_posix()
    'data/a/b.jpg'
    """
    if not (is_path_inside(name) or (allow_outside and is_path(name))):
        raise InputError(f"{where}: {name!r} lies outside {root} or is no path; use one within it")
    return root / os.path.normpath(name)


def is_path_inside(name: str) -> bool:
    """Return True for a relative path that stays below the folder it starts from."""
    climbs = os.path.normpath(name).split(os.sep)[0] == ".."
    return is_path(name) and not climbs and not os.path.isabs(name)


def is_path(name: str) -> bool:
    """Return True if a file can have this name on this system."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # JSON can hold halves of characters
        return False
    return "\0" not in name
