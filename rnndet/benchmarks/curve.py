"""Measure accuracy against time over models, input sizes and key frames, and their Pareto front.

Accuracy is that of `evaluate_set`: every labelled frame counts, and between key frames boxes are
propagated as in inference. The time of a frame is that of the whole `Stream.step` with tracker and
scene cuts, on frames that were decoded before. All points take turns, round by round, so that
they see the same background load on a shared machine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

from rnndet.benchmarks.inference import WARM_UP, cycle_means
from rnndet.data.frames import iterate
from rnndet.data.records import VideoSet
from rnndet.errors import InputError, OutputError
from rnndet.evaluation.agreement import Teacher
from rnndet.evaluation.class_map import ClassMap, select_classes
from rnndet.evaluation.predict import evaluate_set
from rnndet.evaluation.score import ALL_FRAMES, build_metrics, score, write_report
from rnndet.inference.run import make_stream
from rnndet.inference.runtimes import Runtime
from rnndet.messages import counted, differences, first_of
from rnndet.structures import Frame
from rnndet.video.key_frames import choose_key_frames

CLOCKS = {  # of the times of a point
    "cpu": "processor time of all threads",
    "wall": "wall time",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """What a user chooses: a model, its input size, and how often it runs."""

    model: str
    runtime: str
    size: int  # longer edge of the network's input, in pixels
    key_every: int

    def __str__(self) -> str:
        keys = "every frame" if self.key_every == 1 else f"key frames every {self.key_every}"
        return f"{self.model} ({self.runtime}) at {self.size}, {keys}"


@dataclass(slots=True)
class Point:
    """What is known about a choice so far."""

    choice: Choice
    ap50: dict[str, float] = field(default_factory=dict)  # by subset of the frames, 0 to 1
    ms: dict[str, list[float]] = field(default_factory=dict)  # of a frame by clock and round

    def time(self, clock: str) -> float:
        """Milliseconds of a frame: the median of the rounds."""
        return median(self.ms[clock])

    def rounds(self) -> int:
        """The number of rounds that were timed."""
        return min((len(self.ms.get(clock, ())) for clock in CLOCKS), default=0)

    def to_dict(self) -> dict[str, Any]:
        choice = self.choice
        return {
            "model": choice.model, "runtime": choice.runtime, "size": choice.size,
            "key_every": choice.key_every, "AP50": self.ap50, "ms": self.ms,
        }  # fmt: skip

    @staticmethod
    def from_dict(tree: Mapping[str, Any]) -> Point:
        choice = Choice(tree["model"], tree["runtime"], tree["size"], tree["key_every"])
        ms = {clock: [float(value) for value in tree["ms"].get(clock, ())] for clock in CLOCKS}
        return Point(choice, dict(tree["AP50"]), ms)


@dataclass(frozen=True, slots=True)
class Contender:
    """A model of the curve: its runtime, and the sha256 of its file."""

    runtime: Runtime
    sha256: str


class Curve:
    """The points of a curve and the file that keeps them, so that an interrupted run continues.

    protocol: what all points have in common; the file of another protocol is refused. weights:
    sha256 by model; points of a model that has changed since are dropped.
    """

    def __init__(
        self, path: Path, *, protocol: Mapping[str, Any], weights: Mapping[str, str]
    ) -> None:
        self.path, self.protocol, self.weights = path, dict(protocol), dict(weights)
        self.points: dict[Choice, Point] = {}
        self.dropped: tuple[str, ...] = ()  # models whose points were of other weights
        if path.exists():
            self._read()

    def _read(self) -> None:
        try:
            tree = json.loads(self.path.read_text(encoding="utf-8"))
            protocol, weights = tree["protocol"], tree["weights"]
            points = [Point.from_dict(entry) for entry in tree["points"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{self.path}: not a curve of rnndet benchmark; remove it") from None
        if protocol != self.protocol:
            changed = differences(protocol, self.protocol)
            raise OutputError(
                f"{self.path}: measured in another way: {first_of(changed)}; remove it, or use "
                "another `out`"
            )
        changed_models = {n for n in weights if self.weights.get(n, weights[n]) != weights[n]}
        self.dropped = tuple(sorted(changed_models))
        self.weights = {**weights, **self.weights}
        for point in points:
            if point.choice.model not in changed_models:
                self.points[point.choice] = point

    def save(self) -> None:
        """Write all points atomically."""
        tree = {
            "protocol": self.protocol,
            "weights": self.weights,
            "points": [point.to_dict() for point in self.points.values()],
        }
        write_report(self.path, tree)

    def measured(self) -> list[Point]:
        """The points with accuracy and time."""
        return [p for p in self.points.values() if p.ap50 and p.rounds()]

    def front(self, clock: str) -> list[Point]:
        """The Pareto front of the measured points, fastest first."""
        points = self.measured()
        return [
            points[row]
            for row in pareto_front([(p.time(clock), p.ap50[ALL_FRAMES]) for p in points])
        ]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The rows of (time, accuracy) that no other row beats in both, fastest first.

    A row with the same accuracy as a faster one is beaten; of equal rows the first is taken.

    >>> pareto_front([(2.0, 0.5), (1.0, 0.4), (3.0, 0.5), (2.5, 0.3), (4.0, 0.9)])
    [1, 0, 4]
    """
    front: list[int] = []
    best = -math.inf
    for row in sorted(range(len(points)), key=lambda row: (points[row][0], -points[row][1])):
        if points[row][1] > best:
            front.append(row)
            best = points[row][1]
    return front


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The data of a curve, and how it is evaluated; see `evaluate_set`."""

    data: VideoSet
    teacher: Teacher | None = None
    degrade: str | None = None
    degrade_seed: int = 0
    cache: Path | None = None
    class_map: ClassMap | None = None
    classes: tuple[str, ...] | None = None  # only these of the model's; None: all of them

    def labelled(self, on_frame: Callable[[], object]) -> Evaluation:
        """With the teacher's targets, found once for all points."""
        if self.teacher is None:
            return self
        label = partial(self.teacher.label, cache=self.cache, progress=on_frame)
        videos = tuple(label(video) for video in self.data.videos)
        return replace(self, data=replace(self.data, videos=videos), teacher=None)


