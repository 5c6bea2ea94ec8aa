"""Read JSON files of tables, as COCO's: lists of objects with ids, names and boxes."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rnndet.data.formats.text import is_path_inside, read_json
from rnndet.data.problems import Problems
from rnndet.data.targets import Box
from rnndet.errors import InputError

Entry = dict[str, Any]


def read_tables(
    path: Path, lists: Sequence[str], *, form: str, hints: Mapping[str, str] | None = None
) -> Entry:
    """Read a JSON object that holds the given lists. Raises InputError, which names the `form`.

    hints: ends of the message for lists that are missing, by their names.
    """
    tree = read_json(path)
    if not isinstance(tree, dict):
        raise InputError(f"{path}: not in {form} form: the top level is not an object")
    for key in lists:
        if not isinstance(tree.get(key), list):
            hint = f", {hints[key]}" if hints and key in hints else ""
            raise InputError(f"{path}: not in {form} form: lacks the list {key!r}{hint}")
    return tree


def table(
    tree: Entry,
    key: str,
    needed: tuple[str, ...],
    *,
    wrong: Callable[[Entry], str] = lambda entry: "",
    path: Path,
    problems: Problems,
) -> dict[int, Entry]:
    """Return the entries of the list `key` by id, in the order of the file.

    Problems, and left out: an entry without an id or a key of `needed`, an entry that repeats an
    id or a needed `name`, and an entry for which `wrong` returns a reason.
    """
    entries: dict[int, Entry] = {}
    names: set[str] = set()
    for place, entry in enumerate(tree[key]):
        if not isinstance(entry, dict) or not _is_id(entry.get("id")):
            reason = "not an object with an id"
        elif missing := [k for k in needed if k not in entry]:
            reason = f"lacks the key {missing[0]!r}"
        elif entry["id"] in entries:
            reason = f"id {entry['id']} is used twice"
        elif "name" in needed and not is_name(entry["name"]):
            reason = "the name is not text in one line"
        elif "name" in needed and str(entry["name"]) in names:
            reason = f"name {str(entry['name'])!r} is used twice"
        elif not (reason := wrong(entry)):
            entries[entry["id"]] = entry
            names.add(str(entry.get("name")))
        if reason:
            problems.add(path, f"{key}[{place}]", reason)
    return entries


def is_name(value: object) -> bool:
    """Return True for a valid name: one line of text that every file can store, or an integer."""
    text = str(value) if isinstance(value, str) or type(value) is int else ""
    is_half = any("\ud800" <= letter <= "\udfff" for letter in text)  # of a pair of UTF-16
    return bool(text.strip()) and len(text.splitlines()) == 1 and "\0" not in text and not is_half


def is_folder(name: str) -> bool:
    """Return True if a video may have this name: it is a path to a subfolder.

    Caches and writers create a folder of that name and replace its contents.

    >>> is_folder("field/01"), is_folder("../field")
    (True, False)
    """
    return is_path_inside(name) and os.path.normpath(name) != "."


def is_size(value: object) -> bool:
    """Return True for a width or a height in pixels."""
    return isinstance(value, int | float) and 1 <= value <= 1e6


def is_ignored(annotation: Entry) -> bool:
    """Return True for a crowd (`iscrowd`) and for what mmtracking leaves out (`ignore`)."""
    return bool(annotation.get("iscrowd", 0)) or bool(annotation.get("ignore", 0))


def corners(bbox: object) -> Box:
    """Convert [left, top, width, height] to x1 y1 x2 y2. Raises ValueError or OverflowError.

    >>> corners([10, 8, 20, 12])
    (10.0, 8.0, 30.0, 20.0)
    """
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise ValueError
    if not all(isinstance(value, int | float) for value in bbox):
        raise ValueError
    x, y, w, h = (float(value) for value in bbox)
    return x, y, x + w, y + h


def _is_id(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63
