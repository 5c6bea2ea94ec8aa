"""Reader of Pascal VOC: layouts of labelImg, CVAT and Roboflow, splits, classes, identities."""

import os

import pytest
from labelled_sets import read_notes, write_images

from rnndet.data.formats import read_set
from rnndet.data.formats.pascal_voc import BEGINS_AT_0
from rnndet.data.problems import Problems
from rnndet.errors import InputError
from rnndet.messages import numbered


def thing(name="car", *, box=(11, 9, 30, 20), more=""):
    tags = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    corners = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
    return f"<object><name>{name}</name>{more}<bndbox>{corners}</bndbox></object>"


def put(root, path, *things, labels="", images="", size=(64, 48), suffix=".jpg"):
    """An image and its XML, in folders of their own or in the same."""
    write_images(root / images / f"{path}{suffix}")
    file = root / labels / f"{path}.xml"
    file.parent.mkdir(parents=True, exist_ok=True)
    text = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>{''.join(things)}"
    file.write_text(f"<annotation>{text}</annotation>")


def put_voc(root, path, *things):
    put(root, path, *things, labels="Annotations", images="JPEGImages")


def make_list(root, name, text):
    (root / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
    (root / "ImageSets/Main" / f"{name}.txt").write_text(text)


def load(root, split="train", **options):
    return read_set("pascal_voc", root, split, **options)


def summary(found):
    return {video.name: [frame.index for frame in video.frames] for video in found.videos}


def names(found, video=0, frame=0):
    return [found.classes[label] for label in found.videos[video].frames[frame].target.labels]


# layouts and splits


def test_xml_beside_the_images_is_read_in_any_nesting(tmp_path):
    put(tmp_path, "train/a_1", thing())
    put(tmp_path, "train/deep/er/a_1", thing())
    assert summary(load(tmp_path)) == {"a": [1], "deep/er/a": [1]}


def test_list_of_a_split_may_have_names_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    put_voc(tmp_path, name, thing())
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_bytes(b"caf\xe9\n")
    assert load(tmp_path).videos[0].frames[0].image.stem == name


def test_list_of_a_split_chooses_the_images(tmp_path):
    for number in range(4):
        put_voc(tmp_path, f"clip/frame_{number:06d}", thing())
    make_list(tmp_path, "train", 'clip/frame_000003\n\n"clip/frame_000001"\n')
    make_list(tmp_path, "car_val", "clip/frame_000002 -1\nclip/frame_000000  1\n")
    found = load(tmp_path)
    assert summary(found) == {"clip/frame": [1, 3]}
    assert found.videos[0].frames[0].image == tmp_path / "JPEGImages/clip/frame_000001.jpg"
    assert summary(load(tmp_path, "car_val")) == {"clip/frame": [0, 2]}
    assert summary(load(tmp_path, ".")) == {"clip/frame": [0, 1, 2, 3]}


def test_name_with_a_space_in_a_list_is_whole(tmp_path):
    put_voc(tmp_path, "my clip 3", thing())
    make_list(tmp_path, "train", "my clip 3\n")
    assert summary(load(tmp_path)) == {"my_clip": [3]}


def test_folders_may_be_called_annotations_and_images(tmp_path):
    put(tmp_path, "a1", thing(), labels="annotations", images="images")
    assert summary(load(tmp_path, ".")) == {"a": [1]}


def test_split_may_be_a_folder_of_the_annotations(tmp_path):
    put_voc(tmp_path, "train/a1", thing())
    put_voc(tmp_path, "val/a2", thing())
    assert summary(load(tmp_path, "val")) == {"val/a": [2]}


def test_split_may_be_a_folder_with_annotations(tmp_path):
    put_voc(tmp_path / "train", "a1", thing())
    assert summary(load(tmp_path)) == {"a": [1]}


def test_unknown_split_names_the_lists(tmp_path):
    put_voc(tmp_path, "a1", thing())
    with pytest.raises(InputError, match=r'train\.txt and no folder .*; use the split "\."'):
        load(tmp_path)
    make_list(tmp_path, "default", "a1\n")
    with pytest.raises(InputError, match="choose one of: default"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["../a1", "/etc/a1"])
def test_list_leads_to_no_file_outside(tmp_path, name):
    put_voc(tmp_path, "a1", thing())
    make_list(tmp_path, "train", f"{name}\n")
    with pytest.raises(InputError, match=r"train\.txt: .* is no path in the folder"):
        load(tmp_path)
    with pytest.raises(InputError, match="outside"):
        load(tmp_path, "../../x")


def test_xml_without_an_image_is_a_problem(tmp_path):
    put(tmp_path, "train/a1", thing())
    put(tmp_path, "train/a2", thing())
    (tmp_path / "train/a2.jpg").unlink()
    with pytest.raises(InputError, match=r"a2\.xml: no image .*train/a2\.jpg"):
        load(tmp_path)
    assert summary(load(tmp_path, skip_bad=True)) == {"a": [1]}


def test_image_without_xml_is_an_unlabelled_frame_and_a_video_without_xml_is_left_out(tmp_path):
    put(tmp_path, "train/a1", thing())
    write_images(tmp_path / "train/a2.jpg", tmp_path / "train/b1.jpg")
    found, notes = read_notes("pascal_voc", tmp_path, "train")
    assert [frame.target is None for frame in found.videos[0].frames] == [False, True]
    assert notes == [
        "1 image without XML taken as unlabelled", "1 video without labels left out",
    ]  # fmt: skip


def test_hidden_files_are_left_out(tmp_path):
    put(tmp_path, "train/a1", thing())
    (tmp_path / "train/.a2.xml").write_text("no XML")  # as some systems write beside a copied file
    assert summary(load(tmp_path)) == {"a": [1]}


def test_images_without_any_xml_are_an_error(tmp_path):
    write_images(tmp_path / "train/a1.jpg")
    with pytest.raises(InputError, match=r"no videos found; expected labels .*train/\*\.xml"):
        load(tmp_path)


# sizes


def test_frame_of_another_size_than_its_video_is_a_problem(tmp_path):
    put(tmp_path, "train/a1", thing())
    put(tmp_path, "train/a2", thing(), size=(32, 48))
    with pytest.raises(InputError, match=r"a2\.xml: size 32x48, but 64x48 .*pictures = .stills"):
        load(tmp_path)
    found = load(tmp_path, pictures="stills")
    assert [(v.name, v.width) for v in found.videos] == [("a1", 64), ("a2", 32)]


def test_size_that_no_image_has_is_a_problem(tmp_path):
    put(tmp_path, "train/a1", thing(), size=(0, 0))
    with pytest.raises(InputError, match=r"a1\.xml: size 0x0 is not that of an image"):
        load(tmp_path)


# classes


def test_classes_are_those_of_the_objects_in_order(tmp_path):
    put(tmp_path, "train/a1", thing("dog"), thing("cat"))
    put(tmp_path, "train/a2", thing("bird"))
    found = load(tmp_path)
    assert found.classes == ("bird", "cat", "dog")
    assert names(found) == ["dog", "cat"] and names(found, frame=1) == ["bird"]


def test_classes_are_those_of_the_label_map(tmp_path):
    put_voc(tmp_path, "a1", thing("dog"))
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ndog:1,2,3::\ncat:4,5,6::\n"
    )
    found = load(tmp_path, ".")
    assert found.classes == ("dog", "cat") and names(found) == ["dog"]


