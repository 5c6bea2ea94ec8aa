"""Evaluation of a small recurrent model: prediction, videos, ablations, the tool."""

import importlib.util
import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from conftest import StubModel, detections, write_coco_vid
from rnndet.config import Config, config_from_dict
from rnndet.data.corruption.pixels import Corruption
from rnndet.data.corruption.plan import named_plan
from rnndet.data.formats import read_set
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.errors import OutputError, RnndetError
from rnndet.evaluation.ablation import STANDARD, USES, predict_ablations
from rnndet.evaluation.metrics import CocoAP
from rnndet.evaluation.metrics.base import compute
from rnndet.evaluation.predict import SCORE_FLOOR, evaluate_set, predict
from rnndet.evaluation.records import Predictions, save_predictions
from rnndet.evaluation.score import RowKey, score, table, write_report
from rnndet.evaluation.videos import corrupted_frames, degraded, match_classes, thinned
from rnndet.inference.stream import Stream
from rnndet.models.checkpoint import model_content, save_checkpoint
from rnndet.models.video_detector import VideoDetector, build_model
from rnndet.structures import DetectionLimits, Frame, Target
from rnndet.system.distributed import World
from rnndet.video.image import write_image
from rnndet.video.key_frames import choose_key_frames

BOX = torch.tensor([[8.0, 8.0, 24.0, 24.0]])


