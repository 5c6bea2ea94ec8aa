"""Detect and track objects frame by frame: `Stream` holds all state between frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from rnndet.errors import RnndetError
from rnndet.inference.counting import Regions, TrackCounter
from rnndet.inference.runtimes import Runtime, as_runtime
from rnndet.inference.runtimes.base import scaled
from rnndet.registry import check_number, choose_classes
from rnndet.structures import DetectionLimits, Detections, Frame, FrameResult
from rnndet.system.timing import NO_TIMER, Timer
from rnndet.tracking import Tracker
from rnndet.tracking.base import MinScore, of_labels
from rnndet.tracking.smoothing import TrackSmoother
from rnndet.tracking.track_classes import TrackClasses
from rnndet.video.key_frames import KeyFrames
from rnndet.video.scene_cut import SceneCut
from rnndet.video.sources.base import size_text

if TYPE_CHECKING:
    from rnndet.models.video_detector import VideoDetector

TRACKER_FLOOR = 0.1  # minimum score for the tracker; ByteTrack's lower threshold
DEFAULT_SCORE = 0.3  # minimum score of the reported detections
OTHERS = "*"  # in a mapping of minimum scores: every class that is not named
HELD_SHARE = 0.5  # an object with an id stays visible down to this share of min_score


@dataclass(frozen=True, slots=True)
class Ready:
    """What a stream computes from the pixels of a frame alone, see `Stream.ready`."""

    image: np.ndarray  # the frame at the size of the network
    cells: np.ndarray | None  # of `SceneCut`


class Stream:
    """Runs a model, and optionally a tracker, over one video at a time.

    Without a tracker the result is exactly the detections with score >= min_score, without ids.
    With a tracker, all detections with score >= min(min_score, 0.1) are passed to it. Reported are
    those >= min_score (id 0 = no track yet), and those >= min_score / 2 of an object that already
    has an id: this bridges frames in which the object is hard to see.

    Args:
        model: a `VideoDetector` or a `Runtime`, used unchanged, on its device, in eval mode. Any
            number of streams may share it, each with its own options, also in several threads.
        tracker: None: detections have no ids.
        min_score: minimum score of the reported detections; or by the name of their class, where
            "*" is every class that is not named (0.3 without it).
        nms: IoU above which the lower of two scores of a class is removed, 0 to 1; None: as in the
            model.
        cuts: detects scene cuts. At a cut the recurrent state is emptied and all tracks end,
            because state of the previous scene degrades the detections of the next. None: never.
        keys: chooses the frames that the model sees; in between, boxes are propagated by template
            matching. None: the model sees every frame.
        coast: seconds for which a missed track is reported in `FrameResult.predicted`, see
            `TrackSmoother`; needs a tracker.
        classes: names of the classes to detect; detections of other classes are dropped before
            tracking. Labels remain those of the model. None: all classes of the model.
        track_classes: correct the classes by the shape and motion of tracks, see `TrackClasses`,
            where the model has a read-out for it. It also corrects boxes that are propagated, and
            it sees all classes of the model.
        regions: count tracks in these regions and across these lines, in `FrameResult.counts`; see
            `TrackCounter`, whose counts are part of the state. Needs a tracker.
        size: longer edge of the network's input, in pixels, see `InputSpec.resized`; None: that of
            the model, which is the one it was trained for.

    A frame with `restart` is handled like a cut, and may have another size. A `gap` is not: missing
    frames leave state and tracks unchanged, and the tracker uses the true times.

    `state` is the recurrent state, None at the beginning of a video; it may be read, saved and set.

    >>> from rnndet.config import config_from_dict
    >>> from rnndet.models.video_detector import build_model
    >>> options = {"size": [96, 96], "backbone": "mobilenet_v3_small", "extra_levels": 0}
    >>> config = config_from_dict({"model": {"options": options}}, where="example")  # untrained
    >>> stream = Stream(build_model(config.model, ("bird",)).eval(), min_score=0.9)
    >>> result = stream.step(Frame(np.zeros((64, 64, 3), np.uint8), index=0, time=0.0))
    >>> len(result.detections), stream.state is None
    (0, False)
    """

    def __init__(
        self,
        model: VideoDetector | Runtime,
        tracker: Tracker | None = None,
        *,
        min_score: float | Mapping[str, float] = DEFAULT_SCORE,
        nms: float | None = None,
        cuts: SceneCut | None = None,
        keys: KeyFrames | None = None,
        coast: float = 0.0,
        classes: Sequence[str] | None = None,
        track_classes: bool = True,
        regions: Regions | None = None,
        size: int | None = None,
    ) -> None:
        if nms is not None:
            check_number("nms", nms, expected="an IoU from 0 to 1")
        if nms is not None and not 0 <= nms <= 1:
            raise RnndetError(f"nms = {nms}; expected an IoU from 0 to 1")
        check_number("coast", coast, expected="a time in seconds")
        if coast > 0 and tracker is None:
            raise RnndetError(f"coast = {coast}: only tracks are shown while missed; use a tracker")
        if not isinstance(regions, Regions | None):
            raise RnndetError(
                f"regions = {regions!r:.60}; expected Regions or the path of their file"
            )
        if regions is not None and tracker is None:
            raise RnndetError("regions: only tracks are counted; use a tracker")
        self.runtime = as_runtime(model)
        spec = self.runtime.input_spec
        self.size, self.input_spec = size, spec if size is None else spec.resized(size)
        self.classes: tuple[str, ...] | None = None
        self._is_chosen: np.ndarray | None = None  # (K,) bool, by label
        if classes is not None:
            self.classes = choose_classes(classes, self.runtime.classes, what="classes")
            self._is_chosen = np.isin(self.runtime.classes, self.classes)
        self.state: Any = None
        self.min_score, self.nms = min_score, nms
        self._min_score = score_limits(min_score, self.runtime.classes)
        self.tracker = NoTracker() if tracker is None else tracker
        self.cuts = NoCuts() if cuts is None else cuts
        self.keys = EveryFrame() if keys is None else keys
        self.smoother = TrackSmoother(coast=coast)
        names = self.runtime.track_classes if track_classes else None
        self.track_classes = NoTrackClasses() if names is None else TrackClasses(names)
        self.regions = regions
        self.counter: TrackCounter | NoCounter = NoCounter()
        if regions is not None:
            self.counter = TrackCounter(regions, self.runtime.classes)
        self.reset()

    @property
    def score_floor(self) -> float:
        """The lowest score that this stream uses."""
        has_tracker = not isinstance(self.tracker, NoTracker)
        lowest = self._min_score
        if isinstance(lowest, np.ndarray):
            lowest = float(lowest[... if self._is_chosen is None else self._is_chosen].min())
        floor = min(lowest, TRACKER_FLOOR) if has_tracker else lowest
        return min(floor, self.track_classes.score_floor)

    @property
    def limits(self) -> DetectionLimits:
        """The detections that this stream needs from the model; it passes them at each frame."""
        return DetectionLimits(self.score_floor, self.nms)

    def reset(self) -> None:
        """Reset all state: the next frame begins a new video, and ids start at 1."""
        self.tracker.reset()
        self.counter.reset()
        self._restart()

    def _restart(self) -> None:
        """Begin a part of the video that may look quite different: ids go on, as after a cut."""
        self._size_hw: tuple[int, int] | None = None
        self.cuts.reset()
        self._begin_scene()

    def _begin_scene(self) -> None:
        """Empty the recurrent state and end all tracks; ids go on."""
        self.state = None
        self.smoother.reset()
        self.keys.reset()
        self.track_classes.reset()
        self.tracker.end_tracks()

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next frame depends on, as plain data and arrays.

        Options (thresholds, kind of tracker) are not in it.
        """
        return {
            "memory": self.runtime.to_arrays(self.state),
            "size_hw": None if self._size_hw is None else list(self._size_hw),
            "tracker": self.tracker.state_dict(),
            "cuts": self.cuts.state_dict(),
            "keys": self.keys.state_dict(),
            "steady": self.smoother.state_dict(),
            "track_classes": self.track_classes.state_dict(),
            "counter": self.counter.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state_dict` of a stream with the same options."""
        size_hw = state["size_hw"]
        self.state = self.runtime.from_arrays(state["memory"])
        self._size_hw = None if size_hw is None else (size_hw[0], size_hw[1])
        self.tracker.load_state_dict(state["tracker"])
        self.cuts.load_state_dict(state["cuts"])
        self.keys.load_state_dict(state["keys"])
        self.smoother.load_state_dict(state["steady"])
        self.track_classes.load_state_dict(state.get("track_classes"))  # none in older files
        self.counter.load_state_dict(state.get("counter"))

    def ready(self, frame: Frame) -> Ready | None:
        """What `step` computes first, and may be given; None for an image that it refuses.

        Neither reads nor changes the state, so it may run on another thread and some frames ahead.
        """
        if not _is_rgb(frame.image):
            return None
        image = scaled(frame.image, self.input_spec)
        return Ready(image, self.cuts.reduced(frame.image))

    def step(
        self, frame: Frame, timer: Timer = NO_TIMER, *, ready: Ready | None = None
    ) -> FrameResult:
        """Return the result of the next frame of the video.

        timer: measures the stages preprocess, network, temporal, head, propagate and track. ready:
        the result of `ready` for this frame.

        Raises RnndetError if the image is not (H, W, 3) uint8, if its size differs from the
        previous frame's, or if the model is in training mode.
        """
        with timer.stage("preprocess"):
            image = self.prepare(frame, ready)
        with timer.stage("track"):
            if ready is None:
                is_cut = self.cuts.update(frame.image)
            else:
                is_cut = self.cuts.update(frame.image, ready.cells)
            if is_cut:
                self._begin_scene()
        size_hw = frame.image.shape[:2]
        detections = self.detect(image, size_hw=size_hw, gap=frame.gap, timer=timer)
        with timer.stage("track"):
            detections = self.correct(frame, detections)
            tracked = self.track(detections, time=frame.time)
            result = self._result(frame, tracked, is_cut=is_cut)
            return replace(result, counts=self.counter.step(result))

    def prepare(self, frame: Frame, ready: Ready | None = None) -> np.ndarray:
        """Check a frame and scale it for the network, unless it is ready: (h, w, 3) uint8.

        Resets state and tracks if the frame has `restart`.
        """
        if frame.restart:
            self._restart()
        image = frame.image
        if not _is_rgb(image):
            raise RnndetError(
                f"frame {frame.index}: expected an (H, W, 3) uint8 RGB image, found "
                f"{tuple(image.shape)} {image.dtype}"
            )
        size = (image.shape[0], image.shape[1])
        if self._size_hw is not None and size != self._size_hw:
            raise RnndetError(
                f"frame {frame.index}: the size changed from {size_text(self._size_hw)} to "
                f"{size_text(size)}; call reset() before frames of another video"
            )
        self._size_hw = size
        return scaled(image, self.input_spec) if ready is None else ready.image

    def detect(
        self,
        image: np.ndarray,
        *,
        size_hw: tuple[int, int],
        gap: int = 0,
        timer: Timer = NO_TIMER,
    ) -> Detections:
        """Run the model and store its state; returns the detections to track, without ids.

        They are those >= score_floor of the chosen classes, or of all classes where `correct` needs
        them. Between key frames: the boxes of the last key frame, propagated. image: the result of
        `prepare`; size_hw, gap: of the original frame.
        """
        with timer.stage("propagate"):
            propagated = self.keys.between(image, size_hw=size_hw, gap=gap)
        if propagated is not None:
            return propagated
        (detections,), self.state = self.runtime.detect(
            [image], [size_hw], self.state, limits=[self.limits], timer=timer
        )
        detections = detections[detections.scores >= self.score_floor]
        if isinstance(self.track_classes, NoTrackClasses):
            detections = self._of_chosen_classes(detections)
        with timer.stage("propagate"):
            self.keys.keep(image, detections)
        return detections

    def correct(self, frame: Frame, detections: Detections) -> Detections:
        """Correct the classes of the detections of a frame by those of their tracks.

        Returns detections of the chosen classes, in descending order of score; new ones may have
        any score. Without a read-out, the detections are returned unchanged.
        """
        if isinstance(self.track_classes, NoTrackClasses):
            return detections
        corrected = self.track_classes.update(frame.image, detections, time=frame.time)
        return self._of_chosen_classes(corrected)

    def _of_chosen_classes(self, detections: Detections) -> Detections:
        """The detections of the classes that are reported."""
        if self._is_chosen is None:
            return detections
        return detections[self._is_chosen[detections.labels]]

    def track(self, detections: Detections, *, time: float | None = None) -> Detections:
        """Give ids to detections >= score_floor and select those that are reported."""
        return track(detections, self.tracker, min_score=self._min_score, time=time)

    def _result(self, frame: Frame, detections: Detections, *, is_cut: bool) -> FrameResult:
        """Add the displayed tracks to the detections."""
        propagated = self.keys.is_between
        if detections.ids is None:
            return FrameResult(frame, detections, is_cut, propagated=propagated)
        height, width = frame.image.shape[:2]
        smoothed, predicted = self.smoother.update(
            detections, self.tracker.expected(), time=frame.time, size_hw=(height, width)
        )
        return FrameResult(frame, detections, is_cut, smoothed, predicted, propagated)


def _is_rgb(image: np.ndarray) -> bool:
    return image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def score_limits(min_score: float | Mapping[str, float], classes: Sequence[str]) -> MinScore:
    """The number, or from a mapping the minimum score of each class, (K,) float64.

    Raises RnndetError for a number outside 0 to 1 and an unknown class.

    >>> score_limits({"car": 0.5, "*": 0.4}, ["person", "car"])
    array([0.4, 0.5])
    """
    given = min_score if isinstance(min_score, Mapping) else {"": min_score}
    for name, score in given.items():
        if isinstance(score, bool) or not isinstance(score, Real) or not 0 <= score <= 1:
            of_class = f" of {name!r}" if name else ""
            raise RnndetError(f"`min_score`{of_class} = {score}; expected a number from 0 to 1")
    if not isinstance(min_score, Mapping):
        return min_score
    named = [name for name in min_score if name != OTHERS]
    if named:
        choose_classes(named, classes, what="`min_score`")
    others = min_score.get(OTHERS, DEFAULT_SCORE)
    return np.array([min_score.get(name, others) for name in classes], np.float64)


def track(
    detections: Detections, tracker: Tracker | NoTracker, *, min_score: MinScore, time: float | None
) -> Detections:
    """Give ids to the detections >= TRACKER_FLOOR of a frame and select those that are reported.

    min_score: of all classes, or of each class by its label, (K,).
    """
    floor = np.minimum(min_score, TRACKER_FLOOR)
    tracked = tracker.update(_from(detections, floor), time=time)
    is_shown = _is_from(tracked, min_score)
    if tracked.ids is not None:
        is_held = _is_from(tracked, min_score * HELD_SHARE)
        is_shown = is_shown | ((tracked.ids > 0) & is_held)
    return tracked[is_shown]


def _from(detections: Detections, min_score: MinScore) -> Detections:
    """The detections with at least this score."""
    return detections[_is_from(detections, min_score)]


def _is_from(detections: Detections, min_score: MinScore) -> np.ndarray:
    """(D,): which scores, in float32, are at least the minimum score of their label."""
    return detections.scores >= np.float32(of_labels(min_score, detections.labels))


def run_video(stream: Stream, source: Iterable[Frame]) -> Iterator[FrameResult]:
    """Yield the result of each frame of one video, in order; resets the stream first."""
    stream.reset()
    for frame in source:
        yield stream.step(frame)


class NullPart:
    """Placeholder for a disabled part of a stream; has no state."""

    def reset(self) -> None:
        """Do nothing."""

    def state_dict(self) -> None:
        """Return None: the file of a saved stream has null for this part."""

    def load_state_dict(self, state: None) -> None:
        """Do nothing."""


class NoTracker(NullPart):
    """Replaces a `Tracker`: detections have no ids."""

    def update(self, detections: Detections, *, time: float | None = None) -> Detections:
        return detections

    def end_tracks(self) -> None:
        """Do nothing."""


class NoCuts(NullPart):
    """Replaces `SceneCut` when it is disabled: never reports a cut."""

    def reduced(self, image: np.ndarray) -> None:
        return None

    def update(self, image: np.ndarray, cells: None = None) -> bool:
        return False


class NoTrackClasses(NullPart):
    """Replaces `TrackClasses`: the classes are those of the model."""

    score_floor = 1.0  # it needs no detections


class NoCounter(NullPart):
    """Replaces `TrackCounter`: nothing is counted."""

    def step(self, result: FrameResult) -> None:
        return None


class EveryFrame(NullPart):
    """Replaces `KeyFrames`: the model runs on every frame."""

    every, lost, is_between = 1, 0.0, False

    def between(self, image: np.ndarray, *, size_hw: tuple[int, int], gap: int = 0) -> None:
        return None

    def keep(self, image: np.ndarray, detections: Detections) -> None:
        """Do nothing."""
