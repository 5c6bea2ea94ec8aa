"""rnndet benchmark: the shipped path is timed, and the numbers are consistent."""

import importlib.util
import json
import sys
import threading
from fractions import Fraction
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
import torch
from torchvision.ops import FrozenBatchNorm2d

import rnndet.benchmarks.process
import rnndet.benchmarks.sources
import rnndet.inference.run
from conftest import SIZE_HW, frame_image, tiny_config, tiny_model
from rnndet.benchmarks import inference as benchmark
from rnndet.benchmarks.evaluation import measure_eval
from rnndet.benchmarks.inference import (
    ROWS,
    STAGES,
    WARM_UP,
    Contender,
    FrameRecorder,
    FrameTimes,
    Round,
    lines_of,
    measure,
    paired_ratio,
    render_clip,
    round_medians,
    run_round,
    shares,
)
from rnndet.benchmarks.process import measure_memory, measure_startup, startup_commands
from rnndet.benchmarks.settings import open_setting, parse_setting
from rnndet.benchmarks.sources import lines_of as lines_of_sources
from rnndet.benchmarks.sources import measure_sources
from rnndet.benchmarks.torchvision_baseline import TorchvisionRuntime
from rnndet.benchmarks.untrained import write_untrained
from rnndet.cli import benchmark as cli
from rnndet.errors import InputError, RnndetError
from rnndet.inference.run import RunOptions, make_stream, run_source
from rnndet.inference.runtimes.batching import Batcher, Member
from rnndet.inference.runtimes.export_onnx import export_onnx
from rnndet.inference.runtimes.onnx_runtime import OnnxRuntime
from rnndet.inference.runtimes.torch_runtime import TorchRuntime
from rnndet.inference.stream import NoTracker, Stream
from rnndet.models.checkpoint import load_model, model_content, save_checkpoint
from rnndet.structures import Detections, Frame, FrameResult, VideoInfo
from rnndet.system.timing import StageTimer
from rnndet.video.scene_cut import SceneCut
from rnndet.video.sink import VideoSink
from rnndet.video.sources.base import Source
from rnndet.video.sources.live import Camera
from rnndet.video.sources.open import open_source
from rnndet.video.synthetic.clip import SyntheticClip

TOOL = Path(__file__).resolve().parent.parent / "tools" / "benchmark.py"
FEW = 2  # frames of a round


def load_tool():
    spec = importlib.util.spec_from_file_location("benchmark_tool", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def frames(count: int) -> list[Frame]:
    return [Frame(frame_image(index, 0)[0], index, index / 10) for index in range(count)]


def tiny_stream(*, tracker: str = "none", **temporal) -> Stream:
    """Scores of random weights are low, so a low threshold."""
    return make_stream(tiny_model(**temporal), tracker=tracker, min_score=0.01)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "square.mp4"
    with VideoSink(path, size_hw=SIZE_HW, fps=10) as sink:
        for frame in frames(WARM_UP + FEW + 1):
            sink.write(frame.image)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    save_checkpoint(path, model_content(tiny_model(), tiny_config(), step=0))
    return path


@pytest.fixture(scope="module")
def report(clip):
    """The tiny model with a temporal module against the same without, two rounds."""
    contenders = [
        Contender("with", tiny_stream(tracker="byte"), {"tracker": "byte"}),
        Contender("without", tiny_stream(cell="none"), {"tracker": "none"}),
    ]
    with open_source(clip) as source:
        return measure(contenders, source, frames=FEW, rounds=2)


# timed stages


def lines_of_frames(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "detections.jsonl").open()]
    return [line for line in lines if line["type"] == "frame"]


@pytest.mark.parametrize("temporal", [{}, {"site": "backbone"}, {"cell": "none"}])
def test_timer_changes_neither_detections_nor_state(temporal):
    timed, plain = tiny_stream(**temporal), tiny_stream(**temporal)
    for frame in frames(3):
        detections = timed.step(frame, StageTimer()).detections
        expected = plain.step(frame).detections
        assert len(expected) > 0
        assert np.array_equal(detections.boxes, expected.boxes)
        assert np.array_equal(detections.scores, expected.scores)
        assert np.array_equal(detections.labels, expected.labels)
        assert timed.state.keys() == plain.state.keys()
        for level, tensors in plain.state.items():
            assert all(map(torch.equal, timed.state[level], tensors))


