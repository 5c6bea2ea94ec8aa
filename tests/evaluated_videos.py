"""Small videos with detections and ground truth, for the tests of the metrics."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rnndet.evaluation.records import EvaluatedFrame, EvaluatedVideo

Box = Sequence[float]

BOX = (10.0, 10.0, 50.0, 50.0)
FAR = (200.0, 200.0, 240.0, 240.0)


class Detection(NamedTuple):
    box: Box
    score: float = 0.9
    label: int = 0
    id: int = 0


class Target(NamedTuple):
    box: Box
    id: int = 1
    label: int = 0
    ignore: bool = False


def evaluated(
    index: int,
    detections: Sequence[Detection] = (),
    targets: Sequence[Target] = (),
    *,
    labelled: bool = True,
    corrupted: bool = False,
) -> EvaluatedFrame:
    """One frame; `detections` in any order."""
    detections = sorted(detections, key=lambda row: -row.score)
    return EvaluatedFrame(
        index=index,
        boxes=np.array([row.box for row in detections], np.float32).reshape(-1, 4),
        scores=np.array([row.score for row in detections], np.float32),
        labels=np.array([row.label for row in detections], np.int32),
        ids=np.array([row.id for row in detections], np.int64),
        target_boxes=np.array([row.box for row in targets], np.float32).reshape(-1, 4),
        target_labels=np.array([row.label for row in targets], np.int32),
        target_ids=np.array([row.id for row in targets], np.int64),
        target_ignore=np.array([row.ignore for row in targets], bool),
        labelled=labelled,
        corrupted=corrupted,
    )


def video(*frames: EvaluatedFrame, name: str = "clip", fps: float | None = 30.0) -> EvaluatedVideo:
    return EvaluatedVideo(name, fps, (400, 400), frames)


def shifted(box: Box, x: float, y: float = 0) -> Box:
    return (box[0] + x, box[1] + y, box[2] + x, box[3] + y)


def random_video(seed: int, *, frames: int = 40) -> EvaluatedVideo:
    """Five objects of two classes with noisy boxes and misses, one ignored; and false positives.

    Detections of objects have ids. Frames 10 to 13 and 20 to 25 are corrupted.
    """
    draw = np.random.default_rng(seed)
    corner = draw.uniform(0, 300, (5, 2))
    rows = []
    for index in range(frames):
        corner += draw.normal(0, 2, (5, 2))
        targets = [
            Target((x, y, x + 30, y + 30), id=k + 1, label=k % 2, ignore=k == 4)
            for k, (x, y) in enumerate(corner)
            if index >= 3 * k
        ]
        detections = [
            Detection(shifted(t.box, *draw.normal(0, 3, 2)), draw.uniform(0.2, 1), t.label, t.id)
            for t in targets
            if draw.random() < 0.8
        ]
        for x, y in draw.uniform(0, 300, (2, 2)):
            label = int(draw.integers(2))
            detections.append(Detection((x, y, x + 30, y + 30), draw.uniform(0, 0.8), label))
        corrupted = 10 <= index < 14 or 20 <= index < 26
        rows.append(evaluated(index, detections, targets, corrupted=corrupted))
    return video(*rows)


def evaluated_rows(
    index: int = 0,
    detections: Sequence[tuple[Box, float, int]] = (),
    targets: Sequence[tuple[Box, int, int]] = (),
    ignore: Sequence[bool] | None = None,
) -> EvaluatedFrame:
    """One frame; detections: box, score, label; targets: box, label, id."""
    ignore = ignore or [False] * len(targets)
    known = [Target(box, id, label, i) for (box, label, id), i in zip(targets, ignore, strict=True)]
    return evaluated(index, [Detection(*row) for row in detections], known)
