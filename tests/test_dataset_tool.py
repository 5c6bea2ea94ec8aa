"""rnndet dataset end to end, and the images that it draws."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import CLASSES, error_line, write_coco_vid
from rnndet.data import preview
from rnndet.data.formats import imagenet_vid, mot
from rnndet.data.preview import as_detections, names_of
from rnndet.data.problems import Problems
from rnndet.structures import Target
from rnndet.video.image import read_image, write_image
from rnndet.video.sources.open import open_source

TOOL = Path(__file__).resolve().parent.parent / "tools" / "dataset.py"


def run(*args: object) -> int:
    spec = importlib.util.spec_from_file_location("dataset", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([str(arg) for arg in args])


# check


def test_check_of_a_good_set_ends_with_0(coco_vid_root, capsys):
    assert run("check", coco_vid_root) == 0
    assert capsys.readouterr().out == "0 errors, 0 notes, 2 videos, 12 frames\n"


def test_check_prints_every_error_and_ends_with_3(coco_vid_root, capsys):
    (coco_vid_root / "v0" / "000003.png").unlink()
    (coco_vid_root / "v1" / "000000.png").write_text("text")
    assert run("check", coco_vid_root) == 3
    *findings, last = capsys.readouterr().out.splitlines()
    assert [line[:17] for line in findings] == ["error: train: v0:", "error: train: v1:"]
    assert last.startswith("2 errors, 0 notes")


def test_file_names_that_are_not_utf8_can_be_printed(coco_vid_root, capsys):
    path = coco_vid_root / "annotations" / "train.json"
    path.write_text(path.read_text().replace("v0/000003", "v0/\\udcff"))
    assert run("check", coco_vid_root) == 3
    assert "v0/\\udcff.png" in capsys.readouterr().out


def test_check_compares_splits(coco_vid_root, capsys):
    annotations = coco_vid_root / "annotations"
    shutil.copy(annotations / "train.json", annotations / "val.json")
    assert run("check", coco_vid_root, "--split", "train", "val", "--decode", "none") == 3
    assert "train and val: video 'v0' is in both" in capsys.readouterr().out


def test_check_of_missing_labels_is_one_line(tmp_path, capsys):
    assert run("check", tmp_path) == 3
    assert error_line(capsys).startswith("dataset: ")


# stats


def test_stats_prints_a_table_and_writes_numbers(coco_vid_root, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert run("stats", coco_vid_root, "--out", tmp_path / "stats") == 0
    assert "videos 2, frames 12, labelled frames 12" in capsys.readouterr().out
    assert json.loads((tmp_path / "stats" / "stats.json").read_text())["boxes"] == 12
    assert (tmp_path / "stats" / "motion.png").is_file()


# convert


def test_convert_to_mot_can_be_read(coco_vid_root, tmp_path, capsys):
    assert run("convert", coco_vid_root, tmp_path / "mot", "--to", "mot", "--pictures") == 0
    videos = mot.read(tmp_path / "mot", "train", Problems())
    assert videos.classes == CLASSES
    assert videos.videos[1].frames[2].target.boxes.tolist() == [[14.0, 20.0, 38.0, 30.0]]
    assert "note: scene groups left out" in capsys.readouterr().out


def test_convert_to_imagenet_vid_can_be_read(coco_vid_root, tmp_path, capsys):
    out = tmp_path / "vid"
    assert run("convert", coco_vid_root, out, "--to", "imagenet_vid", "--images") == 0
    videos = imagenet_vid.read(out, "train", Problems(), classes=CLASSES)
    assert len(videos.videos[0].frames) == 6
    assert "read them with the option classes" in capsys.readouterr().out


@pytest.mark.parametrize("to", ["coco_vid", "mot", "imagenet_vid"])
def test_convert_of_the_folder_itself_writes_the_split_all(tmp_path, capsys, to):
    (tmp_path / "clip.txt").write_text("1,7,11,9,20,12,1,1,1.0\n")
    for number in range(2):
        (tmp_path / "clip").mkdir(exist_ok=True)
        write_image(tmp_path / f"clip/{number}.png", np.zeros((48, 64, 3), np.uint8))
    out = tmp_path / "out"
    options = ("--format", "labelled_folder", "--option", 'classes=["bird"]')
    assert run("convert", tmp_path, out, "--to", to, "--split", ".", *options, "--images") == 0
    assert capsys.readouterr().out.endswith(f"all in {to}: {out}\n")
    extra = ("--option", 'classes=["bird"]') if to == "imagenet_vid" else ()
    assert run("check", out, "--format", to, "--split", "all", *extra) == 0


def test_convert_of_video_files_to_images_passes_the_check(tmp_path):
    write_coco_vid(tmp_path, as_files=True)
    out = tmp_path / "out"
    assert run("convert", tmp_path, out, "--to", "coco_vid", "--images") == 0
    assert run("check", out, "--decode", "all") == 0


def test_convert_replaces_nothing(coco_vid_root, capsys):
    assert run("convert", coco_vid_root, coco_vid_root, "--to", "coco_vid") == 4
    assert "train.json: exists already" in error_line(capsys)


# show


def test_show_writes_a_video_of_the_first_frames(coco_vid_root, tmp_path):
    out = tmp_path / "shown.mp4"
    assert run("show", coco_vid_root, "--video", "v1", "--out", out, "--frames", 3) == 0
    with open_source(out) as source:
        assert [frame.image.shape for frame in source] == [(64, 96, 3)] * 3


def test_show_writes_images_with_boxes(coco_vid_root, tmp_path):
    assert run("show", coco_vid_root, "--video", "v0", "--out", tmp_path / "shown") == 0
    files = sorted((tmp_path / "shown").iterdir())
    assert [file.name for file in files] == [f"{i:06d}.jpg" for i in range(6)]
    plain = read_image(coco_vid_root / "v0" / "000000.png").astype(int)
    assert np.abs(read_image(files[0]) - plain).max() > 50


def test_show_of_an_unknown_video_names_the_nearest(coco_vid_root, tmp_path, capsys):
    assert run("show", coco_vid_root, "--video", "v", "--out", tmp_path / "shown") == 2
    assert "there is no video 'v'; nearest: v1, v0" in error_line(capsys)


def test_show_replaces_nothing(coco_vid_root, capsys):
    assert run("show", coco_vid_root, "--video", "v0", "--out", coco_vid_root / "v1") == 4
    assert "exists already" in error_line(capsys)


def test_show_of_images_of_two_sizes_is_one_line(coco_vid_root, tmp_path, capsys):
    preview.write_image(coco_vid_root / "v0" / "000004.png", np.zeros((32, 32, 3), np.uint8))
    out = tmp_path / "shown.mp4"
    assert run("show", coco_vid_root, "--video", "v0", "--out", out) == 3
    assert "000004.png: the image is 32x32, but its labels are for 96x64" in error_line(capsys)
    assert not out.exists()


def test_interrupted_show_leaves_nothing_and_ends_with_130(coco_vid_root, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(preview, "write_image", interrupt)
    assert run("show", coco_vid_root, "--video", "v0", "--out", tmp_path / "shown") == 130
    assert not list(tmp_path.glob("shown*"))


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(Exception, match="no such annotation file"):
        run("stats", tmp_path, "--debug")


def test_drawn_labels_mark_ignored_boxes():
    target = Target(torch.zeros(3, 4), torch.tensor([1, 1, -1]), torch.tensor([4, -1, -1]),
                  torch.tensor([False, True, True]))  # fmt: skip
    shown = as_detections(target, len(CLASSES))
    names = names_of(CLASSES)
    assert [names[label] for label in shown.labels] == ["bar", "bar ignored", "ignored"]
    assert shown.ids.tolist() == [4, 0, 0]