@pytest.mark.parametrize("site", ["neck", "backbone"])
def test_every_stage_of_a_step_is_measured(site):
    timer = StageTimer()
    tiny_stream(site=site).step(frames(1)[0], timer)
    assert set(timer.seconds) == {*benchmark.MODEL_STAGES, "track"}
    assert all(seconds > 0 for seconds in timer.seconds.values())


@pytest.mark.parametrize("kind", ["torch", "compiled", "onnx", "stock", "batch member"])
def test_every_runtime_measures_its_time(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda step, **_: step)
    model = tiny_model()
    runtime = TorchRuntime(model, compiled=kind == "compiled")
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
        export_onnx(model, tmp_path / "tiny.onnx")
        runtime = OnnxRuntime(tmp_path / "tiny.onnx")
    elif kind == "stock":
        runtime = TorchvisionRuntime(model)
    elif kind == "batch member":
        runtime = Member(Batcher(runtime))
    stream, timer = Stream(runtime), StageTimer()
    for frame in frames(2):
        begin = perf_counter()
        stream.step(frame, timer)
        total = perf_counter() - begin
        assert 0.5 * total < sum(timer.seconds.values()) < total
        timer.reset()


def test_key_frames_are_the_frames_with_a_temporal_stage():
    stream, timer = make_stream(tiny_model(), min_score=0.01, key_every=3), StageTimer()
    is_key = []
    for frame in frames(4):
        timer.reset()
        stream.step(frame, timer)
        is_key.append("temporal" in timer.seconds)
        assert timer.seconds["propagate"] > 0
    assert is_key == [True, False, False, True]


def test_a_round_counts_every_frame_and_leaves_the_results_of_inference(clip, tmp_path):
    stream = tiny_stream(tracker="byte")
    with open_source(clip) as source:
        for limit in (3, 4):  # the second replaces the first
            times = run_round(stream, source, tmp_path, limit=limit)
    assert len(times) == 4
    assert all(frame.stages[name] > 0 for frame in times for name in STAGES)
    assert [line["index"] for line in lines_of_frames(tmp_path / "round")] == [0, 1, 2, 3]
    with open_source(tmp_path / "round" / "annotated.mp4") as video:
        assert len(list(video)) == 4


def test_a_round_runs_on_one_thread(tmp_path):
    threads = []

    class Watched(Scenes):
        def __iter__(self):
            threads.append(threading.current_thread())
            return super().__iter__()

    run_round(tiny_stream(), Watched(), tmp_path, limit=2)
    assert threads == [threading.main_thread()]


def test_no_time_of_a_round_counts_twice(tmp_path):
    begin = perf_counter()
    times = run_round(tiny_stream(tracker="byte"), Scenes(), tmp_path, limit=8)
    total = perf_counter() - begin
    assert sum(sum(frame.stages.values()) for frame in times) < total


class Scenes(list, Source):
    """Two scenes of four frames each."""

    info = VideoInfo("scenes", "scenes", 80, 64, Fraction(25), 8)

    def __init__(self) -> None:
        clips = [SyntheticClip(s, length=4, size_hw=(64, 80), degrade=False) for s in (1, 2)]
        images = [frame.image for clip in clips for frame in clip]
        super().__init__(Frame(image, k, k / 25) for k, image in enumerate(images))


def test_a_round_gives_the_results_of_inference_with_cuts_and_smoothed_tracks(tmp_path):
    run_round(tiny_stream(tracker="byte"), Scenes(), tmp_path, limit=8)
    options = RunOptions(name="whole")
    run_source(tiny_stream(tracker="byte"), Scenes(), tmp_path, options)
    timed, whole = (lines_of_frames(tmp_path / name) for name in ("round", "whole"))
    assert [line["index"] for line in timed if line.get("cut")] == [4]
    assert timed == whole
    images = [(tmp_path / name / "annotated.mp4").read_bytes() for name in ("round", "whole")]
    assert images[0] == images[1]


def test_recorder_gives_each_frame_its_share_of_every_stage():
    timer = StageTimer()
    recorder, result = FrameRecorder(timer), FrameResult(frames(1)[0], Detections.empty())
    timer.seconds = {"decode": 1.0, "network": 2.0}
    recorder(result)
    timer.seconds = {"decode": 1.0, "network": 5.0, "write": 0.5}
    recorder(result)
    first, second = recorder.frames
    assert (first.stages["decode"], first.stages["network"], first.stages["write"]) == (1, 2, 0)
    assert (second.stages["decode"], second.stages["network"]) == (0, 3)
    assert second.stages["write"] == 0.5


