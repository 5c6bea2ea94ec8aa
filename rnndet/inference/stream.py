"""Stream: one frame in, its detections out; the only object that keeps state between frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rnndet.errors import RnndetError
from rnndet.inference.runtimes import Runtime, as_runtime, scaled
from rnndet.structures import Detections, Frame, FrameResult
from rnndet.tracking import TrackSmoother


class CutDetector(Protocol):
    """Says which frames are the first of another scene, such as `rnndet.video.SceneCut`."""

    def update(self, image: np.ndarray) -> bool:
        """image (H, W, 3) uint8; once per frame."""
        ...

    def reset(self) -> None:
        """The next frame begins a video."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What the next frame is judged by, as plain data and arrays."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        ...


class KeyFramePolicy(Protocol):
    """Says which frames the model sees, and where boxes are in the others, such as
    `rnndet.video.KeyFrames`, which says more."""

    every: int
    lost: float

    @property
    def is_between(self) -> bool:
        """Whether the last frame was no key frame."""
        ...

    def between(
        self, image: np.ndarray, *, size_hw: tuple[int, int], gap: int = 0
    ) -> Detections | None:
        """The detections of the next frame; None: it is a key frame, `keep` follows."""
        ...

    def keep(self, image: np.ndarray, found: Detections) -> None:
        """What the model found in a key frame."""
        ...

    def reset(self) -> None:
        """The next frame is a key frame."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What the next frame depends on, as plain data and arrays."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        ...


if TYPE_CHECKING:
    from rnndet.models.video_detector import VideoDetector
    from rnndet.tracking import Tracker

TRACKER_FLOOR = 0.1  # scores from here on reach the tracker; ByteTrack's lower threshold
HELD_SHARE = 0.5  # an object with an id stays visible down to this share of min_score


class Stream:
    """Runs a model, and a tracker if there is one, over one video at a time.

    Without a tracker the result is exactly the detections with score >= min_score, without ids.
    With a tracker, all detections with score >= min(min_score, 0.1) are offered to it, and shown
    are those >= min_score (id 0 = no track yet) as well as those >= min_score / 2 that belong to
    an object which already has an id: this bridges frames in which the object is hard to see.

    The model, a `VideoDetector` or a `Runtime`, is used as it is and where it is: in eval mode, and
    with its own `score_threshold`, which must not lie above `score_floor` (lower costs time, higher
    hides detections from the tracker).

    cuts finds the frames at which another scene begins; there the memory is emptied and the tracks
    end, because what was remembered of the old scene does harm in the new one. None: never.

    keys says which frames the model sees; in the others its boxes follow the image. None: all.

    coast: seconds for which a missed track is reported in `FrameResult.predicted`, see
    `TrackSmoother`; needs a tracker.

    A frame with `restart` is handled like a cut, and may have another size. A `gap` is not: frames
    that are missing leave memory and tracks as they are, and the tracker goes by the true times.

    state: the model's memory, None at the beginning of a video; may be read, saved and set.
    """

    def __init__(
        self,
        model: VideoDetector | Runtime,
        tracker: Tracker | None = None,
        *,
        min_score: float = 0.3,
        cuts: CutDetector | None = None,
        keys: KeyFramePolicy | None = None,
        coast: float = 0.0,
    ) -> None:
        if not 0 <= min_score <= 1:
            raise RnndetError(f"min_score = {min_score}; expected a number from 0 to 1")
        if coast > 0 and tracker is None:
            raise RnndetError(f"coast = {coast}: only tracks are shown while missed; use a tracker")
        self.runtime = as_runtime(model)
        self.state: Any = None
        self.tracker = tracker
        self.min_score = min_score
        self.cuts = cuts
        self.keys = keys
        self.smoothed = TrackSmoother(coast=coast)
        self.reset()

    @property
    def score_floor(self) -> float:
        """The lowest score that this stream has a use for."""
        return self.min_score if self.tracker is None else min(self.min_score, TRACKER_FLOOR)

    def reset(self) -> None:
        """Forget the memory, the tracks and the frame size: the next frame begins a new video."""
        self.state = None
        self._size_hw: tuple[int, int] | None = None
        self.smoothed.reset()
        if self.tracker is not None:
            self.tracker.reset()
        if self.cuts is not None:
            self.cuts.reset()
        if self.keys is not None:
            self.keys.reset()

    def state_dict(self) -> dict[str, Any]:
        """Memory, tracks and the rest that the next frame depends on: plain data and arrays.

        Options (thresholds, kind of tracker) are not in it.
        """
        return {
            "memory": self.runtime.to_arrays(self.state),
            "size_hw": None if self._size_hw is None else list(self._size_hw),
            "tracker": None if self.tracker is None else self.tracker.state_dict(),
            "cuts": None if self.cuts is None else self.cuts.state_dict(),
            "keys": None if self.keys is None else self.keys.state_dict(),
            "steady": self.smoothed.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` of a stream with the same options gave."""
        size_hw = state["size_hw"]
        self.state = self.runtime.from_arrays(state["memory"])
        self._size_hw = None if size_hw is None else (size_hw[0], size_hw[1])
        if self.tracker is not None:
            self.tracker.load_state_dict(state["tracker"])
        if self.cuts is not None:
            self.cuts.load_state_dict(state["cuts"])
        if self.keys is not None:
            self.keys.load_state_dict(state["keys"])
        self.smoothed.load_state_dict(state["steady"])

    def step(self, frame: Frame) -> FrameResult:
        """Return what is seen in the next frame of the video.

        Raises RnndetError if the image is not (H, W, 3) uint8, if its size differs from the
        previous frame's, or if the model is in training mode.
        """
        image = self.prepare(frame)
        cut = self.see_cut(frame)
        found = self.detect(image, size_hw=frame.image.shape[:2], gap=frame.gap)
        return self.result(frame, self.track(found, time=frame.time), cut=cut)

    def prepare(self, frame: Frame) -> np.ndarray:
        """First part of `step`: the checked image at the size of the network, (h, w, 3) uint8.

        Begins anew where the frame says so.
        """
        if frame.restart:
            self._begin_anew()
        image = frame.image
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise RnndetError(
                f"frame {frame.index}: expected an (H, W, 3) uint8 RGB image, found "
                f"{tuple(image.shape)} {image.dtype}"
            )
        size = (image.shape[0], image.shape[1])
        if self._size_hw is not None and size != self._size_hw:
            raise RnndetError(
                f"frame {frame.index}: the size changed from {_size(self._size_hw)} to "
                f"{_size(size)}; call reset() before frames of another video"
            )
        self._size_hw = size
        return scaled(image, self.runtime.input_spec)

    def see_cut(self, frame: Frame) -> bool:
        """Before `detect`: forget everything if the frame begins another scene; whether it does."""
        if self.cuts is None or not self.cuts.update(frame.image):
            return False
        self.state = None
        self.smoothed.reset()
        if self.keys is not None:
            self.keys.reset()
        if self.tracker is not None:
            self.tracker.end_tracks()
        return True

    def _begin_anew(self) -> None:
        """Forget the memory and the frame size, end the tracks: ids go on, as after a cut."""
        self.state = self._size_hw = None
        self.smoothed.reset()
        if self.tracker is not None:
            self.tracker.end_tracks()
        if self.cuts is not None:
            self.cuts.reset()
        if self.keys is not None:
            self.keys.reset()

    def detect(self, image: np.ndarray, *, size_hw: tuple[int, int], gap: int = 0) -> Detections:
        """Second part of `step`: run the model, keep its state; detections >= score_floor.

        Between key frames the boxes of the last one, followed. image: what `prepare` gave;
        size_hw, gap: of the frame.
        """
        if self.keys is not None:
            propagated = self.keys.between(image, size_hw=size_hw, gap=gap)
            if propagated is not None:
                return propagated
        (found,), self.state = self.runtime.detect([image], [size_hw], self.state)
        found = found[found.scores >= self.score_floor]
        if self.keys is not None:
            self.keys.keep(image, found)
        return found

    def track(self, detections: Detections, *, time: float | None = None) -> Detections:
        """Third part of `step`: give ids and keep what is to be shown; no tracker, no change."""
        if self.tracker is None:
            return detections
        return track(detections, self.tracker, min_score=self.min_score, time=time)

    def result(self, frame: Frame, detections: Detections, *, cut: bool) -> FrameResult:
        """Last part of `step`: what is to be shown of the tracks beside the detections."""
        propagated = self.keys is not None and self.keys.is_between
        if self.tracker is None or detections.ids is None:
            return FrameResult(frame, detections, cut, propagated=propagated)
        height, width = frame.image.shape[:2]
        smoothed, predicted = self.smoothed.update(
            detections, self.tracker.expected(), time=frame.time, size_hw=(height, width)
        )
        return FrameResult(frame, detections, cut, smoothed, predicted, propagated)


def track(
    detections: Detections, tracker: Tracker, *, min_score: float, time: float | None
) -> Detections:
    """Give ids to the detections >= TRACKER_FLOOR of one frame, and keep what is to be shown."""
    floor = min(min_score, TRACKER_FLOOR)
    tracked = tracker.update(detections[detections.scores >= floor], time=time)
    shown = tracked.scores >= min_score
    if tracked.ids is not None:
        held = tracked.scores >= min_score * HELD_SHARE
        shown = shown | ((tracked.ids > 0) & held)
    return tracked[shown]


def run_video(stream: Stream, source: Iterable[Frame]) -> Iterator[FrameResult]:
    """Yield the result of each frame of one video, in order; resets the stream first."""
    stream.reset()
    for frame in source:
        yield stream.step(frame)


def _size(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[1]}x{size_hw[0]}"