class LastBright(StubModel):
    """State: the mean of the last bright frame. Detects the object if frame or state is bright.

    The score is 0.5 plus a thousandth of the state.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoded = 0
        self.eval()

    def encode(self, frames, *, original_sizes=None):
        self.encoded += 1
        size = frames.shape[-2] // 16, frames.shape[-1] // 16
        return frames.float().mean().expand(1, 1, *size)

    def step(self, *arguments, limits, **options):
        self.limits = limits
        return super().step(*arguments, limits=limits, **options)

    def decode(self, encoded, state=None, *, limits=None):
        before = torch.zeros_like(encoded) if state is None else state["0"][0]
        assert before.shape == encoded.shape
        after = torch.where(encoded > 20, encoded, before)
        level = float(after.mean())
        boxes = BOX if level > 20 else BOX[:0]
        detected = detections(boxes, [0.5 + level / 1000] * len(boxes), [0] * len(boxes))
        return SimpleNamespace(state={"0": (after,)}, detections=[[detected]], losses=None)


def scores_of(predictions: Predictions, digits: int = 3) -> dict[tuple[str, int], list[float]]:
    """Scores of the detections, by video and index, of the labelled frames."""
    return {
        (video.name, frame.index): [round(score, digits) for score in frame.scores.tolist()]
        for video in predictions.videos
        for frame in video.frames
        if frame.labelled
    }


def target() -> Target:
    return Target(BOX, torch.zeros(1, dtype=torch.int64), None, torch.zeros(1, dtype=torch.bool))


def video(name: str, count: int, *, height: int = 32) -> VideoRecord:
    return VideoRecord(
        name, height, 48, 25.0, tuple(FrameRecord(i, target()) for i in range(count))
    )


# Brightness of each frame: without recurrent state the object is not detected in the dark (0).
LIGHT = {"one": [100, 0, 0], "two": [0, 0, 50], "three": [30, 0]}
VIDEOS = [video(name, len(light)) for name, light in LIGHT.items()]


def frames_of(record: VideoRecord) -> Iterator[Frame]:
    for entry in record.frames:
        light = LIGHT[record.name][entry.index]
        image = np.full((record.height, record.width, 3), light, np.uint8)
        yield Frame(image, entry.index, entry.index / 25)


def test_predict_steps_the_stream_with_its_state_and_resets_between_videos() -> None:
    stream = Stream(LastBright(), min_score=0.0)
    scores = scores_of(predict(stream, [(v, frames_of(v)) for v in VIDEOS]))
    assert [scores["one", i] for i in range(3)] == [[0.6], [0.6], [0.6]]
    assert [scores["two", i] for i in range(3)] == [[], [], [0.55]]


def test_predict_keeps_the_time_of_every_frame() -> None:
    run = predict(Stream(LastBright(), min_score=0.0), [(VIDEOS[0], frames_of(VIDEOS[0]))])
    assert all(0 < frame.seconds < 60 for frame in run.videos[0].frames)


def test_unlabelled_frames_are_processed_but_not_evaluated() -> None:
    frames = (FrameRecord(0, None), FrameRecord(1, target()), FrameRecord(2, Target.empty()))
    record = VideoRecord("one", 32, 48, None, frames)
    run = predict(Stream(LastBright(), min_score=0.0), [(record, frames_of(record))])
    assert scores_of(run) == {("one", 1): [0.6], ("one", 2): [0.6]}
    assert run.frame_count == 3


def test_progress_is_called_for_every_frame() -> None:
    ticks: list[int] = []
    pairs = ((v, frames_of(v)) for v in VIDEOS)
    predict(Stream(LastBright(), min_score=0.0), pairs, progress=lambda: ticks.append(1))
    assert len(ticks) == 8


def test_corrupted_and_other_frames_have_their_own_rows() -> None:
    dark = {
        name: {i for i, value in enumerate(light) if not value} for name, light in LIGHT.items()
    }
    stream = Stream(LastBright(), min_score=0.0)
    run = predict(stream, [(v, frames_of(v)) for v in VIDEOS], corrupted=dark)
    rows, _ = score({"": run}, {"coco_ap": CocoAP(("thing",))})
    assert list(rows) == [RowKey("", s) for s in ("all frames", "corrupted frames", "other frames")]
    assert rows[RowKey("", "other frames")]["AP50"] == pytest.approx(1.0)
    assert rows[RowKey("", "corrupted frames")]["recall"] == pytest.approx(3 / 5)
    assert rows[RowKey("")]["recall"] == pytest.approx(6 / 8)


def test_no_videos_and_no_frames_give_no_numbers() -> None:
    stream = Stream(LastBright())
    metric = CocoAP(("thing",))
    assert math.isnan(compute(metric, predict(stream, []))["AP"])
    empty = VideoRecord("none", 32, 48, None, ())
    assert math.isnan(compute(metric, predict(stream, [(empty, [])]))["AP"])


def test_carried_ablation_equals_plain_evaluation() -> None:
    metric = CocoAP(("thing",))
    plain = predict(Stream(LastBright(), min_score=0.001), [(v, frames_of(v)) for v in VIDEOS])
    runs = predict_ablations(LastBright(), VIDEOS, frames_of, min_score=0.001)
    same = pytest.approx(compute(metric, plain), rel=0, abs=0, nan_ok=True)
    assert compute(metric, runs["carried"]) == same
    assert compute(metric, runs["reset"])["recall"] == pytest.approx(3 / 8)


def test_ablations_equal_streams_whose_state_is_set_by_hand() -> None:
    runs = predict_ablations(LastBright(), VIDEOS, frames_of, min_score=0.001, foreign_frames=2)
    by_use = {name: scores_of(run) for name, run in runs.items()}
    for i, record in enumerate(VIDEOS):
        stream = Stream(LastBright(), min_score=0.0)
        for frame in list(frames_of(VIDEOS[i - 1]))[:2]:  # the last video's for the first
            stream.step(frame)
        foreign = stream.state
        stream.reset()
        for frame in frames_of(record):
            for name, state in (("reset", None), ("foreign", foreign)):
                stream.state = state
                scores = stream.step(frame).detections.scores.tolist()
                got = by_use[name][record.name, frame.index]
                assert got == [round(s, 3) for s in scores], (name, record.name, frame.index)


def tiny_model() -> tuple[VideoDetector, Config]:
    """FCOS with random weights and a temporal module, on small images."""
    torch.manual_seed(0)
    options = {"size": [128, 128], "channels": 32, "head_convs": 1}
    tree = {"model": {"options": options, "temporal": {"cell": "conv_lstm", "hidden": 4}}}
    config = config_from_dict(tree, where="test")
    return build_model(config.model, ("other", "thing")).eval(), config


def test_ablations_of_a_real_model_equal_its_streams() -> None:
    # Encoded features are decoded three times: a layer that changed them in place would show here.
    model, _ = tiny_model()
    model.score_threshold = 0.0
    generator = np.random.default_rng(0)
    images = {
        (v.name, f.index): generator.integers(0, 256, (32, 48, 3), np.uint8)
        for v in VIDEOS
        for f in v.frames
    }

    def noise_of(record: VideoRecord) -> Iterator[Frame]:
        for entry in record.frames:
            yield Frame(images[record.name, entry.index], entry.index, 0.0)

    runs = predict_ablations(model, VIDEOS, noise_of, min_score=0.001)
    scores = {name: scores_of(run, digits=7) for name, run in runs.items()}
    stream = Stream(model, min_score=0.001)
    plain = scores_of(predict(stream, [(v, noise_of(v)) for v in VIDEOS]), digits=7)
    reset = {}
    for v in VIDEOS:
        for entry, frame in zip(v.frames, noise_of(v), strict=True):
            single = predict(stream, [(replace(v, frames=(entry,)), [frame])])
            reset |= scores_of(single, digits=7)
    assert all(len(found) > 0 for found in plain.values())
    assert scores["carried"] == plain
    assert scores["reset"] == reset
    assert scores["foreign"] != scores["reset"] != scores["carried"]


def test_foreign_state_is_that_of_the_previous_video() -> None:
    scores = scores_of(
        predict_ablations(LastBright(), VIDEOS, frames_of, min_score=0.001)["foreign"]
    )
    assert scores["one", 1] == [0.53]  # remembers three
    assert scores["two", 0] == [0.6]  # remembers one
    assert scores["three", 1] == [0.55]  # remembers two


def test_ablations_encode_each_frame_once() -> None:
    model = LastBright()
    predict_ablations(model, VIDEOS, frames_of, min_score=0.001, foreign_frames=2)
    assert model.encoded == 8 + 2  # and the last video's first frames, for the first video


def test_identical_frames_start_from_a_reset() -> None:
    runs = predict_ablations(
        LastBright(), VIDEOS, frames_of, uses=("reset", "identical"), min_score=0.001
    )
    assert scores_of(runs["identical"]) == scores_of(runs["reset"])  # this state does not add up


def test_shuffled_frames_carry_the_state_in_shuffled_order() -> None:
    videos = [video("one", 3)]  # bright, dark, dark: found from where the bright one is shown
    runs = predict_ablations(LastBright(), videos, frames_of, uses=("shuffled",), min_score=0.001)
    order = torch.randperm(3, generator=torch.Generator().manual_seed(0)).tolist()
    after = order[order.index(0) :]
    found = scores_of(runs["shuffled"])
    assert [i for i in range(3) if found["one", i]] == sorted(after)


def test_every_use_of_the_state_evaluates_every_frame() -> None:
    runs = predict_ablations(LastBright(), VIDEOS, frames_of, uses=tuple(USES), min_score=0.001)
    assert {use: run.frame_count for use, run in runs.items()} == dict.fromkeys(USES, 8)


def test_unknown_use_of_the_state_lists_the_choices() -> None:
    with pytest.raises(RnndetError, match="choose one of: carried"):
        predict_ablations(LastBright(), VIDEOS, frames_of, uses=("half",), min_score=0.001)


def test_foreign_state_fits_videos_of_another_size() -> None:
    videos = [VIDEOS[0], video("two", 3, height=64)]
    foreign = predict_ablations(LastBright(), videos, frames_of, min_score=0.001)["foreign"]
    assert scores_of(foreign)["two", 0] == [0.6]


def test_ablation_of_one_video_is_a_user_error() -> None:
    with pytest.raises(RnndetError, match="at least two videos"):
        predict_ablations(LastBright(), VIDEOS[:1], frames_of, min_score=0.001)


def test_degraded_frames_follow_the_plan_by_position() -> None:
    frames = tuple(FrameRecord(index, target()) for index in (10, 20, 30))
    record = VideoRecord("sparse", 32, 48, None, frames)
    source = [Frame(np.full((32, 48, 3), 90 + i, np.uint8), i, 0.0) for i in (10, 20, 30)]
    plan = [None, Corruption("drop", 1.0, 0), Corruption("freeze", 1.0, 1 << 16)]
    shown = list(degraded(record, source, plan))
    assert [(frame.index, int(frame.image.max())) for frame in shown] == [
        (10, 100),
        (20, 0),
        (30, 0),
    ]
    assert int(source[1].image.max()) == 110
    assert corrupted_frames(record, plan) == {20, 30}


@pytest.mark.parametrize("seed", range(5))
def test_occluders_cover_the_objects_of_the_target(seed: int) -> None:
    boxes = [BOX, BOX + torch.tensor([20.0, 6.0, 20.0, 6.0])]
    records = [FrameRecord(10 * (k + 1), replace(target(), boxes=b)) for k, b in enumerate(boxes)]
    record = VideoRecord("sparse", 32, 48, None, tuple(records))
    source = [Frame(np.full((32, 48, 3), 250, np.uint8), r.index, 0.0) for r in records]
    plan = [Corruption("occluder", 1.0, seed << 16) for _ in records]
    for frame, box in zip(degraded(record, source, plan), boxes, strict=True):
        x1, y1, x2, y2 = box[0].int().tolist()
        assert (frame.image[y1:y2, x1:x2] != 250).any(-1).mean() > 0.75


def test_thinned_keeps_every_nth_frame() -> None:
    assert [frame.index for frame in thinned(video("one", 7), 3).frames] == [0, 3, 6]
    with pytest.raises(RnndetError, match="every = 0"):
        thinned(VIDEOS[0], 0)


def evaluated(root: Path, *, length: int = 6, **options) -> tuple[LastBright, Predictions]:
    """The model, and its run over a set of two videos as the tool does it."""
    write_coco_vid(root, length=length)
    data, model = read_set("coco_vid", root, "train"), LastBright()
    return model, evaluate_set(model, data, **options).get("", Predictions(()))


def test_set_is_run_at_the_score_floor(tmp_path: Path) -> None:
    model, _ = evaluated(tmp_path)
    assert model.limits == [DetectionLimits(SCORE_FLOOR)]


def test_set_at_a_lower_rate_uses_every_nth_frame(tmp_path: Path) -> None:
    model, run = evaluated(tmp_path, every=2)
    assert [[f.index for f in v.frames] for v in run.videos] == [[0, 2, 4], [0, 2, 4]]
    assert model.encoded == 6


def test_model_processes_only_the_key_frames_of_a_set(tmp_path: Path) -> None:
    model, run = evaluated(tmp_path, keys=choose_key_frames(3, 0.0))
    assert model.encoded == 4
    assert run.frame_count == 12


def test_degraded_frames_of_a_set_are_marked(tmp_path: Path) -> None:
    _, run = evaluated(tmp_path, length=30, degrade="standard")
    for video in run.videos:
        plan = named_plan("standard", video.name, 30, seed=0)
        assert [f.corrupted for f in video.frames] == [entry is not None for entry in plan]
    assert any(frame.corrupted for video in run.videos for frame in video.frames)


def test_each_process_runs_its_own_videos_of_a_set(tmp_path: Path) -> None:
    class Alone(World):
        def gather(self, value):
            return [value]

    names = [
        [video.name for video in evaluated(tmp_path, world=Alone(rank, 2))[1].videos]
        for rank in range(2)
    ]
    assert names == [["v0"], ["v1"]]


def test_labels_follow_the_class_names_of_the_model() -> None:
    data = VideoSet(("bird", "thing"), (VIDEOS[0], video("none", 1)))
    matched = match_classes(data, ("thing", "drone", "bird"))
    assert matched.classes == ("thing", "drone", "bird")
    relabelled = matched.videos[0].frames[0].target
    assert relabelled is not None and relabelled.labels.tolist() == [2]
    unlabelled = VideoSet(("thing",), (VideoRecord("u", 1, 1, None, (FrameRecord(0, None),)),))
    assert match_classes(unlabelled, ("thing",)).videos[0].frames[0].target is None
    with pytest.raises(RnndetError, match="bird"):
        match_classes(data, ("thing",))


def test_table_shows_per_cent_and_marks_what_is_undefined() -> None:
    rows = {RowKey("", "all"): {"AP": 0.5, "AP50": math.nan}, RowKey("", "other"): {"AP": 1.0}}
    text = table(rows, ["AP", "AP50"])
    lines = [line.split() for line in text.splitlines()]
    assert lines == [["AP", "AP50"], ["all", "50.0", "-"], ["other", "100.0", "-"]]
    assert len({len(line) for line in text.splitlines()}) == 1


def test_report_is_json_without_nan_and_leaves_no_part(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    write_report(path, {"results": {"all": {"AP": 0.5, "AP_small": math.nan}}, "frames": 3})
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report == {"results": {"all": {"AP": 0.5, "AP_small": None}}, "frames": 3}
    assert [entry.name for entry in path.parent.iterdir()] == ["report.json"]


def test_report_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(tmp_path / "file" / "report.json", {})


def tool(name: str = "evaluate") -> ModuleType:
    path = Path(__file__).resolve().parent.parent / "tools" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_tool", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_data(root: Path) -> None:
    """Two videos of three images, with one thing in each."""
    images, annotations = [], []
    for number, name in enumerate(("one", "two"), start=1):
        (root / name).mkdir(parents=True)
        for i in range(3):
            write_image(root / name / f"{i}.png", np.full((48, 64, 3), 60 * i, np.uint8))
            image = {"id": len(images) + 1, "video_id": number, "frame_id": i}
            images.append(image | {"file_name": f"{name}/{i}.png", "width": 64, "height": 48})
            box = {"id": len(images), "image_id": len(images), "category_id": 1}
            annotations.append(box | {"bbox": [8, 8, 16, 16]})
    tree = {
        "videos": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "thing"}],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "val.json").write_text(json.dumps(tree), encoding="utf-8")


def tiny_run(folder: Path) -> list[str]:
    """Arguments of the tool: a tiny model's weights and data, which lie in the folder then."""
    model, config = tiny_model()
    save_checkpoint(folder / "w.pt", model_content(model, config, step=0))
    write_data(folder / "data")
    return [str(folder / "w.pt"), "--data", str(folder / "data"), "--device", "cpu"]


