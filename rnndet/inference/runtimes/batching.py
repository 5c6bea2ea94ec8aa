"""Run several videos through one model: each has its own stream, one call takes a frame of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Condition
from typing import Any, Self

from rnndet.inference.runtimes.base import Image, Runtime, StateArrays
from rnndet.inference.runtimes.graph import GraphRuntime
from rnndet.specs import InputSpec, TrackClassSpec
from rnndet.structures import DetectionLimits, Detections
from rnndet.system.timing import NO_TIMER, Timer


@dataclass(slots=True, eq=False)
class _Request:
    """The next frame of one video."""

    image: Image
    original_size: tuple[int, int]
    state: Any
    limits: DetectionLimits
    detections: Detections | None = None
    error: BaseException | None = None
    is_done: bool = field(default=False)


class Batcher:
    """Collects a frame of every member and runs them together, one call per frame size.

    Exported graphs run on a CPU, where a frame of its own call is as fast: they are called for each
    frame as it comes, one at a time, so that no video waits for another's reading and tracking, and
    OpenVINO compiles the graph for one number of videos.

    With other runtimes, each member runs on its own thread; the last to request runs the model for
    all. So the videos advance in lockstep, and a video that is slow to read delays the rest. With
    key frames, which need not coincide, this holds at each key frame.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._members = 0
        self._waiting: list[_Request] = []
        self._changed = Condition()

    def join(self) -> None:
        """Add a video to the batch."""
        with self._changed:
            self._members += 1

    def leave(self) -> None:
        """Stop waiting for a video that has ended."""
        with self._changed:
            self._members -= 1
            self._run_if_complete()

    def detect(self, request: _Request) -> None:
        """Wait until the request is done."""
        if isinstance(self.runtime, GraphRuntime):
            return self._run([request])
        with self._changed:
            self._waiting.append(request)
            self._run_if_complete()
            self._changed.wait_for(lambda: request.is_done)

    def _run_if_complete(self) -> None:
        """Run the waiting requests once every member has sent one. Requires the lock."""
        if not self._waiting or len(self._waiting) < self._members:
            return
        requests, self._waiting = self._waiting, []
        groups: dict[tuple[int, ...], list[_Request]] = {}
        for request in requests:
            groups.setdefault(request.image.shape, []).append(request)
        for group in groups.values():
            try:
                self._run(group)
            except BaseException as error:  # each member raises it
                for request in group:
                    request.error = error
        for request in requests:
            request.is_done = True
        self._changed.notify_all()

    def _run(self, group: Sequence[_Request]) -> None:
        detections, state = self.runtime.detect(
            [request.image for request in group],
            [request.original_size for request in group],
            self.runtime.joined([request.state for request in group]),
            limits=[request.limits for request in group],
        )
        states = self.runtime.rows_of(state, len(group))
        for request, found, new_state in zip(group, detections, states, strict=True):
            request.detections, request.state = found, new_state


class Member:
    """The `Runtime` of one video among several; a context manager, a batch member inside it."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._runtime = runtime = batcher.runtime
        self.name: str = runtime.name
        self.classes: tuple[str, ...] = runtime.classes
        self.device: str = runtime.device
        self.about: Mapping[str, Any] = runtime.about
        self.input_spec: InputSpec = runtime.input_spec
        self.track_classes: TrackClassSpec | None = runtime.track_classes

    @property
    def score_threshold(self) -> float:
        return self._runtime.score_threshold

    def detect(
        self,
        images: Sequence[Image],
        original_sizes: Sequence[tuple[int, int]],
        state: Any,
        *,
        limits: Sequence[DetectionLimits] | None = None,
        timer: Timer = NO_TIMER,
    ) -> tuple[list[Detections], Any]:
        """See `Runtime.detect`; the wait for the other videos counts as network."""
        (image,), (size,) = images, original_sizes
        (limit,) = limits or [DetectionLimits(self.score_threshold)]
        request = _Request(image, size, state, limit)
        with timer.stage("network"):
            self._batcher.detect(request)
        if request.error is not None:
            raise request.error
        assert request.detections is not None, "a finished request has detections or an error"
        return [request.detections], request.state

    def rows_of(self, state: Any, count: int) -> list[Any]:
        return self._runtime.rows_of(state, count)

    def joined(self, states: Sequence[Any]) -> Any:
        return self._runtime.joined(states)

    def to_arrays(self, state: Any) -> StateArrays | None:
        return self._runtime.to_arrays(state)

    def from_arrays(self, arrays: StateArrays | None) -> Any:
        return self._runtime.from_arrays(arrays)

    def fingerprint(self) -> str:
        return self._runtime.fingerprint()

    def __enter__(self) -> Self:
        self._batcher.join()
        return self

    def __exit__(self, *error: object) -> None:
        self._batcher.leave()
