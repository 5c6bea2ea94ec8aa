"""Draw the frames of training clips: by class, then by scene group, then by video."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.data.targets import ANY_CLASS
from rnndet.errors import RnndetError


@dataclass(frozen=True, slots=True)
class ClipChoice:
    """A video and the frames of it that make a clip, in temporal order."""

    video: VideoRecord
    records: tuple[FrameRecord, ...]


class ClipSampler:
    """Draw clips from one VideoSet.

    A draw selects a class, a scene group with weight sqrt(number of videos), so that a place with
    many videos does not dominate, a video of the group uniformly, a frame with the class uniformly,
    and a clip with that frame at a random position. Videos without objects are never drawn, except
    from a set without any labelled frame: there all frames count as showing one and the same class.
    `classes` "even": every class with the same probability; "natural": by its share of the frames.
    Has no random state: every draw takes a Generator.
    """

    def __init__(self, video_set: VideoSet, *, classes: str = "even") -> None:
        # class -> scene group -> [(video, positions of the frames that show the class)]
        table: dict[int, dict[str, list[tuple[VideoRecord, Sequence[int]]]]] = {}
        frames: Counter[int] = Counter()
        positions_of = _positions_by_label if video_set.is_labelled else _all_positions
        for video in video_set.videos:
            for label, positions in positions_of(video).items():
                groups = table.setdefault(label, {})
                groups.setdefault(video.group or video.name, []).append((video, positions))
                frames[label] += len(positions)
        if not table:
            raise RnndetError("the training set holds no labelled object")
        labels = sorted(table)
        self._classes = [table[label] for label in labels]
        self._weights = torch.tensor(
            [float(frames[label]) if classes == "natural" else 1.0 for label in labels]
        )

    def draw(
        self, generator: torch.Generator, *, length: int, stride: tuple[int, int]
    ) -> ClipChoice:
        """Draw a clip of `length` frames, every n-th with n uniform in `stride` (ends included).

        If the video is too short for n, n is reduced; if it is shorter than `length` frames, its
        last frame is repeated.
        """
        groups = list(self._classes[_weighted(self._weights, generator)].values())
        videos = groups[
            _weighted(torch.tensor([len(videos) ** 0.5 for videos in groups]), generator)
        ]
        video, positions = videos[_below(len(videos), generator)]
        key = positions[_below(len(positions), generator)]
        count = len(video.frames)
        step = stride[0] + _below(stride[1] - stride[0] + 1, generator)
        if length > 1:
            step = max(1, min(step, (count - 1) // (length - 1)))
        before = _below(length, generator)
        first = max(0, min(key - before * step, count - 1 - (length - 1) * step))
        chosen = [min(first + i * step, count - 1) for i in range(length)]
        return ClipChoice(video, tuple(video.frames[i] for i in chosen))


def hold_out(video_set: VideoSet, groups: Sequence[str]) -> tuple[VideoSet, VideoSet]:
    """Split by scene group into (the rest, the held-out groups).

    Raises RnndetError for an unknown group.
    """
    present = {video.group for video in video_set.videos}
    unknown = sorted(set(groups) - {g for g in present if g is not None})
    if unknown:
        raise RnndetError(f"there is no scene group {', '.join(unknown)} in the set")
    rest = tuple(v for v in video_set.videos if v.group not in groups)
    held = tuple(v for v in video_set.videos if v.group in groups)
    return VideoSet(video_set.classes, rest), VideoSet(video_set.classes, held)


def _positions_by_label(video: VideoRecord) -> Mapping[int, Sequence[int]]:
    """The positions of the frames that show each label; ignored boxes do not count."""
    shown: dict[int, list[int]] = defaultdict(list)
    for position, record in enumerate(video.frames):
        if record.target is not None:
            for label in set(record.target.labels[~record.target.ignore].tolist()):
                shown[label].append(position)
    return shown


def _all_positions(video: VideoRecord) -> Mapping[int, Sequence[int]]:
    """The positions of all frames, as those of one class."""
    return {ANY_CLASS: range(len(video.frames))}


def _below(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (1,), generator=generator))


def _weighted(weights: torch.Tensor, generator: torch.Generator) -> int:
    return int(torch.multinomial(weights, 1, generator=generator))
