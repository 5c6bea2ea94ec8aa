"""Names of files that are not UTF-8, in every place that takes one."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pytest
from forked_process import ForkedProcess, with_files

from conftest import detections, tiny_config, tiny_model, write_coco_vid
from rnndet.cli import infer
from rnndet.data.formats import read_set
from rnndet.errors import InputError, OutputError
from rnndet.models.checkpoint import load_model, model_content, save_checkpoint
from rnndet.video import names, sink
from rnndet.video.draw import draw
from rnndet.video.image import read_image, write_image
from rnndet.video.side_by_side import side_by_side
from rnndet.video.sink import VideoSink
from rnndet.video.sources import open as sources
from rnndet.video.sources.isolated import IsolatedSource
from rnndet.video.sources.open import VideoFile, open_source, read_frames

ROOT = Path(__file__).resolve().parent.parent
NAME = os.fsdecode(b"caf\xe9")

pytestmark = pytest.mark.skipif(
    sys.platform in ("win32", "darwin"), reason="names of this file system are Unicode"
)


def write_clip(path: Path, *, length: int = 3) -> Path:
    with TemporaryDirectory() as made:
        clip = Path(made) / "clip.avi"
        writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 25, (96, 64))
        for k in range(length):
            writer.write(np.full((64, 96, 3), 40 * k, np.uint8))
        writer.release()
        path.write_bytes(clip.read_bytes())
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / f"{NAME}.pt"
    save_checkpoint(path, model_content(tiny_model(), tiny_config(), step=0))
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / NAME
    path.mkdir()
    return path


def run(*arguments: object) -> int:
    return infer.main([*map(str, arguments), "--device", "cpu", "--score-threshold", "0.01"])


def is_folder_empty(path: Path) -> bool:
    return not any(path.iterdir())


# reading and writing


@pytest.mark.parametrize("suffix", [".avi", f".{NAME}", ""])
def test_video_is_read_under_any_name(folder, suffix):
    path = write_clip(folder / f"{NAME}{suffix}")
    with VideoFile(path) as video:
        assert [int(frame.image.mean()) for frame in video] == pytest.approx([0, 40, 80], abs=2)
        assert (video.info.source, video.info.name) == (str(path), "caf")


def test_link_to_a_video_is_removed_once_it_is_open(tmp_path, monkeypatch):
    path = write_clip(tmp_path / f"{NAME}.avi")
    (tmp_path / "links").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "links"))
    with VideoFile(path) as video:
        assert len(list(video)) == 3
        assert is_folder_empty(tmp_path / "links")


def test_video_under_a_name_of_utf8_is_opened_without_a_link(tmp_path):
    path = tmp_path / "größe.avi"
    with names.opencv_path(path) as name:
        assert name == str(path)


def test_video_is_read_where_names_are_not_utf8_to_python(tmp_path):
    """As on a system without a locale, where Python sees each byte of a letter by itself."""
    path = write_clip(tmp_path / "größe.avi")
    code = (
        "import sys; from rnndet.video.sources.open import VideoFile\n"
        "print(sys.getfilesystemencoding(), len(list(VideoFile(sys.argv[1]))))"
    )
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | locale, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["ascii", "3"], done.stderr


@pytest.mark.parametrize("has_pyav", [True, False])
def test_where_no_link_can_be_made_pyav_reads_or_the_error_is_one_line(
    tmp_path, folder, monkeypatch, has_pyav
):
    if has_pyav:
        pytest.importorskip("av")
    path = write_clip(tmp_path / f"{NAME}.avi")
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr(sources, "has_pyav", lambda: has_pyav)
    if has_pyav:
        with open_source(path) as video:
            assert len(list(video)) == 3
        return
    with pytest.raises(InputError, match=r"rename it$"):
        open_source(path)


def test_frames_of_a_video_are_read_by_index(folder):
    (image,) = read_frames(write_clip(folder / f"{NAME}.avi"), [1])
    assert int(image.mean()) == pytest.approx(40, abs=2)


def test_child_process_decodes_a_video_of_any_name(folder):
    with IsolatedSource(str(write_clip(folder / f"{NAME}.avi"))) as video:
        assert len(list(video)) == 3


def test_images_are_read_and_written_under_any_name(folder):
    image = np.full((64, 96, 3), 80, np.uint8)
    for k in range(3):
        write_image(folder / f"{NAME}_{k}.png", image)
    assert np.array_equal(read_image(folder / f"{NAME}_0.png"), image)
    for source in (folder, folder / f"{NAME}_%d.png", folder / f"{NAME}_*.png"):
        with open_source(source) as opened:
            assert len(list(opened)) == 3


def test_image_of_an_unknown_suffix_is_one_line(folder):
    with pytest.raises(OutputError, match="no encoder"):
        write_image(folder / f"a.{NAME}", np.zeros((4, 4, 3), np.uint8))


def test_image_that_may_have_no_end_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    for path in (tmp_path / "a.jpg", Path("/dev/zero")):
        with pytest.raises(InputError, match="not a regular file"):
            read_image(path)
    with pytest.raises(InputError, match="not a regular file"):
        open_source(tmp_path)


@pytest.mark.parametrize("kind", ["H264Writer", "Mpeg4Writer"])
def test_video_is_written_under_any_name(folder, monkeypatch, kind):
    if kind == "H264Writer":
        pytest.importorskip("av")
    writer = getattr(sink, kind)
    monkeypatch.setattr(sink, "open_writer", lambda *of_file, **_: writer(*of_file))
    path = folder / f"{NAME}.mp4"
    with VideoSink(path, size_hw=(64, 96), fps=25) as video:
        for _ in range(3):
            video.write(np.zeros((64, 96, 3), np.uint8))
    assert [file.name for file in folder.iterdir()] == [path.name]
    with open_source(path) as written:
        assert len(list(written)) == 3


def test_video_is_written_where_ffmpeg_would_see_a_protocol(tmp_path, monkeypatch):
    pytest.importorskip("av")
    monkeypatch.chdir(tmp_path)
    with VideoSink("http:x/clip.mp4", size_hw=(64, 96), fps=25) as video:
        video.write(np.zeros((64, 96, 3), np.uint8))
    assert (tmp_path / "http:x" / "clip.mp4").is_file()


def test_class_names_and_captions_of_any_kind_are_drawn():
    image = np.zeros((64, 96, 3), np.uint8)
    found = detections([[10, 30, 40, 60]], [0.5], [0])
    for name in (NAME, "\ud800", "größe", "a\0b", "\n"):
        assert draw(image, found, [name]).any()
        side_by_side([image, image], [name, "right"])


def test_url_of_other_bytes_is_one_line(monkeypatch):
    live = sources.LiveOptions(allow_network=True)
    with pytest.raises(InputError, match="%E9"):
        open_source(f"http://127.0.0.1:1/{NAME}.mp4", live=live)


def test_corruption_of_a_video_of_any_name_is_fixed():
    from rnndet.data.corruption.pixels import seeded

    assert seeded(NAME).initial_seed() != seeded("caf").initial_seed()
    assert seeded("\ud800").initial_seed() == seeded("\ud800").initial_seed()


# the tools


def test_infer_takes_any_name_and_gives_it_back_in_its_results(weights, folder, tmp_path, capsys):
    path = write_clip(folder / f"{NAME}.avi")
    (folder / "classes.txt").write_text("square\n")
    out = tmp_path / os.fsdecode(b"\xff out")
    save = "video,mot,coco,csv,cvat,crops,frames"
    given = ["--weights", weights, "--out", out, "--save", save, "--save-state", folder / NAME]
    assert run(path, *given, "--classes", folder / "classes.txt") == 0
    assert capsys.readouterr().err == ""
    results = out / "caf"
    for file in results.rglob("*"):
        if file.suffix in (".json", ".jsonl", ".csv", ".xml", ".txt", ".ini"):
            file.read_bytes().decode("utf-8")
    header = json.loads((results / "detections.jsonl").read_bytes().splitlines()[0])
    assert os.fsencode(header["source"]) == os.fsencode(path)
    assert os.fsencode(header["model"]["name"]) == os.fsencode(weights)
    for file in (results / "done.json", out / "summary.json", results / "coco_images.json"):
        assert NAME in json.dumps(json.loads(file.read_bytes()), ensure_ascii=False)
    given[-1] = tmp_path / "state"
    given += ["--classes", folder / "classes.txt"]
    assert run(path, *given, "--overwrite", "--load-state", folder / NAME) == 0


def test_batch_goes_on_after_a_video_of_any_name(weights, tmp_path):
    """In a process of its own, which such a name would end."""
    (tmp_path / f"{NAME}.mp4").write_bytes(b"no video")
    (tmp_path / f"{NAME}.jpg").write_bytes(b"no image")
    given = [tmp_path / f"{NAME}.mp4", tmp_path / f"{NAME}.jpg", write_clip(tmp_path / "a.avi")]
    order = [
        *given,
        "--weights",
        weights,
        "--out",
        tmp_path / NAME,
        "--device",
        "cpu",
        "--no-video",
    ]
    errors = tmp_path / "errors"
    process = ForkedProcess(with_files, infer.main, list(map(str, order)), errors=errors)
    shown = (process.wait(), errors.read_bytes())
    assert shown[0] == 1, shown
    assert shown[1].count(b"\n") == 2
    assert b"Traceback" not in shown[1]
    summary = json.loads((tmp_path / NAME / "summary.json").read_bytes())
    assert [source["exit_code"] for source in summary["sources"]] == [3, 3, 0]


def test_graph_of_any_name_runs(weights, folder, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from rnndet.cli import export

    graph = folder / f"{NAME}.onnx"
    assert export.main([str(weights), "--out", str(graph), "--frames", "2"]) == 0
    path = write_clip(tmp_path / "a.avi")
    given = ["--runtime", "onnx", "--no-video", "--out", tmp_path]
    assert run(path, "--weights", graph, *given) == 0


def test_log_lines_are_json_on_a_stream_without_utf8(monkeypatch):
    from rnndet.system.progress import JsonFormatter

    record = logging.makeLogRecord({"msg": f"{NAME}-größe"})
    monkeypatch.setattr(sys, "stderr", open(os.devnull, "w", encoding="ascii"))  # noqa: SIM115
    line = JsonFormatter().format(record).encode("ascii", "backslashreplace")
    assert json.loads(line)["text"] == f"{NAME}-größe"


def test_labelled_set_of_any_name_is_read_trained_on_and_evaluated(folder, tmp_path, weights):
    from rnndet.cli import evaluate, train

    root = tmp_path / "set"
    write_coco_vid(root, videos=1, length=4)
    root = root.rename(folder / NAME)
    assert len(read_set("coco_vid", root, "train").videos) == 1
    config = folder / f"{NAME}.toml"
    config.write_text('[[data.train]]\nroot = "set"\n[train]\nsteps = 1\nbatch = 1\n')
    options = [f"--set=data.train=[{{root='{root}'}}]", f"--set=train.init={weights}"]
    options += [
        "--set=model.detector=init",
        "--set=clip.length=2",
        "--set=model.temporal.levels=['0']",
        "--set=augment.crop=[64,64]",
    ]
    assert train.main([str(config), "--out", str(folder / "run"), "--quiet", *options]) == 0
    load_model(folder / "run" / "weights.pt")
    given = ["--data", root, "--split", "train", "--out", folder / "report", "--degrade", "noise"]
    assert evaluate.main([str(folder / "run" / "weights.pt"), *map(str, given)]) == 0
    report = json.loads((folder / "report" / "report.json").read_text())
    assert os.fsencode(report["protocol"]["weights"]) == os.fsencode(folder / "run" / "weights.pt")


@pytest.mark.parametrize("argument", ["--weights", "--classes", "--load-state"])
def test_missing_file_of_any_name_is_one_line(weights, tmp_path, argument, capsys):
    missing = tmp_path / f"{NAME}.txt"
    path = write_clip(tmp_path / "a.avi")
    options = {"--weights": weights} | {argument: missing}
    given = [item for pair in options.items() for item in pair]
    assert run(path, "--out", tmp_path / "out", *given) in (2, 3, 5)
    assert capsys.readouterr().err.count("\n") == 1


def test_missing_configuration_of_any_name_is_one_line(tmp_path, capsys):
    from rnndet.cli import train

    assert train.main([str(tmp_path / NAME)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
