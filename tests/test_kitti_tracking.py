import numpy as np
import pytest

from rnndet.data.formats import kitti_tracking
from rnndet.data.problems import Problems
from rnndet.data.targets import ANY_CLASS
from rnndet.errors import RnndetError
from rnndet.video.image import write_image

PICTURE = np.zeros((48, 64, 3), np.uint8)


def row(frame=0, track=1, kind="Car", box="10 8 30 20"):
    return f"{frame} {track} {kind} 0 0 -1.5 {box} 1.5 1.6 3.9 1.0 1.8 9.0 -1.6"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "training" / "label_02").mkdir(parents=True)
    return tmp_path


def write(root, *rows, name="0000", frames=(0, 1, 2)):
    (root / "training" / "label_02" / f"{name}.txt").write_text("\n".join(rows) + "\n")
    folder = root / "training" / "image_02" / name
    folder.mkdir(parents=True)
    for frame in frames:
        write_image(folder / f"{frame:06d}.png", PICTURE)


def read(root, **options):
    problems = Problems()
    found = kitti_tracking.read(root, "training", problems, **options)
    problems.stop_if_any()
    return found


def test_reads_boxes_labels_ids_and_the_size_of_images(root):
    write(root, row(1, 7, "Pedestrian", "10.5 8.0 30.25 20.0"))
    found = read(root)
    (video,) = found.videos
    assert found.classes == ("Car", "Pedestrian", "Cyclist")
    assert (video.name, video.height, video.width, video.fps) == ("0000", 48, 64, 10.0)
    target = video.frames[1].target
    assert target.boxes.tolist() == [[10.5, 8.0, 30.25, 20.0]]
    assert (target.labels.tolist(), target.ids.tolist()) == ([1], [7])
    assert target.ignore.tolist() == [False]


def test_frames_without_rows_are_labelled_empty(root):
    write(root, row(1))
    assert [len(frame.target) for frame in read(root).videos[0].frames] == [0, 1, 0]


def test_a_gap_in_the_images_keeps_frame_numbers(root):
    write(root, row(5), frames=(0, 5))
    (video,) = read(root).videos
    assert [frame.index for frame in video.frames] == [0, 5]
    assert video.frames[1].image.name == "000005.png" and len(video.frames[1].target) == 1


def test_dont_care_regions_are_ignored_whatever_the_class(root):
    write(root, row(track=-1, kind="DontCare"), row(track=-1, kind="DontCare", box="0 0 9 9"))
    target = read(root).videos[0].frames[0].target
    assert target.labels.tolist() == [ANY_CLASS] * 2
    assert target.ignore.tolist() == [True] * 2


@pytest.mark.parametrize(("kind", "label"), [("Van", 0), ("Person", 1), ("Person_sitting", 1)])
def test_neighbours_are_ignored_as_the_class_that_they_resemble(root, kind, label):
    write(root, row(kind=kind))
    target = read(root).videos[0].frames[0].target
    assert (target.labels.tolist(), target.ignore.tolist()) == ([label], [True])


def test_a_neighbour_can_be_a_class(root):
    write(root, row(kind="Van"))
    target = read(root, classes=("Car", "Van")).videos[0].frames[0].target
    assert (target.labels.tolist(), target.ignore.tolist()) == ([1], [False])


def test_other_types_are_left_out_and_counted(root):
    write(root, row(kind="Tram"), row(track=2))
    problems = Problems()
    (video,) = kitti_tracking.read(root, "training", problems).videos
    assert len(video.frames[0].target) == 1
    assert problems.notes() == ["1 objects of types that are no class left out"]


def test_sequences_can_be_chosen(root):
    for name in ("0000", "0001", "0002"):
        write(root, row(), name=name)
    found = read(root, sequences=["0002", "0000"])
    assert [video.name for video in found.videos] == ["0002", "0000"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (row(box="nan 8 30 20"), r"0000\.txt: line 2: box \(nan, .* is not in pixels"),
        (row(box="1e9 8 2e9 20"), "line 2: .* is not in pixels"),
        (row(box="30 8 10 20"), "line 2: .* negative size"),
        (row(box="ten 8 30 20"), "line 2: .* not made of numbers"),
        (row(frame="0.5"), "line 2: .* not made of numbers"),
        (row(frame=9), "line 2: there is no frame 9"),
        (row(kind="Bird"), "line 2: 'Bird' is not a type of KITTI"),
        (row(track=10**30), "line 2: the id 1000.* is not a number"),
        (row(track=5), "line 2: the id 5 comes twice"),
        ("0 1 Car 0 0", "line 2: 5 fields; expected 17"),
    ],
)
def test_a_broken_row_is_named(root, line, message):
    write(root, row(track=5), line)
    with pytest.raises(RnndetError, match=message):
        read(root)


def test_a_sequence_without_images_is_a_problem_and_the_others_are_read(root):
    write(root, row(), name="0000", frames=())
    write(root, row(), name="0001")
    problems = Problems()
    found = kitti_tracking.read(root, "training", problems)
    assert [video.name for video in found.videos] == ["0001"]
    with pytest.raises(RnndetError, match=r"0000\.txt: .*holds no images"):
        problems.stop_if_any()


def test_images_without_a_number_of_their_own_are_a_problem(root):
    write(root, row())
    write_image(root / "training" / "image_02" / "0000" / "cover.png", PICTURE)
    with pytest.raises(RnndetError, match=r"cover\.png: expected a name that ends in its frame"):
        read(root)


def test_labels_that_are_not_text_are_named(root):
    write(root, row())
    (root / "training" / "label_02" / "0000.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RnndetError, match=r"0000\.txt: not UTF-8 text"):
        read(root)


def test_a_set_without_labels_says_what_was_expected(root):
    with pytest.raises(RnndetError, match=r"no videos found; expected .*label_02"):
        read(root)


def test_unknown_classes_list_the_choices(root):
    with pytest.raises(RnndetError, match="classes Bus: unknown; choose from Car"):
        read(root, classes=("Car", "Bus"))


def test_videos_without_labels_are_counted(root):
    write(root, row())
    (root / "training/image_02/0007").mkdir()
    problems = Problems()
    kitti_tracking.read(root, "training", problems)
    assert problems.notes() == ["1 videos without labels left out"]
