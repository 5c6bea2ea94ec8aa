"""Which frames make a training clip: every labelled frame alike, or balanced over classes."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.errors import RnndetError

_Shown = tuple[VideoRecord, Sequence[int]]  # a video, and positions of frames of it


@dataclass(frozen=True, slots=True)
class ClipChoice:
    """A video and the frames of it that make a clip, in temporal order."""

    video: VideoRecord
    records: tuple[FrameRecord, ...]


class ClipSampler:
    """Draws clips from one VideoSet: a key frame by `balance`, and a clip around it.

    - "frame": every labelled frame alike, empty ones too: classes, sizes and places come in the
      shares that the set has.
    - "class": a class evenly, a scene group with weight sqrt(its videos) (so that one much filmed
      place does not rule), a video of the group evenly, a frame that shows the class evenly.

    The key frame's place in the clip is random. A set without any object is an error.
    Holds no random state: every draw takes a Generator.
    """

    def __init__(self, video_set: VideoSet, *, balance: str = "class") -> None:
        # class -> scene group -> [(video, positions of the frames that show the class)]
        table: dict[int, dict[str, list[_Shown]]] = {}
        self._labelled: list[_Shown] = []
        for video in video_set.videos:
            known, shown = [], defaultdict(list)
            for position, record in enumerate(video.frames):
                if record.truth is None:
                    continue
                known.append(position)
                for label in set(record.truth.labels[~record.truth.ignore].tolist()):
                    shown[label].append(position)
            if known:
                self._labelled.append((video, known))
            for label, positions in shown.items():
                groups = table.setdefault(label, {})
                groups.setdefault(video.group or video.name, []).append((video, positions))
        if not table:
            raise RnndetError("the training set holds no labelled object")
        self._classes = [table[label] for label in sorted(table)]
        self._counts = torch.tensor([float(len(known)) for _, known in self._labelled])
        self._key_video = {"frame": self._any_frame, "class": self._class_evenly}[balance]

    def draw(
        self, generator: torch.Generator, *, length: int, stride: tuple[int, int]
    ) -> ClipChoice:
        """Draw a clip of `length` frames, every n-th with n uniform in `stride` (ends included).

        Where a video is too short for n, n becomes smaller; where it is shorter than `length`
        frames, its last frame is repeated.
        """
        video, positions = self._key_video(generator)
        key = positions[_below(len(positions), generator)]
        count = len(video.frames)
        step = stride[0] + _below(stride[1] - stride[0] + 1, generator)
        if length > 1:
            step = max(1, min(step, (count - 1) // (length - 1)))
        before = _below(length, generator)
        first = max(0, min(key - before * step, count - 1 - (length - 1) * step))
        chosen = [min(first + i * step, count - 1) for i in range(length)]
        return ClipChoice(video, tuple(video.frames[i] for i in chosen))

    def _any_frame(self, generator: torch.Generator) -> _Shown:
        return self._labelled[int(torch.multinomial(self._counts, 1, generator=generator))]

    def _class_evenly(self, generator: torch.Generator) -> _Shown:
        groups = list(self._classes[_below(len(self._classes), generator)].values())
        weights = torch.tensor([len(videos) ** 0.5 for videos in groups])
        videos = groups[int(torch.multinomial(weights, 1, generator=generator))]
        return videos[_below(len(videos), generator)]


def hold_out(video_set: VideoSet, groups: Sequence[str]) -> tuple[VideoSet, VideoSet]:
    """Split by scene group into (the rest, the held-out groups). An unknown group is an error."""
    present = {video.group for video in video_set.videos}
    unknown = sorted(set(groups) - {g for g in present if g is not None})
    if unknown:
        raise RnndetError(f"there is no scene group {', '.join(unknown)} in the set")
    rest = tuple(v for v in video_set.videos if v.group not in groups)
    held = tuple(v for v in video_set.videos if v.group in groups)
    return VideoSet(video_set.classes, rest), VideoSet(video_set.classes, held)


def _below(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (1,), generator=generator))
