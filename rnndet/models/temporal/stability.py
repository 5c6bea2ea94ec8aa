"""Stability: what is seen of an object is to change little from one frame to the next."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

from rnndet.models.temporal.state import Features


def stability_loss(
    features: Features,
    boxes: Sequence[Tensor],
    ids: Sequence[Tensor],
    *,
    length: int,
    size_hw: tuple[int, int],
    spread: Mapping[str, Tensor],
) -> Tensor:
    """How much the features of an object differ between consecutive frames; a scalar.

    The squared difference of the mean features inside an object's box at t and at t - 1, in units
    of the squared `spread`; objects and levels count alike, and where no object is in two
    consecutive frames it is 0. Temporal coherence (Mobahi, Collobert & Weston 2009, "Deep learning
    from temporal coherence in video", eq. 2, with the squared distance) without the push of others
    apart: use it beside a loss that says what the features must hold, or all of them become equal.
    features: level -> (T*B, C, H, W), time-major, of images of `size_hw` (padding included);
    boxes: one (D, 4) an image, in its pixels; ids: (D,) int64, below 0 for unknown; length: T;
    spread: level -> standard deviation.
    """
    pairs = same_objects(ids, length=length)
    if not len(pairs):
        return sum(level.sum() * 0 for level in features.values())
    image = torch.repeat_interleave(torch.tensor([len(each) for each in boxes]))
    every = torch.cat(list(boxes))  # (sum D, 4)
    regions = torch.cat([image.to(every)[:, None], every], dim=1)
    pairs = pairs.to(every.device)
    terms = []
    for level, feature in features.items():
        scale = feature.shape[-1] / size_hw[1]
        seen = roi_align(feature.float(), regions, 1, scale, 2, aligned=True).flatten(1)
        change = seen[pairs[:, 1]] - seen[pairs[:, 0]]  # (P, C)
        terms.append(change.square().mean() / spread[level].square())
    return torch.stack(terms).mean()


def same_objects(ids: Sequence[Tensor], *, length: int) -> Tensor:
    """Which of all boxes, one image after the other, are one object in consecutive frames.

    ids: (D,) of each of the T*B images, time-major -> (P, 2) int64, the earlier one first.
    """
    batch = len(ids) // length
    firsts = [0]
    for each in ids:
        firsts.append(firsts[-1] + len(each))
    pairs = []
    for number in range(batch, len(ids)):
        before = {track: i for i, track in enumerate(ids[number - batch].tolist()) if track >= 0}
        pairs += [
            (firsts[number - batch] + before[track], firsts[number] + i)
            for i, track in enumerate(ids[number].tolist())
            if track in before
        ]
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
