"""Words of messages: numbers with their noun, lists of names, differences of settings."""

from __future__ import annotations

import json
import re
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


def numbered(number: int, phrase: str) -> str:
    """A number before a phrase, whose first noun is made singular if the number is 1.

    >>> numbered(1, "boxes clipped to the image"), numbered(2, "boxes clipped to the image")
    ('1 box clipped to the image', '2 boxes clipped to the image')
    >>> numbered(1, "duplicate frames of two lists")
    '1 duplicate frame of two lists'
    """
    if number == 1:
        phrase = re.sub(r"\b(box)es\b|\b(\w+[^s\W])s\b", lambda m: m[1] or m[2], phrase, count=1)
    return f"{number} {phrase}"


def differences(before: Mapping[str, Any], now: Mapping[str, Any], name: str = "") -> list[str]:
    """The entries in which two trees of plain data differ, each in words; a missing one is null.

    name: of the trees, before the name of each entry.

    >>> differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}})
    ['a.b was 1, is 3', 'c was 2, is null']
    """
    lines = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        path = f"{name}.{key}" if name else str(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, path)
        elif old != new:
            lines.append(f"{path} was {_short(old)}, is {_short(new)}")
    return lines


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


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."
