"""rnndet infer and rnndet.track, end to end on a tiny model with random weights."""

import importlib.util
import inspect
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from forked_process import ForkedProcess, with_files
from pages import Parsed

import rnndet
from conftest import error_line
from rnndet.cli import infer as infer_cli
from rnndet.config import config_from_dict
from rnndet.errors import InputError, OutputError, RnndetError
from rnndet.inference.batch.jobs import Job
from rnndet.inference.run import RunOptions, make_stream, run_source
from rnndet.models.checkpoint import load_model, model_content, save_checkpoint
from rnndet.models.video_detector import build_model
from rnndet.structures import Frame
from rnndet.video.image import write_image
from rnndet.video.sink import VideoSink
from rnndet.video.sources.base import Source
from rnndet.video.sources.open import open_source
from rnndet.video.synthetic.clip import SyntheticClip

TOOL = Path(__file__).resolve().parent.parent / "tools" / "infer.py"
CLASSES = ("drone", "bird")
TINY = {
    "detector": "fcos",
    "options": {
        "size": [64, 80],
        "backbone": "mobilenet_v2",
        "channels": 32,
        "head_convs": 1,
        "strides": [16, 32],
        "extra_levels": 0,
        "detections_per_frame": 8,
    },
    "temporal": {"levels": ["0"], "hidden": 8},
}


def load_tool():
    spec = importlib.util.spec_from_file_location("infer_tool", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    config = config_from_dict({"model": TINY}, where="test")
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    save_checkpoint(path, model_content(build_model(config.model, CLASSES), config, step=0))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "sky.mp4"
    with VideoSink(path, size_hw=(64, 80), fps=30) as sink:
        for frame in SyntheticClip(1, length=10, size_hw=(64, 80)):
            sink.write(frame.image)
    return path


@pytest.fixture
def infer(weights, tmp_path):
    """Run the tool with the tiny model, results in tmp_path; scores of random weights are low."""
    tool = load_tool()

    def run(*arguments: object) -> int:
        given = ["--out", tmp_path, "--score-threshold", 0.01, "--device", "cpu", *arguments]
        if "--weights" not in arguments:
            given += ["--weights", weights]
        return tool.main([str(argument) for argument in given])

    return run


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_frame_is_written_and_the_json_has_header_and_summary(infer, clip, tmp_path, capsys):
    assert infer(clip) == 0
    header, *frames, summary = read_lines(tmp_path / "sky" / "detections.jsonl")
    assert header["type"] == "header"
    assert (header["width"], header["height"], header["fps"]) == (80, 64, 30.0)
    assert header["classes"] == list(CLASSES)
    assert (header["tracker"], header["device"]) == ("byte", "cpu")
    model = header["model"]
    assert (model["detector"], model["cell"], len(model["sha256"])) == ("fcos", "conv_lstm", 64)
    assert [line["index"] for line in frames] == list(range(10))
    for line in frames:
        for found in line["objects"]:
            assert len(found["box"]) == 4
            assert found["label"] in CLASSES
            assert found.get("id", 1) >= 0
    assert summary["type"] == "summary"
    assert (summary["frames"], summary["interrupted"]) == (10, False)
    assert sum(summary["objects"].values()) == sum(len(line["objects"]) for line in frames) > 0
    with open_source(tmp_path / "sky" / "annotated.mp4") as video:
        assert len(list(video)) == 10
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2:] == [
        str(tmp_path / "sky" / n) for n in ("detections.jsonl", "annotated.mp4")
    ]
    assert "on cpu" in printed[0]


def test_frames_between_key_frames_are_marked_and_counted(infer, clip, tmp_path, capsys):
    assert infer(clip, "--key-every", 3, "--no-scene-cuts") == 0
    header, *frames, summary = read_lines(tmp_path / "sky" / "detections.jsonl")
    assert (header["key_every"], header["key_lost"]) == (3, 0)
    assert [line.get("followed", False) for line in frames] == [k % 3 > 0 for k in range(10)]
    assert summary["followed"] == 6
    assert "key frames: 4 of 10" in capsys.readouterr().out


def labels_of(folder: Path) -> set[str]:
    _, *frames, _ = read_lines(folder / "detections.jsonl")
    return {item["label"] for line in frames for item in line["objects"]}


def test_only_the_classes_of_the_option_are_detected(infer, clip, tmp_path):
    assert infer(clip, "--classes", " bird,", "--max-frames", 3) == 0
    assert labels_of(tmp_path / "sky") == {"bird"}


def test_header_has_the_classes_of_the_model_and_of_the_option(infer, clip, tmp_path):
    assert infer(clip, "--classes", "bird", "--max-frames", 1) == 0
    header = read_lines(tmp_path / "sky" / "detections.jsonl")[0]
    assert (header["classes"], header["selected_classes"]) == (list(CLASSES), ["bird"])


def test_header_without_the_option_has_no_selected_classes(infer, clip, tmp_path):
    assert infer(clip, "--max-frames", 1) == 0
    assert "selected_classes" not in read_lines(tmp_path / "sky" / "detections.jsonl")[0]


def test_classes_of_a_text_file_are_detected(infer, clip, tmp_path):
    (tmp_path / "names").write_text("# in the air\n\n bird \n")
    assert infer(clip, "--classes", tmp_path / "names", "--max-frames", 3) == 0
    assert labels_of(tmp_path / "sky") == {"bird"}


