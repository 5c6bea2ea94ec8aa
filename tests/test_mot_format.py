"""Reader of MOTChallenge."""

import numpy as np
import pytest
from labelled_sets import assert_same_videos, read_notes, write_video

from rnndet.data.formats import read_set
from rnndet.data.problems import Problems
from rnndet.data.targets import ANY_CLASS
from rnndet.data.writers.mot import write
from rnndet.errors import InputError
from rnndet.structures import Role
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


def warnings(root, **options):
    problems = Problems()
    load(root, problems=problems, **options)
    return problems.warnings()


def test_video_that_mot17_has_once_for_each_detector_is_a_warning(tmp_path):
    for name in (
        "MOT17-02-DPM",
        "MOT17-02-FRCNN",
        "MOT17-02-SDP",
        "MOT17-04-SDP",
        "MOT17-05-DPM",
        "s-SDP",
    ):
        make(tmp_path / "train" / name)
    assert warnings(tmp_path) == [
        "2 sequences with the video of another detector's; keep one of DPM, FRCNN and SDP"
    ]


def test_public_detections_of_each_detector_are_no_warning(tmp_path):
    for name in ("MOT17-02-DPM", "MOT17-02-SDP"):
        make(tmp_path / "train" / name)
        (tmp_path / "train" / name / "det").mkdir()
        (tmp_path / "train" / name / "det/det.txt").write_text("1,-1,4,6,10,12,0.9,-1,-1,-1\n")
    assert warnings(tmp_path, file="det/det.txt") == []


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


# targets of tracking metrics


def test_boxes_that_leave_the_image_are_clipped_and_kept_whole_for_tracking(tmp_path):
    target = first_target(tmp_path, "1,5,-5,6,20,12,1,1,1\n1,6,-30,6,20,12,1,1,1\n")
    assert target.boxes.tolist() == [[0, 5, 14, 17]]
    assert target.tracking.boxes.tolist() == [[-6, 5, 14, 17], [-31, 5, -11, 17]]
    assert target.tracking.rows.tolist() == [0, -1]


def test_comma_at_the_end_of_a_row_is_accepted(tmp_path):
    target = first_target(tmp_path, ROW.replace("0.9", "0.9,"))
    assert target.boxes.tolist() == [[3.0, 5.0, 13.0, 17.0]]


def test_boxes_inside_the_image_need_no_targets_for_tracking(tmp_path):
    assert first_target(tmp_path, ROW).tracking is None


def test_box_below_one_pixel_is_no_object(tmp_path):
    target = first_target(tmp_path, ROW + "1,6,4,6,0,12,1,1,1\n1,7,-5,6,20,12,1,1,1\n")
    assert target.tracking.ids.tolist() == [5, 7]


def test_roles_of_the_classes_of_motchallenge(tmp_path):
    rows = "".join(f"1,{c},4,6,10,12,{int(c == 1)},{c},1\n" for c in range(1, 14))
    roles = first_target(tmp_path, rows + "1,14,4,6,10,12,0,1,1\n").tracking.roles
    names = {n: Role(role).name for n, role in enumerate(roles.tolist(), start=1)}
    assert {n for n, name in names.items() if name == "DISTRACTOR"} == {2, 7, 8, 12}
    assert {n for n, name in names.items() if name == "UNCOUNTED"} == {
        3,
        4,
        5,
        6,
        9,
        10,
        11,
        13,
        14,
    }


@pytest.mark.parametrize(("name", "ignored"), [("MOT20-01", [True]), ("MOT17-02-SDP", [])])
def test_non_motorised_vehicles_are_distractors_in_mot20(tmp_path, name, ignored):
    make(tmp_path / "train" / name, "1,5,4,6,10,12,0,6,1\n")
    target = load(tmp_path).videos[0].frames[0].target
    assert target.ignore.tolist() == ignored
    expected = Role.DISTRACTOR if ignored else Role.UNCOUNTED
    assert target.tracking.roles.tolist() == [expected]


@pytest.mark.parametrize(("track", "role"), [(5, Role.DISTRACTOR), (-1, Role.REGION)])
def test_ignored_box_of_a_named_class_is_a_distractor_if_it_has_an_identity(tmp_path, track, role):
    rows = f"1,{track},4,6,10,12,0,1,1\n1,9,-5,6,20,12,1,1,1\n"
    target = first_target(tmp_path, rows, classes=("car", "van"))
    assert target.tracking.roles.tolist() == [role, Role.COUNTED]


# pixels from 0


@pytest.mark.parametrize(
    ("name", "left"),
    [("MOT17-02", 3), ("dancetrack0001", 4), ("v_-6Os86HzwCs_c001", 4), ("dancetrack", 3)],
)
def test_pixels_count_from_0_in_sequences_of_dancetrack_and_sportsmot(tmp_path, name, left):
    make(tmp_path / "train" / name)
    assert load(tmp_path).videos[0].frames[0].target.boxes[0, :2].tolist() == [left, left + 2]


def test_written_sequence_of_dancetrack_reads_back_equal(tmp_path):
    make(tmp_path / "train/dancetrack0001")
    old = load(tmp_path)
    write(old, tmp_path / "new", "train")
    assert_same_videos(load(tmp_path / "new"), old)


@pytest.mark.parametrize("first_pixel", [0, 1])
def test_first_pixel_can_be_given(tmp_path, first_pixel):
    for name in ("dancetrack0001", "s"):
        make(tmp_path / "train" / name)
    videos = load(tmp_path, first_pixel=first_pixel).videos
    assert {v.frames[0].target.boxes[0, 0].item() for v in videos} == {4 - first_pixel}


