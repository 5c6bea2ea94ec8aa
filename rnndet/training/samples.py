"""Draw sample detections on validation frames, with and without recurrent state."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rnndet.data.corruption.plan import Degrader, standard_plan
from rnndet.data.frames import iterate
from rnndet.data.records import VideoRecord
from rnndet.models.temporal.state import State
from rnndet.models.video_detector import VideoDetector
from rnndet.structures import Detections, Target
from rnndet.video.draw import draw
from rnndet.video.image import write_image

VIDEOS = 4  # rows of the sheet
FRAMES = 48  # of each video that are searched for the frame to show
SHOWN = 0.3  # lowest score that is drawn
GAP = 4  # pixels between images


@torch.inference_mode()
def sample_sheet(
    model: VideoDetector, videos: Sequence[VideoRecord], path: Path, *, cache: Path | None
) -> None:
    """Write an image with a row per video, for up to VIDEOS videos.

    A row shows one of the first FRAMES frames: the last one with an object in the first corrupted
    run that has one; without such a run, the last frame with an object. From left to right: ground
    truth on the clean frame, detections on the corrupted frame with an empty state, and with the
    state of the frames before it; without a temporal module only the first two. The corruption is
    that of `--degrade standard`, seed 0.
    """
    rows = [_row(model, video, cache) for video in videos[:VIDEOS]]
    rows = [row for row in rows if row is not None]
    if not rows:
        return
    height, width = min(row.shape[0] for row in rows), min(row.shape[1] for row in rows)
    gap = np.full((GAP, width, 3), 255, np.uint8)
    sheet = [part for row in rows for part in (row[:height, :width], gap)]
    write_image(path, np.concatenate(sheet[:-1]))


@dataclass(frozen=True, slots=True)
class _Sample:
    clean: np.ndarray  # the frame
    corrupted: np.ndarray  # the frame as the model gets it
    pixels: Tensor  # the same as a tensor, (1, 1, 3, H, W)
    state: State | None  # of the frames before
    target: Target


def _row(model: VideoDetector, video: VideoRecord, cache: Path | None) -> np.ndarray | None:
    sample = _choose_sample(model, video, cache)
    if sample is None:
        return None
    labels = sample.target.labels.numpy()
    scores = np.ones(len(labels), np.float32)
    boxes = Detections(sample.target.boxes.numpy(), scores, labels)[labels >= 0]
    images = [draw(sample.clean, boxes, model.classes)]
    for state in [None, sample.state] if model.temporal.levels else [None]:
        detections = model(sample.pixels, state).detections[0][0]
        detections = detections[detections.scores >= SHOWN]
        images.append(draw(sample.corrupted, detections, model.classes))
    gap = np.full((sample.clean.shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([part for image in images for part in (image, gap)][:-1], axis=1)


def _choose_sample(model: VideoDetector, video: VideoRecord, cache: Path | None) -> _Sample | None:
    targets = {record.index: record.target for record in video.frames}
    plan = standard_plan(video.name, video.frames[-1].index + 1)
    degrader, state = Degrader(plan, targets), None
    device = next(model.parameters()).device
    sample, in_run = None, False
    for frame in islice(iterate(video, cache=cache), FRAMES):
        corrupted = degrader.apply(frame.index, frame.image)
        pixels = torch.from_numpy(corrupted.transpose(2, 0, 1).copy())[None, None].to(device)
        target = targets[frame.index]
        has_object = target is not None and len(target) > 0
        is_corrupted = has_object and plan[frame.index] is not None
        if in_run and not is_corrupted:
            break
        if has_object:
            sample, in_run = _Sample(frame.image, corrupted, pixels, state, target), is_corrupted
        state = model(pixels, state).state
    return sample