def test_class_with_the_name_of_a_file_is_the_class(infer, clip, tmp_path, monkeypatch):
    (tmp_path / "bird").write_text("drone\n")
    monkeypatch.chdir(tmp_path)
    assert infer(clip, "--classes", "bird", "--max-frames", 3) == 0
    assert labels_of(tmp_path / "sky") == {"bird"}


def test_names_longer_than_a_path_are_accepted(infer, clip):
    assert infer(clip, "--classes", ",".join(["bird"] * 200), "--max-frames", 1) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drone,brid", "--classes: the model has no class 'brid'; did you mean 'bird'?"),
        ("person", "--classes: the model has no class 'person'; its classes: drone, bird"),
        (",", "--classes: names no class"),
        ("names.txt", "--classes names.txt: no such file"),
    ],
)
def test_unknown_classes_are_one_line(infer, clip, capsys, text, message):
    assert infer(clip, "--classes", text) in (2, 3)
    assert error_line(capsys) == f"infer: {message}"


def test_unknown_class_of_a_file_is_reported_with_the_file(infer, clip, tmp_path, capsys):
    path = tmp_path / "names.txt"
    path.write_text("bird\ndorne\n")
    assert infer(clip, "--classes", path) == 2
    assert f"--classes {path}: the model has no class 'dorne'" in error_line(capsys)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"# none\n"])
def test_file_without_class_names_is_refused_with_its_name(infer, clip, tmp_path, capsys, content):
    (tmp_path / "names.txt").write_bytes(content)
    assert infer(clip, "--classes", tmp_path / "names.txt") in (2, 3)
    assert "names.txt" in error_line(capsys)


def test_compiling_for_several_sources_at_a_time_is_a_usage_error(infer, clip, capsys):
    assert infer(clip, "--compile", "--batch-sources", 2) == 2
    assert "--compile" in capsys.readouterr().err


def test_share_of_lost_boxes_without_key_frames_is_a_usage_error(infer, clip):
    assert infer(clip, "--key-lost", 0.5) == 2


def test_results_are_replaced_only_with_overwrite(infer, clip, tmp_path, capsys):
    assert infer(clip, "--max-frames", 2) == 0
    first = (tmp_path / "sky" / "detections.jsonl").read_bytes()
    assert infer(clip) == 4
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "sky" / "detections.jsonl").read_bytes() == first
    assert infer(clip, "--overwrite", "--no-video", "--quiet", "--max-frames", 3) == 0
    assert len(read_lines(tmp_path / "sky" / "detections.jsonl")) == 5
    assert sorted(p.name for p in (tmp_path / "sky").iterdir()) == ["detections.jsonl", "done.json"]


def test_without_a_source_the_demo_runs_and_may_be_repeated(infer, tmp_path):
    for _ in range(2):
        assert infer("--max-frames", 2, "--no-video") == 0
    assert len(read_lines(tmp_path / "demo" / "detections.jsonl")) == 4


def test_failed_source_among_several_gives_exit_1_and_the_rest_are_processed(
    infer, clip, tmp_path, capsys
):
    assert infer(tmp_path / "missing.mp4", clip, "--max-frames", 1, "--no-video") == 1
    assert (tmp_path / "sky" / "detections.jsonl").exists()
    assert "missing.mp4" in capsys.readouterr().err


def test_sources_of_the_same_name_get_separate_folders(infer, clip, tmp_path):
    assert infer(clip, clip, "--max-frames", 1, "--no-video") == 0
    assert (tmp_path / "sky-2" / "detections.jsonl").exists()


def test_part_of_a_source(infer, clip, tmp_path):
    assert infer(clip, "--start", 0.1, "--stride", 2) == 0  # 10 frames, 30 a second
    header, *frames, _ = read_lines(tmp_path / "sky" / "detections.jsonl")
    assert [line["index"] for line in frames] == [3, 5, 7, 9]
    assert header["fps"] == 15.0
    with open_source(tmp_path / "sky" / "annotated.mp4") as video:
        assert (len(list(video)), video.info.fps) == (4, 15)


def test_part_after_the_end_of_the_video_is_said(infer, clip, capsys):
    assert infer(clip, "--start", 10) == 3
    assert error_line(capsys).endswith("10 frames read, none of them from --start to --end")


def test_part_that_ends_before_it_begins_is_a_usage_error(infer, clip, capsys):
    assert infer(clip, "--start", 2, "--end", 1) == 2
    assert "--end 1: expected more than --start, 2" in capsys.readouterr().err


def test_results_of_a_source_do_not_depend_on_the_previous_source(infer, clip, long_clip, tmp_path):
    assert infer(long_clip, clip, "--no-video", "--max-frames", 10) == 0
    after = read_lines(tmp_path / "sky" / "detections.jsonl")
    assert infer(clip, "--no-video", "--max-frames", 10, "--overwrite") == 0
    alone = read_lines(tmp_path / "sky" / "detections.jsonl")
    assert after[:-1] == alone[:-1]  # the last line has the times


def test_list_of_sources_is_run_like_several_arguments(infer, clip, tmp_path, capsys):
    path = tmp_path / "list.txt"
    path.write_text(f"# two that are there\n{clip}\ngone.mp4\n{clip.parent}/s*.mp4\n")
    assert infer(path, tmp_path / "no.txt", "--max-frames", 1, "--no-video") == 1
    printed = capsys.readouterr().err
    assert "gone.mp4" in printed
    assert "no.txt" in printed
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [source["exit_code"] for source in summary["sources"]] == [0, 3, 0, 3]
    assert (tmp_path / "sky-2" / "detections.jsonl").exists()


