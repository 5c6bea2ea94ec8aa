"""Weights and runs to begin from."""

import logging
from pathlib import Path
from typing import Any

from rnndet.errors import WeightsError
from rnndet.models.checkpoint import previous_of, read_checkpoint
from rnndet.models.video_detector import VideoDetector

logger = logging.getLogger(__name__)


def read_last(path: Path) -> dict[str, Any]:
    """last.pt, or last.prev.pt with a warning where the former cannot be read."""
    try:
        return read_checkpoint(path)
    except WeightsError as error:
        if not previous_of(path).is_file():
            raise
        logger.warning("%s; going on from %s", error, previous_of(path).name)
        return read_checkpoint(previous_of(path))


def start_from(model: VideoDetector, path: str | Path) -> list[str]:
    """Fill in the weights of a checkpoint where names and shapes agree, and say what was left.

    Returns the names that start fresh.
    """
    content = read_checkpoint(path)
    own = model.state_dict()
    fitting = {n: t for n, t in content["model"].items() if n in own and own[n].shape == t.shape}
    if not fitting:
        raise WeightsError(f"{path}: train.init: no weight of it fits this model")
    model.load_state_dict(fitting, strict=False)
    fresh = sorted(own.keys() - fitting.keys())
    logger.info("%s: %d tensors taken, %d start fresh", path, len(fitting), len(fresh))
    return fresh