def test_unknown_classes_are_reported_or_counted(tmp_path):
    put(tmp_path, "train/a1", thing("dog"), thing("cat"))
    put(tmp_path, "train/a2", thing("dog"))
    with pytest.raises(InputError, match=r"class 'dog' is unknown \(2 objects, the first in .*a1"):
        load(tmp_path, classes=["cat"])
    problems = Problems()
    found = load(tmp_path, classes=["cat"], ignore_unknown=True, problems=problems)
    assert names(found) == ["cat"] and names(found, frame=1) == []
    assert problems.notes() == ["2 objects of the unknown class 'dog' left out"]


def test_object_without_a_name_is_a_problem(tmp_path):
    put(tmp_path, "train/a1", thing(""))
    with pytest.raises(InputError, match=r"a1\.xml: object 1: lacks name"):
        load(tmp_path)


# objects


def test_difficult_objects_are_ignored(tmp_path):
    put(tmp_path, "train/a1", *(thing(more=f"<difficult>{v}</difficult>") for v in (0, 1)))
    assert load(tmp_path).videos[0].frames[0].target.ignore.tolist() == [False, True]


def test_identity_is_the_trackid_or_the_attribute_of_cvat(tmp_path):
    attribute = "<attributes><attribute><name>{}</name><value>{}</value></attribute></attributes>"
    put(
        tmp_path, "train/a1", thing(more="<trackid>5</trackid>"),
        thing(more=attribute.format("track_id", 6)), thing(more=attribute.format("colour", 7)),
        thing(),
    )  # fmt: skip
    assert load(tmp_path).videos[0].frames[0].target.ids.tolist() == [5, 6, -1, -1]


def test_identity_that_is_no_number_is_a_problem(tmp_path):
    put(tmp_path, "train/a1", thing(more="<trackid>x</trackid>"))
    with pytest.raises(InputError, match=r"a1\.xml: object 1: "):
        load(tmp_path)


def test_part_of_an_object_is_no_object(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    put(tmp_path, "train/a1", thing(more=part))
    target = load(tmp_path).videos[0].frames[0].target
    assert target.boxes.tolist() == [[10.0, 8.0, 30.0, 20.0]]


def test_boxes_that_begin_at_0_are_doubtful_where_pixels_count_from_1(tmp_path):
    put(tmp_path, "train/a1", thing(box=(0, 5, 30, 20)), thing(box=(1, 1, 30, 20)))
    problems = Problems()
    found = load(tmp_path, problems=problems)
    assert problems.warnings() == [numbered(1, BEGINS_AT_0)]
    assert found.videos[0].frames[0].target.boxes.tolist() == [[0, 4, 30, 20], [0, 0, 30, 20]]
    problems = Problems()
    load(tmp_path, problems=problems, first_pixel=0)
    assert problems.warnings() == []
