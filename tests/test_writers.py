"""Writers of labelled sets: read back equal, refusals, no partial files."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from labelled_sets import assert_same_targets, assert_same_videos

from conftest import CLASSES, write_coco_vid
from rnndet.data import frames
from rnndet.data.formats import read_set
from rnndet.data.problems import Problems
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.data.targets import ANY_CLASS, TargetBuilder
from rnndet.data.writers import coco_vid, imagenet_vid, mot
from rnndet.errors import InputError, OutputError
from rnndet.structures import Target

MODULES = {"coco_vid": coco_vid, "imagenet_vid": imagenet_vid, "mot": mot}
WRITE = {
    "coco_vid": coco_vid.write,
    "imagenet_vid": partial(imagenet_vid.write, names=True),
    "mot": mot.write,
}
every_writer = pytest.mark.parametrize("format", WRITE)


def target(*rows):
    """Rows of box, label, identity, ignore."""
    boxes, labels, ids, ignore = zip(*rows, strict=True)
    return Target(torch.tensor(boxes), torch.tensor(labels), torch.tensor(ids),
                 torch.tensor(ignore))  # fmt: skip


def one_video(root, *targets, classes=CLASSES, name="v", fps=None):
    records = tuple(FrameRecord(i, t, root / f"{i}.png") for i, t in enumerate(targets))
    return VideoSet(classes, (VideoRecord(name, 40, 60, fps, records),))


def first_frame(root, target, *, fps=None):
    """The first frame of the set at `root`, with another target."""
    videos = read_set("coco_vid", root, "train")
    record = replace(videos.videos[0].frames[0], target=target)
    return replace(videos, videos=(replace(videos.videos[0], frames=(record,), fps=fps),))


def read_back(format, root, split="s", **options):
    if format == "imagenet_vid":
        options = {"classes": CLASSES} | options
    return read_set(format, root, split, **options)


def assert_nothing_left(folder, format):
    left = list(folder.rglob("*"))
    if format == "coco_vid":  # may leave empty folders
        left = [path for path in left if path.is_file()]
    assert left == []


# all writers


@every_writer
@pytest.mark.parametrize("as_files", [False, True])
def test_written_set_reads_back_equal(tmp_path, format, as_files):
    write_coco_vid(tmp_path, as_files=as_files)
    videos = read_set("coco_vid", tmp_path, "train")
    WRITE[format](videos, tmp_path / "out", "s")
    back = read_back(format, tmp_path / "out")
    assert_same_videos(back, videos, fps=format != "imagenet_vid")
    for new, old in zip(back.videos, videos.videos, strict=True):
        pairs = zip(frames.iterate(new), frames.iterate(old), strict=True)
        assert all(np.abs(a.image.astype(int) - b.image).mean() < 3 for a, b in pairs)  # JPEG


@every_writer
def test_fractional_boxes_and_absent_identities_read_back_equal(coco_vid_root, format):
    boxes = target(((0.3, 1.7, 33.333332, 31.9), 1, 8, False), ((0.0, 0.5, 1.1, 2.2), 0, -1, False))
    WRITE[format](first_frame(coco_vid_root, boxes), coco_vid_root / "out", "s")
    (back,) = read_back(format, coco_vid_root / "out").videos[0].frames
    assert_same_targets(back.target, boxes)


@every_writer
def test_existing_set_is_not_replaced(coco_vid_root, format):
    videos = read_set("coco_vid", coco_vid_root, "train")
    WRITE[format](videos, coco_vid_root / "out", "s")
    with pytest.raises(OutputError, match="exists already"):
        WRITE[format](videos, coco_vid_root / "out", "s")


@pytest.mark.parametrize("format", ["imagenet_vid", "mot"])
def test_existing_set_is_replaced_as_a_whole_on_request(coco_vid_root, format):
    videos = read_set("coco_vid", coco_vid_root, "train")
    WRITE[format](videos, coco_vid_root / "out", "s")
    second = replace(videos, videos=videos.videos[1:])
    WRITE[format](second, coco_vid_root / "out", "s", overwrite=True)
    assert [video.name for video in read_back(format, coco_vid_root / "out").videos] == ["v1"]


@every_writer
def test_missing_image_leaves_nothing_behind(coco_vid_root, format):
    videos = read_set("coco_vid", coco_vid_root, "train")
    (coco_vid_root / "v1" / "000003.png").unlink()
    with pytest.raises(InputError, match=r"000003\.png: no such image"):
        WRITE[format](videos, coco_vid_root / "out", "s")
    assert_nothing_left(coco_vid_root / "out", format)


@every_writer
def test_interrupted_writing_leaves_nothing_behind(tmp_path, format, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    write_coco_vid(tmp_path, as_files=True)
    videos = read_set("coco_vid", tmp_path, "train")
    monkeypatch.setattr(MODULES[format], "write_image", interrupt)
    with pytest.raises(KeyboardInterrupt):
        WRITE[format](videos, tmp_path / "out", "s")
    assert_nothing_left(tmp_path / "out", format)


@every_writer
def test_folder_that_is_a_file_is_one_line(tmp_path, format):
    (tmp_path / "file").touch()
    videos = one_video(tmp_path, Target.empty())
    with pytest.raises(OutputError, match=r"^.*file.*: cannot be written \(.*\)"):
        WRITE[format](videos, tmp_path / "file", "s")


@every_writer
@pytest.mark.parametrize("name", ["..", "../v", "a b", ""])
def test_name_that_cannot_be_a_folder_is_refused(tmp_path, format, name):
    with pytest.raises(OutputError, match="cannot be a folder"):
        WRITE[format](one_video(tmp_path, Target.empty(), name=name), tmp_path, "s")


@every_writer
def test_two_videos_of_the_same_name_are_refused(tmp_path, format):
    videos = one_video(tmp_path, Target.empty())
    with pytest.raises(OutputError, match="two videos have the same name"):
        WRITE[format](replace(videos, videos=videos.videos * 2), tmp_path, "s")


@every_writer
def test_split_that_leads_out_of_the_folder_is_refused(tmp_path, format):
    with pytest.raises(OutputError, match=r"'a/b' cannot be a (file name|folder)"):
        WRITE[format](one_video(tmp_path, Target.empty()), tmp_path, "a/b")


# CocoVID


@pytest.mark.parametrize("as_files", [False, True])
def test_coco_vid_without_images_names_the_files_where_they_are(tmp_path, as_files):
    write_coco_vid(tmp_path, as_files=as_files)
    videos = read_set("coco_vid", tmp_path, "train")
    assert coco_vid.write(videos, tmp_path, "val", images=False) == 0
    back = read_set("coco_vid", tmp_path, "val")
    assert_same_videos(back, videos)
    assert [video.path for video in back.videos] == [video.path for video in videos.videos]
    assert [video.group for video in back.videos] == ["0", "1"]


def test_coco_vid_keeps_ignored_boxes(tmp_path):
    given = target(((1 / 3, 2.0, 59.9, 40.0), 0, -1, True))
    coco_vid.write(one_video(tmp_path, given), tmp_path, "s", images=False)
    assert_same_targets(read_back("coco_vid", tmp_path).videos[0].frames[0].target, given)


def test_coco_vid_writes_an_ignore_region_of_no_class_once_for_each_class(tmp_path):
    given = target(((1.0, 1.0, 9.0, 9.0), ANY_CLASS, 3, True))
    coco_vid.write(one_video(tmp_path, given), tmp_path, "s", images=False)
    (back,) = read_back("coco_vid", tmp_path).videos[0].frames
    assert back.target.labels.tolist() == [0, 1]
    assert back.target.ignore.tolist() == [True, True]
    assert back.target.ids.tolist() == [-1, -1]


def test_coco_vid_leaves_out_and_counts_unlabelled_frames(tmp_path):
    videos = one_video(tmp_path, None, Target.empty(), None)
    assert coco_vid.write(videos, tmp_path, "s", images=False) == 2
    (back,) = read_back("coco_vid", tmp_path).videos[0].frames
    assert back.index == 1 and len(back.target) == 0


def test_coco_vid_refuses_a_set_without_labelled_frames(tmp_path):
    with pytest.raises(OutputError, match="no frame is labelled"):
        coco_vid.write(one_video(tmp_path, None), tmp_path, "s")


def test_coco_vid_copies_images_unchanged(coco_vid_root):
    out = coco_vid_root / "out"
    coco_vid.write(read_set("coco_vid", coco_vid_root, "train"), out, "s")
    copy = out / "images" / "s" / "v1" / "000003.png"
    assert copy.read_bytes() == (coco_vid_root / "v1" / "000003.png").read_bytes()


def test_coco_vid_writes_no_labels_of_files_outside_its_folder(coco_vid_root):
    videos = read_set("coco_vid", coco_vid_root, "train")
    with pytest.raises(OutputError, match=r"000000\.png: lies outside .*write images"):
        coco_vid.write(videos, coco_vid_root / "out", "s", images=False)
    assert not (coco_vid_root / "out").exists()


def test_coco_vid_keeps_names_with_folders(coco_vid_root):
    path = coco_vid_root / "annotations" / "train.json"
    path.write_text(path.read_text().replace('"name": "v0"', '"name": "a/v0"'))
    coco_vid.write(read_set("coco_vid", coco_vid_root, "train"), coco_vid_root / "out", "s")
    tree = json.loads((coco_vid_root / "out" / "annotations" / "s.json").read_text())
    assert tree["images"][0]["file_name"] == "images/s/a/v0/000000.png"


# ImageNet VID


def imagenet_xml(root):
    return (root / "Annotations/VID/s/v/000000.xml").read_text()


def test_imagenet_vid_writes_whole_boxes_as_inclusive_integers_and_classes_as_wordnet_ids(tmp_path):
    box = target(((4.0, 5.0, 14.0, 15.0), 1, 0, False))
    videos = one_video(tmp_path, box, classes=("airplane", "bus"))
    imagenet_vid.write(videos, tmp_path, "s", images=False)
    for text in ("<xmin>4</xmin>", "<xmax>13</xmax>", "<name>n02924116</name>"):
        assert text in imagenet_xml(tmp_path)


def test_imagenet_vid_set_of_the_benchmark_classes_reads_back_without_options(coco_vid_root):
    videos = read_set("coco_vid", coco_vid_root, "train")
    videos = replace(videos, classes=tuple(imagenet_vid.WNIDS))
    assert imagenet_vid.write(videos, coco_vid_root / "out", "s") == 0
    assert_same_videos(read_set("imagenet_vid", coco_vid_root / "out", "s"), videos, fps=False)


def test_imagenet_vid_writes_a_list_of_all_frames(coco_vid_root):
    videos = read_set("coco_vid", coco_vid_root, "train")
    WRITE["imagenet_vid"](videos, coco_vid_root / "out", "s")
    back = read_back("imagenet_vid", coco_vid_root / "out", index="VID/s.txt")
    assert_same_videos(back, videos, fps=False)


def test_imagenet_vid_writes_no_xml_for_unlabelled_frames(coco_vid_root):
    WRITE["imagenet_vid"](first_frame(coco_vid_root, None), coco_vid_root / "out", "s")
    back = read_back("imagenet_vid", coco_vid_root / "out", unlabelled=True)
    assert back.videos[0].frames[0].target is None


def test_imagenet_vid_leaves_out_and_counts_ignored_boxes(tmp_path):
    boxes = target(((4.0, 5.0, 14.0, 15.0), 1, 0, True), ((0.0, 0.0, 9.0, 9.0), 1, 1, False))
    assert WRITE["imagenet_vid"](one_video(tmp_path, boxes), tmp_path, "s", images=False) == 1
    assert imagenet_xml(tmp_path).count("<object>") == 1


def test_imagenet_vid_refuses_other_classes_unless_names_are_written(tmp_path):
    videos = one_video(tmp_path, None, classes=("kite",))
    with pytest.raises(OutputError, match="class 'kite' is not among ImageNet VID's 30"):
        imagenet_vid.write(videos, tmp_path, "s")


# MOTChallenge

IGNORED = ((4.0, 5.0, 14.0, 15.0), 0, 0, True)
REGION = ((0.0, 0.0, 9.0, 9.0), ANY_CLASS, -1, True)


def test_mot_keeps_ignored_boxes_and_ignore_regions_of_no_class(coco_vid_root):
    videos = first_frame(coco_vid_root, target(IGNORED, REGION), fps=29.97)
    mot.write(videos, coco_vid_root / "out", "s")
    assert_same_videos(read_back("mot", coco_vid_root / "out"), videos)


def test_mot_unlabelled_video_without_rate_reads_back_equal(coco_vid_root):
    videos = first_frame(coco_vid_root, None)
    mot.write(videos, coco_vid_root / "out", "s")
    assert_same_videos(read_back("mot", coco_vid_root / "out"), videos)


def test_mot_rows_are_those_of_the_benchmark(tmp_path):
    mot.write(one_video(tmp_path, target(IGNORED, REGION)), tmp_path, "s", images=False)
    lines = (tmp_path / "s/v/gt/gt.txt").read_text().splitlines()
    assert lines == ["1,0,5,6,10,10,0,1,1", "1,-1,1,1,9,9,0,0,1"]


def test_mot_boxes_that_leave_the_image_read_back_as_they_were_labelled(tmp_path):
    builder = TargetBuilder(width=48, height=32, file=tmp_path, problems=Problems())
    for track, left in ((7, -5.3), (8, 4.0), (9, -60.7)):
        builder.add((left, 4.1, left + 20, 24.6), 0, entry=1, track=track)
    old = builder.build()
    mot.write(one_video(tmp_path, old), tmp_path / "out", "s", images=False)
    (tmp_path / "out/s/v/v.mp4").touch()
    new = read_back("mot", tmp_path / "out").videos[0].frames[0].target
    assert_same_targets(new, old)
    assert new.tracking.ids.tolist() == [7, 8, 9]
    assert np.abs(new.tracking.boxes - old.tracking.boxes).max() < 1e-6


@pytest.mark.parametrize(
    ("targets", "classes", "message"),
    [
        ([None], ("a\nb",), "cannot be a line of labels"),
        ([None, Target.empty()], CLASSES, "only some frames are labelled"),
    ],
)
def test_mot_refuses_what_the_format_cannot_express(tmp_path, targets, classes, message):
    with pytest.raises(OutputError, match=message):
        mot.write(one_video(tmp_path, *targets, classes=classes), tmp_path, "s", images=False)


def test_mot_refuses_a_video_with_missing_frames(tmp_path):
    videos = VideoSet(("car",), (VideoRecord("v", 32, 48, 25, (FrameRecord(1, None),)),))
    with pytest.raises(OutputError, match="video v: frame 0 is missing"):
        mot.write(videos, tmp_path, "s", images=False)