def test_empty_list_does_not_stop_the_other_sources(infer, clip, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("# nothing\n")
    assert infer(tmp_path / "list.txt", clip, "--max-frames", 1, "--no-video") == 1
    assert "lists no source" in capsys.readouterr().err
    assert (tmp_path / "sky" / "detections.jsonl").exists()


def test_output_error_is_reported_also_after_a_signal(tmp_path, monkeypatch, capsys):
    from rnndet.cli import infer as tool

    def fail(self, job, runtime):
        raise OutputError("the disk is full")

    monkeypatch.setattr("rnndet.inference.batch.run.Batch._run_unless_done", fail)
    args = tool.parse(["--out", str(tmp_path)])
    tool.check(args)
    batch = tool.make_batch(args, {}, stop=lambda: True)
    assert batch.run(Job("a.mp4", "a"), None)["exit_code"] == 4
    assert "the disk is full" in capsys.readouterr().err


def test_state_is_for_one_source_also_of_a_list(infer, clip, tmp_path):
    (tmp_path / "list.txt").write_text(f"{clip}\n{clip}\n")
    assert infer(tmp_path / "list.txt", "--save-state", tmp_path / "state.pt") == 2


def test_pattern_of_images_is_one_source_with_its_gaps(infer, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for frame in SyntheticClip(1, length=6, size_hw=(64, 80)):
        if frame.index != 3:
            write_image(tmp_path / "in" / f"f{frame.index:03d}.png", frame.image)
    assert infer(tmp_path / "in" / "f%03d.png", "--no-video") == 0
    _, *frames, summary = read_lines(tmp_path / "in_f" / "detections.jsonl")
    assert [line["index"] for line in frames] == [0, 1, 2, 4, 5]
    assert [line.get("gap") for line in frames] == [None, None, None, 1, None]
    assert summary["missing"] == 1
    assert "warning: 1 image is missing" in capsys.readouterr().out


def test_truncated_file_is_a_warning_and_exit_1_only_with_strict(infer, tmp_path, capsys):
    path = tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (80, 64))
    for frame in SyntheticClip(1, length=12, size_hw=(64, 80)):
        writer.write(frame.image)
    writer.release()
    assert infer(path, "--no-video", "--strict") == 0
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert infer(path, "--no-video", "--overwrite") == 0
    assert "warning: the file ends early: it claims 12 frames" in capsys.readouterr().out
    assert infer(path, "--no-video", "--overwrite", "--strict") == 1
    summary = read_lines(tmp_path / "cut" / "detections.jsonl")[-1]
    assert summary["truncated"] is True
    assert summary["frames"] < 12


def test_large_images_are_exit_3(infer, clip, capsys):
    assert infer(clip, "--max-pixels", 64 * 80 - 1) == 3
    assert "--max-pixels" in capsys.readouterr().err


def test_rotated_video_is_upright_and_its_header_has_the_rotation(infer, clip, tmp_path):
    data = bytearray(clip.read_bytes())
    at = data.index(b"tkhd") + 44
    matrix = (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    (tmp_path / "turned.mp4").write_bytes(data)
    assert infer(tmp_path / "turned.mp4", "--max-frames", 2) == 0
    header = read_lines(tmp_path / "turned" / "detections.jsonl")[0]
    assert (header["width"], header["height"], header["rotation"]) == (64, 80, 90)
    with open_source(tmp_path / "turned" / "annotated.mp4") as video:
        assert (video.info.width, video.info.height, video.info.rotation) == (64, 80, 0)


def test_url_without_permission_is_exit_3_and_hides_its_password(infer, tmp_path, capsys):
    assert infer("rtsp://me:secret@127.0.0.1:9/1") == 3
    printed = capsys.readouterr()
    assert "--allow-network" in printed.err
    written = (tmp_path / "summary.json").read_text()
    assert "secret" not in printed.err + printed.out + written


def test_signal_ends_a_live_source_without_frames(infer, tmp_path):
    done = threading.Event()

    class Camera(BaseHTTPRequestHandler):
        """Two images and a signal, then silence."""

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=edge")
            self.end_headers()
            data = cv2.imencode(".jpg", np.zeros((64, 80, 3), np.uint8))[1].tobytes()
            head = b"--edge\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
            part = head % len(data) + data + b"\r\n"
            self.wfile.write(part * 4)
            self.wfile.flush()
            wait_for_lines(tmp_path / "127.0.0.1_cam" / "detections.part.jsonl", 2)
            os.kill(os.getpid(), signal.SIGTERM)
            done.wait(30)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/cam"
            assert infer(url, "--allow-network", "--timeout", 20) == 143
        finally:
            done.set()
            server.shutdown()
    lines = read_lines(tmp_path / "127.0.0.1_cam" / "detections.jsonl")
    assert lines[-1]["interrupted"] is True
    assert (tmp_path / "127.0.0.1_cam" / "annotated.mp4").exists()


def wait_for_lines(path: Path, count: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.02)


def test_no_socket_is_opened(infer, clip, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.socket.bind", refuse)
    monkeypatch.setattr("socket.create_connection", refuse)
    assert infer(clip, "--max-frames", 2) == 0


def test_missing_file_is_exit_3(infer, tmp_path, capsys):
    assert infer(tmp_path / "missing.mp4") == 3
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "missing.mp4" in lines[0]


def test_text_file_is_exit_3(infer, tmp_path, capsys):
    path = tmp_path / "notes.txt"
    path.write_text("not a video\n")
    assert infer(path) == 3
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["clip.mp4"], "everyday"),
        ([], "aerial"),  # of the rendered clip
        (["clip.mp4", "--weights", "aerial"], "aerial"),
        (["--weights", "everyday"], "everyday"),
    ],
)
def test_weights_that_are_run_by_default(tmp_path, arguments, expected):
    from rnndet.cli import infer as tool

    args = tool.parse([*arguments, "--out", str(tmp_path)])
    tool.check(args)
    assert args.weights == expected


