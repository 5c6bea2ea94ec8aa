"""Read the XML of Pascal VOC, which ImageNet VID and DET share: size, corners, class names."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from rnndet.data.problems import Problems
from rnndet.data.targets import MAX_TRACK
from rnndet.errors import InputError

CORNERS = ("xmin", "ymin", "xmax", "ymax")


class ClassNames:
    """Find labels by class name, and collect unknown names.

    aliases: other names of classes, such as WordNet ids.

    >>> ClassNames(("bird", "car"), {"n02958343": "car"}).find("n02958343")
    1
    """

    def __init__(self, names: Sequence[str], aliases: Mapping[str, str] | None = None) -> None:
        self.names = tuple(names)
        self._label_of = {name: label for label, name in enumerate(self.names)}
        for alias, name in (aliases or {}).items():
            if name in self._label_of:
                self._label_of[alias] = self._label_of[name]
        self._unknown: Counter[str] = Counter()
        self._first: dict[str, Path] = {}

    def find(self, name: str) -> int | None:
        return self._label_of.get(name)

    def note_unknown(self, name: str, file: Path) -> None:
        self._unknown[name] += 1
        self._first.setdefault(name, file)

    def report(self, folder: Path, problems: Problems, *, ignore_unknown: bool) -> None:
        """Report one problem or correction per unknown name, however often it occurs."""
        for name, count in self._unknown.items():
            if ignore_unknown:
                problems.correct(f"objects of the unknown class {name!r} left out", count)
                continue
            objects = f"{count} object{'s' * (count > 1)}, the first in {self._first[name]}"
            reason = f"class {name!r} is unknown ({objects}); set classes or ignore_unknown"
            problems.add(folder, "", reason)


def size_wh(
    tree: Element, file: Path, *, first: tuple[int, int] | None, hint: str = ""
) -> tuple[int, int]:
    """Return the size in an XML; raises InputError, also if it differs from that of `first`.

    hint: what to do then.
    """
    try:
        width, height = number(tree, "size/width"), number(tree, "size/height")
    except ValueError as error:
        raise InputError(f"{file}: {error}") from None
    text = f"{file}: size {width:g}x{height:g}"
    if not (1 <= width <= 1e6 and 1 <= height <= 1e6):
        raise InputError(f"{text} is not that of an image")
    if first is not None and (width, height) != first:
        then = f"; {hint}" if hint else ""
        raise InputError(f"{text}, but {first[0]}x{first[1]} in the first frame of the video{then}")
    return int(width), int(height)


def corners(entry: Element) -> tuple[float, float, float, float]:
    """Return the corners of an object as they are written; raises ValueError with the reason."""
    x1, y1, x2, y2 = (number(entry, f"bndbox/{tag}") for tag in CORNERS)
    return x1, y1, x2, y2


def track_id(text: str | None) -> int:
    """Return the identity in `text`, -1 for None; raises ValueError with the reason."""
    track = -1 if text is None else int(text)
    if not -1 <= track <= MAX_TRACK:
        raise ValueError(f"trackid {track} is no identity")
    return track


def number(element: Element, tag: str) -> float:
    """Return the number at `tag`; raises ValueError with the reason."""
    text = element.findtext(tag)
    if text is None:
        raise ValueError(f"lacks {tag}")
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{tag} {text!r} is not a number") from None
