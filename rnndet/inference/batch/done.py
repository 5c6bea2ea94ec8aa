"""Record finished videos in done.json, so that a rerun skips them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rnndet
from rnndet.errors import OutputError
from rnndet.messages import differences
from rnndet.system.files import atomic_file, output_errors, sync
from rnndet.video.sources.identity import fingerprint

NAME = "done.json"


@dataclass(frozen=True, slots=True)
class DoneRecord:
    """The content of done.json that is known before a video is run."""

    job: Mapping[str, Any]  # see `describe_job`
    source: str  # as displayed, without a password
    strict: bool = False  # write no record of an incomplete source

    def write(self, folder: Path, *, frames: int, is_complete: bool, files: Iterable[Path]) -> None:
        """Write done.json atomically, after its files are safe on the disk.

        is_complete: the source gave all of its frames. Raises OutputError.
        """
        if self.strict and not is_complete:
            return
        files = list(files)
        record = {
            "source": self.source,
            "frames": frames,
            "whole": is_complete,
            "exit_code": 0,
            "files": [file.relative_to(folder).as_posix() for file in files],
            "job": dict(self.job),
        }
        for file in files:
            if file.is_file():
                with output_errors(file):
                    sync(file)
        with atomic_file(folder / NAME, durable=True) as part:
            part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def describe_job(
    source: str, *, model_sha256: str | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return all inputs that the results of a video depend on, as plain data. Raises InputError.

    options: those that change the results; values that JSON has no type for become text.
    """
    job = {
        "rnndet": rnndet.__version__,
        "source": fingerprint(source),
        "model_sha256": model_sha256,
        "options": dict(options),
    }
    return json.loads(json.dumps(job, default=str))


def find_done(folder: Path, job: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the record of a video that is done, with all its files; None if it is to be done.

    Raises OutputError if it was done with another source, model or options.
    """
    record = _read(folder / NAME)
    if record is None or not all((folder / name).exists() for name in record["files"]):
        return None
    changed = differences(record["job"], job)
    if changed:
        raise OutputError(
            f"{folder}: already done, but from something else: {'; '.join(changed[:5])}; "
            "use `overwrite=True` to do it again, or another `out`"
        )
    return record


def forget_done(folder: Path) -> None:
    """Remove the record before the results are replaced. Raises OutputError."""
    try:
        (folder / NAME).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{folder / NAME}: cannot be removed ({error.strerror})") from None


def _read(path: Path) -> dict[str, Any] | None:
    """Read a record; None for a file that is no record: then the video is done again."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("job"), dict):
        return None
    files = record.get("files")
    is_record = isinstance(files, list) and all(isinstance(name, str) for name in files)
    is_record = is_record and isinstance(record.get("whole"), bool)
    return record if is_record and files else None
