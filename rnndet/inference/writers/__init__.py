"""Export results to files beside detections.jsonl; `EXPORTS` by the names of `--save`."""

from collections.abc import Sequence

from rnndet.inference.writers.base import Export
from rnndet.inference.writers.coco import CocoExport
from rnndet.inference.writers.counts import CountsExport
from rnndet.inference.writers.csv_table import CsvExport
from rnndet.inference.writers.cvat import CvatExport
from rnndet.inference.writers.html import HtmlExport
from rnndet.inference.writers.images import CropsExport, FramesExport
from rnndet.inference.writers.mot import MotExport
from rnndet.inference.writers.parquet import ParquetExport
from rnndet.inference.writers.video import VideoExport
from rnndet.inference.writers.yolo import YoloExport
from rnndet.registry import lookup

EXPORTS: dict[str, type[Export]] = {
    "video": VideoExport,
    "mot": MotExport,
    "coco": CocoExport,
    "csv": CsvExport,
    "cvat": CvatExport,
    "crops": CropsExport,
    "frames": FramesExport,
    "html": HtmlExport,
    "counts": CountsExport,
    "parquet": ParquetExport,
    "yolo": YoloExport,
}


def export_names(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the names of EXPORTS in texts such as "mot,csv", each once.

    Raises RnndetError, also where a package is missing.

    >>> export_names(["mot,csv", "mot"])
    ('mot', 'csv')
    """
    names = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    for name in names:
        lookup(name, EXPORTS, what="`save`").check_installed()
    return tuple(dict.fromkeys(names))
