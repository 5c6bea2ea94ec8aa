"""Save and load the state of a stream, to continue a recording in several files as one video."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from rnndet.errors import WeightsError
from rnndet.inference.stream import NullPart, Stream
from rnndet.messages import differences, first_of
from rnndet.structures import DEFAULT_FPS, Frame
from rnndet.system.files import atomic_file
from rnndet.tracking.base import changed_options

KIND = "rnndet stream state, 3"


@dataclass(frozen=True, slots=True)
class Position:
    """Index and time of the last frame of a stream."""

    index: int
    time: float  # seconds


def save_stream(path: str | Path, stream: Stream, position: Position) -> None:
    """Write all state that the frame after `position` depends on, atomically.

    Raises OutputError.
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
    """Load a saved state into a stream, and return its last frame.

    Raises WeightsError: no such file, damaged, or saved with other weights or options.
    """
    content = _read(Path(path))
    if content["weights"] != stream.runtime.fingerprint():
        raise WeightsError(f"{path}: the state of other weights; use those it was saved with")
    if content["options"] != _options(stream):
        changed = differences(*map(_in_words, (content["options"], _options(stream))))
        raise WeightsError(
            f"{path}: saved with other options: {first_of(changed)}; use the same options"
        )
    stream.load_state_dict(content["stream"])
    return Position(content["index"], content["time"])


def continued(
    frames: Iterable[Frame], position: Position, *, fps: Fraction | None
) -> Iterator[Frame]:
    """Yield the frames; if they begin at or before `position`, index and time continue from it.

    So the next file of a recording, which begins at 0, continues where the last one ended, and a
    later part of the same file is unchanged. The two files lie 1 / fps seconds apart.

    >>> frame = Frame(np.zeros((8, 8, 3), np.uint8), index=0, time=0.0)
    >>> (moved,) = continued([frame], Position(9, 0.9), fps=Fraction(10))
    >>> moved.index, moved.time
    (10, 1.0)
    """
    shift = None
    for frame in frames:
        if shift is None:
            shift = _shift(frame, position, fps)
        yield replace(frame, index=frame.index + shift.index, time=frame.time + shift.time)


def _shift(first: Frame, position: Position, fps: Fraction | None) -> Position:
    if first.index > position.index:
        return Position(0, 0.0)
    time = position.time + float(1 / (fps or DEFAULT_FPS)) - first.time
    return Position(position.index + 1 - first.index, time)


def _options(stream: Stream) -> dict[str, str]:
    keys = stream.keys
    options = {
        "tracker": _kind(stream.tracker),
        "scene cuts": _kind(stream.cuts),
        "min_score": _score_text(stream.min_score),
        "key frames": "all" if isinstance(keys, NullPart) else f"{keys.every}, {keys.lost:g}",
    }
    if stream.nms is not None:  # left out otherwise, as in files of older versions
        options["nms"] = str(stream.nms)
    if stream.classes is not None:
        options["classes"] = ", ".join(stream.classes)
    if stream.regions is not None:
        options["regions"] = json.dumps(stream.regions.to_dict())
    if stream.size is not None:
        options["size"] = str(stream.size)
    if not isinstance(stream.track_classes, NullPart):
        options["track classes"] = "on"
    if changed := changed_options(stream.tracker):
        options["tracker options"] = ", ".join(f"{key} = {v}" for key, v in changed.items())
    return options


def _score_text(min_score: float | Mapping[str, float]) -> str:
    if isinstance(min_score, Mapping):
        return ", ".join(f"{name} {min_score[name]}" for name in sorted(min_score))
    return str(min_score)


def _kind(part: object) -> str:
    """Return the name of a part's class; NoneType, as saved files have it, if it is left out."""
    return "NoneType" if isinstance(part, NullPart) else type(part).__name__


def _in_words(options: Mapping[str, str]) -> dict[str, str]:
    return {key: "none" if value == "NoneType" else value for key, value in options.items()}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a numpy .npz: the arrays of the tree, and the tree as JSON that numbers the arrays."""
    arrays: list[np.ndarray] = []
    tree = _without_arrays(content, arrays)
    text = np.frombuffer(json.dumps(tree).encode(), np.uint8)
    with atomic_file(path, durable=True) as part, part.open("wb") as file:
        np.savez(file, tree=text, **{f"a{k}": array for k, array in enumerate(arrays)})


def _read(path: Path) -> dict[str, Any]:
    """Read a file of `_write`; verifies its checksums and never runs code from it."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise WeightsError(f"{path}: no stream state, or incomplete; create one with `save_state`")
    try:
        with np.load(path, allow_pickle=False) as file:
            content = _with_arrays(json.loads(file["tree"].tobytes()), file)
        if content["kind"] == KIND:
            return content
    except (KeyError, TypeError):  # a file of another kind
        pass
    except (EOFError, OSError, RuntimeError, ValueError, zipfile.BadZipFile):
        raise WeightsError(f"{path}: is damaged; run without `load_state`") from None
    raise WeightsError(f"{path}: no stream state; create one with `save_state`")


def _without_arrays(value: Any, arrays: list[np.ndarray]) -> Any:
    """Return the tree with {"array": number} for each array, which is appended to `arrays`."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, Mapping):
        return {key: _without_arrays(item, arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(item, arrays) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _with_arrays(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"array"}:
            return arrays[f"a{value['array']}"]
        return {key: _with_arrays(item, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_arrays(item, arrays) for item in value]
    return value
