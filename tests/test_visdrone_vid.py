import numpy as np
import pytest

from rnndet.data.formats import visdrone_vid
from rnndet.data.problems import Problems
from rnndet.data.targets import ANY_CLASS
from rnndet.errors import RnndetError
from rnndet.video.image import write_image


def write(folder, *rows, name="uav_1", frames=3):
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "annotations" / f"{name}.txt").write_text("\n".join(rows) + "\n")
    (folder / "sequences" / name).mkdir(parents=True)
    for number in range(1, frames + 1):
        path = folder / "sequences" / name / f"{number:07d}.jpg"
        write_image(path, np.zeros((48, 64, 3), np.uint8))


def read(root, split="val"):
    problems = Problems()
    found = visdrone_vid.read(root, split, problems)
    problems.stop_if_any()
    return found


def test_reads_rows_of_frames_that_count_from_one(tmp_path):
    write(tmp_path, "2,7,10,8,20,12,1,4,0,1")
    found = read(tmp_path)
    (video,) = found.videos
    assert found.classes[0] == "pedestrian" and found.classes[9] == "motor"
    assert (video.name, video.height, video.width, video.fps) == ("uav_1", 48, 64, None)
    assert [len(frame.target) for frame in video.frames] == [0, 1, 0]
    target = video.frames[1].target
    assert video.frames[1].image.name == "0000002.jpg"
    assert target.boxes.tolist() == [[10.0, 8.0, 30.0, 20.0]]
    assert (target.labels.tolist(), target.ids.tolist()) == ([3], [7])
    assert target.ignore.tolist() == [False]


def test_a_comma_at_the_end_of_a_row_does_no_harm(tmp_path):
    write(tmp_path, "1,7,10,8,20,12,1,4,0,1,")
    assert len(read(tmp_path).videos[0].frames[0].target) == 1


@pytest.mark.parametrize(
    ("score", "category", "label"), [(0, 4, 3), (0, 0, ANY_CLASS), (1, 11, ANY_CLASS)]
)
def test_what_the_benchmark_ignores_is_ignored(tmp_path, score, category, label):
    write(tmp_path, f"1,7,10,8,20,12,{score},{category},0,0")
    target = read(tmp_path).videos[0].frames[0].target
    assert (target.labels.tolist(), target.ignore.tolist()) == ([label], [True])


@pytest.mark.parametrize("place", ["VisDrone2019-VID-val", "val", "."])
def test_the_set_may_lie_in_three_places(tmp_path, place):
    write(tmp_path / place, "1,7,10,8,20,12,1,4,0,1")
    assert len(read(tmp_path).videos) == 1


def test_the_published_folder_goes_before_the_others(tmp_path):
    write(tmp_path / "VisDrone2019-VID-val", "1,7,10,8,20,12,1,4,0,1", name="first")
    write(tmp_path, "1,7,10,8,20,12,1,4,0,1", name="last")
    assert [video.name for video in read(tmp_path).videos] == ["first"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,7,nan,8,20,12,1,4,0,1", r"uav_1\.txt: line 1: .* is not in pixels"),
        ("1,7,10,8,1e9,12,1,4,0,1", "line 1: .* is not in pixels"),
        ("1,7,10,8,-20,12,1,4,0,1", "line 1: .* negative size"),
        ("1,7,10,8,20,12,1,12,0,1", "line 1: category 12 is unknown"),
        ("1,7,10,8,20,12,1,car,0,1", "line 1: a field is not a number"),
        ("9,7,10,8,20,12,1,4,0,1", "line 1: there is no frame 8"),
        ("1,7,10,8,20,12,1,4", "line 1: 8 fields; expected 10"),
    ],
)
def test_a_broken_row_is_named(tmp_path, row, message):
    write(tmp_path, row)
    with pytest.raises(RnndetError, match=message):
        read(tmp_path)


def test_missing_images_are_a_problem(tmp_path):
    write(tmp_path, "1,7,10,8,20,12,1,4,0,1", frames=0)
    with pytest.raises(RnndetError, match=r"uav_1\.txt: .*holds no images"):
        read(tmp_path)


def test_a_set_without_labels_lists_where_they_were_looked_for(tmp_path):
    with pytest.raises(RnndetError, match=r"no videos found; .*VisDrone2019-VID-val, .*val, "):
        read(tmp_path)


def test_videos_without_labels_are_counted(tmp_path):
    write(tmp_path, "2,7,10,8,20,12,1,4,0,1")
    (tmp_path / "sequences/uav_2").mkdir()
    problems = Problems()
    visdrone_vid.read(tmp_path, "val", problems)
    assert problems.notes() == ["1 videos without labels left out"]