def test_unknown_weights_are_exit_5(infer, clip):
    assert infer(clip, "--weights", "no_such_weights") == 5


def test_unknown_tracker_is_exit_2_and_names_the_choices(infer, clip, capsys):
    assert infer(clip, "--tracker", "bite") == 2
    assert "byte" in capsys.readouterr().err


def test_tracker_options_of_the_command_line_reach_the_results(infer, clip, tmp_path):
    assert infer(clip, "--tracker-option", "min_hits=1000") == 0
    header, *frames, _ = read_lines(tmp_path / "sky" / "detections.jsonl")
    assert header["tracker_options"] == {"min_hits": 1000}
    assert not any("id" in found for frame in frames for found in frame["objects"])


def test_unknown_tracker_option_is_exit_2_and_names_the_nearest(infer, clip, capsys):
    assert infer(clip, "--tracker-option", "max_aeg=2") == 2
    assert "did you mean 'max_age'" in capsys.readouterr().err


def test_a_state_is_for_one_source(infer, clip, tmp_path, capsys):
    assert infer(clip, clip, "--save-state", tmp_path / "s.pt") == 2
    assert "are for one source" in capsys.readouterr().err


def test_debug_shows_the_traceback_and_continues(infer, clip, tmp_path, capsys):
    assert infer(tmp_path / "missing.mp4", clip, "--debug", "--max-frames", 1) == 1
    assert "Traceback" in capsys.readouterr().err
    assert (tmp_path / "sky" / "detections.jsonl").exists()


def test_name_that_no_file_can_have_is_exit_3(infer, capsys):
    assert infer("x" * 300 + ".mp4") == 3
    assert "File name too long" in capsys.readouterr().err


def test_synthetic_clip_does_not_replace_a_file_of_the_same_name(infer, clip, tmp_path, capsys):
    real = tmp_path / "demo.mp4"
    real.write_bytes(clip.read_bytes())
    assert infer(real, "--max-frames", 2) == 0
    assert infer("--max-frames", 2) == 4
    assert "there are results already" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_a_device_is_exit_6(infer, clip):
    assert infer(clip, "--device", "cuda") == 6


@pytest.mark.parametrize("flag", ["--max-frames", "--threads"])
def test_counts_below_one_are_usage_errors(infer, flag):
    with pytest.raises(SystemExit) as stop:
        infer(flag, 0)
    assert stop.value.code == 2


# written files


def test_requested_files_and_the_json_lines_are_saved(infer, clip, tmp_path):
    assert infer(clip, "--save", "mot,csv", "--save", "coco", "--max-frames", 3) == 0
    assert sorted(path.name for path in (tmp_path / "sky").iterdir()) == [
        "coco.json", "coco_images.json", "detections.csv", "detections.jsonl", "done.json",
        "mot.txt", "mot_labels.txt",
    ]  # fmt: skip
    assert infer(clip, "--save", "video,frames", "--no-video", "--overwrite") == 0
    assert sorted(path.name for path in (tmp_path / "sky").iterdir()) == [
        "detections.jsonl", "done.json", "frames",
    ]  # fmt: skip
    assert len(list((tmp_path / "sky" / "frames").iterdir())) == 10


def test_any_old_result_is_replaced_only_with_overwrite(infer, clip, tmp_path, capsys):
    (tmp_path / "sky").mkdir()
    (tmp_path / "sky" / "cvat.xml").write_text("corrected by hand")
    assert infer(clip, "--save", "cvat") == 4
    assert "cvat.xml" in capsys.readouterr().err
    assert (tmp_path / "sky" / "cvat.xml").read_text() == "corrected by hand"


def test_unknown_format_is_exit_2_and_names_the_choices(infer, clip, capsys):
    assert infer(clip, "--save", "mott", "--weights", "no_such_weights") == 2
    assert "cvat" in capsys.readouterr().err


def test_coasting_without_a_tracker_is_a_usage_error(infer, clip):
    assert infer(clip, "--coast", 0.5, "--tracker", "none") == 2


def test_annotated_video_keeps_variable_timestamps(infer, tmp_path):
    pytest.importorskip("av")
    times = [0, 0.02, 0.1, 0.5, 0.54, 1.5]
    with VideoSink(tmp_path / "uneven.mp4", size_hw=(64, 80), fps=25) as sink:
        for time_ in times:
            sink.write(np.zeros((64, 80, 3), np.uint8), time=time_)
    assert infer(tmp_path / "uneven.mp4", "--trails", 5, "--coast", 0.2) == 0
    with open_source(tmp_path / "uneven" / "annotated.mp4") as video:
        assert [frame.time for frame in video] == pytest.approx(times, abs=2e-3)


# faults of the output: RELIABILITY.md O1, O2, O7, O8


