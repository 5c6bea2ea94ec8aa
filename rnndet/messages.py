"""Words of messages: numbers with their noun, and the entries in which two trees differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MOST = 3  # differences that a message lists
MOST_NAMES = 8  # names that a message lists


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun, which is in the plural unless the number is 1.

    >>> counted(1, "video"), counted(1200, "frame"), counted(0, "box", "boxes")
    ('1 video', '1200 frames', '0 boxes')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def differences(saved: Any, current: Any, *, name: str = "") -> list[str]:
    """The entries in which two trees of plain data differ, each in words.

    name: of the trees, before the name of each entry.

    >>> differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}})
    ['a.b was 1 and is 3', 'c was 2 and is not set']
    """
    if saved == current:
        return []
    if isinstance(saved, Mapping) and isinstance(current, Mapping):
        missing = object()
        return [
            line
            for key in dict.fromkeys([*saved, *current])
            for line in _entry(
                saved.get(key, missing), current.get(key, missing), missing, f"{name}.{key}"
            )
        ]
    return [f"{name.lstrip('.')} was {_text(saved)} and is {_text(current)}"]


def first_of(lines: Sequence[str]) -> str:
    """The first of the lines, joined, and the number of the others.

    >>> first_of(["a", "b", "c", "d", "e"])
    'a; b; c; and 2 more'
    """
    more = len(lines) - MOST
    return "; ".join([*lines[:MOST], *([f"and {more} more"] if more > 0 else [])])


def listed(names: Sequence[str], noun: str, plural: str = "") -> str:
    """The names; if they are many, their number and the first ones.

    >>> listed(["car", "bus"], "class", "classes"), listed([], "class", "classes")
    ('car, bus', 'none')
    """
    if len(names) <= MOST_NAMES:
        return ", ".join(names) or "none"
    return f"{counted(len(names), noun, plural)} ({', '.join(names[:MOST_NAMES])}, ...)"


def _entry(saved: Any, current: Any, missing: object, name: str) -> list[str]:
    if saved is missing:
        return [f"{name.lstrip('.')} was not set and is {_text(current)}"]
    if current is missing:
        return [f"{name.lstrip('.')} was {_text(saved)} and is not set"]
    return differences(saved, current, name=name)


def _text(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