def test_tool_writes_a_row_for_each_use_of_the_state_and_subset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = tiny_run(tmp_path)
    arguments += ["--degrade", "standard", "--degrade-seed", "4"]  # corrupts one frame of each
    arguments += ["--ablate-memory", "--out", str(out)]
    assert tool().main(arguments) == 0
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    subsets = ("all frames", "corrupted frames", "other frames")
    assert list(report["results"]) == [f"{m}, {s}" for m in STANDARD for s in subsets]
    assert "AP50/thing" in report["results"]["carried, all frames"]
    assert report["protocol"]["frames scored"] == 6
    shown = capsys.readouterr().out
    assert "reset, other frames" in shown and "score floor: 0.001" in shown


def test_tool_evaluates_every_frame_with_key_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = tiny_run(tmp_path)
    arguments += ["--key-every", "2", "--out", str(tmp_path / "out")]
    assert tool().main(arguments) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["protocol"]["frames scored"] == 6
    assert report["protocol"]["key frames"] == "every 2, lost 0"
    assert tool().main([*arguments, "--ablate-memory"]) == 2
    assert "key frames" in capsys.readouterr().err


def test_tool_reports_user_errors_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert tool().main(["missing.pt", "--data", "nowhere"]) == 5
    errors = capsys.readouterr().err
    assert errors.startswith("evaluate: ") and errors.count("\n") == 1


