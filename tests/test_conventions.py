"""Where the pixels of each format begin and end: the table in docs/data.md, by hand on small files.

In every test the object covers the columns 10 to 29 and the rows 8 to 19 of an image of 64x48
pixels, counted from 0: its edges are at 10, 8, 30 and 20.
"""

import json
from pathlib import Path

import pytest
from labelled_sets import LAYOUTS, write_images, write_set, write_video

from rnndet.data.formats import read_set
from rnndet.data.targets import ANY_CLASS
from rnndet.errors import InputError

EDGES = [10.0, 8.0, 30.0, 20.0]


def target(format, root, text=None, **options):
    """The target of the second frame of the small set, after its label file is replaced."""
    file, *_ = write_set(format, root)
    if text is not None:
        file.write_text(text if isinstance(text, str) else json.dumps(text))
    layout = LAYOUTS[format]
    return (
        read_set(format, root, layout.split, **layout.options, **options).videos[0].frames[1].target
    )


def test_every_format_is_in_the_table():
    docs = (Path(__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
    table = docs[docs.index("## Pixel conventions") :].partition("\n## ")[0]
    for format in LAYOUTS:
        assert f"| `{format}`" in table, format


def test_coco_counts_from_0_and_has_sizes(tmp_path):
    image = {"video_id": 1, "width": 64, "height": 48}
    tree = {
        "categories": [{"id": 1, "name": "car"}],
        "videos": [{"id": 1, "name": "v"}],
        "images": [
            image | {"id": i, "frame_id": i, "file_name": f"v/{i:06d}.jpg"} for i in range(3)
        ],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 8, 20, 12]}],
    }
    assert target("coco_vid", tmp_path, tree).boxes.tolist() == [EDGES]


def test_youtube_vis_counts_from_0_and_has_sizes(tmp_path):
    names = [f"v/{i:06d}.jpg" for i in range(3)]
    track = {"id": 1, "video_id": 1, "category_id": 1, "bboxes": [None, [10, 8, 20, 12], None]}
    tree = {
        "categories": [{"id": 1, "name": "car"}],
        "videos": [{"id": 1, "width": 64, "height": 48, "file_names": names}],
        "annotations": [track],
    }
    assert target("youtube_vis", tmp_path, tree).boxes.tolist() == [EDGES]


def test_imagenet_vid_counts_from_0_and_includes_the_last_pixel(tmp_path):
    box = "<xmin>10</xmin><ymin>8</ymin><xmax>29</xmax><ymax>19</ymax>"
    text = (
        "<annotation><size><width>64</width><height>48</height></size>"
        f"<object><name>n02958343</name><bndbox>{box}</bndbox></object></annotation>"
    )
    assert target("imagenet_vid", tmp_path, text).boxes.tolist() == [EDGES]


def voc(source):
    box = "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"
    size = "<size><width>64</width><height>48</height></size>"
    thing = f"<object><name>car</name><bndbox>{box}</bndbox></object>"
    return f"<annotation>{source}{size}{thing}</annotation>"


def database(name):
    return f"<source><database>{name}</database></source>"


VOC, TOOL = database("The VOC2007 Database"), database("Unknown")


@pytest.mark.parametrize("source", ["", VOC, database("Robot")])
def test_pascal_voc_counts_from_1_and_includes_the_last_pixel(tmp_path, source):
    text = voc(source).format(11, 9, 30, 20)
    assert target("pascal_voc", tmp_path, text).boxes.tolist() == [EDGES]


@pytest.mark.parametrize("name", ["Unknown", "MyDatabase", "Unspecified"])
def test_pascal_voc_of_programs_has_edges_from_0(tmp_path, name):
    """Of CVAT, labelImg and VoTT; Label Studio; makesense.ai."""
    text = voc(database(name)).format(10, 8, 30, 20)
    assert target("pascal_voc", tmp_path, text).boxes.tolist() == [EDGES]


@pytest.mark.parametrize("name", ["roboflow.ai", "roboflow.com"])
def test_pascal_voc_of_roboflow_has_edges_from_1(tmp_path, name):
    """A published file has xmax 156 in an image of 155 pixels."""
    text = voc(database(name)).format(11, 9, 31, 21)
    assert target("pascal_voc", tmp_path, text).boxes.tolist() == [EDGES]
    text = voc(database(name)).format(1, 1, 65, 49)
    assert target("pascal_voc", tmp_path, text).boxes.tolist() == [[0.0, 0.0, 64.0, 48.0]]


