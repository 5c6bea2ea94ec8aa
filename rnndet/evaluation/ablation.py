"""Ablations of the temporal state: carried over, reset, exchanged, or from shuffled frames."""

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import torch
from torch.nn import functional

from rnndet.data.records import VideoRecord
from rnndet.errors import RnndetError
from rnndet.evaluation.records import FrameCollector, Predictions
from rnndet.inference.runtimes.torch_runtime import TorchRuntime
from rnndet.inference.stream import Stream, run_video
from rnndet.models.temporal.state import State
from rnndet.models.video_detector import Encoded, Output, VideoDetector
from rnndet.registry import lookup
from rnndet.structures import Detections, Frame

USES = {
    "carried": "the state is carried from frame to frame, as in inference",
    "reset": "the state is reset before every frame",
    "foreign": "before every frame the state is set to a state of another video",
    "shuffled": "the frames are in random order, within blocks",
    "identical": "every frame is repeated REPEATS times, from a reset",
}
STANDARD = ("carried", "reset", "foreign")
FOREIGN_FRAMES = 16  # of the other video: enough for a state in its steady regime
BLOCK = 32  # frames that are encoded at a time and shuffled within
REPEATS = 3

FramesOf = Callable[[VideoRecord], Iterable[Frame]]


def predict_ablations(
    model: VideoDetector,
    videos: Sequence[VideoRecord],
    frames_of: FramesOf,
    *,
    uses: Sequence[str] = STANDARD,
    min_score: float,
    foreign_frames: int = FOREIGN_FRAMES,
    positions: Sequence[int] | None = None,
    corrupted: Mapping[str, Collection[int]] | None = None,
    track_classes: bool = True,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, Predictions]:
    """Predictions for several uses of the temporal state, by name in USES, in a single pass.

    Each frame is encoded once for all uses. "carried" equals a plain run. The foreign state of a
    video is the one that the previous video of the list (for the first, the last) left after
    `foreign_frames` frames. positions: which videos of the list to run, by default all. corrupted:
    indices of the corrupted frames, by video name. track_classes: as for `Stream`; the tracks see
    the detections of every use in the order of the frames. progress: called after each frame.
    Raises RnndetError for an unknown use, and for "foreign" with fewer than two videos.
    """
    for use in uses:
        lookup(use, USES, what="use of the memory")
    if "foreign" in uses and len(videos) < 2:
        raise RnndetError("the memory ablation needs at least two videos, for a foreign state")
    runtime = TorchRuntime(model)
    stream = Stream(runtime, min_score=min_score, track_classes=track_classes)
    # for what follows the model: each use has its own tracks
    ends = {use: Stream(runtime, min_score=min_score, track_classes=track_classes) for use in uses}
    predictions = {use: Predictions(model.classes) for use in uses}
    foreign: State | None = None
    foreign_position = -1  # of the video that left the foreign state
    for position in range(len(videos)) if positions is None else positions:
        video, previous = videos[position], (position - 1) % len(videos)
        if "foreign" in uses and foreign_position != previous:
            frames = itertools.islice(frames_of(videos[previous]), foreign_frames)
            foreign = _state_after(stream, frames)
        stream.reset()
        for end in ends.values():
            end.reset()
        run = _VideoRun(stream, runtime, uses, foreign, foreign_frames)
        indices = (corrupted or {}).get(video.name, ())
        collectors = {use: FrameCollector(video, corrupted=indices) for use in uses}
        for block in _blocks(frames_of(video), BLOCK):
            for use, frame, detections in run.block(block):
                detections = ends[use].track(ends[use].correct(frame, detections))
                collectors[use].add(frame.index, detections)
            for _ in block:
                progress()
        foreign, foreign_position = run.left, position
        for use in uses:
            predictions[use].add(collectors[use].video())
    return predictions


class _VideoRun:
    """One video under several uses of the temporal state."""

    def __init__(
        self,
        stream: Stream,
        runtime: TorchRuntime,
        uses: Sequence[str],
        foreign: State | None,
        foreign_frames: int,
    ) -> None:
        self._stream, self._runtime, self._model = stream, runtime, runtime.model
        self._uses, self._foreign = uses, foreign
        self._carried: State | None = None
        self._shuffled: State | None = None
        self._count = 0
        self._foreign_frames = foreign_frames
        self._generator = torch.Generator().manual_seed(0)
        self.left: State | None = None  # the foreign state of the next video

    @torch.inference_mode()
    def block(self, frames: Sequence[Frame]) -> Iterator[tuple[str, Frame, Detections]]:
        """Use, frame and detections of each of the frames."""
        model = self._model
        encoded = [
            model.encode(
                self._runtime.to_tensors([self._stream.prepare(frame)]),
                original_sizes=[frame.image.shape[:2]],
            )
            for frame in frames
        ]
        for frame, code in zip(frames, encoded, strict=True):
            for use, output in self._in_order(code):
                yield use, frame, self._detections(output)
        if "shuffled" in self._uses:
            shuffled = {}
            for i in torch.randperm(len(frames), generator=self._generator).tolist():
                output = self._decode(encoded[i], self._shuffled)
                self._shuffled = output.state
                shuffled[i] = self._detections(output)
            for i, frame in enumerate(frames):
                yield "shuffled", frame, shuffled[i]

    def _in_order(self, code: Encoded) -> Iterator[tuple[str, Output]]:
        """Use and output of the next frame, for all uses but "shuffled"."""
        carried = self._decode(code, self._carried)
        self._carried = carried.state
        self._count += 1
        if self._count <= self._foreign_frames:
            self.left = carried.state
        if "carried" in self._uses:
            yield "carried", carried
        if "foreign" in self._uses:
            state = self._foreign
            resized = None if state is None else _resized(state, like=carried.state)
            yield "foreign", self._decode(code, resized)
        if "reset" in self._uses or "identical" in self._uses:
            output = self._decode(code, None)
            if "reset" in self._uses:
                yield "reset", output
            if "identical" in self._uses:
                for _ in range(REPEATS - 1):
                    output = self._decode(code, output.state)
                yield "identical", output

    def _decode(self, code: Encoded, state: State | None) -> Output:
        return self._model.decode(code, state, limits=[self._stream.limits])

    def _detections(self, output: Output) -> Detections:
        """The detections of an output, as `Stream.detect` returns them."""
        assert output.detections is not None, "a model called without targets returns detections"
        detections = output.detections[0][0]
        return detections[detections.scores >= self._stream.score_floor]


def _state_after(stream: Stream, frames: Iterable[Frame]) -> State | None:
    """The state after some frames of a video."""
    for _ in run_video(stream, frames):
        pass
    return stream.state


def _blocks(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """The frames in lists of at most `size`."""
    iterator = iter(frames)
    while block := list(itertools.islice(iterator, size)):
        yield block


def _resized(state: State, *, like: State) -> State:
    """The state at the spatial size of another state: videos may differ in frame size."""
    return {
        level: tuple(
            t if t.shape == other.shape else functional.interpolate(t, other.shape[-2:])
            for t, other in zip(tensors, like[level], strict=True)
        )
        for level, tensors in state.items()
    }