def test_tool_evaluates_saved_predictions_without_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = tiny_run(tmp_path)
    assert tool().main([*arguments, "--metrics", "all", "--out", str(tmp_path / "one")]) == 0
    first = json.loads((tmp_path / "one" / "report.json").read_text(encoding="utf-8"))
    saved = str(tmp_path / "one" / "predictions.npz")
    again = ["--predictions", saved, "--metrics", "all", "--out", str(tmp_path / "two")]
    assert tool().main(again) == 0
    second = json.loads((tmp_path / "two" / "report.json").read_text(encoding="utf-8"))
    assert second["results"]["predictions, all frames"] == first["results"]["all frames"]
    assert (tmp_path / "two" / "report.html").stat().st_size > 1000
    relabelled = [*again[:2], "--data", str(tmp_path / "data"), "--out", str(tmp_path / "three")]
    assert tool().main(relabelled) == 0  # the same labels, read again
    third = json.loads((tmp_path / "three" / "report.json").read_text(encoding="utf-8"))
    row = third["results"]["predictions, all frames"]
    assert row == {name: first["results"]["all frames"][name] for name in row}
    report = (tmp_path / "three" / "report.html").read_text(encoding="utf-8")
    assert "Worst frames" in report
    links = re.findall(r'<a href="([^"#]*)#t=[0-9.]+"', report)
    assert links and all((tmp_path / "three" / link).is_file() for link in links)


