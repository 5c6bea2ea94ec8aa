"""An image of validation frames: what the model finds with its memory, and without."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rnndet.data.corruption.plan import Degrader, standard_plan
from rnndet.data.frames import iterate
from rnndet.data.records import VideoRecord
from rnndet.models.video_detector import VideoDetector
from rnndet.structures import Detections
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
    """Write the sheet: a row per video, the last frame of its first corrupted run with an object,
    or, if no run is among the first frames, the last of those with an object.

    Left: the truth, on the frame as it is. Then what is found on the corrupted frame with an empty
    memory, and what is found with the memory of the frames before; a model without memory has only
    the first of these. The corruption is that of `--degrade standard`, seed 0.
    """
    rows = [row for video in videos[:VIDEOS] if (row := _row(model, video, cache)) is not None]
    if not rows:
        return
    height, width = min(row.shape[0] for row in rows), min(row.shape[1] for row in rows)
    line = np.full((GAP, width, 3), 255, np.uint8)
    sheet = [piece for row in rows for piece in (row[:height, :width], line)]
    write_image(path, np.concatenate(sheet[:-1]))


def _row(model: VideoDetector, video: VideoRecord, cache: Path | None) -> np.ndarray | None:
    targets = {record.index: record.target for record in video.frames}
    plan = standard_plan(video.name, video.frames[-1].index + 1)
    degrader, state = Degrader(plan, targets), None
    device = next(model.parameters()).device
    best, hard_seen = None, False
    for frame in islice(iterate(video, cache=cache), FRAMES):
        seen = degrader.apply(frame.index, frame.image)
        pixels = torch.from_numpy(seen.transpose(2, 0, 1).copy())[None, None].to(device)
        target = targets[frame.index]
        has_object = target is not None and len(target) > 0
        is_hard = has_object and plan[frame.index] is not None
        if hard_seen and not is_hard:
            break
        if has_object:
            best, hard_seen = (frame.image, seen, pixels, state, target), is_hard
        state = model(pixels, state).state
    if best is None:
        return None
    clean, seen, pixels, before, target = best
    labels = target.labels.numpy()
    known = Detections(target.boxes.numpy(), np.ones(len(target), np.float32), labels)
    images = [draw(clean, known[labels >= 0], model.classes)]
    for memory in [None, before] if model.temporal.levels else [None]:
        images.append(draw(seen, _found(model, pixels, memory), model.classes))
    gap = np.full((seen.shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([p for each in images for p in (each, gap)][:-1], axis=1)


def _found(model: VideoDetector, pixels: Tensor, state: dict | None) -> Detections:
    found = model(pixels, state).detections[0][0]
    return found[found.scores >= SHOWN]