@pytest.mark.parametrize("place", ["file", "file/deeper"])
def test_output_that_cannot_be_written_is_exit_4_before_a_model_is_loaded(
    infer, clip, tmp_path, capsys, place
):
    (tmp_path / "file").write_text("")
    arguments = ("--out", tmp_path / place, "--weights", "no_such_weights")
    assert infer(clip, *arguments) == 4
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_output_folder_without_the_right_to_write_is_exit_4(infer, clip, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    assert infer(clip, "--out", tmp_path / "locked", "--weights", "no_such_weights") == 4


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Files of this process cannot grow beyond `size` bytes, as on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_is_exit_4_and_keeps_the_complete_lines(infer, tmp_path, capsys):
    noise = np.random.default_rng(0).integers(0, 255, (64, 80, 3)).astype(np.uint8)
    with VideoSink(tmp_path / "noise.mp4", size_hw=(64, 80), fps=30) as sink:
        for k in range(100):
            sink.write(np.roll(noise, 7 * k, axis=k % 2))
    save = ("--save", "video,csv,cvat,crops,frames,html")
    with file_size_limit(30_000):
        code = infer(tmp_path / "noise.mp4", *save, "--quiet")
    errors = capsys.readouterr().err
    assert code == 4, errors
    assert "cannot be written" in errors
    assert "Traceback" not in errors
    part = tmp_path / "noise" / "detections.part.jsonl"
    assert list(part.parent.iterdir()) == [part]
    lines = read_lines(part)
    assert [line["index"] for line in lines[1:]] == list(range(len(lines) - 1))
    assert 5 < len(lines) < 100


def test_second_run_into_the_same_folder_is_exit_4(infer, weights, long_clip, tmp_path, capsys):
    process = start_tool(weights, long_clip, tmp_path)
    try:
        wait_for_frames(tmp_path / "long" / "detections.part.jsonl", process, count=2)
        assert infer(long_clip, "--overwrite") == 4
        assert "another run" in capsys.readouterr().err
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "long" / ".lock").exists()
    assert infer(long_clip, "--overwrite", "--max-frames", 2) == 0  # the dead do not block
    assert not (tmp_path / "long" / ".lock").exists()


def infer_into_a_closed_pipe(order: list[str]) -> int:
    reader, writer = os.pipe()
    os.close(reader)
    sys.stdout = open(writer, "w")  # noqa: SIM115
    return infer_cli.main(order)


def test_closed_output_pipe_is_no_error(weights, clip, tmp_path):
    order = ["--weights", weights, "--out", tmp_path, "--device", "cpu", clip]
    errors = tmp_path / "errors"
    process = ForkedProcess(
        with_files, infer_into_a_closed_pipe, list(map(str, order)), errors=errors
    )
    assert (process.wait(), errors.read_text()) == (0, "")
    assert (tmp_path / "sky" / "detections.jsonl").exists()


# messages, signals and failures


