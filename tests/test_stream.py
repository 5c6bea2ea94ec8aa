"""Stream: state, thresholds and errors, with a stub model."""

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

import rnndet
from conftest import tiny_model
from rnndet.errors import RnndetError
from rnndet.inference.run import RunOptions, run_source
from rnndet.inference.runtimes.base import scaled
from rnndet.inference.stream import Stream, run_video
from rnndet.specs import InputSpec
from rnndet.structures import Detections, Frame, VideoInfo
from rnndet.tracking import ByteTracker, IouTracker
from rnndet.video.sources.base import Source

BOXES = np.array([[10, 10, 30, 30], [60, 10, 80, 30], [10, 50, 30, 70], [60, 50, 80, 70]], "f4")


class Counter:
    """A runtime that reports four boxes; the state counts frames and sums the images' means.

    A score falls by 0.001 per frame seen, so a lost or leaked state shows in the scores.
    """

    name, device, about = "counter", "cpu", MappingProxyType({})
    classes, score_threshold = ("cube", "ball"), 0.0
    input_spec = InputSpec(40, 48, None, 1, (0.0,) * 3, (1.0,) * 3)
    track_classes = None

    def __init__(self, scores: tuple[float, ...] = (0.9, 0.4, 0.2, 0.12)) -> None:
        self.scores = scores

    def detect(self, images, original_sizes, state, *, limits=None, timer=None):
        (image,), (_,) = images, original_sizes  # of one video
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
        total = (0.0 if state is None else state) + 1 + float(image.mean()) / 256
        scores = (np.array(self.scores) - 0.001 * total).astype(np.float32)
        return [Detections(BOXES.copy(), scores, np.array([0, 1, 0, 1]))], total

    def rows_of(self, state, count):
        return [state]

    def joined(self, states):
        (state,) = states
        return state

    def to_arrays(self, state):
        return None if state is None else {"0": [np.full((1, 1, 1, 1), state)]}

    def from_arrays(self, arrays):
        return None if arrays is None else float(arrays["0"][0])

    def fingerprint(self):
        return "0" * 64


def frames(count: int, *, start: int = 0, size: tuple[int, int] = (80, 96)) -> list[Frame]:
    return [
        Frame(np.full((*size, 3), start + 10 * k, np.uint8), index=k, time=k / 25)
        for k in range(count)
    ]


def test_stream_equals_manual_calls_of_the_runtime():
    runtime, stream, state = Counter(), Stream(Counter(), min_score=0.0), None
    for frame in frames(5):
        image = scaled(frame.image, runtime.input_spec)
        (found,), state = runtime.detect([image], [frame.image.shape[:2]], state)
        result = stream.step(frame)
        assert result.frame is frame
        assert np.array_equal(result.detections.scores, found.scores)
    assert stream.state == state


def test_video_after_a_reset_equals_the_video_alone():
    a, b = frames(4), frames(3, start=100)
    alone = [r.detections.scores for r in run_video(Stream(Counter()), b)]
    stream = Stream(Counter())
    list(run_video(stream, a))
    after = [r.detections.scores for r in run_video(stream, b)]
    assert all(np.array_equal(x, y) for x, y in zip(alone, after, strict=True))


def test_ids_of_the_next_video_begin_at_1():
    stream = Stream(Counter(), ByteTracker())
    for _ in range(2):
        *_, last = run_video(stream, frames(3))
        assert last.detections.ids[last.detections.ids > 0].tolist() == [1]


def test_reset_forgets_the_shown_class_of_each_track():
    class OtherClasses(Counter):
        def detect(self, *arguments, limits=None, timer=None):
            (found,), state = super().detect(*arguments)
            return [replace(found, labels=1 - found.labels)], state

    stream = Stream(Counter(), IouTracker())  # which gives an id at once
    list(run_video(stream, frames(3)))
    stream.runtime = OtherClasses()
    result = next(run_video(stream, frames(1)))
    assert result.smoothed.labels.tolist() == result.detections.labels.tolist() == [1, 0]


def test_state_can_be_saved_and_set():
    stream = Stream(Counter())
    first, second = frames(2)
    stream.step(first)
    saved = stream.state
    expected = stream.step(second).detections.scores
    stream.state = saved
    assert np.array_equal(stream.step(second).detections.scores, expected)


