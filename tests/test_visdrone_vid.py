"""Reader of VisDrone."""

from functools import partial

import labelled_sets
import pytest

from rnndet.data.targets import ANY_CLASS
from rnndet.errors import RnndetError

read = partial(labelled_sets.read, "visdrone_vid")


def write(root, row):
    (file,) = labelled_sets.write_set("visdrone_vid", root)
    file.write_text(row + "\n")


def test_comma_at_the_end_of_a_row_is_accepted(tmp_path):
    write(tmp_path, "1,7,10,8,20,12,1,4,0,1,")
    assert len(read(tmp_path).videos[0].frames[0].target) == 1


@pytest.mark.parametrize(
    ("score", "category", "label"), [(0, 4, 3), (0, 0, ANY_CLASS), (1, 11, ANY_CLASS)]
)
def test_boxes_that_the_benchmark_ignores_are_ignored(tmp_path, score, category, label):
    write(tmp_path, f"1,7,10,8,20,12,{score},{category},0,0")
    target = read(tmp_path).videos[0].frames[0].target
    assert (target.labels.tolist(), target.ignore.tolist()) == ([label], [True])


@pytest.mark.parametrize("place", ["VisDrone2019-VID-train", "train", "."])
def test_set_may_lie_in_three_places(tmp_path, place):
    labelled_sets.write_set("visdrone_vid", tmp_path)
    for name in ("annotations", "sequences"):
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / "train" / name).rename(tmp_path / place / name)
    assert len(read(tmp_path).videos) == 1


def test_published_folder_comes_before_the_others(tmp_path):
    labelled_sets.write_set("visdrone_vid", tmp_path, name="first")
    (tmp_path / "train").rename(tmp_path / "VisDrone2019-VID-train")
    labelled_sets.write_set("visdrone_vid", tmp_path, name="last")
    assert [video.name for video in read(tmp_path).videos] == ["first"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,7,10,8,20,12,1,12,0,1", "line 1: category 12 is unknown"),
        ("1,7,10,8,20,12,1,car,0,1", "line 1: a field is not a number"),
        ("9,7,10,8,20,12,1,4,0,1", "line 1: there is no frame 8"),
        ("1,7,10,8,20,12,1,4", "line 1: 8 fields; expected 10"),
    ],
)
def test_invalid_row_is_reported(tmp_path, row, message):
    write(tmp_path, row)
    with pytest.raises(RnndetError, match=message):
        read(tmp_path)
