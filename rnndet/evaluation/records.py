"""Predictions of a run next to the ground truth, as numpy arrays: the only input of the metrics.

A run is predicted once and can be evaluated many times; `save_predictions` and `load_predictions`
keep it in a file. Boxes are x1 y1 x2 y2 in pixels, x2 and y2 exclusive.
"""

import json
import math
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from rnndet.data.records import VideoRecord, VideoSet
from rnndet.errors import InputError, RnndetError
from rnndet.structures import Detections, Target, TrackingTarget
from rnndet.system.files import atomic_file

VERSION = 2  # of the file's layout


@dataclass(frozen=True, slots=True)
class EvaluatedFrame:
    """One frame: D detections and G targets."""

    index: int  # frame number in its video
    boxes: np.ndarray  # (D, 4) float32
    scores: np.ndarray  # (D,) float32, descending
    labels: np.ndarray  # (D,) int32
    ids: np.ndarray  # (D,) int64, track of each detection; 0 = no track
    target_boxes: np.ndarray  # (G, 4) float32
    target_labels: np.ndarray  # (G,) int32; -1 = ignored region of no class
    target_ids: np.ndarray  # (G,) int64, unique within the video; -1 = unknown
    target_ignore: np.ndarray  # (G,) bool
    labelled: bool = True  # False: the ground truth is unknown
    corrupted: bool = False  # the image was corrupted on purpose
    seconds: float = math.nan  # time of the model for this frame; NaN = not measured
    # the targets of tracking metrics; None: the boxes above, with their `default_role`
    tracking: TrackingTarget | None = None


@dataclass(frozen=True, slots=True)
class EvaluatedVideo:
    """The frames of one video in temporal order."""

    name: str
    fps: float | None
    size_hw: tuple[int, int]
    frames: tuple[EvaluatedFrame, ...]

    def labelled(self) -> "EvaluatedVideo":
        """The video with its labelled frames only, as metrics with ground truth use it."""
        return self.only(lambda frame: frame.labelled)

    def only(self, keep: Callable[[EvaluatedFrame], bool]) -> "EvaluatedVideo":
        """The video with only the frames for which `keep` is true."""
        return replace(self, frames=tuple(frame for frame in self.frames if keep(frame)))


class Predictions:
    """The evaluated videos of one run; each video is added once and complete.

    >>> run = Predictions(("car", "bird"), about={"weights": "aerial"})
    >>> run.add(EvaluatedVideo("field_01", 25.0, (720, 1280), frames=()))
    >>> len(run), run.frame_count
    (1, 0)
    """

    def __init__(self, classes: Sequence[str], *, about: dict[str, Any] | None = None) -> None:
        self.classes = tuple(classes)
        self.about = dict(about or {})  # how the run was made; plain data
        self._videos: dict[str, EvaluatedVideo] = {}

    def __len__(self) -> int:
        """The number of videos."""
        return len(self._videos)

    @property
    def videos(self) -> list[EvaluatedVideo]:
        """The videos, sorted by name, so that the order of `add` has no effect."""
        return [self._videos[name] for name in sorted(self._videos)]

    @property
    def frame_count(self) -> int:
        return sum(len(video.frames) for video in self._videos.values())

    def add(self, video: EvaluatedVideo) -> None:
        """Add a video that is not there yet."""
        assert video.name not in self._videos, f"{video.name} was added already"
        self._videos[video.name] = video

    def merge(self, other: "Predictions") -> None:
        """Add the videos of another process; no video is in both."""
        assert self.classes == other.classes, (self.classes, other.classes)
        for video in other.videos:
            self.add(video)

    def map(
        self,
        change: Callable[[EvaluatedVideo], EvaluatedVideo],
        *,
        classes: Sequence[str] | None = None,
    ) -> "Predictions":
        """The same run with every video changed, for example reduced to some of its frames.

        classes: those of the changed videos; None: unchanged.
        """
        changed = Predictions(self.classes if classes is None else classes, about=self.about)
        for video in self.videos:
            changed.add(change(video))
        return changed


