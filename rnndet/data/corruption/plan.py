"""Plan which frames of a video are corrupted, of which kind and severity, and apply the plan.

Corrupted frames come in runs, because temporal context helps most where several frames in a row
fail. Training uses random plans, evaluation one fixed plan per video (`named_plan`). A plan is
drawn first and applied later, and determines every pixel: the same plan gives the same bytes for a
clip at once and for its frames one by one. pixels.py computes the pixels.

The terms corruption and severity are as in Hendrycks and Dietterich 2019, "Benchmarking Neural
Network Robustness to Common Corruptions and Perturbations", arXiv 1903.12261. Different: severity
is continuous from 0 to 1 instead of five levels, kinds and strengths are our own, and a corruption
lasts for a run of frames.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from rnndet.data.corruption.pixels import (
    IMAGE_KINDS,
    STEP_BITS,
    Corruption,
    integer,
    occluder,
    seeded,
    uniform,
)
from rnndet.errors import RnndetError
from rnndet.registry import lookup
from rnndet.structures import Target

# The kinds of the standard plan; published results depend on them.
STANDARD_KINDS = ("motion_blur", "defocus", "noise", "dark", "drop", "freeze", "occluder")
KINDS = (*STANDARD_KINDS, "exposure")
STANDARD = "standard"

Plan = list["Corruption | None"]  # one entry per frame; None = not corrupted


def plan(
    length: int,
    generator: torch.Generator,
    *,
    share: float = 1 / 3,
    run: tuple[int, int] = (3, 12),
    kinds: Sequence[str] = STANDARD_KINDS,
) -> Plan:
    """Draw which of `length` frames are corrupted, with kind and severity.

    Runs are `run[0]` to `run[1]` frames long (uniform), each of one kind and severity, with at
    least one clean frame between two runs. The process is stationary from frame 0 on (a run may
    have started before it), so every frame is corrupted with probability `share`, also in short
    clips. Frame 0 is never frozen: there is no earlier frame to repeat. Raises RnndetError for
    impossible values.

    >>> frames = plan(100, torch.Generator().manual_seed(0), share=0.5, kinds=("noise",))
    >>> {entry.kind for entry in frames if entry is not None}
    {'noise'}
    """
    _check_plan(share, run, kinds)
    frames: Plan = [None] * length
    if share == 0:
        return frames
    mean_gap = (run[0] + run[1]) / 2 * (1 - share) / share
    at = 0
    steps = 0  # frames of the first run that lie before frame 0
    if uniform(generator, 0, 1) < share:
        steps, size = _run_in_progress(generator, run)
    else:
        at, size = _gap(generator, mean_gap), integer(generator, *run)
    while at < length:
        kind = kinds[integer(generator, 0, len(kinds) - 1)]
        severity = uniform(generator, 0, 1)
        seed = integer(generator, 0, (1 << 44) - 1) << STEP_BITS
        for step in range(steps, size):
            if at < length and not (at == 0 and kind == "freeze"):
                frames[at] = Corruption(kind, severity, seed + step)
            at += 1
        at += _gap(generator, mean_gap)
        steps, size = 0, integer(generator, *run)
    return frames


def standard_plan(video_name: str, length: int, *, seed: int = 0) -> Plan:
    """Return the plan of published results: share 1/3, runs of 3 to 12, fixed by name and seed."""
    return plan(length, seeded(f"{seed}:{video_name}"))


def named_plan(name: str, video_name: str, length: int, *, seed: int = 0) -> Plan:
    """Return the plan of a name: "standard", or its runs with one kind, "defocus", "defocus@0.5".

    The number is the severity of all runs, 0 (mild) to 1 (worst); without it, the runs keep their
    severities. Raises RnndetError for an unknown kind or an impossible severity.

    >>> frames = named_plan("defocus@0.5", "field_01", 60)
    >>> {(entry.kind, entry.severity) for entry in frames if entry is not None}
    {('defocus', 0.5)}
    """
    frames = standard_plan(video_name, length, seed=seed)
    if name == STANDARD:
        return frames
    kind, _, level = name.partition("@")
    lookup(kind, dict.fromkeys(KINDS), what="corruption")
    try:
        severity = float(level) if level else None
    except ValueError:
        severity = math.nan
    if severity is not None and not 0 <= severity <= 1:
        raise RnndetError(f"corruption {name}: the severity must be a number from 0 to 1")

    def changed(entry: Corruption) -> Corruption:
        return replace(entry, kind=kind, severity=entry.severity if severity is None else severity)

    planned: Plan = [None if entry is None else changed(entry) for entry in frames]
    if kind == "freeze":
        planned[:1] = [None]  # no earlier frame to repeat
    return planned


def corrupt(
    frames: Tensor,
    plan: Sequence[Corruption | None],
    *,
    boxes: Sequence[Tensor | None] | None = None,
    previous: Tensor | None = None,
) -> Tensor:
    """Apply a plan to consecutive frames (T, 3, H, W) uint8; returns a new tensor of that shape.

    Occluders cover each object, `boxes[t]` (D, 4) in pixels of these frames, to at least 80 %; they
    also cover decoys of the same size, so that an occluder does not reveal an object. Without boxes
    they cover random places. `previous` (3, H, W) uint8 is the frame shown before the first of
    these, which a freeze at t = 0 repeats; without it that frame is not changed.
    """
    assert frames.dtype == torch.uint8 and frames.dim() == 4, (frames.dtype, frames.shape)
    assert len(plan) == frames.shape[0], (len(plan), frames.shape)
    shown = frames.clone()
    for t, corruption in enumerate(plan):
        if corruption is None:
            continue
        if corruption.kind == "freeze":
            last = shown[t - 1] if t > 0 else previous
            if last is not None:
                shown[t] = last
        elif corruption.kind == "occluder":
            shown[t] = occluder(frames[t], corruption, None if boxes is None else boxes[t])
        else:
            shown[t] = IMAGE_KINDS[corruption.kind](frames[t], corruption)
    return shown


class Degrader:
    """Apply a plan to a stream of frames; stores the last frame shown, for freezes.

    `plan[i]`, and `targets[i]` if there is one, belong to the i-th frame of the video.

    >>> degrader = Degrader([None, Corruption("drop", 0.0, seed=0)])
    >>> image = np.full((4, 4, 3), 200, np.uint8)
    >>> [int(degrader.apply(index, image).max()) for index in range(2)]
    [200, 0]
    """

    def __init__(
        self,
        plan: Sequence[Corruption | None],
        targets: Mapping[int, Target | None] | None = None,
    ):
        self._plan = plan
        self._targets = targets or {}
        self._shown: Tensor | None = None  # (3, H, W)

    def apply(self, index: int, image: np.ndarray) -> np.ndarray:
        """Return the frame to show, (H, W, 3) uint8 like `image`; call in temporal order."""
        pixels = torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))  # (3, H, W)
        target = self._targets.get(index)
        boxes = [None if target is None else target.boxes]
        entry = [self._plan[index]]
        self._shown = corrupt(pixels[None], entry, boxes=boxes, previous=self._shown)[0]
        return np.ascontiguousarray(self._shown.numpy().transpose(1, 2, 0))


def _check_plan(share: float, run: tuple[int, int], kinds: Sequence[str]) -> None:
    if not 1 <= run[0] <= run[1] < 1 << STEP_BITS:
        raise RnndetError(f"corruption run = {run} must be two lengths, 1 <= shortest <= longest")
    mean_run = (run[0] + run[1]) / 2
    limit = mean_run / (mean_run + 1)  # at least one clean frame between two runs
    if not 0 <= share <= limit:
        raise RnndetError(
            f"corruption share = {share} must lie in 0..{limit:.3f} for runs of {run}"
        )
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown or not kinds:
        raise RnndetError(f"corruption kinds = {list(kinds)}; choose from: {', '.join(KINDS)}")


def _run_in_progress(generator: torch.Generator, run: tuple[int, int]) -> tuple[int, int]:
    """Draw the frames already past and the length of a run at a random time (length-biased)."""
    lengths = torch.arange(run[0], run[1] + 1)
    weights = lengths.double()
    size = int(lengths[torch.multinomial(weights, 1, generator=generator)])
    return integer(generator, 0, size - 1), size


def _gap(generator: torch.Generator, mean: float) -> int:
    """Draw the number of clean frames until the next run: geometric from 1, memoryless."""
    if mean <= 1:
        return 1
    return 1 + int(math.log(1 - uniform(generator, 0, 1)) / math.log(1 - 1 / mean))
