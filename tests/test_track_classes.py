"""Classes of tracks by shape and motion: mixing, streams, checkpoints, and the fit."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
import torch

from conftest import detections, error_line, tiny_config, tiny_model, write_coco_vid
from rnndet.benchmarks.settings import parse_setting
from rnndet.cli.evaluate import main as evaluate
from rnndet.cli.fit_track_classes import main as fit_tool
from rnndet.data.formats import read_set
from rnndet.data.frames import iterate
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.errors import OutputError, RnndetError, WeightsError
from rnndet.evaluation.agreement import Teacher
from rnndet.evaluation.predict import evaluate_set
from rnndet.evaluation.records import load_predictions
from rnndet.inference.run import RunOptions, make_stream, run_source
from rnndet.inference.runtimes.batching import Batcher, Member
from rnndet.inference.runtimes.torch_runtime import TorchRuntime
from rnndet.inference.stream import Stream
from rnndet.inference.stream_state import Position, load_stream, save_stream
from rnndet.models import zoo
from rnndet.models.checkpoint import (
    load_model,
    model_content,
    model_from_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from rnndet.models.publish import publish
from rnndet.specs import InputSpec, TrackClassSpec
from rnndet.structures import Detections, Frame, Target, VideoInfo
from rnndet.system.timing import StageTimer
from rnndet.tracking import ByteTracker
from rnndet.tracking.byte import ByteOptions
from rnndet.tracking.shape_motion import FEATURES
from rnndet.tracking.track_classes import (
    ASSOCIATION,
    ReadOut,
    TrackClasses,
    group_detections,
    mixed_scores,
)
from rnndet.training import track_classes as fitting
from rnndet.training.track_classes import (
    collect_samples,
    cross_validated,
    disturbed,
    fit_read_out,
    fold_of_groups,
    measure_read_out,
    sample_weights,
)
from rnndet.video.key_frames import KeyFrames
from rnndet.video.scene_cut import SceneCut
from rnndet.video.sources.base import Source

CLASSES = ("square", "bar")
FPS = 25
SIZE_HW = (96, 128)


def spec_for(favoured=1, *, classes=CLASSES, **options):
    """A read-out that gives one class nearly all, whatever the features."""
    count, width = len(classes), len(FEATURES)
    bias = tuple(8.0 * (c == favoured) for c in range(count))
    zero, one = (0.0,) * width, (1.0,) * width
    weight = ((0.0,) * count,) * width
    return TrackClassSpec(classes, FEATURES, zero, one, weight, bias, **options)


def frame(k, *, size_hw=SIZE_HW):
    image = np.random.default_rng(k).integers(0, 256, (*size_hw, 3), np.uint8)
    return Frame(image, k, k / FPS)


def box_at(k, y=20):
    return [10 + k, y, 26 + k, y + 12]


def seen(k):
    """One object, as a square and, with less, a bar."""
    return detections([box_at(k), box_at(k)], [0.6, 0.3], [0, 1])


def run(corrector, count, found=seen):
    """The results of `count` frames."""
    return [corrector.update(frame(k).image, found(k), time=k / FPS) for k in range(count)]


def assert_equal(a: Detections, b: Detections):
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


# the tracks


def test_no_option_of_its_tracker_is_left_to_a_default():
    own = {"min_score", "low_score", "start_margin", "duplicate_iou", "max_age", "frame_interval"}
    assert set(ASSOCIATION) | own == {field.name for field in fields(ByteOptions)}


def test_a_small_object_of_low_scores_that_flies_fast_is_tracked_from_its_second_frame():
    def flying(k):  # by more than its width and a half a frame
        return detections([[24 * k, 20, 24 * k + 14, 34]], [0.22], [0])

    corrector = TrackClasses(spec_for())
    ids = [corrector._track(flying(k), k / FPS)[1].tolist() for k in range(4)]
    assert ids == [[], [1], [1], [1]]


# the rule


def test_mixed_scores_of_several_objects_are_those_of_each_alone():
    rng, spec = np.random.default_rng(0), spec_for(classes=tuple("abcde"), power=0.3, floor=0.02)
    top, probabilities = rng.random((7, 5)), rng.dirichlet(np.ones(5), 7)
    together = mixed_scores(top, probabilities, spec)
    for row in range(7):
        np.testing.assert_array_equal(
            together[row], mixed_scores(top[row], probabilities[row], spec)
        )


def test_mixed_scores_are_those_computed_by_hand():
    top, probabilities = np.array([0.6, 0.3, 0.0]), np.array([0.05, 0.9, 0.05])
    spec = spec_for(classes=("a", "b", "c"), power=0.5, floor=0.1)
    # sqrt(.05 + .1) * (2/3 + .1) = .2969; sqrt(.9 + .1) * (1/3 + .1) = .4333;
    # sqrt(.05 + .1) * .1 = .03873; the largest becomes .6
    expected = 0.6 * np.array([0.29694, 0.43333, 0.03873]) / 0.43333
    np.testing.assert_allclose(mixed_scores(top, probabilities, spec), expected, rtol=1e-4)


def test_probabilities_are_the_softmax_of_the_clipped_standardised_features():
    weight = ((1.0, 0.0),) + ((0.0, 0.0),) * (len(FEATURES) - 1)
    spec = replace(spec_for(), weight=weight, bias=(0.5, 0.0), mean=(2.0,) * len(FEATURES))
    spec = replace(spec, std=(0.5,) * len(FEATURES))
    features = np.full((2, len(FEATURES)), 2.5)
    features[1] = 99
    expected = [1 / (1 + np.exp(-(1 + 0.5))), 1 / (1 + np.exp(-(4 + 0.5)))]
    np.testing.assert_allclose(ReadOut(spec).probabilities(features)[:, 0], expected)


def test_group_is_what_overlaps_an_object_and_no_earlier_one():
    boxes = np.array([[0, 0, 10, 10], [0, 3, 10, 13], [50, 50, 60, 60]], float)
    found = detections(
        [[0, 0, 10, 10], [0, 1, 10, 11], [0, 3, 10, 13], [0, 4, 10, 14], [0, 0, 10, 10]],
        [0.9, 0.8, 0.7, 0.6, 0.01],
        [0, 1, 0, 1, 1],
    )
    # IoU with the first: 1, .82, .54, .43; with the second: .54, .67, 1, .82
    assert group_detections(boxes, found, floor=0.02).tolist() == [0, 0, 1, 1, -1]


# frame by frame


def test_young_objects_stay_as_they_are():
    corrector = TrackClasses(spec_for(wait=1.0, power=1.0))
    results = run(corrector, 40)
    # the track has an id, and its first patch, from the second frame on
    for k in range(26):
        assert_equal(results[k], seen(k))
    assert results[26].labels[0] == 1


def test_an_old_object_gets_the_class_of_its_track_with_the_score_of_the_object():
    corrected = run(TrackClasses(spec_for(wait=0.5, power=1.0)), 30)[-1]
    assert corrected.labels.tolist() == [1, 0]
    assert corrected.scores[0] == pytest.approx(0.6, abs=1e-6)
    np.testing.assert_array_equal(corrected.boxes, seen(29).boxes)


def test_scores_of_a_class_change_in_proportion():
    def found(k):
        return detections([box_at(k)] * 3, [0.6, 0.3, 0.15], [0, 1, 1])

    last = run(TrackClasses(spec_for(wait=0.5, power=1.0)), 30, found)[-1]
    bars = last.scores[last.labels == 1]
    assert bars[0] == pytest.approx(2 * bars[1])


def test_a_class_without_a_detection_gets_one_at_the_box_of_the_object():
    def found(k):
        return detections([box_at(k)], [0.6], [0])

    spec = spec_for(wait=0.5, power=1.0)
    last = run(TrackClasses(spec), 30, found)[-1]
    assert last.labels.tolist() == [0, 1]
    np.testing.assert_array_equal(last.boxes, [box_at(29)] * 2)
    bar = np.exp(8) / (1 + np.exp(8))
    expected = mixed_scores(np.array([0.6, 0.0]), np.array([1 - bar, bar]), spec)
    np.testing.assert_allclose(last.scores, expected, rtol=1e-5)


def test_detections_of_no_track_stay_as_they_are():
    def found(k):
        loose = detections([[90, 60 + 9 * (k % 2), 100, 69 + 9 * (k % 2)]], [0.12], [0])
        old = seen(k)
        pairs = ((getattr(old, n), getattr(loose, n)) for n in ("boxes", "scores", "labels"))
        return Detections(*(np.concatenate(pair) for pair in pairs))

    last = run(TrackClasses(spec_for(wait=0.5, power=1.0)), 30, found)[-1]
    assert last.labels[0] == 1
    is_loose = (last.boxes == found(29).boxes[2]).all(1)
    assert last.scores[is_loose].tolist() == [np.float32(0.12)]
    assert last.labels[is_loose].tolist() == [0]


def test_scores_below_the_floor_do_not_matter():
    def more(k):
        weak = detections([box_at(k), [60, 60, 70, 70]], [0.099, 0.098], [1, 0])
        pairs = ((getattr(seen(k), n), getattr(weak, n)) for n in ("boxes", "scores", "labels"))
        return Detections(*(np.concatenate(pair) for pair in pairs))

    spec = spec_for(wait=0.5, power=1.0)
    plain, with_weak = run(TrackClasses(spec), 30)[-1], run(TrackClasses(spec), 30, more)[-1]
    is_weak = np.isin(with_weak.scores, np.float32([0.099, 0.098]))
    assert is_weak.sum() == 2
    assert_equal(with_weak[~is_weak], plain)


def test_results_are_sorted_and_equal_scores_keep_their_order():
    def found(k):
        pair = [box_at(k), box_at(k, y=60)]
        return detections([*pair, *pair], [0.6, 0.6, 0.3, 0.3], [0, 0, 1, 1])

    last = run(TrackClasses(spec_for(wait=0.5, power=1.0)), 30, found)[-1]
    assert (np.diff(last.scores) <= 0).all()
    assert last.boxes[:2, 1].tolist() == [20, 60]


def test_object_keeps_its_age_through_missed_frames_but_not_for_over_a_second():
    def after(missed):
        corrector = TrackClasses(spec_for(wait=1.0, power=1.0))
        for k in range(20):
            corrector.update(frame(k).image, seen(k), time=k / FPS)
        for k in range(20, 20 + missed):
            corrector.update(frame(k).image, Detections.empty(), time=k / FPS)
        later = (20 + missed, 21 + missed)
        return [corrector.update(frame(k).image, seen(k), time=k / FPS).labels[0] for k in later]

    assert after(10) == [1, 1]
    assert after(30) == [0, 0]


def test_state_does_not_grow_with_objects_that_have_left():
    def found(k):  # a new object every four frames, which none of the earlier ones can be
        return (
            detections([box_at(0, y=10 + 37 * (k // 4 % 2))], [0.6], [0])
            if k % 40 < 8
            else (Detections.empty())
        )

    corrector = TrackClasses(spec_for())
    run(corrector, 400, found)
    assert len(corrector.state_dict()["shapes"]["ids"]) <= 2


def test_times_that_stand_still_do_not_stop_the_clock():
    corrector = TrackClasses(spec_for(wait=0.5, power=1.0))
    results = [corrector.update(frame(k).image, seen(k), time=0.0) for k in range(20)]
    assert results[-1].labels[0] == 1


def test_no_detections_are_no_detections():
    corrector = TrackClasses(spec_for(wait=0.0))
    assert [len(r) for r in run(corrector, 5, lambda k: Detections.empty())] == [0] * 5


def test_read_out_of_other_features_is_refused():
    with pytest.raises(WeightsError, match="fit it again"):
        TrackClasses(replace(spec_for(), features=("size",), mean=(0.0,), std=(1.0,)))


# streams


class Flyer:
    """A runtime with one moving object, whose state counts the frames."""

    name, device, about = "flyer", "cpu", {}
    classes, score_threshold = CLASSES, 0.0
    input_spec = InputSpec(96, 128, None, 1, (0.0,) * 3, (1.0,) * 3)

    def __init__(self, spec=None, *, found=seen):
        self.track_classes, self.found = spec, found

    def detect(self, images, original_sizes, state, *, limits=None, timer=None):
        states = [0] * len(images) if state is None else state
        return [self.found(k) for k in states], [k + 1 for k in states]

    def rows_of(self, state, count):
        return [[k] for k in state]

    def joined(self, states):
        return [0 if state is None else state[0] for state in states]

    def to_arrays(self, state):
        return None if state is None else {"0": [np.array(state)]}

    def from_arrays(self, arrays):
        return None if arrays is None else arrays["0"][0].tolist()

    def fingerprint(self):
        return "0" * 64


SPEC = spec_for(wait=0.5, power=1.0)


def shown(stream, count=30, first=0):
    return [stream.step(frame(k)).detections for k in range(first, first + count)]


def test_stream_corrects_classes_before_it_tracks():
    stream = Stream(Flyer(SPEC), ByteTracker(), min_score=0.2)
    last = shown(stream)[-1]
    assert last.labels[0] == 1
    assert last.ids.tolist()[:1] == [1]


@pytest.mark.parametrize("tracker", ["none", "byte"])
def test_switched_off_the_results_are_those_of_weights_without_a_read_out(tracker):
    options = {"tracker": tracker, "min_score": 0.2}
    off = shown(make_stream(Flyer(SPEC), **options, track_classes=False))
    without = shown(make_stream(Flyer(), **options))
    on = shown(make_stream(Flyer(SPEC), **options))
    for a, b in zip(off, without, strict=True):
        assert_equal(a, b)
    assert on[-1].labels[0] != off[-1].labels[0]


def test_without_a_read_out_a_stream_gives_the_detections_of_the_model():
    for k, result in enumerate(shown(Stream(Flyer(), min_score=0.2))):
        assert_equal(result, seen(k))


def test_score_floor_is_that_of_the_evidence_only_where_it_is_used():
    assert Stream(Flyer(SPEC), min_score=0.3).score_floor == 0.1
    assert Stream(Flyer(SPEC), min_score=0.001).score_floor == 0.001
    assert Stream(Flyer(SPEC), min_score=0.3, track_classes=False).score_floor == 0.3
    assert Stream(Flyer(), ByteTracker(), min_score=0.3).score_floor == 0.1


def test_results_do_not_depend_on_the_score_floor_of_the_stream():
    def found(k):
        return detections([box_at(k)] * 3, [0.6, 0.15, 0.09], [0, 1, 1])

    high, low = (shown(Stream(Flyer(SPEC, found=found), min_score=s))[-1] for s in (0.3, 0.001))
    assert len(high) == 1
    assert high.labels[0] == 1
    assert_equal(low[low.scores >= 0.3], high)


def test_reported_classes_are_chosen_after_the_correction():
    every = shown(Stream(Flyer(SPEC), min_score=0.01))[-1]
    bars = shown(Stream(Flyer(SPEC), min_score=0.01, classes=["bar"]))[-1]
    assert set(every.labels.tolist()) == {0, 1}
    assert_equal(bars, every[every.labels == 1])


def test_tracks_end_at_a_scene_cut_and_a_restart():
    class Always(SceneCut):
        def update(self, image):
            return super().update(image) or self._cut_now

    cuts = Always()
    cuts._cut_now = False
    stream = Stream(Flyer(SPEC), min_score=0.05, cuts=cuts)
    assert shown(stream)[-1].labels[0] == 1
    cuts._cut_now = True
    assert stream.step(frame(30)).detections.labels[0] == 0
    cuts._cut_now = False
    assert shown(stream, 20, 31)[-1].labels[0] == 1
    assert stream.step(replace(frame(51), restart=True)).detections.labels[0] == 0


def test_video_after_a_reset_equals_the_video_alone():
    stream = Stream(Flyer(SPEC), min_score=0.05)
    first = shown(stream)
    stream.reset()
    for a, b in zip(first, shown(stream), strict=True):
        assert_equal(a, b)


def test_propagated_boxes_are_corrected_too():
    stream = Stream(Flyer(SPEC), min_score=0.05, keys=KeyFrames(every=2))
    results = [stream.step(frame(k)) for k in range(40)]
    assert results[-1].propagated
    assert results[-1].detections.labels[0] == 1
    assert results[-2].detections.labels[0] == 1


def test_time_of_the_correction_counts_as_tracking():
    class Slow(TrackClasses):
        def update(self, *args, **options):
            threading.Event().wait(0.03)
            return super().update(*args, **options)

    stream, timer = Stream(Flyer(SPEC)), StageTimer()
    stream.track_classes = Slow(SPEC)
    stream.step(frame(0), timer)
    assert timer.seconds["track"] > 0.03


def test_a_saved_stream_continues_bit_for_bit(tmp_path):
    whole = Stream(Flyer(SPEC), ByteTracker(), min_score=0.05)
    expected = shown(whole, 40)
    first = Stream(Flyer(SPEC), ByteTracker(), min_score=0.05)
    shown(first, 9)
    save_stream(tmp_path / "s.npz", first, Position(8, 8 / FPS))
    second = Stream(Flyer(SPEC), ByteTracker(), min_score=0.05)
    load_stream(tmp_path / "s.npz", second)
    for a, b in zip(expected[9:], shown(second, 31, 9), strict=True):
        assert_equal(a, b)
        np.testing.assert_array_equal(a.ids, b.ids)


def test_saved_state_of_a_stream_without_the_correction_is_refused(tmp_path):
    save_stream(tmp_path / "s.npz", Stream(Flyer(SPEC), track_classes=False), Position(0, 0.0))
    with pytest.raises(WeightsError, match="use the same options"):
        load_stream(tmp_path / "s.npz", Stream(Flyer(SPEC)))


def test_state_of_a_version_without_the_correction_continues():
    stream = Stream(Flyer(), ByteTracker())
    state = stream.state_dict()
    del state["track_classes"]
    Stream(Flyer(), ByteTracker()).load_state_dict(state)


def test_videos_in_a_batch_equal_separate_runs():
    batcher, lengths = Batcher(Flyer(SPEC)), (30, 22, 26)
    start = threading.Barrier(len(lengths))

    def one(length):
        with Member(batcher) as member:
            start.wait()
            return shown(Stream(member, ByteTracker(), min_score=0.05), length)

    with ThreadPoolExecutor(len(lengths)) as pool:
        together = list(pool.map(one, lengths))
    assert together[0][-1].labels[0] == 1
    for length, results in zip(lengths, together, strict=True):
        for a, b in zip(
            results, shown(Stream(Flyer(SPEC), ByteTracker(), min_score=0.05), length), strict=True
        ):
            assert_equal(a, b)
            np.testing.assert_array_equal(a.ids, b.ids)


def test_result_files_say_that_classes_were_corrected(tmp_path):
    class Short(Source):
        info = VideoInfo("short", "short", 128, 96, None, 2)

        def __iter__(self):
            return iter([frame(0), frame(1)])

    headers = []
    for name, options in (("on", {}), ("off", {"track_classes": False})):
        stream = make_stream(Flyer(SPEC), **options)
        run_source(stream, Short(), tmp_path / name, RunOptions(save=()))
        line = (tmp_path / name / "short" / "detections.jsonl").read_text().splitlines()[0]
        headers.append(json.loads(line).get("track_classes"))
    assert headers == [True, None]


def test_benchmark_can_compare_with_and_without():
    assert parse_setting("aerial").track_classes
    assert not parse_setting("aerial:track_classes=false").track_classes


# evaluation


def tiny_with(spec, **options):
    model = tiny_model(**options)
    model.track_classes = spec
    model.score_threshold = 0.001
    return model


def noisy_videos(tmp_path, *, count=2, length=12):
    """Labelled videos of images with one moving rectangle."""
    write_coco_vid(tmp_path, videos=count, length=length)
    return read_set("coco_vid", tmp_path, "train")


def low_threshold(monkeypatch):
    """Let the untrained model, whose scores are about 0.01, start tracks."""
    from rnndet.tracking import track_classes

    monkeypatch.setattr(track_classes, "MIN_SCORE", 0.002)
    monkeypatch.setattr(track_classes, "LOW_SCORE", 0.002)


EARLY = spec_for(wait=0.3, power=3.0, floor=0.001)


def same_runs(a, b):
    for video_a, video_b in zip(a.videos, b.videos, strict=True):
        for frame_a, frame_b in zip(video_a.frames, video_b.frames, strict=True):
            if not np.array_equal(frame_a.scores, frame_b.scores):
                return False
    return True


def test_evaluation_corrects_as_inference_does_and_says_so(tmp_path, monkeypatch):
    low_threshold(monkeypatch)
    data = noisy_videos(tmp_path)
    run = evaluate_set(tiny_with(EARLY), data)[""]
    off = evaluate_set(tiny_with(EARLY), data, track_classes=False)[""]
    without = evaluate_set(tiny_with(None), data)[""]
    assert run.about["track classes"] == "corrected"
    assert off.about["track classes"] == "not corrected"
    assert "track classes" not in without.about
    assert same_runs(off, without)
    assert not same_runs(run, without)


@pytest.mark.parametrize("use", ["carried", "shuffled"])
def test_uses_of_the_memory_are_corrected_in_the_order_of_the_frames(use, tmp_path, monkeypatch):
    """Without a temporal module every use gives what a plain run gives."""
    low_threshold(monkeypatch)
    data = noisy_videos(tmp_path)
    model = tiny_with(EARLY, cell="none")
    plain = evaluate_set(model, data)[""]
    used = evaluate_set(model, data, uses=(use,))[use]
    assert same_runs(used, plain)
    assert not same_runs(plain, evaluate_set(model, data, track_classes=False)[""])


def test_a_teacher_is_not_corrected(tmp_path, monkeypatch):
    monkeypatch.setattr(TrackClasses, "update", None)  # not called
    video = noisy_videos(tmp_path, count=1, length=2).videos[0]
    assert len(Teacher(tiny_with(SPEC), "t").label(video).frames) == 2


def test_evaluate_has_a_switch(tmp_path, monkeypatch):
    low_threshold(monkeypatch)
    noisy_videos(tmp_path)
    model = tiny_with(EARLY)
    save_checkpoint(tmp_path / "w.pt", model_content(model, tiny_config(), step=0))
    runs = []
    for name, flags in (("on", []), ("off", ["--no-track-classes"])):
        out = tmp_path / name
        given = [tmp_path / "w.pt", "--data", tmp_path, "--split", "train", "--out", out, *flags]
        assert evaluate([str(arg) for arg in given]) == 0
        runs.append(load_predictions(out / "predictions.npz"))
    assert [run.about["track classes"] for run in runs] == ["corrected", "not corrected"]
    assert not same_runs(*runs)


# stored with the weights


def content_of(spec):
    model = tiny_model()
    model.track_classes = spec
    return model_content(model, tiny_config(), step=0)


def test_checkpoint_keeps_the_read_out(tmp_path):
    spec = replace(spec_for(), weight=tuple((0.1 * k, -1 / 3) for k in range(len(FEATURES))))
    save_checkpoint(tmp_path / "w.pt", content_of(spec))
    assert load_model(tmp_path / "w.pt").track_classes == spec


def test_checkpoint_without_a_read_out_is_that_of_earlier_versions():
    assert "track_classes" not in content_of(None)
    assert model_from_checkpoint(content_of(None), where="here").track_classes is None


def test_published_weights_keep_the_read_out(tmp_path, monkeypatch):
    (tmp_path / "weights").mkdir()
    monkeypatch.setattr(zoo, "WEIGHTS_DIR", tmp_path / "weights")
    save_checkpoint(tmp_path / "w.pt", content_of(SPEC))
    publish(tmp_path / "w.pt", "tiny", licence="Apache-2.0")
    assert load_model("tiny").track_classes == SPEC


def test_exported_graph_keeps_the_read_out(tmp_path):
    pytest.importorskip("onnxruntime")
    from rnndet.inference.runtimes.export_onnx import export_onnx
    from rnndet.inference.runtimes.onnx_runtime import OnnxRuntime

    for spec in (SPEC, None):
        model = tiny_model()
        model.track_classes = spec
        export_onnx(model, tmp_path / "m.onnx")
        assert OnnxRuntime(tmp_path / "m.onnx").track_classes == spec


def test_runtime_of_the_model_has_its_read_out():
    model = tiny_model()
    model.track_classes = SPEC
    assert TorchRuntime(model).track_classes == SPEC
    assert Member(Batcher(TorchRuntime(model))).track_classes == SPEC


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ["bar", "square"]}, "not for 2 classes square, bar"),
        ({"bias": [0.0]}, "its shapes do not agree"),
        ({"mean": [0.0]}, "its shapes do not agree"),
        ({"weight": [[0.0, 0.0]]}, "its shapes do not agree"),
        ({"weight": [[0.0]] * len(FEATURES)}, "its shapes do not agree"),
        ({"bias": [0.0, float("nan")]}, "refused"),
        ({"std": [0.0] * len(FEATURES)}, "refused"),
        ({"wait": float("inf")}, "refused"),
        ({"floor": 0.0}, "refused"),
        ({"mean": "text"}, "malformed"),
        ({"mean": None}, "malformed"),
        ({"power": "high"}, "malformed"),
    ],
)
def test_damaged_read_out_is_one_clear_error(changes, message):
    content = content_of(SPEC)
    content["track_classes"] |= changes
    with pytest.raises(WeightsError, match=f"here: track_classes: .*{message}"):
        model_from_checkpoint(content, where="here")


@pytest.mark.parametrize("tree", [[], "text", {}, 3])
def test_read_out_of_another_kind_is_one_clear_error(tree):
    with pytest.raises(WeightsError, match="malformed"):
        model_from_checkpoint(content_of(None) | {"track_classes": tree}, where="here")


# the fit


def blob_set(root, *, seed, groups=4, length=50, ids=True, hertz=4):
    """Videos of a blob that flaps, class square, or glides, class bar."""
    videos, random = [], np.random.default_rng(seed)
    for v in range(2 * groups):
        label, phase, records = v % 2, random.uniform(0, 6), []
        background = int(random.integers(100, 200))
        size = random.uniform(6, 9)
        (root / f"s{seed}v{v}").mkdir(parents=True)
        for k in range(length):
            swing = np.sin(2 * np.pi * hertz * k / 30 + phase) if label == 0 else 0
            x, y, a, b = 30 + k * 0.8, 48, size, size * (0.5 + 0.25 * swing)
            image = np.full((SIZE_HW[0] * 4, SIZE_HW[1] * 4), background, np.uint8)
            axes = (round(a * 4), round(b * 4))
            cv2.ellipse(image, (round(x * 4), round(y * 4)), axes, 0, 0, 360, 40, -1)
            image = cv2.resize(image, SIZE_HW[::-1], interpolation=cv2.INTER_AREA)
            path = root / f"s{seed}v{v}" / f"{k:06d}.png"
            cv2.imwrite(str(path), image)
            target = Target(
                boxes=torch.tensor([[x - 12, y - 12, x + 12, y + 12]], dtype=torch.float32),
                labels=torch.tensor([label]),
                ids=torch.tensor([5]) if ids else None,
                ignore=torch.tensor([False]),
            )
            records.append(FrameRecord(k, target, path))
        name = f"s{seed}v{v}"
        videos.append(VideoRecord(name, *SIZE_HW, 30.0, tuple(records), group=f"g{v // 2}"))
    return VideoSet(CLASSES, tuple(videos))


@pytest.fixture(scope="module")
def blobs(tmp_path_factory):
    """Samples of two sets."""
    root = tmp_path_factory.mktemp("blobs")
    return [collect_samples(blob_set(root, seed=seed).videos) for seed in (0, 1)]


def test_read_out_names_unseen_tracks_by_their_motion(blobs):
    train, test = blobs
    figures = measure_read_out(fit_read_out(train, CLASSES), test)
    assert figures.accuracy > 0.95
    assert figures.log_loss < 0.3
    assert figures.named == 1
    assert figures.by_class.keys() == set(CLASSES)


def test_samples_are_every_fifth_frame_from_a_tenth_of_a_second_on(blobs):
    train, _ = blobs
    # frames 5, 10, ..., 45 of 50, of 8 tracks in 2 copies
    assert len(train) == 9 * 8 * fitting.COPIES
    assert len(np.unique(train.tracks)) == 8 * fitting.COPIES
    assert sorted(set(train.groups.tolist())) == ["g0", "g1", "g2", "g3"]


def test_samples_follow_from_the_seed_and_do_not_depend_on_the_order(tmp_path):
    videos = blob_set(tmp_path, seed=3, groups=1, length=35).videos
    first, again = collect_samples(videos), collect_samples(videos[::-1])
    np.testing.assert_array_equal(first.features, np.concatenate(np.split(again.features, 2)[::-1]))
    assert not np.array_equal(first.features, collect_samples(videos, seed=1).features)


def test_copies_of_a_track_differ(tmp_path):
    samples = collect_samples(blob_set(tmp_path, seed=3, groups=1, length=35).videos[:1])
    assert len(samples) == 6 * 2
    assert not np.array_equal(samples.features[0], samples.features[1])


def test_samples_without_errors_are_the_statistics_of_inference(tmp_path, monkeypatch):
    """The same code on the same boxes: features of a video through TrackClasses."""
    video = blob_set(tmp_path, seed=4, groups=1, length=31).videos[0]
    monkeypatch.setattr(fitting, "SIZE_ERROR", 0.0)
    monkeypatch.setattr(fitting, "FACTORS", (0.0, 0.0))  # of the slow and fast errors
    samples = collect_samples([video], copies=1)
    seen_features = []
    corrector = TrackClasses(spec_for(wait=0.1))
    probabilities = corrector._read_out.probabilities
    corrector._read_out.probabilities = lambda f: seen_features.append(f) or probabilities(f)
    first = video.frames[0]
    frames = list(iterate(video))
    box = first.target.boxes.numpy()
    corrector.update(frames[0].image, detections(box, [0.9], [0]), time=-1 / 30)
    for record, image in zip(video.frames, frames, strict=True):
        found = detections(record.target.boxes.numpy(), [0.9], [0])
        corrector.update(image.image, found, time=image.time)
    np.testing.assert_allclose(seen_features[-1][0], samples.features[-1], rtol=1e-5, atol=1e-5)


def test_disturbed_boxes_move_by_their_longer_side():
    boxes = disturbed(np.array([[10.0, 10, 30, 20]]), np.array([[0.1, -0.2, np.log(2)]]))
    np.testing.assert_allclose(boxes, [[22 - 20, 11 - 10, 22 + 20, 11 + 10]])


def test_classes_groups_and_tracks_have_their_weights():
    def part(label, group, tracks):
        return [(label, group, track) for track in tracks for _ in range(track)]

    rows = part(0, "a", [1, 2, 3, 4]) + part(0, "b", [5]) + part(1, "c", [6])
    labels, groups, tracks = map(np.array, zip(*rows, strict=True))
    samples = fitting.Samples(np.zeros((len(rows), 1), np.float32), labels, tracks, groups)
    weights = sample_weights(samples)
    assert weights[labels == 1].sum() == pytest.approx(0.5)
    assert weights[groups == "a"].sum() == pytest.approx(2 * weights[groups == "b"].sum())
    by_track = [weights[tracks == track].sum() for track in (1, 2, 3, 4)]
    np.testing.assert_allclose(by_track, by_track[0])


def test_folds_split_the_groups_of_every_class():
    labels = np.array([0] * 10 + [1] * 10)
    groups = np.array([f"g{k // 2}" for k in range(20)])
    samples = fitting.Samples(np.zeros((20, 1), np.float32), labels, np.arange(20), groups)
    folds = fold_of_groups(samples)
    assert sorted(folds[f"g{k}"] for k in range(5)) == [0, 1, 2, 3, 4]
    assert sorted(folds[f"g{k}"] for k in range(5, 10)) == [0, 1, 2, 3, 4]


def test_cross_validation_measures_groups_that_were_left_out(blobs, monkeypatch):
    train, _ = blobs
    fitted = []
    fit = fitting.fit_read_out
    monkeypatch.setattr(
        fitting,
        "fit_read_out",
        lambda s, c, **o: fitted.append(set(s.groups.tolist())) or fit(s, c),
    )
    assert cross_validated(train, CLASSES).accuracy > 0.9
    assert len(fitted) == 4
    assert set.intersection(*fitted) == set()


def test_cross_validation_needs_each_class_in_two_parts(blobs):
    train, _ = blobs
    assert cross_validated(train[train.groups == "g0"], CLASSES) is None


def test_labels_without_ids_are_one_clear_error(tmp_path):
    videos = blob_set(tmp_path, seed=3, groups=1, length=2, ids=False).videos
    with pytest.raises(RnndetError, match="s3v0: its labels have no ids"):
        collect_samples(videos)


def test_a_class_without_tracks_is_one_clear_error(blobs):
    with pytest.raises(RnndetError, match=r"no track of kite lasts 0\.1 s"):
        fit_read_out(blobs[0], (*CLASSES, "kite"))


def test_unlabelled_frames_and_ignored_boxes_are_no_samples(tmp_path):
    video = blob_set(tmp_path, seed=3, groups=1, length=35).videos[0]
    ignored = [
        replace(record, target=replace(record.target, ignore=torch.tensor([True])))
        for record in video.frames
    ]
    unlabelled = [replace(record, target=None) for record in video.frames]
    for frames in (ignored, unlabelled):
        assert len(collect_samples([replace(video, frames=tuple(frames))])) == 0


def write_set(root):
    """A CocoVID set of flapping and gliding blobs, in four scenes."""
    tree = {"videos": [], "images": [], "annotations": []}
    tree["categories"] = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    for v, video in enumerate(blob_set(root, seed=7, length=40).videos):
        tree["videos"].append({"id": v + 1, "name": video.name, "fps": 30, "scene": v // 2})
        for record in video.frames:
            number, target = len(tree["images"]) + 1, record.target
            x1, y1, x2, y2 = target.boxes[0].tolist()
            image = {"id": number, "video_id": v + 1, "frame_id": record.index}
            image |= {"file_name": f"{video.name}/{record.image.name}"}
            tree["images"].append(image | {"height": SIZE_HW[0], "width": SIZE_HW[1]})
            note = {"id": number, "image_id": number, "video_id": v + 1, "iscrowd": 0}
            note |= {"category_id": int(target.labels[0]) + 1, "instance_id": v + 1}
            tree["annotations"].append(note | {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": 1})
    (root / "annotations").mkdir()
    (root / "annotations" / "train.json").write_text(json.dumps(tree))


def test_tool_adds_the_read_out_to_weights(tmp_path, capsys):
    write_set(tmp_path)
    content = content_of(None) | {"optimizer": {"state": torch.zeros(3)}}
    save_checkpoint(tmp_path / "w.pt", content)
    out = tmp_path / "new" / "tracks.pt"
    given = [tmp_path / "w.pt", "--data", tmp_path, "--out", out, "--holdout", "3"]
    assert fit_tool([str(arg) for arg in given]) == 0
    text = capsys.readouterr().out
    assert "cross-validated by scene group: log loss" in text
    assert "on the held-out groups: log loss" in text
    assert load_model(out).track_classes.classes == CLASSES
    for name, tensor in read_checkpoint(out)["model"].items():
        assert torch.equal(tensor, content["model"][name])
    assert "optimizer" not in read_checkpoint(out)
    assert fit_tool([str(arg) for arg in given]) == OutputError.exit_code
    assert "--overwrite" in error_line(capsys)
