"""Reader of KITTI tracking."""

from functools import partial

import labelled_sets
import pytest

from rnndet.data.targets import ANY_CLASS
from rnndet.errors import RnndetError
from rnndet.structures import Role

read = partial(labelled_sets.read, "kitti_tracking")


def row(frame=0, track=1, kind="Car", box="10 8 30 20"):
    return f"{frame} {track} {kind} 0 0 -1.5 {box} 1.5 1.6 3.9 1.0 1.8 9.0 -1.6"


def write(root, *rows, name="0000"):
    (file,) = labelled_sets.write_set("kitti_tracking", root, name=name)
    file.write_text("\n".join(rows) + "\n")


def test_gap_in_the_images_keeps_frame_numbers(tmp_path):
    write(tmp_path, row(2))
    (tmp_path / "training/image_02/0000/000001.png").unlink()
    (video,) = read(tmp_path).videos
    assert [frame.index for frame in video.frames] == [0, 2]
    assert video.frames[1].image.name == "000002.png" and len(video.frames[1].target) == 1


def test_dont_care_regions_are_ignore_regions_of_no_class(tmp_path):
    write(tmp_path, row(track=-1, kind="DontCare"), row(track=-1, kind="DontCare", box="0 0 9 9"))
    target = read(tmp_path).videos[0].frames[0].target
    assert target.labels.tolist() == [ANY_CLASS] * 2
    assert target.ignore.tolist() == [True] * 2


@pytest.mark.parametrize(("kind", "label"), [("Van", 0), ("Person", 1), ("Person_sitting", 1)])
def test_similar_types_are_ignored_as_the_class_that_they_resemble(tmp_path, kind, label):
    write(tmp_path, row(kind=kind))
    target = read(tmp_path).videos[0].frames[0].target
    assert (target.labels.tolist(), target.ignore.tolist()) == ([label], [True])


@pytest.mark.parametrize(
    ("truncated", "occluded", "role"),
    [(0, 2, Role.COUNTED), (1, 0, Role.DISTRACTOR), (0, 3, Role.DISTRACTOR)],
)
def test_hidden_objects_count_in_detection_and_are_distractors_in_tracking(
    tmp_path, truncated, occluded, role
):
    write(tmp_path, row().replace("Car 0 0", f"Car {truncated} {occluded}"))
    target = read(tmp_path).videos[0].frames[0].target
    assert target.ignore.tolist() == [False]
    assert target.tracking.roles.tolist() == [role]


def test_frames_without_boxes_have_the_smallest_height_of_tracking(tmp_path):
    write(tmp_path, row())
    frames = read(tmp_path).videos[0].frames
    assert [frame.target.tracking.min_height for frame in frames] == [25, 25, 25]
    assert [len(frame.target) for frame in frames] == [1, 0, 0]


@pytest.mark.parametrize("field", ["x", "inf", "nan"])
def test_truncation_that_is_no_number_is_reported(tmp_path, field):
    write(tmp_path, row().replace("Car 0 0", f"Car {field} 0"))
    with pytest.raises(RnndetError, match="truncated, occluded or the box is not made of numbers"):
        read(tmp_path)


def test_similar_type_can_be_a_class(tmp_path):
    write(tmp_path, row(kind="Van"))
    target = read(tmp_path, classes=("Car", "Van")).videos[0].frames[0].target
    assert (target.labels.tolist(), target.ignore.tolist()) == ([1], [False])


def test_other_types_are_left_out_and_counted(tmp_path):
    write(tmp_path, row(kind="Tram"), row(track=2))
    videos, notes = labelled_sets.read_notes("kitti_tracking", tmp_path, "training")
    assert len(videos.videos[0].frames[0].target) == 1
    assert notes == ["1 object of types that are no class left out"]


def test_sequences_can_be_chosen(tmp_path):
    for name in ("0000", "0001", "0002"):
        write(tmp_path, row(), name=name)
    found = read(tmp_path, sequences=["0002", "0000"])
    assert [video.name for video in found.videos] == ["0002", "0000"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (row(box="ten 8 30 20"), "line 2: .* not made of numbers"),
        (row(frame="0.5"), "line 2: .* not made of numbers"),
        (row(frame=9), "line 2: there is no frame 9"),
        (row(kind="Bird"), "line 2: 'Bird' is not a type of KITTI"),
        (row(track=10**30), "line 2: the id 1000.* is not a number"),
        (row(track=5), "line 2: the id 5 comes twice"),
        ("0 1 Car 0 0", "line 2: 5 fields; expected 17"),
    ],
)
def test_invalid_row_is_reported(tmp_path, line, message):
    write(tmp_path, row(track=5), line)
    with pytest.raises(RnndetError, match=message):
        read(tmp_path)


def test_images_without_a_number_of_their_own_are_a_problem(tmp_path):
    write(tmp_path, row())
    labelled_sets.write_images(tmp_path / "training/image_02/0000/cover.png")
    with pytest.raises(RnndetError, match=r"cover\.png: expected a name that ends in its frame"):
        read(tmp_path)


def test_unknown_classes_list_the_choices(tmp_path):
    with pytest.raises(RnndetError, match="classes Bus: unknown; choose from Car"):
        read(tmp_path, classes=("Car", "Bus"))