@pytest.mark.parametrize("source", [VOC, TOOL])
@pytest.mark.parametrize(("first", "x", "y"), [(0, 10, 8), (1, 11, 9)])
def test_first_pixel_of_pascal_voc_can_be_given(tmp_path, source, first, x, y):
    text = voc(source).format(x, y, 30, 20)
    found = target("pascal_voc", tmp_path, text, first_pixel=first)
    assert found.boxes.tolist() == [EDGES]


def test_yolo_has_the_centre_and_the_size_as_shares_of_the_image(tmp_path):
    row = f"0 {20 / 64} {14 / 48} {20 / 64} {12 / 48}\n"
    boxes = target("yolo", tmp_path, row).boxes
    assert boxes.tolist() == [pytest.approx(EDGES, abs=1e-5)]


def test_mot_counts_from_1_and_has_sizes(tmp_path):
    write_set("mot", tmp_path)
    (tmp_path / "train/v/gt/gt.txt").write_text("2,1,11,9,20,12,1,1,1\n")
    (video,) = read_set("mot", tmp_path, "train").videos
    assert video.frames[1].target.boxes.tolist() == [EDGES]


def test_rows_in_a_labelled_folder_count_from_1_and_have_sizes(tmp_path):
    assert target("labelled_folder", tmp_path, "2,1,11,9,20,12,1,1,1\n").boxes.tolist() == [EDGES]


def test_kitti_counts_from_0_and_its_width_is_right_minus_left(tmp_path):
    # The object's last pixels are 29 and 19: the official evaluation takes 19 x 11 pixels.
    row = "1 0 Car 0 0 -1.5 10 8 29 19 1.5 1.6 3.9 1.0 1.8 9.0 -1.6\n"
    assert target("kitti_tracking", tmp_path, row).boxes.tolist() == [[10.0, 8.0, 29.0, 19.0]]


def test_visdrone_counts_from_0_and_has_sizes(tmp_path):
    assert target("visdrone_vid", tmp_path, "2,1,10,8,20,12,1,4,0,0\n").boxes.tolist() == [EDGES]


def test_bdd100k_has_edges_from_0(tmp_path):
    box = {"x1": 10.0, "y1": 8.0, "x2": 30.0, "y2": 20.0}
    frames = [{"name": f"{i:06d}.jpg", "frameIndex": i, "labels": []} for i in range(3)]
    frames[1]["labels"] = [{"id": "1", "category": "car", "box2d": box}]
    assert target("bdd100k_mot", tmp_path, frames).boxes.tolist() == [EDGES]


def test_cvat_has_edges_from_0(tmp_path):
    box = '<box frame="1" outside="0" xtl="10.0" ytl="8.0" xbr="30.0" ybr="20.0"/>'
    text = (
        "<annotations><meta><task><labels><label><name>car</name></label></labels></task></meta>"
        f'<track id="0" label="car">{box}</track></annotations>'
    )
    assert target("cvat_video", tmp_path, text).boxes.tolist() == [EDGES]


def detrac(regions, targets, root):
    """The second frame of a UA-DETRAC sequence of 960x540 pixels."""
    rows = "".join(
        f'<target id="{i}"><box {box}/><attribute vehicle_type="car"/></target>'
        for i, box in enumerate(targets, start=1)
    )
    areas = "".join(f"<box {box}/>" for box in regions)
    text = (
        f'<sequence name="v"><ignored_region>{areas}</ignored_region>'
        f'<frame num="2"><target_list>{rows}</target_list></frame></sequence>'
    )
    return target("ua_detrac", root, text)


def test_ua_detrac_targets_count_from_1(tmp_path):
    found = detrac([], ['left="11" top="9" width="20" height="12"'], tmp_path)
    assert found.boxes.tolist() == [EDGES]


def test_ua_detrac_boxes_at_the_borders_end_with_the_image(tmp_path, monkeypatch):
    monkeypatch.setattr("labelled_sets.SIZE_HW", (540, 960))
    found = detrac(
        # of MVI_20011 and MVI_20033, as published: the second region begins at the upper edge
        ['left="778.75" top="24.75" width="181.75" height="63.5"',
         'left="458.75" top="0.5" width="159.5" height="53.75"'],
        ['left="592.75" top="378.8" width="160.05" height="162.2"'],
        tmp_path,
    )  # fmt: skip
    assert found.labels.tolist() == [ANY_CLASS, ANY_CLASS, 0]
    assert found.boxes[0].tolist() == [778.25, 24.25, 960.0, 87.75]
    assert found.boxes[1].tolist() == [458.25, 0.0, 617.75, 53.75]
    assert found.boxes[2].tolist() == pytest.approx([591.75, 377.8, 751.8, 540.0], abs=1e-3)


