"""The state of a stream on disk, so that a recording in several files goes on as one video."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from rnndet.errors import OutputError, WeightsError
from rnndet.inference.stream import Stream
from rnndet.structures import Frame

KIND = "rnndet stream state, 3"
ASSUMED_FPS = 25  # of a source without a rate


@dataclass(frozen=True, slots=True)
class Position:
    """The last frame that was seen."""

    index: int
    time: float  # seconds


def save_stream(path: str | Path, stream: Stream, position: Position) -> None:
    """Write everything that the frame after `position` depends on, atomically.

    Raises OutputError if it cannot be written.
    """
    content = {
        "kind": KIND,
        "weights": stream.runtime.fingerprint(),
        "options": _options(stream),
        "index": position.index,
        "time": position.time,
        "stream": stream.state_dict(),
    }
    _write(Path(path), content)


def load_stream(path: str | Path, stream: Stream) -> Position:
    """Put the stream where the saved one was; the last frame that it had seen.

    Raises WeightsError: not such a file, damaged, or made with other weights or options.
    """
    content = _read(Path(path))
    if content["weights"] != stream.runtime.fingerprint():
        raise WeightsError(f"{path}: the state of other weights; use those that it was made with")
    if content["options"] != _options(stream):
        raise WeightsError(
            f"{path}: made with {content['options']}; this run has {_options(stream)}; "
            "use the same options"
        )
    stream.load_state_dict(content["stream"])
    return Position(content["index"], content["time"])


def continued(
    frames: Iterable[Frame], position: Position, *, fps: Fraction | None
) -> Iterator[Frame]:
    """The frames, with index and time counted on from `position` if they begin at or before it.

    So the next file of a recording, which begins at 0, goes on where the last one ended, and a
    later part of the same file stays as it is. The two lie 1 / fps seconds apart.
    """
    index = time = None
    for frame in frames:
        if index is None or time is None:
            again = frame.index <= position.index
            index = position.index + 1 - frame.index if again else 0
            time = position.time + float(1 / (fps or ASSUMED_FPS)) - frame.time if again else 0.0
        yield replace(frame, index=frame.index + index, time=frame.time + time)


def _options(stream: Stream) -> dict[str, str]:
    return {
        "tracker": type(stream.tracker).__name__,
        "scene cuts": type(stream.cuts).__name__,
        "min_score": str(stream.min_score),
        "key frames": "all"
        if stream.keys is None
        else f"{stream.keys.every}, {stream.keys.lost:g}",
    }


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """A numpy .npz: the arrays of the tree, and the tree itself as JSON in which they are numbered.

    A crash leaves the old file or the new one, never a part.
    """
    arrays: list[np.ndarray] = []
    tree = _without_arrays(content, arrays)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            text = np.frombuffer(json.dumps(tree).encode(), np.uint8)
            np.savez(file, tree=text, **{f"a{k}": array for k, array in enumerate(arrays)})
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from None


def _read(path: Path) -> dict[str, Any]:
    """What `_write` wrote. Never runs code from the file; the file's own checksums are compared."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise WeightsError(
            f"{path}: not the state of a stream, or incomplete; infer.py --save-state makes them"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            content = _with_arrays(json.loads(file["tree"].tobytes()), file)
        if content["kind"] == KIND:
            return content
    except (KeyError, TypeError):  # a file of another kind
        pass
    except (EOFError, OSError, RuntimeError, ValueError, zipfile.BadZipFile):
        raise WeightsError(f"{path}: is damaged; begin without --load-state") from None
    raise WeightsError(f"{path}: not the state of a stream; infer.py --save-state makes them")


def _without_arrays(value: Any, arrays: list[np.ndarray]) -> Any:
    """The tree with {"array": number} for each array, which joins `arrays`."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, Mapping):
        return {key: _without_arrays(each, arrays) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(each, arrays) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def _with_arrays(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"array"}:
            return arrays[f"a{value['array']}"]
        return {key: _with_arrays(each, arrays) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_arrays(each, arrays) for each in value]
    return value
