"""Reader of MOTChallenge."""

import numpy as np
import pytest
from labelled_sets import read_notes

from rnndet.data.formats import read_set
from rnndet.data.problems import Problems
from rnndet.data.targets import ANY_CLASS
from rnndet.errors import InputError
from rnndet.video.image import write_image

INFO = """[Sequence]
name=s
imDir=img1
frameRate=30
seqLength=3
imWidth=48
imHeight=32
imExt=.jpg
"""
ROW = "1,5,4,6,10,12,1,1,0.9\n"


def make(folder, rows=ROW, *, name="%06d.jpg"):
    """One sequence of three frames."""
    (folder / "img1").mkdir(parents=True)
    for number in (1, 2, 3):
        write_image(folder / "img1" / (name % number), np.zeros((32, 48, 3), np.uint8))
    (folder / "seqinfo.ini").write_text(INFO)
    if rows is not None:
        (folder / "gt").mkdir()
        (folder / "gt/gt.txt").write_text(rows)


def load(root, split="train", **options):
    return read_set("mot", root, split, **options)


def first_target(root, rows, **options):
    make(root / "train/s", rows)
    return load(root, **options).videos[0].frames[0].target


def test_reads_sequences_and_frames(tmp_path):
    for name in ("s-10", "s-2"):
        make(tmp_path / "train" / name)
    found = load(tmp_path)
    assert found.classes == ("pedestrian",)
    assert [v.name for v in found.videos] == ["s-2", "s-10"]
    video = found.videos[0]
    assert (video.height, video.width, video.fps) == (32, 48, 30.0)
    assert [frame.index for frame in video.frames] == [0, 1, 2]
    assert video.frames[2].image == tmp_path / "train/s-2/img1/000003.jpg"


def test_persons_that_are_not_evaluated_are_ignored(tmp_path):
    rows = "".join(f"1,{c},4,6,10,12,1,{c},1\n" for c in (1, 2, 7, 8, 12))
    target = first_target(tmp_path, rows)
    assert target.labels.tolist() == [0] * 5
    assert target.ignore.tolist() == [False, True, True, True, True]


def test_flag_0_is_ignored(tmp_path):
    assert first_target(tmp_path, "1,5,4,6,10,12,0,1,1\n").ignore.tolist() == [True]


def test_vehicles_and_occluders_are_counted_and_left_out(tmp_path):
    make(tmp_path / "train/s", ROW + "1,6,4,6,10,12,0,3,1\n1,7,4,6,10,12,0,11,1\n")
    videos, notes = read_notes("mot", tmp_path, "train")
    assert len(videos.videos[0].frames[0].target) == 1
    assert notes == ["2 boxes of other classes than pedestrian left out"]


def test_ten_columns_have_a_flag_and_no_class(tmp_path):
    rows = "1,1,4,6,10,12,1,-1,-1,-1\n1,2,4,6,10,12,0,-8.2,3.1,0\n"
    target = first_target(tmp_path, rows)
    assert (target.labels.tolist(), target.ignore.tolist()) == ([0, 0], [False, True])


def test_detections_have_no_identity_and_are_not_ignored(tmp_path):
    make(tmp_path / "train/s")
    (tmp_path / "train/s/det").mkdir()
    rows = "1,-1,4,6,10,12,0,-1,-1,-1\n1,-1,4.5,6,10,12,-2.5\n"
    (tmp_path / "train/s/det/det.txt").write_text(rows)
    target = load(tmp_path, file="det/det.txt").videos[0].frames[0].target
    assert (target.ids.tolist(), target.ignore.tolist()) == ([-1, -1], [False, False])


def test_with_several_names_class_n_is_the_nth_name(tmp_path):
    rows = "1,1,4,6,10,12,1,2,1\n1,2,4,6,10,12,1,1,1\n"
    target = first_target(tmp_path, rows, classes=("car", "van"))
    assert (target.labels.tolist(), target.ignore.tolist()) == ([1, 0], [False, False])


def test_labels_file_names_the_classes(tmp_path):
    make(tmp_path / "train/s", "1,1,4,6,10,12,1,2,1\n1,2,4,6,10,12,0,0,1\n")
    (tmp_path / "train/s/gt/labels.txt").write_text("car\nvan\n")
    found = load(tmp_path)
    assert found.classes == ("car", "van")
    assert found.videos[0].frames[0].target.labels.tolist() == [1, ANY_CLASS]


def test_one_name_renames_the_pedestrians(tmp_path):
    make(tmp_path / "train/s")
    assert load(tmp_path, classes=("dancer",)).classes == ("dancer",)


def test_split_without_any_gt_is_unlabelled(tmp_path):
    make(tmp_path / "test/s", None)
    assert {frame.target for frame in load(tmp_path, "test").videos[0].frames} == {None}


def test_sequences_may_lie_in_the_root(tmp_path):
    make(tmp_path / "s")
    assert load(tmp_path, ".").videos[0].name == "s"