def test_a_changed_frame_size_raises_with_both_sizes_and_mentions_reset():
    stream = Stream(Counter())
    stream.step(frames(1)[0])
    other = frames(1, size=(40, 50))[0]
    with pytest.raises(RnndetError, match=r"96x80.*50x40.*reset\(\)"):
        stream.step(other)
    stream.reset()
    stream.step(other)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
    ],
)
def test_image_of_another_type_is_refused(image):
    with pytest.raises(RnndetError, match="uint8 RGB"):
        Stream(Counter()).step(Frame(image, 0, 0.0))


@pytest.mark.filterwarnings("error")
def test_read_only_and_mirrored_images_are_accepted():
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)[:, ::-1]
    image.flags.writeable = False
    stream = Stream(tiny_model())
    tensor = stream.runtime.to_tensors([stream.prepare(Frame(image, 0, 0.0))])
    assert np.array_equal(tensor[0, 0].permute(1, 2, 0).numpy(), image)


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(RnndetError, match=r"eval\(\)"):
        Stream(tiny_model().train()).step(frames(1)[0])


@pytest.mark.parametrize("score", [-0.1, 1.5])
def test_min_score_outside_its_range_is_refused(score):
    with pytest.raises(RnndetError, match="min_score"):
        Stream(Counter(), min_score=score)


def test_without_a_tracker_exactly_the_detections_from_min_score_on_are_shown():
    result = Stream(Counter(), min_score=0.3).step(frames(1)[0])
    assert len(result.detections) == 2
    assert result.detections.ids is None


def test_low_scores_reach_the_tracker_and_are_shown_only_for_known_objects():
    model = Counter((0.9, 0.8, 0.2, 0.12))
    stream = Stream(model, ByteTracker(), min_score=0.3)
    shown = [stream.step(f).detections for f in frames(3)]
    assert [d.ids.tolist() for d in shown] == [[0, 0], [1, 2], [1, 2]]
    model.scores = (0.9, 0.2, 0.19, 0.05)  # the second object gets hard to see
    held = stream.step(frames(1)[0]).detections
    assert held.ids.tolist() == [1, 2]
    model.scores = (0.9, 0.13, 0.12, 0.05)  # below half of min_score
    assert stream.step(frames(1)[0]).detections.ids.tolist() == [1]


def test_only_the_chosen_classes_are_reported_with_the_labels_of_the_model():
    result = Stream(Counter(), min_score=0.1, classes=["ball"]).step(frames(1)[0])
    assert result.detections.labels.tolist() == [1, 1]


def test_other_classes_never_reach_the_tracker():
    stream = Stream(Counter((0.9, 0.8, 0.7, 0.6)), ByteTracker(), classes=["ball"])
    *_, last = run_video(stream, frames(3))
    assert last.detections.ids.tolist() == [1, 2]  # cubes would have taken ids


def test_other_classes_are_not_propagated_between_key_frames():
    stream = Stream(Counter(), min_score=0.0, keys=Twice(), classes=["ball"])
    results = [stream.step(frame) for frame in frames(2)]
    assert results[1].propagated
    assert results[1].detections.labels.tolist() == [1, 1]


def test_streams_of_one_runtime_have_their_own_classes():
    runtime = Counter()
    streams = [Stream(runtime, min_score=0.1, classes=c) for c in (["cube"], ["ball"], None)]
    labels = [set(s.step(frames(1)[0]).detections.labels.tolist()) for s in streams]
    assert labels == [{0}, {1}, {0, 1}]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["bal"], "classes: the model has no class 'bal'; did you mean 'ball'"),
        (["person"], "classes: the model has no class 'person'; its classes: cube, ball"),
        ([], "classes: names no class"),
        ("ball", "classes = 'ball'; expected a list of class names"),
    ],
)
def test_classes_that_the_model_lacks_are_refused(classes, message):
    with pytest.raises(RnndetError, match=message):
        Stream(Counter(), classes=classes)


def test_score_floor_is_lower_with_a_tracker():
    assert Stream(Counter(), min_score=0.3).score_floor == 0.3
    assert Stream(Counter(), ByteTracker(), min_score=0.3).score_floor == 0.1
    assert Stream(Counter(), ByteTracker(), min_score=0.05).score_floor == 0.05


def test_frames_without_detections_pass_through_the_tracker():
    stream = Stream(Counter((0.0, 0.0, 0.0, 0.0)), ByteTracker())
    assert [len(r.detections) for r in run_video(stream, frames(3))] == [0, 0, 0]


