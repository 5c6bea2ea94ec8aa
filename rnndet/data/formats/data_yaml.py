"""Read data.yaml files of YOLO: lists, mappings and text, without a parser for all of YAML.

A value is a scalar, a list or a mapping, in a line (`[a, b]`, `{0: a}`), or with an entry in each
of the next lines (`- a`, `0: a`). Only the values that are asked for are parsed.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from rnndet.data.formats.text import read_text
from rnndet.errors import InputError

Value = str | list[str] | dict[str, str]

_KEY = re.compile(r"""(?:'([^']*)'|"([^"]*)"|([^\s'"#\[\]{},&*!|>%@`-][^:#]*?))\s*:(?:\s+|$)(.*)""")


class DataYaml:
    """The values of a file by their keys. Raises InputError: it cannot be read or has no keys."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, list[str]] = {}  # key -> text after it, and the lines below it
        key = None
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            line = _without_comment(line)
            if not line.strip() or line.startswith(("---", "...", "%YAML")):
                continue
            match = _KEY.fullmatch(line)
            if key is not None and _is_open(self._entries[key]):
                self._entries[key].append(line)
            elif match is not None:
                key = next(name for name in match.groups()[:3] if name is not None)
                self._entries[key] = [match[4]]
            elif key is not None and (line[0].isspace() or line.startswith("- ")):
                self._entries[key].append(line)
            else:
                raise InputError(f"{path}: line {number}: {line!r:.60} is no `key: value`")
        if not self._entries:
            raise InputError(f"{path}: expected `names:` and the places of the splits")

    def __contains__(self, key: str) -> bool:
        return bool(self._entries.get(key, [""])[0].strip() or self._entries.get(key, [])[1:])

    def value(self, key: str) -> Value | None:
        """Return the value of a key, None without one. Raises InputError: it cannot be read."""
        if key not in self:
            return None
        first, *below = (line.strip() for line in self._entries[key])
        try:
            if first[:1] in ("[", "{"):
                return _inline(" ".join((first, *below)))
            if first[:1] in ("&", "*", "!", "|", ">"):
                raise ValueError
            if first:
                return _scalar(" ".join((first, *below)))
            if all(line == "-" or line.startswith("- ") for line in below):
                return [_scalar(line[1:].strip()) for line in below]
            return dict(_pair(line) for line in below)
        except ValueError:
            raise InputError(
                f"{self.path}: {key}: expected text, a list [a, b] or names {{0: a, 1: b}}"
            ) from None

    def texts(self, key: str) -> list[str]:
        """Return a value as a list: a text is one item; names by number are in their order."""
        value = self.value(key)
        if not isinstance(value, dict):
            return value if isinstance(value, list) else [] if value is None else [value]
        try:
            numbered = {int(number): text for number, text in value.items()}
        except ValueError:
            numbered = {}
        if sorted(numbered) != list(range(len(value))):
            raise InputError(f"{self.path}: {key}: expected the numbers from 0 on, each once")
        return [numbered[number] for number in range(len(numbered))]


def _is_open(lines: list[str]) -> bool:
    """Whether the bracket at the beginning of a value is not closed yet."""
    closing = {"[": "]", "{": "}"}.get(lines[0][:1])
    return closing is not None and not lines[-1].endswith(closing)


def _without_comment(line: str) -> str:
    """Cut a comment: `#` at the start or after a space, outside quotes."""
    for place, sign in _unquoted(line):
        if sign == "#" and (place == 0 or line[place - 1].isspace()):
            return line[:place].rstrip()
    return line.rstrip()


def _unquoted(text: str) -> Iterator[tuple[int, str]]:
    """Yield place and character of what is outside quotes."""
    quote = ""
    for place, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"" and (place == 0 or text[place - 1] in " \t[{,:-"):
            quote = sign
        else:
            yield place, sign


def _inline(text: str) -> Value:
    """Parse a list or a mapping in brackets; raises ValueError."""
    inner = text[1:-1]
    if text[-1:] != {"[": "]", "{": "}"}[text[0]] or any(c in "[]{}" for _, c in _unquoted(inner)):
        raise ValueError
    cuts = [-1, *(place for place, sign in _unquoted(inner) if sign == ","), len(inner)]
    items = [inner[a + 1 : b].strip() for a, b in pairwise(cuts)]
    if not items[-1]:  # a comma at the end, or nothing at all
        items.pop()
    return dict(map(_pair, items)) if text[0] == "{" else list(map(_scalar, items))


def _pair(text: str) -> tuple[str, str]:
    key, colon, value = text.partition(":")
    if not colon:
        raise ValueError
    return _scalar(key.strip()), _scalar(value.strip())


def _scalar(text: str) -> str:
    if text[:1] == "'" or text[:1] == '"':
        if len(text) < 2 or text[-1] != text[0]:
            raise ValueError
        inner = text[1:-1]
        if text[0] == "'":
            return inner.replace("''", "'")
        return re.sub(r'\\(["\\/])', r"\1", inner)
    if not text or text[0] in "[{&*!|>":
        raise ValueError
    return text