def measure_accuracies(
    curve: Curve,
    contenders: Mapping[str, Contender],
    wanted: Sequence[Choice],
    evaluation: Evaluation,
    *,
    progress: Callable[[int], object] = lambda total: None,
) -> None:
    """Measure the AP50 of the choices that the curve does not have, and save each.

    progress: called after each frame, of the teacher also, with their total number. Raises
    InputError if the data has no object.
    """
    missing = [choice for choice in wanted if choice not in curve.points]
    if not missing:
        return
    passes = len(missing) + (evaluation.teacher is not None)
    frames = sum(len(video.frames) for video in evaluation.data.videos)
    on_frame = partial(progress, passes * frames)
    evaluation = evaluation.labelled(on_frame)
    for choice in missing:
        runtime = contenders[choice.model].runtime
        curve.points[choice] = Point(
            choice, measure_accuracy(runtime, evaluation, choice, on_frame)
        )
        curve.save()


def measure_accuracy(
    runtime: Runtime,
    evaluation: Evaluation,
    choice: Choice,
    on_frame: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """AP50 of a choice by subset of the frames, 0 to 1, as rnndet evaluate measures it.

    Raises InputError if the data has no object.
    """
    runs = evaluate_set(
        runtime,
        evaluation.data,
        keys=choose_key_frames(choice.key_every),
        size=choice.size,
        teacher=evaluation.teacher,
        degrade=evaluation.degrade,
        degrade_seed=evaluation.degrade_seed,
        cache=evaluation.cache,
        class_map=evaluation.class_map,
        progress=lambda total: on_frame(),
    )
    if evaluation.classes is not None:
        runs = {use: select_classes(run, evaluation.classes) for use, run in runs.items()}
    rows, _ = score(runs, build_metrics(["coco_ap"], runs[""].classes))
    ap50 = {key.subset: numbers["AP50"] for key, numbers in rows.items()}
    if math.isnan(ap50[ALL_FRAMES]):
        raise InputError("the data has no object to detect, so no AP50")
    return {subset: value for subset, value in ap50.items() if not math.isnan(value)}


def frames_to_time(data: VideoSet, *, count: int, cache: Path | None = None) -> list[Frame]:
    """The first frames of the video with the most, decoded: `WARM_UP` and at most `count` more."""
    videos = [video for video in data.videos if video.frames]
    if not videos:
        raise InputError("the data has no frame")
    video = max(videos, key=lambda video: len(video.frames))
    return list(islice(iterate(video, cache=cache), WARM_UP + count))


def time_round(runtime: Runtime, frames: Sequence[Frame], choice: Choice) -> dict[str, float]:
    """Milliseconds of a frame by clock: the median over the cycles of key frames after the warm-up.

    Raises InputError for too few frames.
    """
    if len(frames) < WARM_UP + choice.key_every:
        raise InputError(
            f"{counted(len(frames), 'frame')} are too few to time {choice}; {WARM_UP} are warm-up, "
            f"so the longest video, and `frames`, must have {WARM_UP + choice.key_every} or more"
        )
    stream = make_stream(runtime, key_every=choice.key_every, size=choice.size)
    seconds: dict[str, list[float]] = {clock: [] for clock in CLOCKS}
    for frame in frames:
        wall, cpu = perf_counter(), process_time()
        stream.step(frame)
        seconds["cpu"].append(process_time() - cpu)
        seconds["wall"].append(perf_counter() - wall)
    return {
        clock: 1000 * median(cycle_means(values[WARM_UP:], choice.key_every))
        for clock, values in seconds.items()
    }


def choices(
    contenders: Mapping[str, Contender], *, sizes: Sequence[int], key_everys: Sequence[int]
) -> list[Choice]:
    """All choices, those of one model and size together, since runtimes compile for a size.

    Raises RnndetError for a size that a model cannot take.
    """
    found = []
    for model, contender in contenders.items():
        for size in dict.fromkeys(sizes):
            contender.runtime.input_spec.resized(size)
            found += [
                Choice(model, contender.runtime.name, size, every)
                for every in dict.fromkeys(key_everys)
            ]
    return found


def measure_times(
    curve: Curve,
    contenders: Mapping[str, Contender],
    wanted: Sequence[Choice],
    frames: Sequence[Frame],
    *,
    rounds: int,
    progress: Callable[[int], object] = lambda total: None,
) -> None:
    """Time all choices in turn, `rounds` times, less the rounds that are known, and save each.

    progress: called after each round of a choice, with their total number.
    """
    total = sum(max(0, rounds - curve.points[choice].rounds()) for choice in wanted)
    for done in range(rounds):
        for choice in wanted:
            point = curve.points[choice]
            if point.rounds() > done:
                continue
            for clock, ms in time_round(contenders[choice.model].runtime, frames, choice).items():
                point.ms.setdefault(clock, []).append(ms)
            curve.save()
            progress(total)


def lines_of(curve: Curve, *, clock: str) -> list[str]:
    """The table of all measured points and the front below it, as Markdown."""
    points, front = curve.measured(), curve.front(clock)
    subsets = list(dict.fromkeys(subset for point in points for subset in point.ap50))
    heads = ["model", "runtime", "size", "key frames", *(f"AP50, {s}" for s in subsets), "ms"]
    lines = ["| " + " | ".join([*heads, "front"]) + " |", "|" + "---|" * (len(heads) + 1)]
    for point in points:
        choice = point.choice
        cells = [
            choice.model,
            choice.runtime,
            str(choice.size),
            "all" if choice.key_every == 1 else f"every {choice.key_every}",
            *(_percent(point.ap50.get(subset)) for subset in subsets),
            _ms_text(point, clock),
            str(front.index(point) + 1) if point in front else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return [
        *lines,
        "",
        f"Pareto front, {CLOCKS[clock]}, fastest first:",
        *front_lines(curve, clock),
    ]


def front_lines(curve: Curve, clock: str) -> list[str]:
    """The points of the front, numbered, with time and AP50."""
    return [
        f"{number}. {point.choice}: {point.time(clock):.1f} ms, AP50 "
        f"{100 * point.ap50[ALL_FRAMES]:.1f}"
        for number, point in enumerate(curve.front(clock), 1)
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _ms_text(point: Point, clock: str) -> str:
    values = point.ms[clock]
    return f"{median(values):.1f} ({min(values):.1f} to {max(values):.1f})"
