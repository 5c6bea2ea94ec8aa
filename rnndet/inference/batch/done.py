"""done.json: what a finished video was made from, so that a rerun does only what is missing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import rnndet
from rnndet.errors import OutputError
from rnndet.video.sources.identity import fingerprint

NAME = "done.json"


def describe_job(
    source: str, *, model_sha256: str | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """What the results of a video depend on, as plain data. Raises InputError.

    options: those that change the results; what json does not know becomes text.
    """
    job = {
        "rnndet": rnndet.__version__,
        "source": fingerprint(source),
        "model_sha256": model_sha256,
        "options": dict(options),
    }
    return json.loads(json.dumps(job, default=str))


def find_done(folder: Path, job: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of a video that is done, with all its files; None if it is to be done.

    Raises OutputError if it is done, but of another source, model or options.
    """
    record = _read(folder / NAME)
    if record is None or not all((folder / name).exists() for name in record["files"]):
        return None
    wrong = _differences(record["job"], job)
    if wrong:
        raise OutputError(
            f"{folder}: done already, but from something else: {'; '.join(wrong[:5])}; "
            "use --overwrite to do it again, or another --out"
        )
    return record


def write_done(
    folder: Path,
    job: Mapping[str, Any],
    *,
    source: str,
    frames: int,
    whole: bool,
    files: Iterable[Path],
) -> None:
    """Say that a video is done, after its files are safe on the disk; atomically.

    whole: every frame of the source was there.

    Raises OutputError.
    """
    files = list(files)
    record = {
        "source": source,
        "frames": frames,
        "whole": whole,
        "exit_code": 0,
        "files": [file.relative_to(folder).as_posix() for file in files],
        "job": dict(job),
    }
    part = folder / f"{NAME}.part"
    try:
        for file in files:
            if file.is_file():
                _sync(file)
        part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        _sync(part)
        os.replace(part, folder / NAME)
    except OSError as error:
        raise OutputError(f"{folder / NAME}: cannot be written ({error.strerror})") from None


def forget_done(folder: Path) -> None:
    """Before the results are replaced: a record must never lie beside results of another run."""
    try:
        (folder / NAME).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{folder / NAME}: cannot be removed ({error.strerror})") from None


def _read(path: Path) -> dict[str, Any] | None:
    """None for what is no such record: then the video is done again."""
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


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> list[str]:
    lines = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += _differences(old, new, f"{path}{key}.")
        elif old != new:
            lines.append(f"{path}{key} was {_short(old)}, is {_short(new)}")
    return lines


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
