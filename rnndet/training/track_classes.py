"""Fit the read-out that names tracks by their shape and motion, from labelled videos with ids."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from rnndet.data.frames import iterate
from rnndet.data.records import FrameRecord, VideoRecord
from rnndet.errors import RnndetError
from rnndet.specs import TrackClassSpec
from rnndet.tracking.assign import Array
from rnndet.tracking.shape_motion import FEATURES, ShapeMotion
from rnndet.tracking.track_classes import MAX_AGE, ReadOut, standardised
from rnndet.video.patches import grey_patches

MIN_AGE = 0.1  # seconds of a track before a sample of it: the read-out is used from early on
EVERY = 5  # frames between samples of a track, which are much alike
COPIES = 2  # of each track, with other errors of its boxes
# Errors of boxes as a detector makes them, in units of the longer side: slow ones that wander
# within WANDER seconds, and fast ones; of the size, also one for the whole track. The slow and fast
# errors of a track are all larger or smaller by one factor, so that the read-out does not depend on
# how exact a detector's boxes are.
WANDER = 8 / 30
SLOW = np.array([0.06, 0.06, 0.08])  # x, y, log size
FAST = np.array([0.03, 0.03, 0.04])
SIZE_ERROR = 0.2  # log size
FACTORS = (0.2, 1.6)
L2 = 5e-3  # of the weights, for features of unit variance; chosen by cross-validation
MIN_STD = 1e-3  # added to the standard deviations
FOLDS = 5
ROUNDS = 150  # of the optimiser, which converges in fewer


@dataclass(frozen=True, slots=True)
class Samples:
    """Statistics of labelled tracks at some frames, n rows."""

    features: NDArray[np.float32]  # (n, F)
    labels: NDArray[np.int64]  # (n,)
    tracks: NDArray[np.int64]  # (n,) a number for each track of each copy
    groups: NDArray[np.str_]  # (n,) scene group

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, keep: NDArray[np.bool_]) -> Samples:
        """Select by mask (n,)."""
        return Samples(self.features[keep], self.labels[keep], self.tracks[keep], self.groups[keep])


@dataclass(frozen=True, slots=True)
class Figures:
    """How well a read-out names samples; each class counts the same."""

    log_loss: float  # nats; log(K) by chance
    accuracy: float  # 1 / K by chance
    by_class: Mapping[str, float]  # accuracy, of the classes that there are
    named: float  # share of the tracks with the right class by the mean of log probabilities


def collect_samples(
    videos: Sequence[VideoRecord],
    *,
    cache: Path | None = None,
    copies: int = COPIES,
    seed: int = 0,
    progress: Callable[[], object] = lambda: None,
) -> Samples:
    """Run the statistics of inference along the labelled tracks, with disturbed boxes.

    Reads each frame once and keeps every EVERY-th sample of a track, from MIN_AGE on. Ignored boxes
    do not count. progress: called after each frame. Raises RnndetError for labels without ids.
    """
    parts: list[_Rows] = []
    first_track = 0
    for video in videos:
        run = _VideoTracks(video, copies=copies, seed=seed, first_track=first_track)
        records = {record.index: record for record in video.frames}
        for frame in iterate(video, cache=cache):
            run.add(frame.image, records[frame.index], time=frame.time)
            progress()
        parts.append(run.rows)
        first_track = run.next_track
    features = [row for part in parts for row in part.features]
    groups = [video.group or video.name for video in videos]
    return Samples(
        np.array(features, np.float32).reshape(-1, len(FEATURES)),
        np.array([label for part in parts for label in part.labels], np.int64),
        np.array([track for part in parts for track in part.tracks], np.int64),
        np.repeat(np.array(groups, np.str_), [len(part.labels) for part in parts]),
    )


@dataclass(slots=True)
class _Rows:
    features: list[Array] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    tracks: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Track:
    """One copy of a labelled track."""

    number: int  # of the set
    generator: np.random.Generator
    size_error: float
    factor: float  # of the slow and fast errors
    wandering: Array  # (3,) in units of SLOW
    last: float  # seconds, of its newest box
    count: int = 0  # boxes so far


class _VideoTracks:
    """The labelled tracks of one video."""

    def __init__(self, video: VideoRecord, *, copies: int, seed: int, first_track: int) -> None:
        self.rows, self.next_track, self._first_track = _Rows(), first_track, first_track
        self._video, self._copies, self._seed = video, copies, seed
        self._tracks: dict[tuple[int, int], _Track] = {}  # by id and copy
        self._shapes = ShapeMotion()

    def add(self, image: np.ndarray, record: FrameRecord, *, time: float) -> None:
        """Add a frame."""
        target = record.target
        if target is None or not len(target):
            return
        if target.ids is None:
            raise RnndetError(
                f"{self._video.name}: its labels have no ids of objects; tracks need them"
            )
        is_used = (~target.ignore & (target.labels >= 0)).numpy()
        boxes = target.boxes.numpy()[is_used].astype(np.float64)
        ids, labels = target.ids.numpy()[is_used].tolist(), target.labels.numpy()[is_used].tolist()
        if not len(boxes):
            return
        keys = [(track_id, copy) for copy in range(self._copies) for track_id in ids]
        tracks = [self._track(key, time) for key in keys]
        errors = np.array([_next_error(track, time) for track in tracks])
        boxes = disturbed(np.tile(boxes, (self._copies, 1)), errors)
        numbers = np.array([track.number for track in tracks])
        patches, sides = grey_patches(image, boxes)
        features = self._shapes.update(
            numbers, patches, sides, (boxes[:, :2] + boxes[:, 2:]) / 2, time=time
        )
        ages = self._shapes.ages(numbers)
        for row, track in enumerate(tracks):
            if ages[row] >= MIN_AGE and track.count % EVERY == 0:
                self.rows.features.append(features[row].astype(np.float32))
                self.rows.labels.append(labels[row % len(labels)])
                self.rows.tracks.append(track.number)
            track.count += 1
        self._forget(time)

    def _track(self, key: tuple[int, int], time: float) -> _Track:
        """The track of an id and a copy; a new one after a gap, as in inference."""
        if key not in self._tracks:
            name = zlib.crc32(self._video.name.encode("utf-8", "surrogatepass"))
            number = self.next_track - self._first_track  # of the video: a track may begin again
            generator = np.random.default_rng((self._seed, name, number))
            self._tracks[key] = _Track(
                self.next_track, generator, generator.normal() * SIZE_ERROR,
                generator.uniform(*FACTORS), generator.normal(size=3), last=time,
            )  # fmt: skip
            self.next_track += 1
        return self._tracks[key]

    def _forget(self, time: float) -> None:
        """End the tracks that have had no box for too long."""
        self._tracks = {k: t for k, t in self._tracks.items() if time - t.last < MAX_AGE}
        self._shapes.keep(np.array([track.number for track in self._tracks.values()], np.int64))


def _next_error(track: _Track, time: float) -> Array:
    """The error of the next box of a track, (3,): x, y in longer sides, and log size."""
    kept = math.exp(-(time - track.last) / WANDER)
    track.wandering = kept * track.wandering + math.sqrt(1 - kept**2) * track.generator.normal(
        size=3
    )
    track.last = time
    error = track.factor * (track.wandering * SLOW + track.generator.normal(size=3) * FAST)
    error[2] += track.size_error
    return error


def disturbed(boxes: Array, errors: Array) -> Array:
    """Move boxes (D, 4) by errors (D, 3): x and y in longer sides, and the log of the size."""
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    centre = centre + errors[:, :2] * size.max(1, keepdims=True)
    half = size * np.exp(errors[:, 2:]) / 2
    return np.concatenate([centre - half, centre + half], 1)


def fit_read_out(samples: Samples, classes: tuple[str, ...], *, l2: float = L2) -> TrackClassSpec:
    """Fit a multinomial logistic regression on the standardised features, by LBFGS.

    Raises RnndetError unless every class has samples.
    """
    missing = [name for c, name in enumerate(classes) if not (samples.labels == c).any()]
    if missing:
        raise RnndetError(
            f"no track of {', '.join(missing)} lasts {MIN_AGE:g} s; every class needs tracks"
        )
    features = samples.features.astype(np.float64)
    mean, std = features.mean(0), features.std(0) + MIN_STD
    inputs = torch.from_numpy(standardised(features, mean, std))
    labels, shares = torch.from_numpy(samples.labels), torch.from_numpy(sample_weights(samples))
    weight = torch.zeros(len(mean), len(classes), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(classes), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=ROUNDS, history_size=10)

    def loss_of() -> Any:
        optimizer.zero_grad()
        losses = functional.cross_entropy(inputs @ weight + bias, labels, reduction="none")
        loss = (losses * shares).sum() + l2 * (weight**2).sum()
        loss.backward()
        return loss

    optimizer.step(loss_of)
    rows = weight.detach().tolist()
    return TrackClassSpec(
        classes, FEATURES, tuple(mean.tolist()), tuple(std.tolist()), tuple(map(tuple, rows)),
        tuple(bias.detach().tolist()),
    )  # fmt: skip


def sample_weights(samples: Samples) -> Array:
    """The weight of each sample, (n,), of sum 1.

    Classes count equally, the scene groups of a class by the square root of their tracks, and the
    tracks of a group equally.
    """
    lengths = Counter(samples.tracks.tolist())
    weights = np.array([1 / lengths[track] for track in samples.tracks.tolist()])
    for label in np.unique(samples.labels):
        is_label = samples.labels == label
        for group in np.unique(samples.groups[is_label]):
            rows = is_label & (samples.groups == group)
            weights[rows] /= math.sqrt(weights[rows].sum())
        weights[is_label] /= weights[is_label].sum()
    return weights / weights.sum()


def measure_read_out(spec: TrackClassSpec, samples: Samples) -> Figures:
    """How well a read-out names samples that it was not fitted to."""
    return _figures(ReadOut(spec).probabilities(samples.features), samples, spec.classes)


def cross_validated(
    samples: Samples, classes: tuple[str, ...], *, l2: float = L2
) -> Figures | None:
    """Figures of read-outs on scene groups that they were not fitted to, in FOLDS folds.

    None where all samples of a class are in one fold, as with few groups.
    """
    folds = fold_of_groups(samples)
    rows = np.array([folds[group] for group in samples.groups.tolist()])
    probabilities = np.zeros((len(samples), len(classes)))
    for fold in np.unique(rows):
        if len(np.unique(samples.labels[rows != fold])) < len(classes):
            return None
        spec = fit_read_out(samples[rows != fold], classes, l2=l2)
        probabilities[rows == fold] = ReadOut(spec).probabilities(samples[rows == fold].features)
    return _figures(probabilities, samples, classes)


def fold_of_groups(samples: Samples) -> dict[str, int]:
    """The fold of each scene group: the largest first, each where its class is rarest so far."""
    counts = Counter(zip(samples.groups.tolist(), samples.labels.tolist(), strict=True))
    sizes = Counter(samples.groups.tolist())
    filled = np.zeros((FOLDS, int(samples.labels.max(initial=0)) + 1))
    folds: dict[str, int] = {}
    for group, _ in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        own = np.array([counts[group, label] for label in range(filled.shape[1])])
        main = int(own.argmax())
        fold = min(range(FOLDS), key=lambda f: (filled[f, main], filled[f].sum()))
        filled[fold] += own
        folds[group] = fold
    return folds


def _figures(probabilities: Array, samples: Samples, classes: tuple[str, ...]) -> Figures:
    weights, labels = sample_weights(samples), samples.labels
    logs = np.log(probabilities + 1e-9)
    is_right = probabilities.argmax(1) == labels
    by_class = {
        name: float((is_right * weights)[labels == c].sum() / weights[labels == c].sum())
        for c, name in enumerate(classes)
        if (labels == c).any()
    }
    tracks = np.unique(samples.tracks)
    named = [
        logs[samples.tracks == track].mean(0).argmax() == labels[samples.tracks == track][0]
        for track in tracks
    ]
    return Figures(
        log_loss=float(-(logs[np.arange(len(labels)), labels] * weights).sum()),
        accuracy=float((is_right * weights).sum()),
        by_class=by_class,
        named=float(np.mean(named)),
    )
