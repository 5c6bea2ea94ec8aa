"""Write boxes over time and their video as one page of HTML, which needs no other program.

The data is embedded as columns: one array for each property of the frames and of the boxes, all
deflated together. Boxes are ordered by row of the page, that is by track, then by frame.
"""

import base64
import hashlib
import json
import os
import re
import zlib
from array import array
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from html import escape
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

import numpy as np

SCRIPTS = ("data.js", "drawing.js", "table.js", "picture.js", "controls.js")  # one function
# Kinds of boxes; data.js has the same numbers.
DETECTED, PREDICTED, MISSED, FALSE = range(4)
# Flags of frames, also in data.js. A restart also resets what a cut resets.
CUT, RESTART, PROPAGATED, UNLABELLED, CORRUPTED = 1, 2, 4, 8, 16

MAX_SCALE = 4  # boxes are embedded to a quarter of a pixel
MAX_EDGE = 32_000  # of int16, in which boxes are embedded

# Columns by name, with the type code of their `array`.
FRAME_COLUMNS = {"index": "i", "time": "d", "shown": "d", "gap": "I", "flags": "B"}
BOX_COLUMNS = {
    "row": "I", "frame": "I", "score": "H", "label": "H", "track_label": "H", "kind": "B",
}  # fmt: skip
COUNT_COLUMNS = {"frame": "I", "place": "H", "text": "I"}
EDGES = ("x1", "y1", "x2", "y2")
SCORE_UNITS = 10_000  # scores have 4 digits, as in detections.jsonl


@dataclass(frozen=True, slots=True)
class Media:
    """The picture of a page, with URLs relative to the page.

    kind: "video", one file, or "images", one for each frame. size_wh: of the image in which boxes
    are counted in pixels. is_annotated: the boxes are drawn in it. hint: what to do if a browser
    cannot play it.
    """

    kind: str
    urls: tuple[str, ...]
    size_wh: tuple[int, int]
    is_annotated: bool = False
    hint: str = ""

    def to_dict(self) -> dict[str, Any]:
        base = common_folder(self.urls)
        return {
            "kind": self.kind,
            "name": self.urls[0].rpartition("/")[2] if self.urls else "",
            "base": base,
            "files": [url[len(base) :] for url in self.urls],
            "size": list(self.size_wh),
            "annotated": self.is_annotated,
            "hint": self.hint,
        }


def common_folder(urls: Sequence[str]) -> str:
    """The folder that all URLs begin with, with its slash; "" if there is none.

    >>> common_folder(["../a/b/1.jpg", "../a/c/1.jpg"]), common_folder(["a.mp4"])
    ('../a/', '')
    """
    first, last = min(urls, default=""), max(urls, default="")  # the most different ones
    shared = next((i for i, (a, b) in enumerate(zip(first, last)) if a != b), len(first))  # noqa: B905
    return first[: first.rfind("/", 0, shared) + 1]


def relative_url(path: Path, folder: Path) -> str:
    """The URL of a file for a page in `folder`; any bytes may be in its name.

    >>> relative_url(Path("/data/a b/100%.jpg"), Path("/data/out"))
    '../a%20b/100%25.jpg'
    """
    target = path.resolve()
    try:
        relative = PurePath(os.path.relpath(target, folder.resolve()))
    except ValueError:  # another drive
        return target.as_uri()
    return quote(os.fsencode(relative.as_posix()))


@dataclass(slots=True)
class PageRow:
    """A row of the page: a track, or boxes without one."""

    name: str
    label: int


