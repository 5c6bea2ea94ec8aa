"""Agreement with a teacher: its detections on the clean frames are the targets."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rnndet.data.frames import iterate
from rnndet.data.records import VideoRecord
from rnndet.errors import RnndetError
from rnndet.evaluation.metrics.flicker import MAX_GAP, holes_before, link_boxes
from rnndet.inference.stream import Stream
from rnndet.messages import counted
from rnndet.models.video_detector import VideoDetector
from rnndet.structures import Detections, Target

TEACHER_SCORE = 0.4  # minimum score of a target


@dataclass(frozen=True, slots=True)
class Teacher:
    """A model whose detections with a score of at least `min_score` become the targets.

    Its recurrent state, if it has any, is reset before every frame. name: of its weights.
    """

    model: VideoDetector
    name: str
    min_score: float = TEACHER_SCORE

    @property
    def rule(self) -> str:
        """What figures against these targets are, for protocols."""
        return f"agreement with {self.name} at >= {self.min_score:g} on clean frames, not accuracy"

    def check_classes(self, classes: tuple[str, ...]) -> None:
        """Raise RnndetError unless the teacher has these classes, in this order."""
        own = self.model.classes
        if own == classes:
            return
        places = [i for i, pair in enumerate(zip(own, classes, strict=False)) if pair[0] != pair[1]]
        at = places[0] if places else min(len(own), len(classes))
        names = [names[at] if at < len(names) else "none" for names in (own, classes)]
        raise RnndetError(
            f"teacher {self.name}: has {counted(len(own), 'class', 'classes')}, the model "
            f"{len(classes)}, and class "
            f"{at + 1} is {names[0]} instead of {names[1]}; choose a teacher with the same classes"
        )

    def label(
        self,
        video: VideoRecord,
        *,
        cache: Path | None = None,
        progress: Callable[[], object] = lambda: None,
    ) -> VideoRecord:
        """The video with the teacher's targets instead of its own.

        Boxes with a side below one pixel are left out, as by all formats. Targets get their ids
        from the linking of the metric flicker: boxes of the same class in consecutive frames,
        one-to-one, with an IoU of at least .5, over gaps of up to 3 frames. progress: called after
        each frame.
        """
        stream = Stream(self.model, min_score=self.min_score, track_classes=False)
        found = []
        for frame in iterate(video, cache=cache):
            stream.reset()
            detections = stream.step(frame).detections
            sides = detections.boxes[:, 2:] - detections.boxes[:, :2]
            found.append(detections[(sides >= 1).all(1)])  # as from every format
            progress()
        ids = link_boxes(
            [detections.boxes for detections in found],
            [detections.labels for detections in found],
            holes_before([record.index for record in video.frames]),
            max_gap=MAX_GAP,
        )
        frames = (
            replace(record, target=_target(detections, torch.from_numpy(tracks)))
            for record, detections, tracks in zip(video.frames, found, ids, strict=True)
        )
        return replace(video, frames=tuple(frames))


def _target(detections: Detections, ids: torch.Tensor) -> Target:
    return Target(
        boxes=torch.from_numpy(detections.boxes),
        labels=torch.from_numpy(detections.labels),
        ids=ids,
        ignore=torch.zeros(len(detections), dtype=torch.bool),
    )
