"""The link between labelled videos and metrics: what was found beside what was there."""

from rnndet.data.records import VideoRecord
from rnndet.metrics.record import ScoredFrame, ScoredVideo, scored_frame
from rnndet.structures import Detections


class ScoredFrames:
    """Collects the frames of one video, in any order."""

    def __init__(self, video: VideoRecord) -> None:
        self._record = video
        self._truths = {record.index: record.truth for record in video.frames}
        self._frames: list[ScoredFrame] = []

    def add(self, index: int, found: Detections) -> None:
        """Add a frame; one that the record does not list counts as unlabelled."""
        self._frames.append(scored_frame(index, found, self._truths.get(index)))

    def video(self) -> ScoredVideo:
        """The frames so far, in temporal order."""
        frames = sorted(self._frames, key=lambda frame: frame.index)
        size_hw = (self._record.height, self._record.width)
        return ScoredVideo(self._record.name, self._record.fps, size_hw, tuple(frames))