def test_models_take_turns_and_the_warm_up_is_left_out(clip, monkeypatch):
    order = []

    def fake_round(stream, *_, limit, on_frame):
        order.append((stream.name, limit))
        return [FrameTimes(dict.fromkeys(STAGES, 0.1) | {"track": 0.0}, 0.5, 0)] * limit

    monkeypatch.setattr(benchmark, "run_round", fake_round)
    contenders = []
    for name in "AB":
        stream = tiny_stream()
        stream.name = name
        contenders.append(Contender(name, stream, {}))
    with open_source(clip) as source:
        report = measure(contenders, source, frames=FEW, rounds=3)
    assert order == [(name, FEW + WARM_UP) for name in "ABABAB"]
    assert report["frames"] == FEW
    assert report["models"][0]["cpu_seconds"] == 3 * FEW * 0.5
    assert report["ratio"]["total"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    assert report["ratio"]["track"] is None  # nothing was done


# the arithmetic


def times_of(decode: float, temporal: float, cpu: float = 0.0) -> FrameTimes:
    return FrameTimes(dict.fromkeys(STAGES, 0.0) | {"decode": decode, "temporal": temporal}, cpu, 0)


def test_medians_are_milliseconds_over_frames_and_sums_are_made_per_frame():
    ms = round_medians(
        Round([times_of(0.001, 0.010, 0.02), times_of(0.002, 0.0), times_of(0.009, 0.002)], 0.008)
    )
    assert ms["decode"] == pytest.approx(2)
    assert ms["temporal"] == ms["model"] == pytest.approx(2)
    assert ms["total"] == pytest.approx(11)  # of 11, 2 and 11
    assert ms["cpu"] == 0
    assert ms["pipeline"] == pytest.approx(8)
    assert tuple(ms) == ROWS


def test_with_key_frames_the_median_is_over_the_means_of_their_cycles():
    times = [times_of(0.0, temporal) for temporal in (0.004, 0.0, 0.008, 0.0, 0.012, 0.0, 0.5)]
    ms = round_medians(Round(times, 0.007, 2))
    assert ms["temporal"] == pytest.approx(4)  # of 2, 4 and 6
    assert ms["pipeline"] == pytest.approx(7)


def test_shares_are_of_the_sum_of_the_stages_without_the_subtotals():
    share = shares(round_medians(Round([times_of(0.003, 0.001)], 0.0)))
    assert (share["decode"], share["temporal"], share["write"]) == pytest.approx((0.75, 0.25, 0))
    assert tuple(share) == STAGES


def test_the_ratio_is_taken_round_by_round():
    ratio = paired_ratio([2.0, 9.0, 40.0], [1.0, 3.0, 10.0])
    assert ratio == {"median": 3.0, "min": 2.0, "max": 4.0}


def test_the_ratio_of_a_model_with_itself_is_1():
    assert set(paired_ratio([1.5, 2.0], [1.5, 2.0]).values()) == {1.0}


def test_a_ratio_of_one_round_is_its_quotient():
    assert set(paired_ratio([1.0], [4.0]).values()) == {0.25}


# the report


def test_the_report_has_every_stage_and_shares_that_sum_to_1(report):
    for model in report["models"]:
        assert tuple(model["ms"]) == ROWS
        assert tuple(model["share"]) == STAGES
        assert sum(model["share"].values()) == pytest.approx(1)
        assert len(model["ms_by_round"]) == report["rounds"] == 2
    assert report["frames"] == FEW
    assert report["peak_memory_mib"] is None or report["peak_memory_mib"] > 0
    json.dumps(report, allow_nan=False)


def test_parameters_and_their_ratio(report):
    recurrent, without = report["models"]
    assert without["memory_parameters"] == 0
    assert recurrent["parameters"] - recurrent["memory_parameters"] == without["parameters"]
    assert report["parameter_ratio"] == recurrent["parameters"] / without["parameters"] > 1


def test_lines_begin_with_the_machine_and_hold_every_row(report):
    lines = lines_of(report)
    words = report["machine"]["words"]
    assert lines[0] == words
    for part in ("CPU", "1 thread,", torch.__version__, "cpu"):
        assert part in words
    table = lines[-len(ROWS) :]
    assert [line.split()[0].rstrip(",") for line in table] == [
        benchmark.NAMES.get(name, name).split()[0].rstrip(",") for name in ROWS
    ]
    assert any("fewer than 5 rounds" in line for line in lines)


def test_a_source_of_warm_up_frames_only_is_an_input_error(tmp_path):
    path = tmp_path / "short.mp4"
    with VideoSink(path, size_hw=SIZE_HW, fps=10) as sink:
        for frame in frames(WARM_UP):
            sink.write(frame.image)
    with open_source(path) as source, pytest.raises(InputError, match=f"{WARM_UP} frames"):
        measure([Contender("a", tiny_stream(), {})], source, rounds=1)


def test_a_round_has_the_frames_of_a_cycle_at_least(clip):
    stream = make_stream(tiny_model(), key_every=10)
    with open_source(clip) as source, pytest.raises(InputError, match="15 or more"):
        measure([Contender("tiny", stream, {})], source, frames=3, rounds=1)


def test_a_camera_is_refused():
    camera = Camera.__new__(Camera)  # there is none in a test
    camera.info = VideoInfo("camera-0", "camera 0", 64, 64, None, None)
    with pytest.raises(RnndetError, match="camera 0: cannot be run twice"):
        measure([Contender("a", tiny_stream(), {})], camera)


# settings and the tool


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("aerial", ("aerial", "byte", 0.3)),
        ("aerial:tracker=none", ("aerial", "none", 0.3)),
        ("runs/a.pt:score=0.1,tracker=iou", ("runs/a.pt", "iou", 0.1)),
        ("C:/runs/a.pt", ("C:/runs/a.pt", "byte", 0.3)),
    ],
)
def test_settings_follow_a_colon(text, expected):
    setting = parse_setting(text)
    assert (setting.weights, setting.tracker, setting.score) == expected