# exports of CVAT

CVAT_ROW = "1,1,4.5,6.0,10.0,12.0,1,2,0.75\n"


def make_cvat(folder, rows=CVAT_ROW, *, names=("a.png", "b.png", "c.png")):
    """An export "MOT 1.1" with two labels; the images are named by the user."""
    (folder / "gt").mkdir(parents=True)
    (folder / "gt/gt.txt").write_text(rows)
    (folder / "gt/labels.txt").write_text("car\nvan")
    for name in names:
        (folder / "img1").mkdir(exist_ok=True)
        write_image(folder / "img1" / name, np.zeros((32, 48, 3), np.uint8))


def test_cvat_export_is_read_without_a_seqinfo(tmp_path):
    make_cvat(tmp_path / "train/task")
    found = load(tmp_path)
    assert found.classes == ("car", "van")
    (video,) = found.videos
    assert (video.name, video.height, video.width, video.fps) == ("task", 32, 48, None)
    target = video.frames[0].target
    assert (target.boxes.tolist(), target.labels.tolist()) == ([[4.5, 6, 14.5, 18]], [1])
    assert [len(frame.target) for frame in video.frames] == [1, 0, 0]


def test_cvat_frames_are_the_images_in_natural_order(tmp_path):
    make_cvat(tmp_path / "train/task", "3,1,4,6,9,9,1,1,1\n", names=("f2.png", "f10.png", "f1.png"))
    frames = load(tmp_path).videos[0].frames
    assert [frame.image.name for frame in frames] == ["f1.png", "f2.png", "f10.png"]
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [len(frame.target) for frame in frames] == [0, 0, 1]


@pytest.mark.parametrize("first", [0, 1, 250])
def test_cvat_images_named_by_numbers_are_those_of_the_rows(tmp_path, first):
    names = [f"{first + 5 * i:06d}.png" for i in range(3)]
    make_cvat(tmp_path / "train/task", f"{first + 5},1,4,6,9,9,1,1,1\n", names=names)
    frames = load(tmp_path).videos[0].frames
    assert [(frame.index, len(frame.target)) for frame in frames] == [(0, 0), (1, 1), (2, 0)]


def test_cvat_export_without_images_is_read_beside_its_video(tmp_path):
    make_cvat(tmp_path / "train/task", "2,1,4,6,9,9,1,1,1\n", names=())
    write_video(tmp_path / "train/task/task.avi", frames=3)
    (video,) = load(tmp_path).videos
    assert (video.path, video.fps) == (tmp_path / "train/task/task.avi", 10)
    assert [len(frame.target) for frame in video.frames] == [0, 1, 0]


def test_cvat_export_may_be_the_split_itself(tmp_path):
    make_cvat(tmp_path / "task")
    assert [video.name for video in load(tmp_path, "task").videos] == ["task"]


def test_cvat_shapes_have_no_identity_and_ignored_tracks_are_distractors(tmp_path):
    rows = "1,-1,4,6,9,9,1,1,1\n1,-1,20,6,9,9,1,1,1\n1,3,30,6,9,9,0,2,1\n"
    make_cvat(tmp_path / "train/task", rows)
    target = load(tmp_path).videos[0].frames[0].target
    assert target.ids.tolist() == [-1, -1, 3]
    assert target.ignore.tolist() == [False, False, True]
    assert target.tracking.roles.tolist() == [Role.DISTRACTOR] * 3


def test_frame_rate_of_a_cvat_export_is_an_option_and_its_default_is_a_note(tmp_path):
    make_cvat(tmp_path / "train/task")
    assert load(tmp_path, fps=12.5).videos[0].fps == 12.5
    _, notes = read_notes("mot", tmp_path, "train")
    assert notes == ["1 sequence without a frame rate, taken as 25 (option fps)"]
    assert read_notes("mot", tmp_path, "train", fps=30.0)[1] == []


def test_frame_rate_of_a_seqinfo_comes_before_the_option(tmp_path):
    make(tmp_path / "train/s")
    assert load(tmp_path, fps=12.5).videos[0].fps == 30
    (tmp_path / "train/s/seqinfo.ini").write_text(INFO.replace("frameRate=30\n", ""))
    assert load(tmp_path, fps=12.5).videos[0].fps == 12.5


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_frame_rate_is_refused(tmp_path, fps):
    make_cvat(tmp_path / "train/task")
    with pytest.raises(InputError, match="is not a frame rate"):
        load(tmp_path, fps=fps)


def test_cvat_row_of_a_frame_without_an_image_is_reported(tmp_path):
    make_cvat(tmp_path / "train/task", "4,1,4,6,9,9,1,1,1\n")
    with pytest.raises(InputError, match=r"gt\.txt: line 1: frame 4 of a sequence of 3"):
        load(tmp_path)


def test_cvat_images_of_the_same_number_are_refused(tmp_path):
    make_cvat(tmp_path / "train/task", names=("1.png", "01.png"))
    with pytest.raises(InputError, match="two images have the same number"):
        load(tmp_path)


# broken files


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,5,4,6", "line 2: 4 fields; expected 7"),
        ("1,5,4,6,ten,12,1,1,1", "line 2: a field is not a number"),
        ("1,5,4,6,,12,1,1,1", "line 2: a field is not a number"),
        ("1 5 4 6 10 12 1 1 1", "line 2: 1 field; expected 7 with commas between them"),
        ("1,5,4,6,10,12,,,", "line 2: 6 fields; expected 7"),
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