def test_results_can_be_changed_in_place():
    detections = Stream(tiny_model(), min_score=0.0).step(frames(1)[0]).detections
    assert len(detections) > 0
    for array in (detections.boxes, detections.scores, detections.labels):
        array += 1  # would raise on a read-only array


def test_run_video_is_lazy():
    taken = []

    def source():
        for frame in frames(5):
            taken.append(frame.index)
            yield frame

    results = run_video(Stream(Counter()), source())
    next(results)
    assert taken == [0]


class Twice:
    """Key frames: every second frame; in between, boxes are half a pixel further right."""

    every, lost, is_between = 2, 0.0, False

    def __init__(self) -> None:
        self.found = None

    def between(self, image, *, size_hw, gap=0):
        self.is_between = self.found is not None and not self.is_between
        return self.found if self.is_between else None

    def keep(self, image, found):
        self.found = Detections(found.boxes + 0.5, found.scores, found.labels)

    def reset(self):
        self.found, self.is_between = None, False

    def state_dict(self):
        return {"is_between": self.is_between}

    def load_state_dict(self, state):
        self.is_between = state["is_between"]


def test_the_model_sees_key_frames_only():
    stream = Stream(Counter(), min_score=0.0, keys=Twice())
    results = [stream.step(frame) for frame in frames(4)]
    assert [r.propagated for r in results] == [False, True, False, True]
    assert stream.state == pytest.approx(2 + (0 + 20) / 256)  # frames 0 and 2
    assert np.array_equal(results[3].detections.boxes, results[2].detections.boxes + 0.5)


class FrameList(list, Source):
    """Frames as a source for `run_source`."""

    info = VideoInfo("clip", "clip", 96, 80, None, None)


@pytest.mark.parametrize("way", ["run_video", "run_source"])
def test_key_frames_get_the_gap_of_each_frame(way, tmp_path):
    gaps = []

    class Asked(Twice):
        def between(self, image, *, size_hw, gap=0):
            gaps.append(gap)
            return super().between(image, size_hw=size_hw, gap=gap)

    first, second, third = frames(3)
    source = FrameList([first, replace(second, gap=3), third])
    stream = Stream(Counter(), keys=Asked())
    if way == "run_video":
        list(run_video(stream, source))
    else:
        run_source(stream, source, tmp_path, RunOptions(save=()))
    assert gaps == [0, 3, 0]


@pytest.mark.parametrize("how", ["cut", "restart", "reset"])
def test_first_frame_after_a_cut_a_restart_and_a_reset_is_a_key_frame(how):
    class CutAtOne:
        def update(self, image):
            return how == "cut" and image.mean() == 10

        def reset(self):
            pass

    first, second = frames(2)
    stream = Stream(Counter(), cuts=CutAtOne(), keys=Twice())
    stream.step(first)
    if how == "reset":
        stream.reset()
    assert not stream.step(replace(second, restart=how == "restart")).propagated


def test_propagated_boxes_reach_the_tracker():
    model = Counter((0.9, 0.8, 0.2, 0.12))
    stream = Stream(model, ByteTracker(), min_score=0.3, keys=Twice())
    results = [stream.step(frame) for frame in frames(4)]
    assert [r.propagated for r in results] == [False, True, False, True]
    assert results[3].detections.ids.tolist() == [1, 2]


def test_public_names_are_importable_from_the_package():
    assert all(getattr(rnndet, name) is not None for name in rnndet.__all__)
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = rnndet.nothing_here


def test_gap_keeps_the_state_and_restart_empties_it():
    stream = Stream(Counter())
    first, second, third = frames(3)
    alone = Stream(Counter()).step(third).detections.scores
    stream.step(first)
    held = stream.step(replace(second, gap=5)).detections.scores
    other = Stream(Counter())
    other.step(first)
    assert np.array_equal(other.step(second).detections.scores, held)
    assert np.array_equal(stream.step(replace(third, restart=True)).detections.scores, alone)


def test_restart_allows_another_size_and_ids_continue():
    stream = Stream(Counter(), ByteTracker(min_score=0.3))
    before = [stream.step(frame).detections.ids for frame in frames(3)][-1]
    large = [replace(f, time=1 + f.time) for f in frames(3, size=(90, 100))]
    large[0] = replace(large[0], restart=True)
    after = [stream.step(frame).detections.ids for frame in large][-1]
    assert before.max() > 0
    assert after.max() > before.max()
    assert not set(after[after > 0].tolist()) & set(before.tolist())
    with pytest.raises(RnndetError, match="size changed"):
        stream.step(frames(1)[0])