class FrameCollector:
    """Collects the frames of one video, in any order.

    corrupted: indices of the corrupted frames.
    """

    def __init__(self, video: VideoRecord, *, corrupted: Collection[int] = ()) -> None:
        self._record, self._corrupted = video, corrupted
        self._targets = {record.index: record.target for record in video.frames}
        self._frames: list[EvaluatedFrame] = []

    def add(self, index: int, detections: Detections, *, seconds: float = math.nan) -> None:
        """Add a frame; a frame that the record does not list is unlabelled.

        seconds: time of the model for this frame; NaN if it was not measured.
        """
        self._frames.append(
            evaluated_frame(
                index,
                detections,
                self._targets.get(index),
                corrupted=index in self._corrupted,
                seconds=seconds,
            )
        )

    def video(self) -> EvaluatedVideo:
        """The frames so far, in temporal order."""
        frames = sorted(self._frames, key=lambda frame: frame.index)
        size_hw = (self._record.height, self._record.width)
        return EvaluatedVideo(self._record.name, self._record.fps, size_hw, tuple(frames))


def evaluated_frame(
    index: int,
    detections: Detections,
    target: Target | None,
    *,
    corrupted: bool = False,
    seconds: float = math.nan,
) -> EvaluatedFrame:
    """Convert detections and ground truth of one frame; `target` None = not labelled.

    >>> evaluated_frame(3, Detections.empty(), None).labelled
    False
    """
    known = Target.empty() if target is None else target
    ids = np.zeros(len(detections), np.int64) if detections.ids is None else detections.ids
    target_ids = np.full(len(known), -1) if known.ids is None else known.ids.cpu().numpy()
    return EvaluatedFrame(
        index=index,
        boxes=detections.boxes.astype(np.float32).reshape(-1, 4),
        scores=detections.scores.astype(np.float32),
        labels=detections.labels.astype(np.int32),
        ids=ids.astype(np.int64),
        target_boxes=known.boxes.cpu().numpy().astype(np.float32).reshape(-1, 4),
        target_labels=known.labels.cpu().numpy().astype(np.int32),
        target_ids=target_ids.astype(np.int64),
        target_ignore=known.ignore.cpu().numpy().astype(bool),
        labelled=target is not None,
        corrupted=corrupted,
        seconds=seconds,
        tracking=known.tracking,
    )


def with_targets(run: Predictions, data: VideoSet) -> Predictions:
    """The same detections with the labels of another data set, matched by video and frame number.

    The data has the classes of the run in the same order (`videos.match_classes`). Frames that the
    data does not have become unlabelled. Raises RnndetError for a video that it does not have.
    """
    records = {record.name: record for record in data.videos}

    def relabelled(video: EvaluatedVideo) -> EvaluatedVideo:
        if video.name not in records:
            raise RnndetError(f"the labels have no video {video.name}, which the predictions have")
        targets = {record.index: record.target for record in records[video.name].frames}
        frames = (_with_target(frame, targets.get(frame.index)) for frame in video.frames)
        return replace(video, frames=tuple(frames))

    changed = run.map(relabelled)
    changed.about.pop("labels", None)  # those of a teacher
    return changed


def _with_target(frame: EvaluatedFrame, target: Target | None) -> EvaluatedFrame:
    new = evaluated_frame(frame.index, Detections.empty(), target)
    names = (
        "target_boxes", "target_labels", "target_ids", "target_ignore", "labelled", "tracking",
    )  # fmt: skip
    return replace(frame, **{name: getattr(new, name) for name in names})


# Fields of a frame that are arrays, with their names in a file.
_DETECTION_KEYS = {name: name for name in ("boxes", "scores", "labels", "ids")}
_TARGET_KEYS = {f"target_{name}": f"truth_{name}" for name in ("boxes", "labels", "ids", "ignore")}
_TRACKING_NAMES = ("boxes", "labels", "ids", "roles", "rows")  # of TrackingTarget


