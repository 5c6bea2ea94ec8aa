"""Read result files back as arrays: a column for each property of the objects."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnndet.errors import InputError, RnndetError
from rnndet.inference.writers.csv_table import COLUMNS
from rnndet.messages import listed

Column = NDArray[Any]
Row = tuple[Any, ...]  # in the order of COLUMNS

KINDS = dict(zip(COLUMNS, (int, float, int, str, str, *[float] * 5, bool), strict=True))


class ResultTable(Mapping[str, Column]):
    """The objects of a result file by column, each an array with an element for each object.

    The columns are those of detections.csv, in its order: frame, time, id (0: no track), label,
    track_label (the class that is shown for the track), score, x1, y1, x2, y2, predicted.

    frames: "frame" and "time" of all frames, also of those without objects, which only
    detections.jsonl has. header, summary: its first and last line, empty for other files; a run
    that was cut short has no summary.
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        *,
        frames: Mapping[str, Column],
        header: Mapping[str, Any] | None = None,
        summary: Mapping[str, Any] | None = None,
    ) -> None:
        self._columns, self.frames = dict(columns), dict(frames)
        self.header, self.summary = dict(header or {}), dict(summary or {})

    def __getitem__(self, name: str) -> Column:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        """The number of columns."""
        return len(self._columns)

    def __repr__(self) -> str:
        return f"ResultTable({len(self['frame'])} objects in {len(self.frames['frame'])} frames)"

    def to_pandas(self) -> Any:
        """A pandas.DataFrame with a row for each object. Raises RnndetError without pandas."""
        try:
            import pandas
        except ImportError as error:
            raise RnndetError(
                f"to_pandas: needs pandas; pip install 'rnndet[parquet]' ({error})"
            ) from None
        return pandas.DataFrame(self._columns)


def read_results(path: str | bytes | os.PathLike[str]) -> ResultTable:
    """Read the results of a video, see `ResultTable`.

    path: a folder of results, of which detections.jsonl is read; or a file: detections.jsonl,
    detections.part.jsonl of a run that was cut short, detections.csv or detections.parquet. All of
    them give the same columns. Raises InputError for other files and damaged ones, and RnndetError
    where pyarrow is missing.

    >>> table = read_results("out/clip")  # doctest: +SKIP
    >>> table["score"][table["label"] == "bird"].mean()  # doctest: +SKIP
    """
    if not isinstance(path, str | bytes | os.PathLike):
        raise InputError(f"{path!r:.60}: expected the path of results")
    path = Path(os.fsdecode(path))
    if path.is_dir():
        path = _results_in(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; expected the results of rnndet infer")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: expected a folder of results, or one of: {', '.join(READERS)}")
    try:
        return reader(path)
    except (KeyError, TypeError, ValueError, csv.Error) as error:  # also not UTF-8
        raise InputError(f"{path}: not results of rnndet: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


def _results_in(folder: Path) -> Path:
    """The file of a folder of results; raises InputError if there is none, with what is there."""
    path = folder / "detections.jsonl"
    if path.is_file():
        return path
    others = [file for file in (folder / name for name in OTHERS) if file.is_file()]
    if others:
        raise InputError(f"{path}: no such file; give the path of {others[0].name}")
    videos = sorted(file.parent.name for file in folder.glob("*/detections.jsonl"))
    hint = "expected the results of rnndet infer"
    if videos:
        hint = f"give the folder of a video in {folder.name}: {listed(videos, 'video')}"
    raise InputError(f"{path}: no such file; {hint}")


def _read_jsonl(path: Path) -> ResultTable:
    header, summary = None, None
    frames: list[tuple[int, float]] = []
    rows: list[Row] = []
    with path.open(encoding="utf-8") as file:
        for text in file:
            if not text.endswith("\n"):
                break  # the process was killed while it wrote this line
            line = json.loads(text)
            if line["type"] == "header":
                header = line
            elif line["type"] == "summary":
                summary = line
            elif line["type"] == "frame":
                frames.append((line["index"], line["time"]))
                rows.extend(_rows_of(line))
    if header is None:
        raise ValueError("no header")
    return _table(rows, frames=frames, header=header, summary=summary)


def _rows_of(line: Mapping[str, Any]) -> Iterator[Row]:
    for entry in line["objects"]:
        label = entry["label"]
        yield (
            line["index"], line["time"], entry.get("id", 0), label,
            entry.get("track_label", label), entry["score"], *entry["box"],
            entry.get("predicted", False),
        )  # fmt: skip


def _read_csv(path: Path) -> ResultTable:
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    if tuple(header) != COLUMNS:
        raise ValueError(f"the columns are not {', '.join(COLUMNS)}")
    rows = [
        (
            int(frame),
            float(time),
            int(track or 0),
            label,
            shown,
            *map(float, edges),
            predicted == "1",
        )
        for frame, time, track, label, shown, *edges, predicted in lines
    ]
    return _table(rows)


def _read_parquet(path: Path) -> ResultTable:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise RnndetError(
            f"{path}: needs pyarrow; pip install 'rnndet[parquet]' ({error})"
        ) from None
    table = parquet.read_table(path, columns=list(COLUMNS))
    return _table(list(zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)))


def _table(
    rows: list[Row], *, frames: list[tuple[int, float]] | None = None, **about: Any
) -> ResultTable:
    """The table of some rows; without frames, those of the rows."""
    if frames is None:
        frames = list(dict.fromkeys(row[:2] for row in rows))
    values = list(zip(*rows, strict=True)) if rows else [()] * len(COLUMNS)
    columns = {
        name: np.array(column, kind)
        for (name, kind), column in zip(KINDS.items(), values, strict=True)
    }
    indices, times = zip(*frames, strict=True) if frames else ((), ())
    return ResultTable(
        columns, frames={"frame": np.array(indices, int), "time": np.array(times, float)}, **about
    )


OTHERS = ("detections.part.jsonl", "detections.csv", "detections.parquet")  # beside no .jsonl
READERS: dict[str, Callable[[Path], ResultTable]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
