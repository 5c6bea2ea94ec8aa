import numpy as np
import pytest

from rnndet.data.formats import ua_detrac
from rnndet.data.problems import Problems
from rnndet.data.targets import ANY_CLASS
from rnndet.errors import RnndetError
from rnndet.video.image import write_image

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


def write(root, text, *, name="MVI_1", frames=3, split="Train"):
    labels = root / f"DETRAC-{split}-Annotations-XML"
    labels.mkdir(exist_ok=True)
    (labels / f"{name}.xml").write_text(text)
    folder = root / f"Insight-MVT_Annotation_{split}" / name
    folder.mkdir(parents=True)
    for number in range(1, frames + 1):
        write_image(folder / f"img{number:05d}.jpg", np.zeros((48, 64, 3), np.uint8))


def read(root, split="train", **options):
    problems = Problems()
    found = ua_detrac.read(root, split, problems, **options)
    problems.stop_if_any()
    return found


def test_reads_targets_of_frames_that_count_from_one(tmp_path):
    write(tmp_path, sequence(regions=""))
    found = read(tmp_path)
    (video,) = found.videos
    assert found.classes == ("car", "bus", "van", "others")
    assert (video.name, video.height, video.width, video.fps) == ("MVI_1", 48, 64, 25.0)
    assert [len(frame.target) for frame in video.frames] == [0, 1, 0]
    target = video.frames[1].target
    assert video.frames[1].image.name == "img00002.jpg" and video.frames[1].index == 1
    assert target.boxes.tolist() == [[10.5, 8.0, 30.5, 20.0]]
    assert (target.labels.tolist(), target.ids.tolist()) == ([2], [3])


def test_ignored_regions_are_in_every_frame(tmp_path):
    write(tmp_path, sequence())
    for frame in read(tmp_path).videos[0].frames:
        assert frame.target.boxes[0].tolist() == [40.0, 0.0, 64.0, 10.0]
        assert frame.target.labels[0] == ANY_CLASS and frame.target.ignore[0]


def test_the_split_names_the_folders(tmp_path):
    write(tmp_path, sequence(), split="Test")
    assert len(read(tmp_path, "test").videos) == 1


def test_folders_can_be_given(tmp_path):
    write(tmp_path, sequence())
    (tmp_path / "DETRAC-Train-Annotations-XML").rename(tmp_path / "labels")
    (tmp_path / "Insight-MVT_Annotation_Train").rename(tmp_path / "images")
    assert len(read(tmp_path, annotations="labels", images="images").videos) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (sequence(target_xml('left="nan" top="8" width="2" height="2"')), "target 3: .* pixels"),
        (sequence(target_xml('left="1" top="8" width="1e9" height="2"')), "target 3: .* pixels"),
        (
            sequence(target_xml('left="9" top="8" width="-5" height="2"')),
            "target 3: .* negative size",
        ),
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
        (sequence()[:-20], r"MVI_1\.xml: not valid XML"),
        ("", r"MVI_1\.xml: not valid XML"),
        ("<annotation/>", "expected <sequence>"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]>" + sequence()[38:], "has a DOCTYPE"),
    ],
)
def test_broken_labels_are_named(tmp_path, text, message):
    write(tmp_path, text)
    with pytest.raises(RnndetError, match=message):
        read(tmp_path)


def test_a_broken_region_is_one_problem_however_many_frames(tmp_path):
    region = '<box left="inf" top="0" width="9" height="9"/>'
    write(tmp_path, sequence(regions=region), frames=5)
    problems = Problems()
    ua_detrac.read(tmp_path, "train", problems)
    assert [str(p).partition(": ")[2] for p in problems.found] == [
        "ignored region 1: box (inf, 0, inf, 9) is not in pixels"
    ]


def test_missing_images_are_a_problem_and_the_other_videos_are_read(tmp_path):
    write(tmp_path, sequence(), name="MVI_1", frames=0)
    write(tmp_path, sequence(), name="MVI_2")
    problems = Problems()
    found = ua_detrac.read(tmp_path, "train", problems)
    assert [video.name for video in found.videos] == ["MVI_2"]
    assert "holds no images" in str(problems.found[0])


def test_a_set_without_labels_says_what_was_expected(tmp_path):
    with pytest.raises(
        RnndetError, match=r"expected labels .*DETRAC-Train-Annotations-XML/\*\.xml"
    ):
        read(tmp_path)


def test_videos_without_labels_are_counted(tmp_path):
    write(tmp_path, sequence())
    (tmp_path / "Insight-MVT_Annotation_Train/MVI_2").mkdir()
    problems = Problems()
    ua_detrac.read(tmp_path, "train", problems)
    assert problems.notes() == ["1 videos without labels left out"]