def test_log_json_prints_json_lines_only(infer, clip, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(logging.root, "handlers", [])
    assert infer("--log-json", "--save", "csv", clip, tmp_path / "missing.mp4") == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = [json.loads(line) for line in printed.err.splitlines()]
    assert all({"time", "level", "event", "text"} <= line.keys() for line in lines)
    assert lines[-1]["event"] == "error"
    assert (lines[-1]["level"], lines[-1]["exit_code"]) == ("error", 3)
    assert any("sky: done" in line["text"] for line in lines)


def test_progress_elsewhere_than_on_a_terminal_is_a_line(infer, clip, monkeypatch, caplog):
    monkeypatch.setattr("rnndet.system.progress.LINE_EVERY", 0.0)
    caplog.set_level("INFO")
    assert infer(clip, clip, "--max-frames", 2, "--no-video") == 0
    facts = [record.facts for record in caplog.records if hasattr(record, "facts")]
    assert [(f["source"], f["source_number"], f["frames"]) for f in facts] == [
        ("sky", 1, 1), ("sky", 1, 2), ("sky-2", 2, 1), ("sky-2", 2, 2),
    ]  # fmt: skip
    assert "sky-2 (2 of 2): 1 of 2 frames" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no DISPLAY")
@pytest.mark.parametrize("display", [None, ":97"])
def test_window_without_a_display_is_exit_6(infer, clip, monkeypatch, capsys, display):
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    if display is not None:  # a name without a display behind it
        monkeypatch.setenv("DISPLAY", display)
    assert infer(clip, "--show", "--weights", "no_such_weights") == 6
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("key", [ord("q"), 27])
def test_key_in_the_window_ends_the_run_like_ctrl_c(infer, clip, monkeypatch, tmp_path, key):
    shown = []
    monkeypatch.setattr("rnndet.video.window.check_display", lambda: None)
    monkeypatch.setattr("cv2.namedWindow", lambda *_: None)
    monkeypatch.setattr("cv2.resizeWindow", lambda *_: None)
    monkeypatch.setattr("cv2.destroyAllWindows", lambda: None)
    monkeypatch.setattr("cv2.getWindowProperty", lambda *_: 1.0)
    monkeypatch.setattr("cv2.imshow", lambda _, image: shown.append(image.shape))
    monkeypatch.setattr("cv2.waitKey", lambda _: key if len(shown) == 4 else -1)
    assert infer(clip, "--show", "--no-video") == 130
    lines = read_lines(tmp_path / "sky" / "detections.jsonl")
    assert (lines[-1]["frames"], lines[-1]["interrupted"]) == (4, True)
    assert shown == [(64, 80, 3)] * 4


# the library under the tool


def test_interruption_finishes_the_files(weights, tmp_path):
    def stop(result):
        if result.frame.index == 2:
            raise KeyboardInterrupt

    stream = make_stream(load_model(weights), min_score=0.01)
    clip = SyntheticClip(1, length=10, size_hw=(64, 80))
    summary = run_source(stream, clip, tmp_path, RunOptions(name="cut"), on_frame=stop)
    assert (summary.interrupted, summary.frames) == (True, 3)
    lines = read_lines(tmp_path / "cut" / "detections.jsonl")
    assert lines[-1]["interrupted"] is True
    with open_source(tmp_path / "cut" / "annotated.mp4") as video:
        assert len(list(video)) == 3


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "long.mp4"
    with VideoSink(path, size_hw=(64, 80), fps=30) as sink:
        image = np.zeros((64, 80, 3), np.uint8)
        for number in range(3000):
            image[:] = number % 200
            sink.write(image)
    return path


def start_tool(weights, clip, out) -> ForkedProcess:
    order = ["--weights", weights, "--out", out, "--device", "cpu", "--quiet"]
    order += ["--score-threshold", 0.01, "--overwrite", clip]
    return ForkedProcess(infer_cli.main, list(map(str, order)))


def wait_for_frames(path: Path, process: ForkedProcess, *, count: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") > count:
            return
        time.sleep(0.02)
    raise AssertionError(f"the tool did not get to frame {count}; exit {process.poll()}")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_finishes_frame_and_files(weights, long_clip, tmp_path, number, code):
    process = start_tool(weights, long_clip, tmp_path)
    wait_for_frames(tmp_path / "long" / "detections.part.jsonl", process, count=5)
    process.send_signal(number)
    assert process.wait(timeout=30) == code
    lines = read_lines(tmp_path / "long" / "detections.jsonl")
    assert lines[-1]["interrupted"] is True
    with open_source(tmp_path / "long" / "annotated.mp4") as video:
        assert len(list(video)) == lines[-1]["frames"] == len(lines) - 2
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["exit_code"], summary["sources"][0]["interrupted"]) == (code, True)


KILLS = int(os.environ.get("RNNDET_KILLS", "2"))


def test_kill_leaves_complete_lines(weights, long_clip, tmp_path):
    dice = random.Random(0)
    path = tmp_path / "long" / "detections.part.jsonl"
    for _ in range(KILLS):
        path.unlink(missing_ok=True)
        process = start_tool(weights, long_clip, tmp_path)
        wait_for_frames(path, process, count=2)
        time.sleep(dice.uniform(0, 0.3))
        process.kill()
        process.wait()
        lines = read_lines(path)
        assert [line["index"] for line in lines[1:]] == list(range(len(lines) - 1))


def test_summary_lists_failed_sources(infer, clip, tmp_path):
    infer(tmp_path / "missing.mp4", clip, "--max-frames", 1, "--no-video")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [source["exit_code"] for source in summary["sources"]] == [3, 0]
    assert "no such file" in summary["sources"][0]["error"]
    assert summary["sources"][1]["frames"] == 1


def test_interrupted_tool_is_exit_130(infer, clip, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("rnndet.inference.stream.Stream.track", stop)
    assert infer(clip) == 130


def test_an_error_midway_keeps_old_results_and_the_new_lines(weights, tmp_path):
    model = load_model(weights)
    clip = SyntheticClip(1, length=3, size_hw=(64, 80))
    run_source(make_stream(model), clip, tmp_path, RunOptions(name="a"))
    old = (tmp_path / "a" / "detections.jsonl").read_bytes()

    def fail(result):
        if result.frame.index == 1:
            raise InputError("frame 2 is damaged")

    with pytest.raises(InputError):
        again = RunOptions(name="a", overwrite=True)
        run_source(make_stream(model), clip, tmp_path, again, on_frame=fail)
    assert (tmp_path / "a" / "detections.jsonl").read_bytes() == old
    assert len(read_lines(tmp_path / "a" / "detections.part.jsonl")) == 3
    with pytest.raises(OutputError, match="overwrite"):
        run_source(make_stream(model), clip, tmp_path, RunOptions(name="a"))


def test_a_source_without_frames_is_an_input_error_and_leaves_no_files(weights, tmp_path):
    class Nothing(Source):
        info = SyntheticClip(1, length=1, size_hw=(64, 80)).info

        def __iter__(self):
            return iter(())

    with pytest.raises(InputError, match="no frame"):
        run_source(make_stream(load_model(weights)), Nothing(), tmp_path, RunOptions(name="none"))
    assert not (tmp_path / "none").exists()


def test_track_of_a_file_of_frames_and_of_arrays_is_the_same(weights, clip):
    model = load_model(weights)
    with open_source(clip) as source:
        frames = list(source)
    inputs = [clip, str(clip), iter(frames), [frame.image for frame in frames]]
    scores = []
    for source in inputs:
        results = rnndet.track(model, source, min_score=0.01, tracker="none")
        assert inspect.isgenerator(results)
        scores.append(np.concatenate([result.detections.scores for result in results]))
    assert len(scores[0]) > 0
    assert all(np.array_equal(scores[0], other) for other in scores[1:])


def test_track_takes_one_frame_at_a_time_from_an_endless_source(weights):
    def endless():
        while True:
            yield np.zeros((64, 80, 3), np.uint8)

    results = rnndet.track(load_model(weights), endless())
    assert [next(results).frame.index for _ in range(3)] == [0, 1, 2]


def test_track_refuses_bad_names_at_the_call(weights, tmp_path):
    model = load_model(weights)
    with pytest.raises(RnndetError, match="tracker"):
        rnndet.track(model, [], tracker="bite")
    with pytest.raises(InputError):
        rnndet.track(model, tmp_path / "missing.mp4")


@pytest.mark.parametrize(
    "source", [None, 1.5, True, {"a": 1}, object()], ids=lambda value: type(value).__name__
)
def test_track_says_what_to_pass_for_what_is_no_source(weights, source):
    with pytest.raises(RnndetError, match="source: expected the path of a video") as error:
        rnndet.track(load_model(weights), source)
    assert type(source).__name__ in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("state", [".", "folder", "file/state"])
def test_state_that_cannot_be_written_is_exit_4_before_a_model_is_loaded(
    infer, clip, tmp_path, monkeypatch, capsys, state
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert infer(clip, "--save-state", state, "--weights", "none.pt") == 4
    assert error_line(capsys)


def test_empty_source_and_weights_are_not_the_current_folder_and_the_default(infer, capsys):
    """As in `rnndet infer "$UNSET"`."""
    assert infer("") == 2
    assert "source: expected a path, found an empty text" in error_line(capsys)
    assert infer("--weights", "", "clip.mp4") == 5
    assert "weights '': neither a file nor a published name" in error_line(capsys)


@pytest.mark.parametrize("item", [None, 3, np.zeros((4, 4)), np.zeros((4, 4, 4)), b"a.mp4"])
def test_track_says_which_item_is_no_frame(weights, item):
    frames = [np.zeros((64, 80, 3), np.uint8), item]
    with pytest.raises(RnndetError, match=r"item 1 of the iterable: expected a Frame or an \(H"):
        list(rnndet.track(load_model(weights), frames))


@pytest.mark.parametrize("kind", [os.fspath, os.fsencode, Path])
def test_track_takes_paths_of_every_kind(weights, clip, kind):
    assert len(list(rnndet.track(load_model(weights), kind(clip)))) == 10


def test_track_yields_only_the_chosen_classes(weights):
    frames = list(SyntheticClip(2, length=3, size_hw=(64, 80)))
    results = rnndet.track(load_model(weights), frames, min_score=0.01, classes=("bird",))
    labels = np.concatenate([result.detections.labels for result in results])
    assert set(labels.tolist()) == {CLASSES.index("bird")}


def test_track_without_frames_gives_nothing(weights):
    assert list(rnndet.track(load_model(weights), [])) == []


def test_streaming_equals_the_whole_clip(weights):
    """The shipped path and one call over all frames see the same."""
    model = load_model(weights)
    frames: list[Frame] = list(SyntheticClip(2, length=4, size_hw=(64, 80)))
    results = list(rnndet.track(model, frames, min_score=0.01, tracker="none"))
    pixels = torch.stack([torch.from_numpy(f.image).permute(2, 0, 1) for f in frames])
    with torch.inference_mode():
        clip = model(pixels[:, None]).detections
    for result, (expected,) in zip(results, clip, strict=True):
        # boxes of equal scores may change places
        np.testing.assert_allclose(result.detections.scores, expected.scores, atol=1e-5, rtol=1e-4)


# the page of results


def page_of(folder: Path) -> Parsed:
    return Parsed((folder / "view.html").read_text("utf-8"))


def test_page_has_the_objects_of_the_summary_and_the_video_beside_it(infer, clip, tmp_path):
    assert infer(clip, "--save", "html") == 0
    folder = tmp_path / "sky"
    header, *frames, summary = read_lines(folder / "detections.jsonl")
    page = page_of(folder)
    assert (folder / page.data["media"]["files"][0]).is_file()
    assert page.columns["time"].tolist() == [line["time"] for line in frames]
    assert len(page.columns["box_score"]) == sum(len(line["objects"]) for line in frames) > 0
    labels = page.columns["box_label"].tolist()
    assert Counter(CLASSES[label] for label in labels) == summary["objects"]
    facts = dict(page.data["facts"])
    assert facts["model"] == header["model"]["name"]
    assert (facts["tracker"], facts["size"]) == ("byte", "80 × 64")


def test_page_without_the_video_says_so(infer, tmp_path):
    (tmp_path / "in" / "walk").mkdir(parents=True)
    for index in range(3):
        write_image(tmp_path / "in" / "walk" / f"{index}.png", np.zeros((64, 80, 3), np.uint8))
    assert infer(tmp_path / "in" / "walk", "--save", "html", "--no-video") == 0
    assert not (tmp_path / "walk" / "annotated.mp4").exists()
    data = page_of(tmp_path / "walk").data
    assert data["media"] is None
    assert "no annotated.mp4" in data["notes"][0]


def test_page_of_an_interrupted_run_says_so(weights, clip, tmp_path):
    stream = make_stream(load_model(weights), min_score=0.01)
    with open_source(clip) as source:
        summary = run_source(
            stream, source, tmp_path, RunOptions(save=("html",)), stop=lambda: True
        )
    assert summary.interrupted
    notes = page_of(tmp_path / "sky").data["notes"]
    assert notes[0] == "The run was interrupted after 1 frames."


def test_new_results_without_a_page_remove_the_old_page(infer, clip, tmp_path):
    assert infer(clip, "--save", "html") == 0
    assert infer(clip, "--save", "csv", "--overwrite") == 0
    assert not (tmp_path / "sky" / "view.html").exists()


def test_scores_of_classes_change_the_results_and_are_in_the_header_like_nms(infer, clip, tmp_path):
    def found(*arguments) -> tuple[dict, dict]:
        assert infer(clip, "--no-video", "--tracker", "none", "--overwrite", *arguments) == 0
        header, *_, summary = read_lines(tmp_path / "sky" / "detections.jsonl")
        return header, summary["objects"]

    header, both = found()
    assert (header["min_score"], "nms" in header, set(both)) == (0.01, False, set(CLASSES))
    header, one = found("--score-threshold", "bird=0.9")
    assert header["min_score"] == {"*": 0.01, "bird": 0.9}
    assert set(one) == {"drone"}
    assert found("--nms", 0.25)[0]["nms"] == 0.25


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--score-threshold", "birds=0.5"], "no class 'birds'; did you mean 'bird'"),
        (["--score-threshold", "bird=7"], "--score-threshold of 'bird' = 7.0; expected a number"),
        (["--nms", 7], "nms = 7.0; expected an IoU"),
        (["--save", "counts"], "use --regions"),
        (["--regions", "none.json"], "none.json: cannot be read"),
    ],
)
def test_impossible_options_of_detections_are_one_line(infer, clip, capsys, arguments, what):
    assert infer(clip, "--quiet", *arguments) in (2, 3)
    assert what in error_line(capsys)


@pytest.mark.parametrize("text", ["high", "bird=", "bird=high", "=0.5", " =0.5"])
def test_a_score_that_is_no_number_is_a_usage_error(infer, clip, capsys, text):
    with pytest.raises(SystemExit):
        infer(clip, "--score-threshold", text)
    assert "NAME=SCORE" in capsys.readouterr().err


def test_regions_of_a_file_are_counted_and_resume_notices_that_they_changed(
    infer, clip, tmp_path, capsys
):
    path = tmp_path / "regions.json"
    order = [clip, "--no-video", "--regions", path, "--resume"]
    for x, code in ((30, 0), (30, 0), (40, 4)):
        path.write_text(json.dumps({"lines": {"gate": [[x, 0], [x, 64]]}}), encoding="utf-8")
        assert infer(*order) == code
    assert "regions.lines.gate was [[30, 0], [30, 64]]" in error_line(capsys)
    header, *frames, summary = read_lines(tmp_path / "sky" / "detections.jsonl")
    assert header["regions"]["lines"] == {"gate": [[30, 0], [30, 64]]}
    assert frames[-1]["counts"] == summary["counts"]
    content = json.loads((tmp_path / "sky" / "counts.json").read_text(encoding="utf-8"))
    assert content["counts"] == summary["counts"]


def test_track_uses_the_range_and_stride_of_the_tool(weights, clip, infer, tmp_path):
    part = {"start": 0.05, "end": 0.28, "stride": 2}
    flags = [text for name, value in part.items() for text in (f"--{name}", value)]
    assert infer(clip, "--no-video", *flags) == 0
    _, *frames, _ = read_lines(tmp_path / "sky" / "detections.jsonl")
    model = load_model(weights)
    results = list(rnndet.track(model, clip, min_score=0.01, **part))
    assert [result.frame.index for result in results] == [line["index"] for line in frames]
    counts = [len(line["objects"]) for line in frames]
    assert [len(result.detections) for result in results] == counts
    with open_source(clip) as source:
        images = [frame.image for frame in source]
    given = rnndet.track(model, images, min_score=0.01, start=0.06, end=0.34, stride=2)
    assert [result.frame.index for result in given] == [2, 4, 6, 8]


@pytest.mark.parametrize(
    "part", [{"stride": 0}, {"start": -1.0}, {"start": 2.0, "end": 1.0}, {"end": 0.0}]
)
@pytest.mark.parametrize("source", ["none.mp4", []])
def test_impossible_ranges_are_refused_at_the_call(weights, part, source):
    with pytest.raises(RnndetError, match="expected"):
        rnndet.track(load_model(weights), source, **part)


def test_several_sources_follow_one_another_each_as_alone(weights, clip, tmp_path):
    write_image(tmp_path / "image.png", np.zeros((48, 56, 3), np.uint8))
    paths = [clip, str(tmp_path / "image.png"), clip]
    model = load_model(weights)

    def described(results) -> list:
        return [
            (r.source, r.frame.index, r.detections.boxes.tolist(), r.detections.ids.tolist())
            for r in results
        ]

    together = described(rnndet.track(model, paths, min_score=0.01))
    alone = [one for path in paths for one in described(rnndet.track(model, path, min_score=0.01))]
    assert together == alone
    assert [source for source, *_ in together] == [str(clip)] * 10 + [paths[1]] + [str(clip)] * 10


def test_the_first_of_several_sources_is_opened_at_the_call_and_a_later_one_in_its_turn(
    weights, clip
):
    model = load_model(weights)
    with pytest.raises(InputError, match=r"none\.mp4"):
        rnndet.track(model, ["none.mp4", clip])
    results = rnndet.track(model, [clip, "none.mp4"])
    assert [next(results).frame.index for _ in range(10)] == list(range(10))
    with pytest.raises(InputError, match=r"none\.mp4"):
        next(results)


def test_results_of_frames_have_no_source_and_those_of_an_open_one_its_name(weights, clip):
    model = load_model(weights)
    (result,) = rnndet.track(model, [np.zeros((64, 80, 3), np.uint8)])
    assert result.source is None
    with open_source(clip) as source:
        assert {result.source for result in rnndet.track(model, source)} == {str(clip)}