def test_image_names_may_have_eight_digits(tmp_path):
    make(tmp_path / "train/s", name="%08d.jpg")
    assert load(tmp_path).videos[0].frames[0].image.name == "00000001.jpg"


def test_video_file_stands_in_for_missing_images(tmp_path):
    (tmp_path / "train/s/gt").mkdir(parents=True)
    (tmp_path / "train/s/gt/gt.txt").write_text(ROW)
    (tmp_path / "train/s/seqinfo.ini").write_text(INFO)
    (tmp_path / "train/s/s.mp4").touch()
    video = load(tmp_path).videos[0]
    assert (video.path, video.frames[0].image) == (tmp_path / "train/s/s.mp4", None)


# broken files


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,5,4,6", "line 2: 4 fields; expected 7"),
        ("1,5,4,6,ten,12,1,1,1", "line 2: could not convert string to float: 'ten'"),
        ("1.5,6,4,6,10,12,1,1,1", "line 2: 1.5 where a whole number"),
        ("nan,6,4,6,10,12,1,1,1", "line 2: nan where a whole number"),
        ("0,6,4,6,10,12,1,1,1", "line 2: frame 0 of a sequence of 3"),
        ("4,6,4,6,10,12,1,1,1", "line 2: frame 4 of a sequence of 3"),
        ("1,-2,4,6,10,12,1,1,1", "line 2: identity -2"),
        ("1,1e300,4,6,10,12,1,1,1", "line 2: identity 1"),
        ("1,5,4,6,10,12,1,1,1", "line 2: identity 5 comes twice in frame 1"),
        ("1,6,4,6,10,12,1,99,1", "line 2: class 99 is unknown"),
    ],
)
def test_invalid_row_is_reported(tmp_path, row, message):
    make(tmp_path / "train/s", ROW + row + "\n")
    with pytest.raises(InputError, match=rf"gt/gt\.txt: {message}"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (INFO, "", "lacks 'Sequence'"),
        (INFO, "no section", "not valid: File contains no section headers"),
        ("imWidth=48", "", "lacks 'imWidth'"),
        ("imWidth=48", "imWidth=wide", "not valid: .*'wide'"),
        ("imWidth=48", "imWidth=0", "size 0x32 is not"),
        ("seqLength=3", "seqLength=1000000000", "seqLength 1000000000 is not that of a video"),
        ("frameRate=30", "frameRate=nan", "frameRate nan is not a rate"),
        ("imDir=img1", "imDir=../../..", r"imDir: '../../\.\.' lies outside"),
        ("imExt=.jpg", "imExt=.png", r"img1: holds no images %06d\.png"),
        ("imDir=img1", "imDir=img2", r"has neither img2/ nor a video s\.mp4"),
        ("seqLength=3", "seqLength=2", "img1: images beyond the 2 frames of seqinfo.ini: 1"),
        ("seqLength=3", "seqLength=4", r"img1: frame 4: no image 000004\.jpg"),
    ],
)
def test_invalid_seqinfo_is_reported(tmp_path, old, new, message):
    make(tmp_path / "train/s")
    (tmp_path / "train/s/seqinfo.ini").write_text(INFO.replace(old, new))
    with pytest.raises(InputError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("name", ["seqinfo.ini", "gt/gt.txt"])
def test_missing_file_is_named(tmp_path, name):
    make(tmp_path / "train/other")
    make(tmp_path / "train/s")
    (tmp_path / "train/s" / name).unlink()
    with pytest.raises(InputError, match=f"s/{name}: no such annotation file"):
        load(tmp_path)


def test_missing_image_is_named_and_its_frame_left_out(tmp_path):
    make(tmp_path / "train/s")
    (tmp_path / "train/s/img1/000002.jpg").unlink()
    problems = Problems()
    videos = load(tmp_path, skip_bad=True, problems=problems).videos
    assert [frame.index for frame in videos[0].frames] == [0, 2]
    assert "img1: frame 2: no image" in str(problems.found[0])


def test_class_names_that_differ_between_sequences_are_reported(tmp_path):
    for name in ("a", "b"):
        make(tmp_path / "train" / name)
    (tmp_path / "train/a/gt/labels.txt").write_text("car\n")
    with pytest.raises(InputError, match=r"b/gt/labels\.txt: differs from that of a"):
        load(tmp_path)


def test_rows_without_class_are_refused_where_there_are_several(tmp_path):
    make(tmp_path / "train/s", "1,1,4,6,10,12,1,-1,-1,-1\n")
    with pytest.raises(InputError, match="line 1: has no class, of which there are 2"):
        load(tmp_path, classes=("car", "van"))


def test_file_that_no_sequence_has_is_named(tmp_path):
    make(tmp_path / "train/s")
    with pytest.raises(InputError, match=r"no sequence has a file det/det\.txt"):
        load(tmp_path, file="det/det.txt")
