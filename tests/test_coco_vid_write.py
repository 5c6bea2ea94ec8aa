import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import CLASSES, write_coco_vid
from rnndet.data import frames
from rnndet.data.formats import read_set
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.data.writers import coco_vid as coco_vid_write
from rnndet.data.writers.coco_vid import write
from rnndet.errors import InputError, OutputError
from rnndet.structures import Target


def target(*rows):
    """Rows of box, label, identity, ignore."""
    boxes, labels, ids, ignore = zip(*rows, strict=True)
    return Target(torch.tensor(boxes), torch.tensor(labels), torch.tensor(ids),
                 torch.tensor(ignore))  # fmt: skip


def plain(video):
    """A video without its files, as values that compare."""
    rows = []
    for record in video.frames:
        t = record.target
        ids = t.ids.tolist()
        rows.append((record.index, t.boxes.tolist(), t.labels.tolist(), ids, t.ignore.tolist()))
    return video.name, video.height, video.width, video.fps, video.group, rows


def one_video(root, *targets):
    records = tuple(FrameRecord(i, t, root / f"{i}.png") for i, t in enumerate(targets))
    return VideoSet(CLASSES, (VideoRecord("v", 40, 60, None, records),))


@pytest.mark.parametrize("as_files", [False, True])
@pytest.mark.parametrize("images", [False, True])
def test_reading_back_gives_the_same(tmp_path, as_files, images):
    write_coco_vid(tmp_path, as_files=as_files)
    videos = read_set("coco_vid", tmp_path, "train")
    out = tmp_path / "out" if images else tmp_path
    assert write(videos, out, "val", images=images) == 0
    back = read_set("coco_vid", out, "val")
    assert back.classes == videos.classes
    assert [plain(video) for video in back.videos] == [plain(video) for video in videos.videos]
    for new, old in zip(back.videos, videos.videos, strict=True):
        pairs = zip(frames.iterate(new), frames.iterate(old), strict=True)
        assert all(np.abs(a.image.astype(int) - b.image).mean() < 3 for a, b in pairs)  # JPEG


def test_fractions_and_ignored_boxes_come_back(tmp_path):
    given = target(((0.1, 0.7, 33.3, 12.9), 1, 5, False), ((1 / 3, 2.0, 59.9, 40.0), 0, -1, True))
    write(one_video(tmp_path, given), tmp_path, "s", images=False)
    (back,) = read_set("coco_vid", tmp_path, "s").videos[0].frames
    assert torch.equal(back.target.boxes, given.boxes)
    assert back.target.ids.tolist() == [5, -1]
    assert back.target.ignore.tolist() == [False, True]


def test_ignored_region_of_no_class_becomes_one_of_each(tmp_path):
    given = target(((1.0, 1.0, 9.0, 9.0), -1, 3, True))
    write(one_video(tmp_path, given), tmp_path, "s", images=False)
    (back,) = read_set("coco_vid", tmp_path, "s").videos[0].frames
    assert back.target.labels.tolist() == [0, 1]
    assert back.target.ignore.tolist() == [True, True]
    assert back.target.ids.tolist() == [-1, -1]


def test_unlabelled_frames_are_left_out_and_counted(tmp_path):
    videos = one_video(tmp_path, None, Target.empty(), None)
    assert write(videos, tmp_path, "s", images=False) == 2
    (back,) = read_set("coco_vid", tmp_path, "s").videos[0].frames
    assert back.index == 1 and len(back.target) == 0


def test_images_are_copied_as_they_are(coco_vid_root):
    out = coco_vid_root / "out"
    write(read_set("coco_vid", coco_vid_root, "train"), out, "s")
    copy = out / "images" / "s" / "v1" / "000003.png"
    assert copy.read_bytes() == (coco_vid_root / "v1" / "000003.png").read_bytes()


def test_files_outside_the_folder_need_images(coco_vid_root):
    videos = read_set("coco_vid", coco_vid_root, "train")
    with pytest.raises(OutputError, match=r"000000\.png: lies outside .*write images"):
        write(videos, coco_vid_root / "out", "s", images=False)
    assert not (coco_vid_root / "out").exists()


def test_existing_labels_are_not_replaced(coco_vid_root):
    videos = read_set("coco_vid", coco_vid_root, "train")
    with pytest.raises(OutputError, match=r"train\.json: exists already"):
        write(videos, coco_vid_root, "train", images=False)


@pytest.mark.parametrize(
    ("change", "split", "message"),
    [
        (lambda v: replace(v, videos=v.videos * 2), "s", "two videos have the same name"),
        (lambda v: replace(v, videos=(replace(v.videos[0], name="../v"),)), "s", "cannot be a fol"),
        (lambda v: v, "a/b", "cannot be a file name"),
        (lambda v: replace(v, videos=(replace(v.videos[0], frames=()),)), "s", "no frame is lab"),
    ],
)
def test_what_cannot_be_written_is_said(coco_vid_root, change, split, message):
    videos = change(read_set("coco_vid", coco_vid_root, "train"))
    with pytest.raises(OutputError, match=message):
        write(videos, coco_vid_root / "out", split)


def test_missing_image_leaves_nothing_behind(coco_vid_root):
    videos = read_set("coco_vid", coco_vid_root, "train")
    (coco_vid_root / "v1" / "000003.png").unlink()
    with pytest.raises(InputError, match=r"000003\.png: no such image"):
        write(videos, coco_vid_root / "out", "s")
    assert [path for path in (coco_vid_root / "out").rglob("*") if path.is_file()] == []


def test_interrupted_writing_leaves_no_labels(coco_vid_root, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    videos = read_set("coco_vid", coco_vid_root, "train")
    monkeypatch.setattr(coco_vid_write.shutil, "copyfile", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(videos, coco_vid_root / "out", "s")
    assert [path for path in (coco_vid_root / "out").rglob("*") if path.is_file()] == []


def test_folder_that_is_a_file_is_one_clear_line(coco_vid_root):
    (coco_vid_root / "out").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write(read_set("coco_vid", coco_vid_root, "train"), coco_vid_root / "out", "s")


def test_names_with_folders_are_kept(coco_vid_root):
    path = coco_vid_root / "annotations" / "train.json"
    path.write_text(path.read_text().replace('"name": "v0"', '"name": "a/v0"'))
    write(read_set("coco_vid", coco_vid_root, "train"), coco_vid_root / "out", "s")
    tree = json.loads((coco_vid_root / "out" / "annotations" / "s.json").read_text())
    assert tree["images"][0]["file_name"] == "images/s/a/v0/000000.png"