def test_tool_compares_saved_predictions_by_every_metric(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = tiny_run(tmp_path)
    assert tool().main([*arguments, "--out", str(tmp_path / "one")]) == 0
    saved = str(tmp_path / "one" / "predictions.npz")
    capsys.readouterr()
    compare = tool("compare").main([saved, saved, "--metrics", "all", "--samples", "5"])
    assert compare == 0
    lines = capsys.readouterr().out.splitlines()
    assert {"AP50", "HOTA", "sAP50"} <= {line.split()[0] for line in lines if line}


def test_tool_keeps_runs_of_several_folders_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        save_predictions(tmp_path / folder / "predictions.npz", Predictions(("thing",)))
    files = [str(tmp_path / folder / "predictions.npz") for folder in ("a", "b")]
    assert tool().main(["--predictions", *files, "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert list(report["results"]) == [f"{file}, all frames" for file in files]


def test_tool_refuses_runs_with_other_classes_in_one_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        save_predictions(tmp_path / f"{name}.npz", Predictions((name,)))
    files = [str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]
    assert tool().main(["--predictions", *files]) != 0
    assert "different classes: a; b" in capsys.readouterr().err


def test_missing_trackeval_is_reported_before_the_model_runs(monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "trackeval.metrics", None)
    assert tool().main(["missing.pt", "--data", "nowhere", "--metrics", "all"]) != 0
    assert "install rnndet[eval]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give weights, or --predictions FILE"),
        (["w.pt"], "--data ROOT is needed"),
        (["--predictions", "p.npz", "--map-classes", "m.toml"], "--map-classes: needs the labels"),
        (["--predictions", "none.npz"], "no such file of predictions"),
        (["--predictions", "none.npz", "--every", "2"], "--every: only while weights are run"),
        # These come before the weights, which are not there, are looked for.
        (["w.pt", "--data", "d", "--metrics", "map"], "choose one of: coco_ap"),
        (["w.pt", "--data", "d", "--metrics", "streaming", "--ablate-memory"], "set --latency MS"),
        (["w.pt", "--data", "d", "--tracker", "best"], "choose one of: byte"),
        (["w.pt", "--data", "d", "--tracker-option", "low_score=2"], "must be in [0, 1]"),
        (["w.pt", "--data", "d", "--samples", "-1"], "--samples -1"),
        (["w.pt", "--data", "d", "--out", f"{__file__}/out"], "cannot be written"),
    ],
)
def test_tool_reports_invalid_requests(arguments, message, capsys) -> None:
    assert tool().main(arguments) != 0
    assert message in capsys.readouterr().err