@dataclass(slots=True)
class Page:
    """The frames and boxes of one video, collected in the order of time; 27 bytes for each box.

    >>> page = Page(("bird",), size_hw=(64, 96), step=0.04)
    >>> page.add_frame(index=0, time=0.0, shown=0.0)
    >>> page.add_box(page.row(1, "#1", label=0), (8, 8, 16, 16), score=0.9, label=0)
    >>> page.to_html(title="clip.mp4")[:15]
    '<!DOCTYPE html>'
    """

    classes: Sequence[str]
    size_hw: tuple[int, int]
    step: float  # seconds for which a frame without a next one is shown
    rows: list[PageRow] = field(default_factory=list)
    _places: dict[Hashable, int] = field(default_factory=dict)
    _frames: dict[str, array] = field(default_factory=dict)
    _boxes: dict[str, array] = field(default_factory=dict)
    _counts: dict[str, array] = field(default_factory=dict)  # where they change
    _counters: dict[tuple[str, str], int] = field(default_factory=dict)  # their places
    _texts: dict[str, int] = field(default_factory=dict)
    _last: dict[int, int] = field(default_factory=dict)  # text of each counter

    def __post_init__(self) -> None:
        self._frames = {name: array(code) for name, code in FRAME_COLUMNS.items()}
        self._boxes = {name: array(code) for name, code in BOX_COLUMNS.items()}
        self._boxes |= {name: array("h") for name in EDGES}
        self._counts = {name: array(code) for name, code in COUNT_COLUMNS.items()}

    def __len__(self) -> int:
        """The number of frames."""
        return len(self._frames["time"])

    @property
    def scale(self) -> float:
        """Units of the embedded boxes in a pixel."""
        return min(MAX_SCALE, MAX_EDGE / max(self.size_hw))

    def add_frame(
        self, *, index: int, time: float, shown: float, gap: int = 0, flags: int = 0
    ) -> None:
        """Add the next frame, which `add_box` refers to.

        shown: seconds from the begin of the video file at which this frame is shown.
        """
        values = {"index": index, "time": time, "shown": shown, "gap": gap, "flags": flags}
        for name, value in values.items():
            self._frames[name].append(value)

    def row(self, key: Hashable, name: str, *, label: int) -> int:
        """The place of a row, which is new if the key is; its label may be changed in `rows`."""
        if key not in self._places:
            self._places[key] = len(self.rows)
            self.rows.append(PageRow(name, label))
        return self._places[key]

    def add_box(
        self,
        row: int,
        box: Sequence[float],
        *,
        score: float,
        label: int,
        track_label: int | None = None,
        kind: int = DETECTED,
    ) -> None:
        """Add a box of the last frame; track_label: the class shown for the track."""
        values = {
            "row": row,
            "frame": len(self) - 1,
            "score": round(score * SCORE_UNITS),
            "label": label,
            "track_label": label if track_label is None else track_label,
            "kind": kind,
        }
        for name, value in values.items():
            self._boxes[name].append(value)
        for name, edge in zip(EDGES, box, strict=True):
            units = round(edge * self.scale)
            self._boxes[name].append(min(max(units, -MAX_EDGE), MAX_EDGE))

    def set_count(self, area: str, what: str, text: str) -> None:
        """Change a count of a region or line, such as ("yard", "entered"), from this frame on."""
        place = self._counters.setdefault((area, what), len(self._counters))
        number = self._texts.setdefault(text, len(self._texts))
        if self._last.get(place) == number:
            return
        self._last[place] = number
        for name, value in {"frame": len(self) - 1, "place": place, "text": number}.items():
            self._counts[name].append(value)

    def show_evenly(self, rate: Fraction) -> None:
        """Change the times `shown`: the video file has its frames at a constant rate."""
        self._frames["shown"] = array("d", (float(i / rate) for i in range(len(self))))

    def columns(self) -> list[tuple[str, np.ndarray, bool]]:
        """The embedded arrays: name, values, and whether differences of neighbours are embedded."""
        frames = {name: np.array(values) for name, values in self._frames.items()}
        boxes = {name: np.array(values) for name, values in self._boxes.items()}
        order = np.argsort(boxes["row"], kind="stable")
        counts = np.bincount(boxes.pop("row"), minlength=len(self.rows))
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint32)
        table = [
            ("index", frames["index"].astype(np.int32), True),
            ("time", np.round(frames["time"], 6), False),
            ("shown", np.round(frames["shown"], 6), False),
            ("gap", frames["gap"].astype(np.uint32), False),
            ("flags", frames["flags"], False),
            ("row_start", starts, True),
            ("box_frame", boxes.pop("frame")[order].astype(np.int32), True),
        ]
        for name, values in self._counts.items():
            table.append((f"count_{name}", np.array(values), False))
        for name, values in boxes.items():
            is_edge = name in EDGES
            table.append((name if is_edge else f"box_{name}", values[order], is_edge))
        return table

    def to_html(
        self,
        *,
        title: str,
        facts: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
        media: Media | None = None,
    ) -> str:
        """The page; facts: shown below the title; notes: what the reader should know first."""
        manifest, packed = pack(self.columns())
        data = {
            "classes": [printable(name) for name in self.classes],
            "rows": [[printable(row.name), row.label] for row in self.rows],
            "counters": [[printable(area), what] for area, what in self._counters],
            "texts": [printable(text) for text in self._texts],
            "size": [self.size_hw[1], self.size_hw[0]],
            "scale": self.scale,
            "step": self.step,
            "media": None if media is None else media.to_dict(),
            "facts": [[name, printable(value)] for name, value in (facts or {}).items()],
            "notes": [printable(text) for text in notes],
            "columns": manifest,
        }
        return fill_template(title=title, data=data, columns=packed)


