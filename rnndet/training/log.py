"""Log the figures of a run as JSON lines, and for TensorBoard."""

import json
import math
from pathlib import Path
from typing import Any

from rnndet.errors import RnndetError
from rnndet.system.files import output_errors


class MetricsLog:
    """Appends one JSON object per event to a file, flushed, so that a killed run keeps its history.

    board: also write TensorBoard events into `tensorboard/` beside the file. Raises OutputError,
    and RnndetError if tensorboard is not installed.
    """

    def __init__(self, path: Path, *, board: bool = False) -> None:
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")
        self._board = _summary_writer(path.parent / "tensorboard") if board else None

    def write(self, *, step: int, **values: Any) -> None:
        """Append an event; its numbers become curves in TensorBoard.

        NaN and infinite numbers become null, since JSON has none.
        """
        line = {"step": step} | {name: _finite(value) for name, value in values.items()}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    self._board.add_scalar(name, value, step)
            self._board.flush()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _summary_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise RnndetError(
            "train.tensorboard needs tensorboard: pip install 'rnndet[tensorboard]'"
        ) from None
    return SummaryWriter(folder)
