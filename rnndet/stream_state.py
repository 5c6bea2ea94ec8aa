"""The state of a stream on disk, so that a recording in several files goes on as one video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from rnndet.checkpoint import content_sha256, read_saved, save_checkpoint
from rnndet.errors import WeightsError
from rnndet.stream import Stream
from rnndet.structures import Frame

KIND = "rnndet stream state, 1"
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
        "weights": content_sha256(stream.model.state_dict()),
        "options": _options(stream),
        "index": position.index,
        "time": position.time,
        "stream": stream.state_dict(),
    }
    save_checkpoint(path, content)


def load_stream(path: str | Path, stream: Stream) -> Position:
    """Put the stream where the saved one was; the last frame that it had seen.

    Raises WeightsError: not such a file, damaged, or made with other weights or options.
    """
    content = read_saved(path)
    if content.get("kind") != KIND:
        raise WeightsError(f"{path}: not the state of a stream; infer.py --save-state makes them")
    if content["weights"] != content_sha256(stream.model.state_dict()):
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
    }
