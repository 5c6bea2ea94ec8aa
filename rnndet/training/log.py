"""One line of JSON per event, flushed, so that a killed run keeps its history."""

import json
from pathlib import Path
from typing import Any

from rnndet.errors import OutputError


class MetricsLog:
    """Appends to `metrics.jsonl`."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from None

    def write(self, **values: Any) -> None:
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
