"""Validate a model in training: on labelled videos, or by agreement with a frozen teacher."""

import dataclasses
import functools
import logging
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch

from rnndet.config import Config
from rnndet.data.frames import iterate
from rnndet.data.records import VideoRecord, VideoSet
from rnndet.errors import RnndetError
from rnndet.evaluation.agreement import Teacher
from rnndet.evaluation.metrics.base import compute
from rnndet.evaluation.metrics.coco_ap import CocoAP
from rnndet.evaluation.metrics.flicker import Flicker
from rnndet.evaluation.predict import SCORE_FLOOR, evaluate_set, predict
from rnndet.evaluation.score import CORRUPTED_FRAMES, OTHER_FRAMES, subsets
from rnndet.inference.stream import Stream
from rnndet.messages import counted
from rnndet.models.checkpoint import load_model
from rnndet.models.video_detector import VideoDetector
from rnndet.training.samples import sample_sheet
from rnndet.training.trainer import Evaluate

logger = logging.getLogger(__name__)


def validation(
    config: Config, held_out: VideoSet, folder: Path, *, device: torch.device
) -> Evaluate | None:
    """The validation of a model on these videos, see `Trainer`; None without videos.

    Unlabelled videos are labelled by the frozen teacher before the first validation, see
    `teacher_name`.
    Raises RnndetError if these are needed and cannot be used.
    """
    if not held_out.videos:
        return None
    cache = cache_folder(config)
    teacher = None if held_out.is_labelled else frozen_teacher(config, held_out, device=device)

    @functools.cache
    def labelled() -> VideoSet:
        return held_out if teacher is None else label(held_out, teacher, config)

    def evaluate(model: VideoDetector) -> dict[str, float]:
        sample_sheet(model, spread(labelled(), 4), folder / "samples.jpg", cache=cache)
        if teacher is None:
            return score(model, held_out, config, cache=cache)
        return agreement(model, labelled(), cache=cache)

    return evaluate


def teacher_name(config: Config) -> str:
    """The weights that label unlabelled videos: of `train.teacher`, else of `train.init`."""
    teacher = config.train.teacher
    return config.train.init if teacher in ("", "init") else teacher


def frozen_teacher(config: Config, held_out: VideoSet, *, device: torch.device) -> Teacher:
    """The weights of `teacher_name` as a teacher. Raises RnndetError if they cannot be one."""
    name = teacher_name(config)
    if not name:
        raise RnndetError(
            "validation videos without labels are compared with train.teacher or train.init; set "
            "one of them to weights, or validate on labelled videos"
        )
    teacher = Teacher(load_model(name, device=device), name)
    teacher.check_classes(held_out.classes)
    logger.info("validation: %s", teacher.rule)
    return teacher


def label(held_out: VideoSet, teacher: Teacher, config: Config) -> VideoSet:
    """The part of the videos that is validated on, with the teacher's targets."""
    train = config.train
    chosen = spread(held_out, train.validate_videos or len(held_out.videos))
    limit = train.validate_frames or None
    parts = [dataclasses.replace(video, frames=video.frames[:limit]) for video in chosen]
    videos = tuple(teacher.label(video, cache=cache_folder(config)) for video in parts)
    targets = [frame.target for video in videos for frame in video.frames]
    count = sum(len(target) for target in targets if target is not None)
    objects, frames = counted(count, "object"), counted(len(targets), "frame")
    logger.info("%s finds %s in %s", teacher.name, objects, frames)
    return VideoSet(held_out.classes, videos)


def spread(held_out: VideoSet, limit: int) -> Sequence[VideoRecord]:
    """At most `limit` videos, spread over the set, so that a few still show all classes."""
    return held_out.videos[:: max(1, len(held_out.videos) // limit)][:limit]


def score(
    model: VideoDetector, held_out: VideoSet, config: Config, *, cache: Path | None
) -> dict[str, float]:
    """COCO metrics of a model on the validation videos, streamed as in inference."""
    train = config.train
    chosen = spread(held_out, train.validate_videos or len(held_out.videos))
    limit = train.validate_frames or None
    videos = ((video, islice(iterate(video, cache=cache), limit)) for video in chosen)
    predictions = predict(Stream(model, min_score=SCORE_FLOOR), videos)
    return compute(CocoAP(held_out.classes), predictions)


def agreement(model: VideoDetector, data: VideoSet, *, cache: Path | None) -> dict[str, float]:
    """Agreement of a model with the targets of a teacher under the standard degradation.

    COCO metrics on all frames; "AP50_corrupted", "AP50_other", and the same for AP, on the
    corrupted and the other frames; and the metric flicker.
    """
    run = evaluate_set(model, data, degrade="standard", cache=cache)[""]
    figures = compute(CocoAP(data.classes), run) | compute(Flicker(data.classes), run)
    parts = subsets(run)
    for name, subset in (("corrupted", CORRUPTED_FRAMES), ("other", OTHER_FRAMES)):
        if subset in parts:
            numbers = compute(CocoAP(data.classes), parts[subset])
            figures |= {f"{key}_{name}": numbers[key] for key in ("AP50", "AP")}
    return figures


def cache_folder(config: Config) -> Path | None:
    """The folder of decoded frames, or None."""
    return Path(config.data.cache) if config.data.cache else None
