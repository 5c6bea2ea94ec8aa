"""rnndet benchmark curve: AP50 against time, its Pareto front, and a file that continues."""

import json
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from conftest import (
    CLASSES,
    detections,
    error_line,
    frame_image,
    tiny_config,
    tiny_model,
    write_coco_vid,
)
from rnndet.benchmarks import curve as module
from rnndet.benchmarks.curve import (
    Choice,
    Contender,
    Curve,
    Evaluation,
    Point,
    choices,
    frames_to_time,
    lines_of,
    measure_accuracy,
    measure_times,
    pareto_front,
    time_round,
)
from rnndet.benchmarks.inference import WARM_UP
from rnndet.cli.benchmark import main
from rnndet.cli.evaluate import main as evaluate
from rnndet.data.formats import read_set
from rnndet.errors import InputError, RnndetError
from rnndet.evaluation.agreement import Teacher
from rnndet.inference.runtimes.torch_runtime import TorchRuntime
from rnndet.inference.stream import NoCuts, NoTracker
from rnndet.models.checkpoint import model_content, save_checkpoint
from rnndet.specs import InputSpec
from rnndet.structures import Frame

SIZES, LENGTH = (64, 96), WARM_UP + 3
FRAMES = 2 * LENGTH  # of the set


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("set")
    write_coco_vid(path, videos=2, length=LENGTH)
    return path


@pytest.fixture
def weights(tmp_path) -> Path:
    path = tmp_path / "tiny.pt"
    save_checkpoint(path, model_content(tiny_model(), tiny_config(), step=0))
    return path


@pytest.fixture
def curve(root, weights, tmp_path):
    """Runs the tool with few frames; returns its exit code."""

    def run(*more, keys=(1, 2), sizes=SIZES) -> int:
        given = ["--models", weights, "--runtime", "torch", "--data", root, "--split", "train"]
        given += ["--key-every", *keys, "--size", *sizes, "--frames", 3, "--rounds", 2]
        return main(["curve", *map(str, [*given, "--out", tmp_path / "out", *more])])

    pytest.importorskip("matplotlib")
    return run


def points_in(tmp_path: Path) -> dict[tuple[int, int], dict]:
    tree = json.loads((tmp_path / "out" / "curve.json").read_text())
    return {(point["size"], point["key_every"]): point for point in tree["points"]}


def choice(model: str = "a", size: int = 64, key_every: int = 1) -> Choice:
    return Choice(model, "torch", size, key_every)


def curve_of(path: Path, *rows: tuple[Choice, float, float]) -> Curve:
    """A curve of (choice, milliseconds, AP50)."""
    made = Curve(path, protocol={}, weights={})
    for which, ms, ap50 in rows:
        made.points[which] = Point(which, {"all frames": ap50}, {"cpu": [ms], "wall": [2 * ms]})
    return made


# the front


def test_the_front_has_the_points_that_none_beats_fastest_first():
    points = [(9.0, 0.9), (1.0, 0.2), (5.0, 0.5), (6.0, 0.4), (4.0, 0.1), (10.0, 0.8)]
    assert pareto_front(points) == [1, 2, 0]


def test_of_equal_accuracy_the_faster_is_on_the_front_and_of_equal_time_the_better():
    assert pareto_front([(2.0, 0.5), (1.0, 0.5), (3.0, 0.6), (3.0, 0.7)]) == [1, 3]


def test_of_equal_points_the_first_is_on_the_front():
    assert pareto_front([(1.0, 0.5), (1.0, 0.5)]) == [0]


def test_the_front_of_one_point_and_of_none():
    assert (pareto_front([(1.0, 0.0)]), pareto_front([])) == ([0], [])


def test_the_front_is_that_of_the_chosen_clock(tmp_path):
    made = curve_of(tmp_path / "c.json", (choice("slow"), 5.0, 0.9), (choice("fast"), 1.0, 0.5))
    made.points[choice("fast")].ms["wall"] = [50.0]
    assert [p.choice.model for p in made.front("cpu")] == ["fast", "slow"]
    assert [p.choice.model for p in made.front("wall")] == ["slow"]


def test_the_time_of_a_point_is_the_median_of_its_rounds():
    assert Point(choice(), {}, {"cpu": [1.0, 9.0, 2.0]}).time("cpu") == 2.0


def test_the_table_numbers_the_front_and_names_it_below(tmp_path):
    rows = [(choice(key_every=1), 5.0, 0.9), (choice(key_every=2), 3.0, 0.7)]
    lines = lines_of(curve_of(tmp_path / "c.json", *rows, (choice("b"), 6.0, 0.2)), clock="cpu")
    assert [line.split("|")[-2].strip() for line in lines[2:5]] == ["2", "1", ""]
    assert lines[-2:] == [
        "1. a (torch) at 64, key frames every 2: 3.0 ms, AP50 70.0",
        "2. a (torch) at 64, every frame: 5.0 ms, AP50 90.0",
    ]


