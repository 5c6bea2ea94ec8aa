"""Reader of labelled folders."""

import json

import pytest
from labelled_sets import write_images, write_video

from rnndet.data.formats import read_set
from rnndet.data.targets import ANY_CLASS
from rnndet.errors import RnndetError
from rnndet.structures import Role

XML = (
    "<annotations><meta><task><size>3</size><labels><label><name>bird</name></label></labels>"
    '</task></meta><track id="2" label="bird"><box frame="1" outside="0" xtl="10" ytl="8" xbr="30" '
    'ybr="20"/></track></annotations>'
)


def coco(**video):
    size = {"width": 64, "height": 48}
    images = [
        {"id": i + 1, "video_id": 1, "frame_id": i, "file_name": f"c/{i}.png"} | size
        for i in range(3)
    ]
    box = {"id": 1, "image_id": 2, "category_id": 5, "bbox": [10, 8, 20, 12], "instance_id": 3}
    return {
        "categories": [{"id": 5, "name": "car"}],
        "videos": [{"id": 1, "name": "any name"} | video],
        "images": images,
        "annotations": [box],
    }


def images(folder):
    write_images(*(folder / f"{i}.png" for i in range(3)))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "val").mkdir()
    return tmp_path / "val"


def read(folder, **options):
    return read_set("labelled_folder", folder.parent, folder.name, **options)


def test_reads_coco_vid_beside_images(folder):
    (folder / "c.json").write_text(json.dumps(coco()))
    images(folder / "c")
    found = read(folder)
    (video,) = found.videos
    assert (found.classes, video.name) == (("car",), "c")
    assert [len(frame.target) for frame in video.frames] == [0, 1, 0]
    assert video.frames[1].image == folder / "c" / "1.png"
    assert video.frames[1].target.ids.tolist() == [3]


def test_reads_coco_vid_beside_a_video_file(folder):
    (folder / "c.json").write_text(json.dumps(coco(file_name="c.avi")))
    write_video(folder / "c.avi", frames=3)
    assert read(folder).videos[0].path == folder / "c.avi"


def test_reads_cvat_beside_a_video_file(folder):
    (folder / "x.xml").write_text(XML)
    write_video(folder / "x.avi", frames=3)
    found = read(folder)
    assert found.classes == ("bird",) and found.videos[0].path == folder / "x.avi"
    assert [len(frame.target) for frame in found.videos[0].frames] == [0, 1, 1]


def test_reads_mot_rows_that_count_from_one(folder):
    (folder / "m.txt").write_text("2,7,11,9,20,12,1,2,1.0\n3,8,1,1,9,9,0,1,0.5\n")
    write_video(folder / "m.avi", frames=3)
    found = read(folder, classes=["bird", "drone"])
    (video,) = found.videos
    assert (found.classes, video.fps, video.path) == (("bird", "drone"), 10.0, folder / "m.avi")
    assert [len(frame.target) for frame in video.frames] == [0, 1, 1]
    target = video.frames[1].target
    assert target.boxes.tolist() == [[10.0, 8.0, 30.0, 20.0]]
    assert (target.labels.tolist(), target.ids.tolist()) == ([1], [7])
    assert video.frames[2].target.ignore.tolist() == [True]


@pytest.mark.parametrize(("track", "role"), [(7, Role.DISTRACTOR), (-1, Role.REGION)])
def test_ignored_mot_row_is_a_distractor_if_it_has_an_identity(folder, track, role):
    images(folder / "m")
    (folder / "m.txt").write_text(f"1,{track},11,9,20,12,0,1,1\n1,8,-5,9,20,12,1,1,1\n")
    target = read(folder, classes=("car",)).videos[0].frames[0].target
    assert target.tracking.roles.tolist() == [role, Role.COUNTED]


def test_mot_rows_of_class_and_flag_zero_are_ignore_regions_of_no_class(folder):
    (folder / "m.txt").write_text("1,-1,11,9,20,12,0,0,0\n")
    images(folder / "m")
    target = read(folder, classes=["bird"]).videos[0].frames[0].target
    assert (target.labels.tolist(), target.ignore.tolist()) == ([ANY_CLASS], [True])


