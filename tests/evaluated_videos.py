"""Videos for the tests of the metrics, a line per frame."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rnndet.evaluation.records import EvaluatedFrame, EvaluatedVideo

Box = Sequence[float]

BOX = (10.0, 10.0, 50.0, 50.0)
FAR = (200.0, 200.0, 240.0, 240.0)


class Found(NamedTuple):
    box: Box
    score: float = 0.9
    label: int = 0
    id: int = 0


class There(NamedTuple):
    box: Box
    id: int = 1
    label: int = 0
    ignore: bool = False


def scored(
    index: int,
    found: Sequence[Found] = (),
    there: Sequence[There] = (),
    *,
    labelled: bool = True,
    corrupted: bool = False,
) -> EvaluatedFrame:
    """One frame; `found` in any order."""
    found = sorted(found, key=lambda row: -row.score)
    return EvaluatedFrame(
        index=index,
        boxes=np.array([row.box for row in found], np.float32).reshape(-1, 4),
        scores=np.array([row.score for row in found], np.float32),
        labels=np.array([row.label for row in found], np.int32),
        ids=np.array([row.id for row in found], np.int64),
        target_boxes=np.array([row.box for row in there], np.float32).reshape(-1, 4),
        target_labels=np.array([row.label for row in there], np.int32),
        target_ids=np.array([row.id for row in there], np.int64),
        target_ignore=np.array([row.ignore for row in there], bool),
        labelled=labelled,
        corrupted=corrupted,
    )


def video(*frames: EvaluatedFrame, name: str = "clip", fps: float | None = 30.0) -> EvaluatedVideo:
    return EvaluatedVideo(name, fps, (400, 400), frames)


def shifted(box: Box, x: float, y: float = 0) -> Box:
    return (box[0] + x, box[1] + y, box[2] + x, box[3] + y)


def random_video(seed: int, *, frames: int = 40) -> EvaluatedVideo:
    """Five objects of two classes that wander and blink, one of them ignored, and false alarms.

    Detections of objects have ids. Frames 10 to 13 and 20 to 25 are corrupted.
    """
    draw = np.random.default_rng(seed)
    corner = draw.uniform(0, 300, (5, 2))
    rows = []
    for index in range(frames):
        corner += draw.normal(0, 2, (5, 2))
        there = [
            There((x, y, x + 30, y + 30), id=k + 1, label=k % 2, ignore=k == 4)
            for k, (x, y) in enumerate(corner)
            if index >= 3 * k
        ]
        found = [
            Found(shifted(t.box, *draw.normal(0, 3, 2)), draw.uniform(0.2, 1), t.label, t.id)
            for t in there
            if draw.random() < 0.8
        ]
        for x, y in draw.uniform(0, 300, (2, 2)):
            label = int(draw.integers(2))
            found.append(Found((x, y, x + 30, y + 30), draw.uniform(0, 0.8), label))
        hard = 10 <= index < 14 or 20 <= index < 26
        rows.append(scored(index, found, there, corrupted=hard))
    return video(*rows)