# accuracy


class Finder:
    """A runtime that finds the object of each frame, of some labels, in all or only first frames.

    calls: the size of each image that it was given.
    """

    name, device, about, classes = "finder", "cpu", MappingProxyType({}), CLASSES
    input_spec = InputSpec(64, 96, None, 32, (0.0,) * 3, (1.0,) * 3)
    track_classes, score_threshold = None, 0.0

    def __init__(self, labels=(0, 1), *, only_first: bool = False) -> None:
        self.labels, self.only_first, self.calls = labels, only_first, []

    def detect(self, images, original_sizes, state, *, limits=None, timer=None):
        found = []
        for image, (height, width) in zip(images, original_sizes, strict=True):
            self.calls.append(image.shape[:2])
            rows, columns = (image[..., 2] < 60).nonzero()
            sides = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)
            scale = np.tile([width / image.shape[1], height / image.shape[0]], 2)
            label = int(np.ptp(sides[::2]) > 1.5 * np.ptp(sides[1::2]))
            seen = label in self.labels and not (self.only_first and state is not None)
            found.append(detections([sides * scale] * seen, [0.9] * seen, [label] * seen))
        return found, "seen"

    def rows_of(self, state, count):
        return [state] * count

    def joined(self, states):
        return states[0]

    def to_arrays(self, state):
        return None

    from_arrays = to_arrays

    def fingerprint(self):
        return ""


@pytest.fixture
def data(root):
    return read_set("coco_vid", root, "train")


def ap50_of_recall(share: float) -> float:
    """AP of a detector without false boxes: COCO reads precision at 101 recalls."""
    return (int(100 * share) + 1) / 101


def test_a_perfect_model_has_an_accuracy_of_1(data):
    assert measure_accuracy(Finder(), Evaluation(data), choice(size=96)) == {"all frames": 1.0}


