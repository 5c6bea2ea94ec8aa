"""What a model found and what was there, frame by frame: the one input of every metric.

Kept as numpy arrays, so that a run is evaluated once and scored as often as one likes; `save` and
`load_predictions` keep it in a file. Boxes are x1 y1 x2 y2 in pixels, x2 and y2 exclusive.
"""

import contextlib
import json
import math
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rnndet.errors import InputError, OutputError
from rnndet.structures import Detections, Target

VERSION = 2  # of the file's layout


@dataclass(frozen=True, slots=True)
class EvaluatedFrame:
    """One frame: D detections and G truths."""

    index: int  # frame number in its video
    boxes: np.ndarray  # (D, 4) float32
    scores: np.ndarray  # (D,) float32, descending
    labels: np.ndarray  # (D,) int32
    ids: np.ndarray  # (D,) int64, track of each detection; 0 = no track
    target_boxes: np.ndarray  # (G, 4) float32
    target_labels: np.ndarray  # (G,) int32; -1 = ignored region of no class
    target_ids: np.ndarray  # (G,) int64, unique within the video; -1 = unknown
    target_ignore: np.ndarray  # (G,) bool
    labelled: bool = True  # False: nothing is known of what is there
    corrupted: bool = False  # the image was made hard on purpose
    seconds: float = math.nan  # what the model took for it; NaN = not measured


@dataclass(frozen=True, slots=True)
class EvaluatedVideo:
    """The frames of one video in temporal order."""

    name: str
    fps: float | None
    size_hw: tuple[int, int]
    frames: tuple[EvaluatedFrame, ...]

    def labelled(self) -> "EvaluatedVideo":
        """Only the labelled frames: what metrics with ground truth look at."""
        return replace(self, frames=tuple(f for f in self.frames if f.labelled))

    def only(self, keep: Callable[[EvaluatedFrame], bool]) -> "EvaluatedVideo":
        """Only the frames for which `keep` is true."""
        return replace(self, frames=tuple(f for f in self.frames if keep(f)))


class Predictions:
    """The scored videos of one run; every video is added once and whole."""

    def __init__(self, classes: Sequence[str], *, about: dict[str, Any] | None = None) -> None:
        self.classes = tuple(classes)
        self.about = dict(about or {})  # how the run was made; plain data
        self._videos: dict[str, EvaluatedVideo] = {}

    def __len__(self) -> int:
        """Videos so far."""
        return len(self._videos)

    @property
    def videos(self) -> list[EvaluatedVideo]:
        """In the order of their names, so that the order of adding changes nothing."""
        return [self._videos[name] for name in sorted(self._videos)]

    @property
    def frame_count(self) -> int:
        return sum(len(video.frames) for video in self._videos.values())

    def add(self, video: EvaluatedVideo) -> None:
        """Add a video that is not in yet."""
        assert video.name not in self._videos, f"{video.name} was scored already"
        self._videos[video.name] = video

    def merge(self, other: "Predictions") -> None:
        """Add the videos of another process; no video is in both."""
        assert self.classes == other.classes, (self.classes, other.classes)
        for video in other.videos:
            self.add(video)

    def map(self, change: Callable[[EvaluatedVideo], EvaluatedVideo]) -> "Predictions":
        """The same run with every video changed, for example to only some of its frames."""
        changed = Predictions(self.classes, about=self.about)
        for video in self.videos:
            changed.add(change(video))
        return changed


def evaluated_frame(
    index: int,
    found: Detections,
    target: Target | None,
    *,
    corrupted: bool = False,
    seconds: float = math.nan,
) -> EvaluatedFrame:
    """Bring one frame into the form that metrics read; `truth` None = not labelled."""
    known = Target.empty() if target is None else target
    ids = np.zeros(len(found), np.int64) if found.ids is None else found.ids
    target_ids = np.full(len(known), -1) if known.ids is None else known.ids.cpu().numpy()
    return EvaluatedFrame(
        index=index,
        boxes=found.boxes.astype(np.float32).reshape(-1, 4),
        scores=found.scores.astype(np.float32),
        labels=found.labels.astype(np.int32),
        ids=ids.astype(np.int64),
        target_boxes=known.boxes.cpu().numpy().astype(np.float32).reshape(-1, 4),
        target_labels=known.labels.cpu().numpy().astype(np.int32),
        target_ids=target_ids.astype(np.int64),
        target_ignore=known.ignore.cpu().numpy().astype(bool),
        labelled=target is not None,
        corrupted=corrupted,
        seconds=seconds,
    )


_FOUND = ("boxes", "scores", "labels", "ids")
_KNOWN = ("target_boxes", "target_labels", "target_ids", "target_ignore")


def save_predictions(path: str | Path, predictions: Predictions) -> None:
    """Write a compressed .npz, atomically. Raises OutputError."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    frames = [frame for video in predictions.videos for frame in video.frames]
    videos = [
        {"name": v.name, "fps": v.fps, "size_hw": list(v.size_hw), "frames": len(v.frames)}
        for v in predictions.videos
    ]
    head = {"version": VERSION, "classes": predictions.classes, "about": predictions.about}
    arrays = {
        "head": np.array(json.dumps(head | {"videos": videos})),
        "index": np.array([f.index for f in frames], np.int64),
        "labelled": np.array([f.labelled for f in frames], bool),
        "corrupted": np.array([f.corrupted for f in frames], bool),
        "seconds": np.array([f.seconds for f in frames], np.float64),
        "found": np.array([len(f.scores) for f in frames], np.int64),
        "known": np.array([len(f.target_labels) for f in frames], np.int64),
    }
    empty = evaluated_frame(0, Detections.empty(), None)  # gives shapes where there are no frames
    for name in (*_FOUND, *_KNOWN):
        arrays[name] = np.concatenate([getattr(f, name) for f in [empty, *frames]])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from None


def load_predictions(path: str | Path) -> Predictions:
    """Read what `save_predictions` wrote. Raises InputError."""
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        head = json.loads(str(arrays["head"]))
        if head["version"] != VERSION:
            raise InputError(f"{path}: made by another version; evaluate the model again")
        return _unpacked(head, arrays)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file of predictions") from None
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile):
        raise InputError(f"{path}: not a file of predictions, or damaged") from None


def _unpacked(head: dict[str, Any], arrays: dict[str, np.ndarray]) -> Predictions:
    found = np.cumsum([0, *arrays["found"]])
    known = np.cumsum([0, *arrays["known"]])
    frames = []
    for i, index in enumerate(arrays["index"].tolist()):
        parts = {n: arrays[n][found[i] : found[i + 1]] for n in _FOUND}
        parts |= {n: arrays[n][known[i] : known[i + 1]] for n in _KNOWN}
        flags = {n: bool(arrays[n][i]) for n in ("labelled", "corrupted")}
        frames.append(EvaluatedFrame(index, **parts, **flags, seconds=float(arrays["seconds"][i])))
    predictions = Predictions(head["classes"], about=head["about"])
    first = 0
    for video in head["videos"]:
        own = tuple(frames[first : first + video["frames"]])
        first += video["frames"]
        predictions.add(EvaluatedVideo(video["name"], video["fps"], tuple(video["size_hw"]), own))
    if first != len(frames) or len(arrays["scores"]) != found[-1]:
        raise ValueError("lengths disagree")
    return predictions