@pytest.mark.parametrize(
    "text", ["aerial:trackr=none", "aerial:score=low", "aerial:score=", "aerial:score=2"]
)
def test_a_wrong_setting_is_an_error_that_names_it(text):
    with pytest.raises(RnndetError, match=r"aerial:.*(trackr|score)"):
        parse_setting(text)


def test_the_synthetic_clip_is_a_video_file(tmp_path):
    with open_source(render_clip(tmp_path, length=2)) as source:
        found = list(source)
    assert [frame.image.shape for frame in found] == [(384, 480, 3)] * 2
    assert not np.array_equal(found[0].image, found[1].image)


def test_the_tool_compares_two_settings_and_writes_json(weights, clip, tmp_path, capsys):
    models = [f"{weights}:score=0.01", f"{weights}:tracker=none"]
    out = tmp_path / "report.json"
    arguments = ["infer", clip, "--models", *models, "--frames", 1, "--rounds", 1, "--out", out]
    assert load_tool().main([*map(str, arguments), "--device", "cpu", "--threads", "1"]) == 0
    printed = capsys.readouterr().out.splitlines()
    report = json.loads(out.read_text())
    assert printed[0] == report["machine"]["words"]
    assert [model["tracker"] for model in report["models"]] == ["byte", "none"]
    assert [model["min_score"] for model in report["models"]] == [0.01, 0.3]
    assert report["parameter_ratio"] == 1.0
    assert report["models"][0]["cell"] == "conv_lstm"


def test_the_tool_times_streams_that_find_scene_cuts(weights):
    arguments = ["infer", "--models", str(weights), "--device", "cpu"]
    (contender,) = cli.contenders(cli.parse(arguments))
    assert isinstance(contender.stream.cuts, SceneCut)


def test_the_tool_renders_a_clip_for_one_model(weights, capsys):
    arguments = ["infer", "--models", weights, "--frames", 1, "--rounds", 1, "--device", "cpu"]
    assert load_tool().main([str(argument) for argument in arguments]) == 0
    assert "synthetic-7, 480x384" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["no_such_clip.mp4"], 3),
        (["--models", "no_such_weights"], 5),
        (["--tracker", "bite"], 2),
    ],
)
def test_a_mistake_is_one_line_and_its_exit_code(weights, arguments, code, capsys):
    given = [*arguments, *([] if "--models" in arguments else ["--models", str(weights)])]
    assert load_tool().main(["infer", "--device", "cpu", *given]) == code
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["infer", "--rounds", "0"]])
def test_wrong_usage_is_exit_2(arguments):
    with pytest.raises(SystemExit) as stop:
        load_tool().main(arguments)
    assert stop.value.code == 2


