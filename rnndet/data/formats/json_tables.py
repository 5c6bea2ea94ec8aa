"""What the readers of one JSON of tables share: entries by id, names, boxes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rnndet.data.formats.text import is_path_inside
from rnndet.data.problems import Problems

Entry = dict[str, Any]


def table(
    tree: Entry,
    key: str,
    needed: tuple[str, ...],
    *,
    wrong: Callable[[Entry], str] = lambda entry: "",
    path: Path,
    problems: Problems,
) -> dict[int, Entry]:
    """The entries of the list `key` by id, in the order of the file.

    An entry without an id or a key of `needed`, one whose id or `name` (where that is needed) is
    another's, and one of which `wrong` gives a reason are problems and left out.
    """
    found: dict[int, Entry] = {}
    names: set[str] = set()
    for place, entry in enumerate(tree[key]):
        if not isinstance(entry, dict) or not _is_id(entry.get("id")):
            reason = "not an object with an id"
        elif missing := [k for k in needed if k not in entry]:
            reason = f"lacks the key {missing[0]!r}"
        elif entry["id"] in found:
            reason = f"id {entry['id']} is used twice"
        elif "name" in needed and not is_name(entry["name"]):
            reason = "the name is not text in one line"
        elif "name" in needed and str(entry["name"]) in names:
            reason = f"name {str(entry['name'])!r} is used twice"
        elif not (reason := wrong(entry)):
            found[entry["id"]] = entry
            names.add(str(entry.get("name")))
        if reason:
            problems.add(path, f"{key}[{place}]", reason)
    return found


def is_name(value: object) -> bool:
    """Whether a value names something: text in one line that every file can hold, or a number."""
    text = str(value) if isinstance(value, str) or type(value) is int else ""
    is_half = any("\ud800" <= letter <= "\udfff" for letter in text)  # of a pair of UTF-16
    return bool(text.strip()) and len(text.splitlines()) == 1 and "\0" not in text and not is_half


def is_folder(name: str) -> bool:
    """Whether a video may have this name: a folder of its own below whatever folder it is put in.

    Caches and writers make a folder of that name and replace what is in it.
    """
    return is_path_inside(name) and os.path.normpath(name) != "."


def is_size(value: object) -> bool:
    """Whether a value is a width or a height in pixels."""
    return isinstance(value, int | float) and 1 <= value <= 1e6


def corners(bbox: object) -> tuple[float, float, float, float]:
    """x1 y1 x2 y2 of a [left, top, width, height]. Raises ValueError or OverflowError."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise ValueError
    if not all(isinstance(value, int | float) for value in bbox):
        raise ValueError
    x, y, w, h = (float(value) for value in bbox)
    return x, y, x + w, y + h


def _is_id(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63
