"""Reader of UA-DETRAC."""

from functools import partial

import labelled_sets
import pytest

from rnndet.data.formats import read_set
from rnndet.data.problems import Problems
from rnndet.data.targets import ANY_CLASS
from rnndet.errors import RnndetError

read = partial(labelled_sets.read, "ua_detrac")

BOX = 'left="10.5" top="8" width="20" height="12"'
REGION = 'left="40" top="0" width="24" height="10"'


def target_xml(box=BOX, kind="van", track=3):
    return (
        f'<target id="{track}"><box {box}/>'
        f'<attribute orientation="18.4" speed="6.8" vehicle_type="{kind}"/></target>'
    )


def sequence(targets=None, *, num=2, regions=f"<box {REGION}/>"):
    return (
        '<?xml version="1.0" encoding="utf-8"?><sequence name="MVI_1">'
        '<sequence_attribute camera_state="stable" sence_weather="sunny"/>'
        f"<ignored_region>{regions}</ignored_region>"
        f'<frame density="1" num="{num}"><target_list>{targets or target_xml()}</target_list>'
        "</frame>"
        "</sequence>"
    )


def write(root, text):
    (file,) = labelled_sets.write_set("ua_detrac", root, name="MVI_1")
    file.write_text(text)


def test_ignored_regions_are_in_every_frame(tmp_path):
    write(tmp_path, sequence())
    for frame in read(tmp_path).videos[0].frames:
        assert frame.target.boxes[0].tolist() == [39.5, 0.0, 63.5, 9.5]
        assert frame.target.labels[0] == ANY_CLASS and frame.target.ignore[0]


def test_split_names_the_folders(tmp_path):
    write(tmp_path, sequence())
    for name in ("DETRAC-{}-Annotations-XML", "Insight-MVT_Annotation_{}"):
        (tmp_path / name.format("Train")).rename(tmp_path / name.format("Test"))
    assert len(read_set("ua_detrac", tmp_path, "test").videos) == 1


def test_folders_can_be_given(tmp_path):
    write(tmp_path, sequence())
    (tmp_path / "DETRAC-Train-Annotations-XML").rename(tmp_path / "labels")
    (tmp_path / "Insight-MVT_Annotation_Train").rename(tmp_path / "images")
    assert len(read(tmp_path, annotations="labels", images="images").videos) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            sequence(target_xml('left="9" top="8" width="5"')),
            "frame 2 target 3: .* not made of numbers",
        ),
        (sequence(target_xml(track="x")), "frame 2 target x: .* not made of numbers"),
        (sequence(target_xml(kind="Sedan")), "frame 2 target 3: vehicle_type 'Sedan' is unknown"),
        (sequence("<target id='3'/>"), "frame 2 target 3: .* not made of numbers"),
        (sequence(num=9), "frame 9 target 3: there is no frame 8"),
        (sequence(num=0), "frame 0 target 3: there is no frame -1"),
        (sequence(num="one"), "frame one target 3: .* not made of numbers"),
        (sequence(regions="<box left='1'/>"), "ignored region 1: .* not made of numbers"),
        ("<annotation/>", "expected <sequence>"),
    ],
)
def test_invalid_labels_are_reported(tmp_path, text, message):
    write(tmp_path, text)
    with pytest.raises(RnndetError, match=message):
        read(tmp_path)


def test_invalid_region_is_one_problem_whatever_the_number_of_frames(tmp_path):
    region = '<box left="inf" top="0" width="9" height="9"/>'
    write(tmp_path, sequence(regions=region))
    problems = Problems()
    read(tmp_path, skip_bad=True, problems=problems)
    assert [str(p).partition(": ")[2] for p in problems.found] == [
        "ignored region 1: box (inf, -0.5, inf, 8.5) is not in pixels"
    ]