def test_torchvision_baseline_gives_the_detections_of_the_frame_detector():
    model, frame = tiny_model(cell="none"), frames(1)[0]
    model.score_threshold = 0.0
    size_hw = frame.image.shape[:2]
    (stock,), _ = TorchvisionRuntime(model).detect([frame.image], [size_hw], None)
    (ours,), _ = TorchRuntime(model).detect([frame.image], [size_hw], None)
    shown = min(len(stock), len(ours))
    assert shown > 0
    np.testing.assert_allclose(stock.scores[:shown], ours.scores[:shown], atol=1e-5)


def test_rounds_in_subprocesses_give_the_same_report(clip, weights, capsys, tmp_path):
    given = ["infer", str(clip), "--models", f"{weights}:runtime=stock", str(weights), "--apart"]
    given += ["--frames", str(FEW), "--rounds", "1", "--out", str(tmp_path / "numbers.json")]
    assert load_tool().main(given) == 0
    report = json.loads((tmp_path / "numbers.json").read_text())
    assert [model["runtime"] for model in report["models"]] == ["stock", "torch"]
    assert [len(model["ms_by_round"]) for model in report["models"]] == [1, 1]
    a, b = (model["ms_by_round"] for model in report["models"])
    quotients = [x["total"] / y["total"] for x, y in zip(a, b, strict=True)]
    assert report["ratio"]["total"]["min"] == pytest.approx(min(quotients))
    assert "medians of 1 round of each in turn" in capsys.readouterr().out