def printable(text: str) -> str:
    """Text that is valid Unicode; bytes of a name that are not are written as in detections.jsonl.

    >>> printable("caf\\udce9")
    'caf\\\\udce9'
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def pack(columns: Sequence[tuple[str, np.ndarray, bool]]) -> tuple[list[list[Any]], str]:
    """The manifest of the columns, [name, type, length, whether differences], and their bytes.

    The bytes of all columns, little endian, one after the other, deflated (RFC 1950), in base64.
    """
    manifest, parts = [], zlib.compressobj(6)
    packed = b""
    for name, values, is_differences in columns:
        stored = np.diff(values, prepend=values.dtype.type(0)) if is_differences else values
        manifest.append(
            [name, f"{values.dtype.kind}{values.dtype.itemsize}", len(values), is_differences]
        )
        packed += parts.compress(stored.astype(values.dtype.newbyteorder("<")).tobytes())
    return manifest, base64.b64encode(packed + parts.flush()).decode("ascii")


def unpack(manifest: Sequence[Sequence[Any]], packed: str) -> dict[str, np.ndarray]:
    """The columns by name of the manifest and the bytes of `pack`.

    >>> unpack(*pack([("x", np.array([3, 1], np.int16), True)]))
    {'x': array([3, 1], dtype=int16)}
    """
    content, columns = zlib.decompress(base64.b64decode(packed)), {}
    for name, kind, length, is_differences in manifest:
        dtype = np.dtype(kind)
        end = length * dtype.itemsize
        values = np.frombuffer(content[:end], dtype.newbyteorder("<")).astype(dtype)
        content = content[end:]
        columns[name] = np.cumsum(values, dtype=dtype) if is_differences else values
    return columns


def fill_template(*, title: str, data: Mapping[str, Any], columns: str) -> str:
    """The template with its style, its script and the data.

    Only this script may run, and nothing may be loaded but pictures of the same place.
    """
    folder = files("rnndet.inference.writers.view")
    style = folder.joinpath("style.css").read_text("utf-8")
    code = "\n".join(folder.joinpath(name).read_text("utf-8") for name in SCRIPTS)
    script = f'"use strict";\n(async () => {{\n{code}}})();\n'
    policy = (
        f"default-src 'none'; script-src {content_hash(script)}; style-src {content_hash(style)}; "
        "img-src 'self' file:; media-src 'self' file:; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "title": escape(printable(title)),
        "policy": policy,
        "style": style,
        "script": script,
        "data": embeddable(data),
        "columns": columns,
    }
    template = folder.joinpath("page.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def content_hash(text: str) -> str:
    """The hash by which a content security policy allows an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def embeddable(data: Mapping[str, Any]) -> str:
    """JSON that is safe inside a script element: no character of it can end the element."""
    text = json.dumps(data, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
