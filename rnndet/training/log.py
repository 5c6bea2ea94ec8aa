"""One line of JSON per event, flushed, so that a killed run keeps its history."""

import json
from pathlib import Path
from typing import Any

from rnndet.errors import OutputError, RnndetError


class MetricsLog:
    """Appends to `metrics.jsonl`; with `board` also writes events for TensorBoard beside it."""

    def __init__(self, path: Path, *, board: bool = False) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from None
        self._board = _board(path.parent / "tensorboard") if board else None

    def write(self, *, step: int, **values: Any) -> None:
        """One event of a step; numbers become curves of the board."""
        self._file.write(json.dumps({"step": step} | values) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    self._board.add_scalar(name, value, step)
            self._board.flush()

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise RnndetError(
            "train.tensorboard needs tensorboard: pip install 'rnndet[tensorboard]'"
        ) from None
    return SummaryWriter(folder)