def test_every_labelled_frame_counts_with_the_boxes_that_are_propagated(data):
    """Found in frame 0 alone: 3 of 8 frames with key frames every 3, where 3 and 6 are keys too."""
    for every, share in ((1, 1 / 8), (3, 3 / 8)):
        runtime = Finder(only_first=True)
        found = measure_accuracy(runtime, Evaluation(data), choice(key_every=every))
        assert found["all frames"] == pytest.approx(ap50_of_recall(share))
        assert len(runtime.calls) == 2 * -(-LENGTH // every)


def test_the_model_gets_frames_of_the_size_of_the_choice(data):
    runtime = Finder()
    measure_accuracy(runtime, Evaluation(data), choice(size=48))
    assert set(runtime.calls) == {(32, 48)}


def test_accuracy_is_that_of_rnndet_evaluate(root, data, weights, tmp_path):
    out = tmp_path / "report"
    given = [weights, "--data", root, "--split", "train", "--key-every", 3, "--size", 64]
    assert evaluate(list(map(str, [*given, "--out", out]))) == 0
    report = json.loads((out / "report.json").read_text())
    facts = report["protocol"]
    assert (facts["frames scored"], facts["size"], facts["key frames"]) == (
        FRAMES, 64, "every 3, lost 0",
    )  # fmt: skip
    found = measure_accuracy(TorchRuntime(tiny_model()), Evaluation(data), choice(key_every=3))
    assert found == {"all frames": report["results"]["all frames"]["AP50"]}


def test_corrupted_frames_have_their_own_accuracy(data):
    evaluation = Evaluation(data, degrade="standard", degrade_seed=2)  # 9 of the 16 frames
    found = measure_accuracy(TorchRuntime(tiny_model()), evaluation, choice())
    assert set(found) == {"all frames", "corrupted frames", "other frames"}


def test_the_teacher_sees_every_frame_once(curve, root, weights, monkeypatch):
    seen, label = [], Teacher.label

    def counted(self, video, **options):
        seen.append(video.name)
        return label(self, video, **options)

    monkeypatch.setattr(Teacher, "label", counted)
    assert curve("--teacher", weights, "--teacher-score", 0.01) == 0
    assert sorted(seen) == ["v0", "v1"]


def test_accuracy_with_a_teacher_is_agreement_with_it(data):
    """The teacher finds the squares only, so bars that are found are no objects."""
    labelled = Evaluation(data, Teacher(Finder((0,)), "squares")).labelled(lambda: None)
    assert labelled.teacher is None
    assert measure_accuracy(Finder((0,)), labelled, choice()) == {"all frames": 1.0}
    assert measure_accuracy(Finder((1,)), labelled, choice()) == {"all frames": 0.0}


def test_the_teacher_keeps_its_own_input_size(data):
    teacher = Finder()
    Evaluation(data, Teacher(teacher, "large")).labelled(lambda: None)
    assert set(teacher.calls) == {(64, 96)}


def test_only_the_chosen_classes_count(data):
    for classes, share in ((None, 0.5), (CLASSES[:1], 1.0), (CLASSES[1:], 0.0)):
        evaluation = Evaluation(data, classes=classes)
        assert measure_accuracy(Finder((0,)), evaluation, choice())["all frames"] == share


def test_data_without_an_object_is_an_input_error(data):
    blind = Evaluation(data, Teacher(Finder(()), "blind")).labelled(lambda: None)
    with pytest.raises(InputError, match="no object"):
        measure_accuracy(Finder(), blind, choice())


# time


def frames(count: int) -> list[Frame]:
    return [Frame(frame_image(index, 0)[0], index, index / 10) for index in range(count)]


def test_points_take_turns_round_by_round_and_known_rounds_are_left_out(tmp_path, monkeypatch):
    turns = []

    def fake(runtime, frames, which):
        turns.append(which.key_every)
        return {"cpu": 1.0, "wall": 2.0}

    monkeypatch.setattr(module, "time_round", fake)
    made = Curve(tmp_path / "c.json", protocol={}, weights={})
    wanted = [choice(key_every=every) for every in (1, 2, 3)]
    for which in wanted:
        made.points[which] = Point(which, {"all frames": 0.5})
    made.points[wanted[1]].ms = {"cpu": [4.0], "wall": [4.0]}
    totals = []
    runtimes = {"a": Contender(TorchRuntime(tiny_model()), "")}
    measure_times(made, runtimes, wanted, [], rounds=2, progress=totals.append)
    assert turns == [1, 3, 1, 2, 3]
    assert totals == [5] * 5
    assert [made.points[which].ms["cpu"] for which in wanted] == [[1.0] * 2, [4.0, 1.0], [1.0] * 2]


def test_the_whole_step_is_timed_with_tracker_and_scene_cuts(monkeypatch):
    made, real = [], module.make_stream

    def watched(*given, **options):
        made.append(real(*given, **options))
        return made[-1]

    monkeypatch.setattr(module, "make_stream", watched)
    time_round(TorchRuntime(tiny_model()), frames(LENGTH), choice(size=64, key_every=2))
    (stream,) = made
    assert (stream.size, stream.keys.every) == (64, 2)
    assert not isinstance(stream.tracker, NoTracker) and not isinstance(stream.cuts, NoCuts)


def test_the_time_of_a_frame_is_over_whole_cycles_of_key_frames(monkeypatch):
    """Key frames take 0.010 s, the others 0.002 s, and 1 s each while warming up."""
    now, count = [0.0], [0]

    class Slow:
        def step(self, frame):
            now[0] += 1.0 if count[0] < WARM_UP else 0.010 if count[0] % 3 == 0 else 0.002
            count[0] += 1

    monkeypatch.setattr(module, "make_stream", lambda *given, **options: Slow())
    monkeypatch.setattr(module, "process_time", lambda: now[0])
    monkeypatch.setattr(module, "perf_counter", lambda: 2 * now[0])
    found = time_round(None, frames(WARM_UP + 7), choice(key_every=3))
    assert found == {"cpu": pytest.approx(14 / 3), "wall": pytest.approx(28 / 3)}


def test_too_few_frames_to_time_is_an_input_error():
    with pytest.raises(InputError, match=f"must have {WARM_UP + 5} or more"):
        time_round(TorchRuntime(tiny_model()), frames(WARM_UP + 4), choice(key_every=5))


def test_the_longest_video_is_timed(data):
    first, second = data.videos
    shorter = replace(data, videos=(replace(first, frames=first.frames[:2]), second))
    timed = frames_to_time(shorter, count=100)
    assert [frame.index for frame in timed] == list(range(LENGTH))
    assert len(frames_to_time(data, count=1)) == WARM_UP + 1


# the tool


def test_the_tool_writes_points_table_and_plot(curve, tmp_path, capsys):
    assert curve() == 0
    points = points_in(tmp_path)
    assert set(points) == {(size, every) for size in SIZES for every in (1, 2)}
    for point in points.values():
        assert 0 <= point["AP50"]["all frames"] <= 1
        assert all(len(point["ms"][clock]) == 2 and min(point["ms"][clock]) > 0 for clock in
                   ("cpu", "wall"))  # fmt: skip
    printed = capsys.readouterr().out
    assert "Pareto front, processor time of all threads, fastest first:\n1. tiny (torch)" in printed
    assert (tmp_path / "out" / "curve.md").read_text() in printed
    assert (tmp_path / "out" / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_run_measures_nothing_again(curve, tmp_path, monkeypatch):
    assert curve() == 0
    before = (tmp_path / "out" / "curve.json").read_bytes()

    def fail(*given, **options):
        raise AssertionError("measured again")

    monkeypatch.setattr(module, "evaluate_set", fail)
    monkeypatch.setattr(module, "time_round", fail)
    assert curve() == 0
    assert curve(keys=(2,), sizes=(64,)) == 0  # a part of it
    assert (tmp_path / "out" / "curve.json").read_bytes() == before


def test_an_interrupted_run_continues_where_it_was(curve, tmp_path, monkeypatch, capsys):
    real, done = module.evaluate_set, []

    def interrupted(*given, **options):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        return real(*given, **options)

    monkeypatch.setattr(module, "evaluate_set", interrupted)
    assert curve() == 130
    assert error_line(capsys) == "benchmark: interrupted; the same command continues"
    assert list(points_in(tmp_path)) == [(64, 1), (64, 2), (96, 1)]
    done.clear()
    assert curve() == 0
    assert len(done) == 1
    assert len(points_in(tmp_path)) == 4


def test_new_points_are_added_to_those_that_are_there(curve, tmp_path):
    assert curve(keys=(1,), sizes=(64,)) == 0
    (before,) = points_in(tmp_path).values()
    assert curve(keys=(3,), sizes=(64,)) == 0
    assert points_in(tmp_path) == {(64, 1): before, (64, 3): points_in(tmp_path)[64, 3]}


def test_points_of_changed_weights_are_measured_again(curve, weights, tmp_path):
    assert curve(keys=(1, 2), sizes=(64,)) == 0
    save_checkpoint(weights, model_content(tiny_model(seed=1), tiny_config(), step=0))
    assert curve(keys=(1,), sizes=(64,)) == 0
    assert list(points_in(tmp_path)) == [(64, 1)]


@pytest.mark.parametrize(
    ("more", "difference"),
    [
        (["--degrade", "standard"], "degraded"),
        (["--max-videos", 1], "videos.v1"),
        (["--frames", 2], "timed frames"),
        (["--classes", "square"], "classes"),
    ],
)
def test_points_measured_in_another_way_are_one_line(curve, capsys, more, difference):
    assert curve(keys=(1,), sizes=(64,)) == 0
    capsys.readouterr()
    assert curve(*more, keys=(1,), sizes=(64,)) == 4
    line = error_line(capsys)
    assert "measured in another way" in line and difference in line


def test_a_damaged_file_is_one_line(curve, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "curve.json").write_text('{"points": [')
    assert curve() == 3
    assert "not a curve" in error_line(capsys)


@pytest.mark.parametrize("size", [0, 31, 5000])
def test_a_bad_size_is_an_error_before_anything_is_measured(curve, capsys, size, monkeypatch):
    monkeypatch.setattr(module, "evaluate_set", None)
    if size == 0:
        with pytest.raises(SystemExit):
            curve(sizes=(size,))
        return
    assert curve(sizes=(96, size)) == 2
    assert error_line(capsys) == (
        f"benchmark: size = {size}; expected the longer edge of the model's input in pixels, "
        "32 to 4096"
    )


def test_data_without_labels_needs_a_teacher(curve, capsys):
    assert curve("--format", "unlabelled") == 2
    assert "--teacher" in error_line(capsys)


def test_models_of_other_classes_are_refused(curve, weights, tmp_path, capsys):
    other = tiny_model()
    other.classes = ("bar", "square")
    path = tmp_path / "other.pt"
    save_checkpoint(path, model_content(other, tiny_config(), step=0))
    assert curve("--models", weights, path) == 2
    assert "other.pt: its classes are not those of" in error_line(capsys)


def test_two_models_share_a_curve_and_a_plot(curve, weights, tmp_path):
    other = tmp_path / "small.pt"
    save_checkpoint(other, model_content(tiny_model(seed=1), tiny_config(), step=0))
    assert curve("--models", weights, other, keys=(1,), sizes=(64,)) == 0
    tree = json.loads((tmp_path / "out" / "curve.json").read_text())
    assert [point["model"] for point in tree["points"]] == ["tiny", "small"]
    assert set(tree["weights"]) == {"tiny", "small"}


def test_the_choices_of_one_model_and_size_are_together():
    runtimes = {name: Contender(TorchRuntime(tiny_model()), "") for name in "ab"}
    found = choices(runtimes, sizes=(64, 96, 64), key_everys=(1, 2))
    assert [(c.model, c.size, c.key_every) for c in found] == [
        (model, size, every) for model in "ab" for size in (64, 96) for every in (1, 2)
    ]
    with pytest.raises(RnndetError, match="size = 8"):
        choices(runtimes, sizes=(64, 8), key_everys=(1,))
