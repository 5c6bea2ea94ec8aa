"""Export detections.parquet: the columns of detections.csv with types, for pandas and databases.

"id" is 0 without a track, "predicted" is a boolean. Rows are written in groups, so memory does not
grow with the video.
"""

import contextlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from rnndet.errors import RnndetError
from rnndet.inference.writers.base import Export, ExportedVideo
from rnndet.structures import FrameResult
from rnndet.system.files import output_errors, part_of, replace
from rnndet.video.sink import describe_result

GROUP = 50_000  # rows of a row group


class ParquetExport(Export):
    names = ("detections.parquet",)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (self._path,) = self.paths
        self._part = part_of(self._path)
        self._writer: Any = None  # of pyarrow

    @classmethod
    def check_installed(cls) -> None:
        """Raise RnndetError without pyarrow."""
        if find_spec("pyarrow") is None:
            raise RnndetError("`save` parquet: needs pyarrow; pip install 'rnndet[parquet]'")

    def begin(self, video: ExportedVideo) -> None:
        self.check_installed()
        import pyarrow
        from pyarrow import parquet

        self._classes = video.classes
        text, number = pyarrow.string(), pyarrow.float64()
        self._schema = pyarrow.schema([
            ("frame", pyarrow.int64()), ("time", number), ("id", pyarrow.int64()), ("label", text),
            ("track_label", text), ("score", number), ("x1", number), ("y1", number),
            ("x2", number), ("y2", number), ("predicted", pyarrow.bool_()),
        ])  # fmt: skip
        self._rows: list[tuple[Any, ...]] = []
        with output_errors(self._path):
            self._writer = parquet.ParquetWriter(self._part, self._schema)

    def write(self, result: FrameResult, image: np.ndarray | None) -> None:
        for entry in describe_result(result, self._classes):
            label = entry["label"]
            self._rows.append((
                result.frame.index, round(result.frame.time, 6), entry.get("id", 0), label,
                entry.get("track_label", label), entry["score"], *entry["box"],
                entry.get("predicted", False),
            ))  # fmt: skip
        if len(self._rows) >= GROUP:
            self._write_group()

    def _write_group(self) -> None:
        import pyarrow

        columns = zip(*self._rows, strict=True) if self._rows else [()] * len(self._schema)
        arrays = [
            pyarrow.array(column, kind)
            for column, kind in zip(columns, self._schema.types, strict=True)
        ]
        with output_errors(self._path):
            self._writer.write_table(pyarrow.table(arrays, schema=self._schema))
        self._rows.clear()

    def close(self) -> None:
        self._write_group()
        with output_errors(self._path):
            self._writer.close()
        replace(self._part, self._path)

    def abort(self) -> None:
        if self._writer is not None:
            self._rows.clear()
            with contextlib.suppress(OSError):  # a full disk; the file is removed in any case
                self._writer.close()
            self._part.unlink(missing_ok=True)