def test_three_models_are_compared_with_the_first(clip, weights, capsys, tmp_path):
    out = tmp_path / "numbers.json"
    models = [str(weights), f"{weights}:key_every=2", f"{weights}:tracker=none"]
    given = ["infer", str(clip), "--models", *models, "--frames", "2", "--rounds", "2"]
    assert load_tool().main([*given, "--device", "cpu", "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    a, b, c = ([row["total"] for row in m["ms_by_round"]] for m in report["models"])
    assert list(report["ratios"]) == ["A/B", "A/C"]
    assert report["ratios"]["A/B"]["total"] == paired_ratio(a, b)
    assert report["ratios"]["A/C"]["total"] == paired_ratio(a, c)
    assert report["ratio"] == report["ratios"]["A/B"]
    printed = capsys.readouterr().out
    assert "medians of 2 rounds of each in turn" in printed
    assert [printed.count(f"\n{letter} {weights}") for letter in "ABCD"] == [1, 1, 1, 0]
    head, *rows = printed[printed.index("ms per frame") :].splitlines()[: 1 + len(ROWS)]
    assert head.split()[-4:] == ["C", "share", "A/B", "A/C"]
    total = next(row for row in rows if row.startswith("total "))
    wanted = [report["ratios"][key]["total"]["median"] for key in ("A/B", "A/C")]
    assert [float(cell) for cell in total.split()[-2:]] == pytest.approx(wanted, abs=6e-4)


def test_the_options_of_the_tracker_reach_it(clip, weights, capsys):
    given = ["infer", str(clip), "--models", str(weights), "--frames", "2", "--rounds", "1"]
    given += ["--device", "cpu", "--tracker-option"]
    assert load_tool().main([*given, "max_age=-3"]) == 2
    assert "max_age" in capsys.readouterr().err
    assert load_tool().main([*given, "max_age=3"]) == 0


def test_a_model_with_another_tracker_does_not_get_the_options(weights):
    given = ["infer", "--models", f"{weights}:tracker=none", str(weights), "--device", "cpu"]
    without, tracked = cli.contenders(cli.parse([*given, "--tracker-option", "max_age=7"]))
    assert isinstance(without.stream.tracker, NoTracker)
    assert tracked.stream.tracker.options.max_age == 7


@pytest.mark.parametrize("models", [["a", "clip.mp4"], ["a", "b", "clip.mp4"]])
def test_a_source_among_the_models_is_named(models, capsys):
    assert load_tool().main(["infer", "--models", *models]) == 2
    assert "clip.mp4 is no model; put SOURCE before --models" in capsys.readouterr().err


def test_error_in_a_subprocess_has_its_message(clip, weights, capsys):
    """That of an option, which also shows that the options of the tracker reach the subprocess."""
    given = ["infer", str(clip), "--models", str(weights), "--apart", "--frames", "2"]
    given += ["--rounds", "1", "--device", "cpu", "--tracker-option", "max_age=-3"]
    assert load_tool().main(given) == 2
    assert "in a subprocess: " in (shown := capsys.readouterr().err)
    assert "max_age" in shown


def test_settings_name_the_key_frames():
    setting = parse_setting("aerial:key_every=5,key_lost=0.5")
    assert (setting.key_every, setting.key_lost) == (5, 0.5)
    with pytest.raises(RnndetError, match="aerial:key_every=often"):
        parse_setting("aerial:key_every=often")


def test_settings_name_the_runtime():
    assert parse_setting("aerial:runtime=onnx,tracker=none").runtime == "onnx"
    stock = open_setting(parse_setting("aerial:runtime=stock"), device="cpu", threads=None)
    assert isinstance(stock, TorchvisionRuntime)


def test_untrained_pair_is_the_same_detector_folded_and_with_a_temporal_module(tmp_path):
    stock, ours = map(load_model, write_untrained(tmp_path, "ssdlite", (64, 96)))
    assert any(isinstance(module, FrozenBatchNorm2d) for module in stock.modules())
    assert not stock.temporal.cells and ours.temporal.cells
    assert TorchRuntime(ours).input_spec == TorchRuntime(stock).input_spec


def test_evaluation_is_measured(coco_vid_root):
    report = measure_eval(tiny_model(), coco_vid_root, split="train", frames=5)
    assert report["frames"] == 5
    assert report["frames_per_second"] == pytest.approx(5 / report["seconds"])


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_is_measured_in_steps_after_frame_200():
    report = measure_memory(make_stream(tiny_model()), frames=260, every=25)
    assert [index for index, _ in report["resident_mib"]] == [200, 225, 250, 259]
    assert all(mib > 1 for _, mib in report["resident_mib"])


@pytest.mark.skipif(sys.platform == "win32", reason="needs getrusage")
def test_memory_is_measured_with_small_frames_and_with_files(monkeypatch):
    seen = {}

    def run_source(stream, source, folder, options, *, on_frame):
        seen.update(size=source.info.width, save=options.save, length=source.info.length)
        return rnndet.inference.run.run_source(stream, source, folder, options, on_frame=on_frame)

    monkeypatch.setattr(rnndet.benchmarks.process, "run_source", run_source)
    stream = make_stream(tiny_model())
    measure_memory(stream, frames=202, every=25, size_hw=(64, 96), save=("mot",))
    assert seen == {"size": 96, "save": ("mot",), "length": 202}


def test_sources_at_a_time_are_compared_with_the_model_alone(clip):
    frames = []

    class Counting(TorchRuntime):
        def detect(self, images, *others, **options):
            frames.append(len(images))
            return super().detect(images, *others, **options)

    report = measure_sources(Counting(tiny_model()), clip, [1, 2], frames=FEW, rounds=2)
    assert list(report["ratio"]) == ["model alone", "1 source", "2 sources"]
    # 5 frames first, or as many as there are: alone, of one, and of two sources; then two rounds
    assert sum(frames) == FEW + 3 * 5 + 2 * 4 * FEW
    assert report["frames"] == FEW
    assert report["ratio"]["model alone"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    assert report["ratio"]["2 sources"]["median"] > 0
    assert len(lines_of_sources(report)) == 6


def test_times_of_sources_are_of_a_frame_of_any_of_them(clip, monkeypatch):
    clock = iter(range(10**6))  # a second between any two readings
    monkeypatch.setattr(rnndet.benchmarks.sources, "perf_counter", lambda: next(clock))
    report = measure_sources(TorchRuntime(tiny_model()), clip, [2], frames=4, rounds=1, save=())
    assert report["ms"] == {"model alone": 1000 / 4, "2 sources": 1000 / 8}
    assert report["ratio"]["2 sources"]["median"] == 0.5


def test_startup_is_that_of_the_whole_process():
    spent = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    report = measure_startup({"busy": ["-c", spent], "idle": ["-c", ""]}, rounds=1)
    assert report["busy"]["cpu_s"] > report["idle"]["cpu_s"] + 0.2
    assert report["idle"]["peak_mib"] > 1


def test_startup_measures_every_tool_and_runtime():
    commands = startup_commands("aerial", has_graph=True)
    helped = {name.split()[0] for name in commands if name.endswith("--help")}
    assert helped == {path.name for path in TOOL.parent.glob("*.py")}
    assert {"one frame, torch", "one frame, onnx"} <= commands.keys()