def save_predictions(path: str | Path, predictions: Predictions) -> None:
    """Write a compressed .npz, atomically. Raises OutputError."""
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
    empty = evaluated_frame(0, Detections.empty(), None)  # defines shapes without frames
    for name, key in (_DETECTION_KEYS | _TARGET_KEYS).items():
        arrays[key] = np.concatenate([getattr(f, name) for f in [empty, *frames]])
    arrays |= _tracking_arrays([f.tracking for f in frames])
    with atomic_file(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _tracking_arrays(targets: Sequence[TrackingTarget | None]) -> dict[str, np.ndarray]:
    """The targets of all frames as arrays of a file; nothing if all are None."""
    known = [target for target in targets if target is not None]
    if not known:
        return {}
    counts = [-1 if target is None else len(target.ids) for target in targets]
    arrays = {
        "tracking_known": np.array(counts, np.int64),  # -1: None
        "tracking_min_height": np.array([target.min_height for target in known]),
    }
    for name in _TRACKING_NAMES:
        arrays[f"tracking_{name}"] = np.concatenate([getattr(target, name) for target in known])
    return arrays


def _tracking_targets(
    arrays: dict[str, np.ndarray], frames: int
) -> Iterator[TrackingTarget | None]:
    """The opposite of `_tracking_arrays`; files of earlier versions have none."""
    if "tracking_known" not in arrays:
        yield from repeat(None, frames)
        return
    heights, first = iter(arrays["tracking_min_height"].tolist()), 0
    for count in arrays["tracking_known"].tolist():
        if count < 0:
            yield None
            continue
        end = first + count
        fields = {name: arrays[f"tracking_{name}"][first:end] for name in _TRACKING_NAMES}
        yield TrackingTarget(**fields, min_height=next(heights))
        first = end


def load_predictions(path: str | Path) -> Predictions:
    """Read a file of `save_predictions`. Raises InputError."""
    path = Path(path)
    if path.exists() and not path.is_file():  # numpy would wait for the writer of a pipe
        inside = sorted(str(file) for file in path.glob("*.npz"))
        hint = f"; give one in it: {', '.join(inside)}" if inside else ""
        raise InputError(f"{path}: not a file of predictions{hint}")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        head = json.loads(str(arrays["head"]))
        if head["version"] != VERSION:
            raise InputError(f"{path}: written by another version; evaluate the model again")
        return _unpacked(head, arrays)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file of predictions") from None
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile):
        raise InputError(f"{path}: not a file of predictions, or damaged") from None


def _unpacked(head: dict[str, Any], arrays: dict[str, np.ndarray]) -> Predictions:
    detections = np.cumsum([0, *arrays["found"]])
    targets = np.cumsum([0, *arrays["known"]])
    frames = []
    tracking = _tracking_targets(arrays, len(arrays["index"]))
    for (i, index), tracked in zip(enumerate(arrays["index"].tolist()), tracking, strict=True):
        parts = {
            name: arrays[key][bounds[i] : bounds[i + 1]]
            for keys, bounds in ((_DETECTION_KEYS, detections), (_TARGET_KEYS, targets))
            for name, key in keys.items()
        }
        flags = {name: bool(arrays[name][i]) for name in ("labelled", "corrupted")}
        seconds = float(arrays["seconds"][i])
        frames.append(EvaluatedFrame(index, **parts, **flags, seconds=seconds, tracking=tracked))
    predictions = Predictions(head["classes"], about=head["about"])
    first = 0
    for video in head["videos"]:
        end = first + video["frames"]
        size_hw = tuple(video["size_hw"])
        predictions.add(
            EvaluatedVideo(video["name"], video["fps"], size_hw, tuple(frames[first:end]))
        )
        first = end
    if first != len(frames) or len(arrays["scores"]) != detections[-1]:
        raise ValueError("lengths disagree")
    return predictions
