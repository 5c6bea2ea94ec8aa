"""Measure the speed of an evaluation: the model over labelled videos, then the metrics."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rnndet.data.formats import read_set
from rnndet.data.records import VideoSet
from rnndet.data.rendered import render_set
from rnndet.errors import InputError
from rnndet.evaluation.metrics import CocoAP
from rnndet.evaluation.predict import evaluate_set
from rnndet.evaluation.score import score
from rnndet.evaluation.videos import match_classes
from rnndet.models.video_detector import VideoDetector
from rnndet.system.environment import machine

CLIP = 50  # frames of each synthetic clip
FIRST_SEED = 9000


def measure_eval(
    model: VideoDetector, root: Path | None, *, split: str, frames: int
) -> dict[str, Any]:
    """Frames per second of `evaluate_set` over the first `frames` frames, decoding included.

    root: of a CocoVID set, None for synthetic clips. Raises InputError for a set without frames.
    """
    about = machine()
    with TemporaryDirectory(prefix="rnndet-benchmark-") as folder:
        if root is None:
            root, split = Path(folder), "val"
            render_set(
                root, clips=-(-frames // CLIP), length=CLIP, first_seed=FIRST_SEED, split=split
            )
        data = _first(match_classes(read_set("coco_vid", root, split), model.classes), frames)
        began = time.perf_counter()
        runs = evaluate_set(model, data)
        between = time.perf_counter()
        score(runs, {"coco_ap": CocoAP(model.classes)})
        ended = time.perf_counter()
    count = sum(len(video.frames) for video in data.videos)
    return {
        "machine": about,
        "videos": len(data.videos),
        "frames": count,
        "seconds": between - began,
        "frames_per_second": count / (between - began),
        "metrics_seconds": ended - between,
    }


def _first(data: VideoSet, frames: int) -> VideoSet:
    videos = []
    for video in data.videos:
        if frames > 0 and video.frames:
            videos.append(replace(video, frames=video.frames[:frames]))
            frames -= len(videos[-1].frames)
    if not videos:
        raise InputError("the set has no frame to evaluate")
    return replace(data, videos=tuple(videos))