def test_mot_row_beyond_the_claimed_length_of_a_video_file_is_read(folder):
    (folder / "m.txt").write_text("9,7,11,9,20,12,1,1,1.0\n")
    write_video(folder / "m.avi", frames=3)
    assert len(read(folder, classes=["bird"]).videos[0].frames) == 9


def test_kinds_of_labels_mix_and_classes_are_joined(folder):
    (folder / "c.json").write_text(json.dumps(coco()))
    images(folder / "c")
    (folder / "x.xml").write_text(XML)
    images(folder / "x")
    found = read(folder)
    assert found.classes == ("car", "bird")
    labels = [video.frames[1].target.labels.tolist() for video in found.videos]
    assert labels == [[0], [1]]


def test_given_classes_order_the_labels_of_all_kinds(folder):
    (folder / "c.json").write_text(json.dumps(coco()))
    images(folder / "c")
    (folder / "x.xml").write_text(XML)
    images(folder / "x")
    found = read(folder, classes=["drone", "bird", "car"])
    assert found.classes == ("drone", "bird", "car")
    assert [video.frames[1].target.labels.tolist() for video in found.videos] == [[2], [1]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,7,11,9,20,12,1,2,1", "line 1: class 2 is unknown; expected 1 to 1"),
        ("1,7,11,9,20,12,1,0,1", "line 1: class 0 is unknown"),
        ("1,7,11,9,20,12,1,bird,1", "line 1: a field is not a number"),
        ("0,7,11,9,20,12,1,1,1", "line 1: there is no frame -1"),
        ("4,7,11,9,20,12,1,1,1", "line 1: there is no frame 3"),
        ("1,7,11,9,20,12", "line 1: 6 fields; expected 9"),
    ],
)
def test_invalid_mot_row_is_reported(folder, row, message):
    (folder / "m.txt").write_text(row + "\n")
    images(folder / "m")
    with pytest.raises(RnndetError, match=message):
        read(folder, classes=["bird"])


def test_mot_rows_need_names_of_classes(folder):
    (folder / "m.txt").write_text("1,7,11,9,20,12,1,1,1\n")
    images(folder / "m")
    with pytest.raises(RnndetError, match=r"m\.txt: .* name them with the option classes"):
        read(folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.json", "{", r"c\.json: not valid JSON"),
        ("c.json", "[]", r"c\.json: not in CocoVID form"),
        ("c.json", json.dumps(coco(file_name="d.avi")), r"c\.json: labels .*d\.avi; expected"),
        ("c.json", json.dumps(coco(file_name="../c.avi")), "lies outside"),
        ("c.xml", XML[:-9], r"c\.xml: not valid XML"),
        ("c.xml", "<!DOCTYPE a []>" + XML, r"c\.xml: has a DOCTYPE"),
        ("c.txt", "\x00", r"c\.txt: line 1: 1 field;"),
        ("d.xml", XML, r"d\.xml: labels without a video; expected d\.mp4"),
    ],
)
def test_invalid_file_is_reported(folder, name, text, message):
    (folder / name).write_text(text)
    images(folder / "c")
    with pytest.raises(RnndetError, match=message):
        read(folder, classes=["car", "bird"])


def test_coco_vid_of_several_videos_is_a_problem(folder):
    tree = coco()
    tree["videos"].append({"id": 2, "name": "other"})
    tree["images"][2]["video_id"] = 2
    (folder / "c.json").write_text(json.dumps(tree))
    images(folder / "c")
    with pytest.raises(RnndetError, match=r"c\.json: labels 2 videos; expected one"):
        read(folder)


def test_classes_that_are_not_among_those_given_are_a_problem(folder):
    (folder / "c.json").write_text(json.dumps(coco()))
    images(folder / "c")
    with pytest.raises(RnndetError, match="classes car are not in the option classes"):
        read(folder, classes=["bird"])


def test_video_with_two_kinds_of_labels_is_a_problem(folder):
    (folder / "c.json").write_text(json.dumps(coco()))
    (folder / "c.xml").write_text(XML)
    images(folder / "c")
    with pytest.raises(RnndetError, match=r"c\.json: c has further labels"):
        read(folder)


def test_folder_without_labels_states_which_files_are_expected(folder):
    images(folder / "c")
    with pytest.raises(RnndetError, match=r"expected labels .*\*\.json"):
        read(folder)