# flags of labels that are ignored


@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
@pytest.mark.parametrize("format", ["coco_vid", "youtube_vis"])
def test_crowds_and_ignored_annotations_are_ignored(tmp_path, format, key):
    write_set(format, tmp_path)
    file = tmp_path / "annotations" / "train.json"
    tree = json.loads(file.read_text())
    for value in (0, 1):
        tree["annotations"][0][key] = value
        file.write_text(json.dumps(tree))
        (video,) = read_set(format, tmp_path, "train").videos
        assert video.frames[1].target.ignore.tolist() == [bool(value)]


# rotated boxes: a box of 20 x 12 about its centre (20, 14)

SQUARE_ROOT = 0.7071067811865476


@pytest.mark.parametrize(
    ("degrees", "edges"),
    [
        (0, EDGES),
        (90, [14.0, 4.0, 26.0, 24.0]),
        (180, EDGES),
        (270, [14.0, 4.0, 26.0, 24.0]),
        (45, [20 - 16 * SQUARE_ROOT, 14 - 16 * SQUARE_ROOT, 20 + 16 * SQUARE_ROOT,
              14 + 16 * SQUARE_ROOT]),
        (330, [20 - 5 * 3**0.5 - 3, 14 - 5 - 3 * 3**0.5, 20 + 5 * 3**0.5 + 3, 14 + 5 + 3 * 3**0.5]),
    ],
)  # fmt: skip
def test_rotated_box_is_the_upright_box_around_it(tmp_path, degrees, edges):
    corners = f'xtl="10" ytl="8" xbr="30" ybr="20" rotation="{degrees}"'
    text = (
        "<annotations><meta><task><labels><label><name>car</name></label></labels></task></meta>"
        f'<track id="0" label="car"><box frame="1" outside="0" {corners}/></track></annotations>'
    )
    found = target("cvat_video", tmp_path, text)
    assert found.boxes[0].tolist() == pytest.approx(edges, abs=1e-4)


def test_rotation_is_interpolated_the_shorter_way(tmp_path):
    write_video(tmp_path / "v.avi", frames=5)
    corners = 'outside="0" xtl="10" ytl="8" xbr="30" ybr="20"'
    boxes = f'<box frame="0" {corners} rotation="350"/><box frame="4" {corners} rotation="30"/>'
    (tmp_path / "v.xml").write_text(
        "<annotations><meta><task><labels><label><name>car</name></label></labels></task></meta>"
        f'<track id="0" label="car">{boxes}</track></annotations>'
    )
    (video,) = read_set("cvat_video", tmp_path, ".").videos
    assert video.frames[1].target.boxes.tolist() == [EDGES]  # 0 degrees, not 270
    assert video.frames[0].target.boxes[0, 0] < 10


def test_rotation_attribute_of_a_coco_annotation_is_applied(tmp_path):
    write_set("coco_vid", tmp_path)
    file = tmp_path / "annotations" / "train.json"
    tree = json.loads(file.read_text())
    for value, edges in ((90.0, [14.0, 4.0, 26.0, 24.0]), (0, EDGES), ("much", EDGES)):
        tree["annotations"][0]["attributes"] = {"rotation": value}
        file.write_text(json.dumps(tree))
        (video,) = read_set("coco_vid", tmp_path, "train").videos
        assert video.frames[1].target.boxes.tolist() == [edges]


# the size that a CVAT export states


@pytest.mark.parametrize("kind", ["task", "job"])
@pytest.mark.parametrize("place", ["inside", "meta"])
def test_cvat_size_is_read_inside_the_task_and_directly_in_meta(tmp_path, kind, place):
    size = "<original_size><width>640</width><height>480</height></original_size>"
    inside, after = (size, "") if place == "inside" else ("", size)
    (tmp_path / "v.xml").write_text(
        f"<annotations><meta><{kind}><labels><label><name>car</name></label></labels>{inside}"
        f"</{kind}>{after}<dumped>now</dumped></meta></annotations>"
    )
    write_images(*(tmp_path / "v" / f"{i}.png" for i in range(3)))
    with pytest.raises(InputError, match=r"v\.xml: labels images of 640x480, .* have 64x48"):
        read_set("cvat_video", tmp_path, ".")
