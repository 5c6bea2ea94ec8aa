"""Classes that are evaluated: maps between data and model, --classes, --map-classes."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluated_videos import BOX, FAR, Detection, Target, evaluated, video
from labelled_sets import SIZE_HW, write_images
from torchvision.models.detection import FCOS_ResNet50_FPN_Weights

from conftest import error_line, tiny_config, write_coco_vid
from rnndet.cli.main import main
from rnndet.data.formats import read_set
from rnndet.data.formats.imagenet_vid import WNIDS
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.errors import RnndetError
from rnndet.evaluation.class_map import (
    ClassMap,
    class_map_from_dict,
    map_detections,
    same_names,
    select_classes,
)
from rnndet.evaluation.predict import evaluate_set
from rnndet.evaluation.records import (
    EvaluatedVideo,
    Predictions,
    load_predictions,
    save_predictions,
)
from rnndet.evaluation.videos import match_classes, only_classes
from rnndet.inference.stream import EveryFrame
from rnndet.models.checkpoint import model_content, save_checkpoint
from rnndet.models.video_detector import build_model
from rnndet.structures import Target as FrameTarget
from rnndet.system.shipped import find_class_map

MODEL = ("person", "cow", "cat")
FARM = ClassMap({"domestic_cat": ("cat",), "cattle": ("cow",)})
REGION = -1  # label of an ignored region of no class
SMALL, OTHER = (10.0, 8.0, 30.0, 20.0), (36.0, 24.0, 60.0, 44.0)


def run_of(video: EvaluatedVideo, classes=MODEL) -> Predictions:
    run = Predictions(classes)
    run.add(video)
    return run


def run_with_labels(detected=(), targets=(), classes=MODEL) -> Predictions:
    """One frame with a detection of each label in `detected` and a target of each in `targets`."""
    detections = [Detection(BOX, 0.9 - 0.1 * k, n, id=k + 5) for k, n in enumerate(detected)]
    rows = [Target(BOX, k + 7, n, ignore=n == REGION) for k, n in enumerate(targets)]
    return run_of(video(evaluated(0, detections, rows)), classes=classes)


def only_frame(run: Predictions):
    return run.videos[0].frames[0]


# maps


def test_detections_get_the_labels_of_the_map_and_others_are_dropped():
    frame = only_frame(map_detections(run_with_labels([1, 0, 2]), FARM))
    assert frame.labels.tolist() == [1, 0]  # cow is cattle, cat is domestic_cat
    assert frame.ids.tolist() == [5, 7]
    assert frame.scores.tolist() == pytest.approx([0.9, 0.7])
    assert frame.labels.dtype == np.int32
    assert frame.boxes.shape == (2, 4)


def test_mapped_run_has_the_classes_of_the_map():
    assert map_detections(run_with_labels([1]), FARM).classes == ("domestic_cat", "cattle")


def test_several_classes_of_the_model_count_as_one():
    mapped = map_detections(run_with_labels([0, 1, 2]), ClassMap({"animal": ("cow", "cat")}))
    assert only_frame(mapped).labels.tolist() == [0, 0]


def test_mapping_leaves_the_targets():
    mapped = map_detections(run_with_labels([1], [0, 1, REGION]), FARM)
    assert only_frame(mapped).target_labels.tolist() == [0, 1, REGION]


def test_selected_classes_keep_their_targets_and_regions_of_no_class():
    frame = only_frame(select_classes(run_with_labels([0, 1, 2], [2, REGION, 0, 1]), ("cow",)))
    assert frame.labels.tolist() == [0]
    assert frame.target_labels.tolist() == [REGION, 0]
    assert frame.target_ids.tolist() == [8, 10]
    assert frame.target_ignore.tolist() == [True, False]
    assert frame.target_boxes.shape == (2, 4)


def test_protocol_of_a_map_lists_the_classes_with_other_names():
    tree = {"classes": {"cattle": "cow", "car": ["car", "truck"], "dog": "dog"}}
    class_map = class_map_from_dict(tree, where="map.toml").of_data((*tree["classes"], "fox"))
    assert class_map.facts() == {
        "class map": "map.toml",
        "evaluated classes": "3 of 4: cattle <- cow, car <- car + truck, dog",
    }


def test_selected_classes_are_in_the_protocol():
    run = select_classes(run_with_labels([0]), ("cow",))
    assert run.about == {"evaluated classes": "1 of 3: cow"}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, r"m.toml: expected one table, \[classes\]"),
        ({"classes": {}}, r"expected one table, \[classes\]"),
        ({"classes": "cow"}, r"expected one table, \[classes\]"),
        ({"classes": {"cattle": "cow"}, "more": {}}, r"expected one table, \[classes\]"),
        ({"classes": {"cattle": 3}}, "m.toml: cattle = 3; expected a class of the model"),
        ({"classes": {"cattle": []}}, r"m.toml: cattle = \[\]; expected a class of the model"),
        ({"classes": {"cattle": ["cow", 1]}}, "expected a class of the model"),
        ({"classes": {"cattle": "cow", "ox": "cow"}}, "'cow' is mapped to cattle and to ox"),
    ],
)
def test_map_of_another_form_is_refused(tree, message):
    with pytest.raises(RnndetError, match=message):
        class_map_from_dict(tree, where="m.toml")


def test_map_with_a_class_that_the_data_lacks_is_refused_with_the_nearest():
    with pytest.raises(RnndetError, match="the data has no class 'cattle'; did you mean 'catle'"):
        FARM.of_data(("domestic_cat", "catle"))


def test_map_with_a_class_that_the_model_lacks_is_refused_with_the_nearest():
    with pytest.raises(RnndetError, match="the model has no class 'cow'; did you mean 'cows'"):
        FARM.check_model(("cat", "cows"))


def test_run_without_the_classes_of_the_map_is_refused():
    with pytest.raises(RnndetError, match="the model has no class 'cow'"):
        map_detections(run_with_labels([0], classes=("cat",)), FARM)


def test_selected_class_that_a_run_lacks_is_refused():
    with pytest.raises(RnndetError, match="the model has no class 'ox'"):
        select_classes(run_with_labels([0]), ("cow", "ox"))


def test_shipped_map_has_the_16_classes_of_imagenet_vid_that_coco_has():
    coco = FCOS_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    tree = tomllib.loads(find_class_map("coco_to_vid").read_text(encoding="utf-8"))
    class_map = class_map_from_dict(tree, where="coco_to_vid")
    class_map.check_model(coco)
    class_map.of_data(tuple(WNIDS))
    left = "antelope fox giant_panda hamster lion lizard monkey rabbit red_panda snake squirrel "
    left += "tiger turtle whale"
    assert set(WNIDS) - set(class_map.names) == set(left.split())


# targets


def data_with_labels(classes, labels) -> VideoSet:
    tensor = torch.tensor(labels)
    target = FrameTarget(
        torch.tensor([BOX] * len(labels)), tensor, torch.arange(len(labels)), tensor < 0
    )
    return VideoSet(classes, (VideoRecord("v", 48, 64, None, (FrameRecord(0, target),)),))


def test_targets_of_other_classes_are_left_out():
    data = only_classes(data_with_labels(("fox", "cat", "cow"), [0, 2, REGION, 1]), ("cow", "cat"))
    target = data.videos[0].frames[0].target
    assert data.classes == ("cow", "cat")
    assert target.labels.tolist() == [0, REGION, 1]
    assert target.ids.tolist() == [1, 2, 3]
    assert len(target.boxes) == len(target.ignore) == 3


def test_data_with_unknown_classes_is_refused_with_the_ways_out():
    with pytest.raises(RnndetError, match=r"does not know: fox; .*`only_classes`.*`ClassMap`"):
        match_classes(data_with_labels(("fox",), [0]), MODEL)


# evaluations


class Kept(EveryFrame):
    """Key frames that are all frames; keeps the labels of their detections."""

    def __init__(self) -> None:
        self.labels: list[int] = []

    def keep(self, image, detections):
        self.labels += detections.labels.tolist()


def tiny_model(classes, seed=0):
    torch.manual_seed(seed)
    return build_model(tiny_config().model, classes).eval()


def test_only_the_evaluated_classes_are_propagated_between_key_frames(tmp_path):
    write_coco_vid(tmp_path, videos=1, length=2)
    data, keys = read_set("coco_vid", tmp_path, "train"), Kept()
    class_map = same_names(("bar",))
    evaluate_set(
        tiny_model(("square", "bar")), only_classes(data, ("bar",)), keys=keys, class_map=class_map
    )
    assert set(keys.labels) == {1}


@pytest.mark.parametrize("uses", [(), ("carried", "reset")])
def test_every_run_of_a_set_has_the_classes_of_the_map(tmp_path, uses):
    write_coco_vid(tmp_path, videos=1, length=2)
    data = only_classes(read_set("coco_vid", tmp_path, "train"), ("square",))
    class_map = ClassMap({"square": ("cat",)})
    runs = evaluate_set(tiny_model(MODEL), data, uses=uses, class_map=class_map)
    assert len(runs) == max(1, len(uses))
    for run in runs.values():
        assert run.classes == ("square",)
        labels = {label for frame in run.videos[0].frames for label in frame.labels.tolist()}
        assert labels == {0}


# rnndet evaluate


def write_vid(root: Path, *names: str) -> list[str]:
    """ImageNet VID of one video of two frames; `names` in the second frame, side by side."""
    objects = ""
    for track, (name, (x1, y1, x2, y2)) in enumerate(zip(names, (SMALL, OTHER), strict=True)):
        corners = f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2 - 1}</xmax><ymax>{y2 - 1}</ymax>"
        objects += f"<object><trackid>{track}</trackid><name>{WNIDS[name]}</name>"
        objects += f"<bndbox>{corners}</bndbox></object>"
    size = f"<size><width>{SIZE_HW[1]}</width><height>{SIZE_HW[0]}</height></size>"
    for number in range(2):
        write_images(root / f"Data/VID/val/v/{number:06d}.JPEG")
        xml = root / f"Annotations/VID/val/v/{number:06d}.xml"
        xml.parent.mkdir(parents=True, exist_ok=True)
        xml.write_text(f"<annotation>{size}{objects * number}</annotation>")
    return ["--data", str(root), "--format", "imagenet_vid"]


@pytest.fixture
def vid(tmp_path) -> list[str]:
    """Arguments for a set with cattle at SMALL and a fox at OTHER."""
    return write_vid(tmp_path / "vid", "cattle", "fox")


@pytest.fixture
def stored(tmp_path) -> str:
    """Predictions of a model: a cow at SMALL, and with a higher score a person at OTHER."""
    found = [Detection(OTHER, 0.95, label=0), Detection(SMALL, 0.9, label=1)]
    run = run_of(EvaluatedVideo("v", None, SIZE_HW, (evaluated(0), evaluated(1, found))))
    run.about["degraded"] = "no"
    save_predictions(tmp_path / "p.npz", run)
    return str(tmp_path / "p.npz")


def write_weights(path: Path, classes: tuple[str, ...]) -> str:
    save_checkpoint(path, model_content(tiny_model(classes), tiny_config(), step=0))
    return str(path)


@pytest.fixture
def weights(tmp_path) -> str:
    return write_weights(tmp_path / "w.pt", MODEL)


def write_map(folder: Path, text: str) -> str:
    path = folder / "map.toml"
    path.write_text(f"[classes]\n{text}\n")
    return str(path)


def report_of(out: Path, *arguments: str) -> dict:
    assert main(["evaluate", *arguments, "--out", str(out)]) == 0
    return json.loads((out / "report.json").read_text(encoding="utf-8"))


def test_mapped_classes_alone_are_evaluated_by_both_rules(vid, stored, tmp_path):
    """A person who counted, or a fox who was missed, would lower both numbers."""
    farm = write_map(tmp_path, 'cattle = "cow"\ndomestic_cat = "cat"')
    arguments = ["--predictions", stored, *vid, "--map-classes", farm]
    report = report_of(tmp_path / "out", *arguments, "--metrics", "coco_ap", "vid_ap")
    (numbers,) = report["results"].values()
    assert (numbers["AP50"], numbers["AP50_ilsvrc"]) == pytest.approx((1.0, 1.0))
    assert "AP50/cattle" in numbers


def test_report_has_the_map_and_the_number_of_classes(vid, weights, tmp_path):
    farm = write_map(tmp_path, 'cattle = "cow"\ndomestic_cat = "cat"')
    report = report_of(tmp_path / "out", weights, *vid, "--map-classes", farm, "--device", "cpu")
    facts = report["protocol"]
    assert facts["class map"] == farm
    assert facts["evaluated classes"] == "2 of 30: cattle <- cow, domestic_cat <- cat"
    assert facts["classes"] == 2


def test_stored_predictions_of_a_map_have_its_classes(vid, weights, tmp_path):
    farm = write_map(tmp_path, 'cattle = "cow"')
    report_of(tmp_path / "out", weights, *vid, "--map-classes", farm, "--device", "cpu")
    run = load_predictions(tmp_path / "out" / "predictions.npz")
    assert run.classes == ("cattle",)
    assert [frame.target_labels.tolist() for frame in run.videos[0].frames] == [[], [0]]


def test_classes_choose_from_the_map_by_the_names_of_the_data(vid, weights, tmp_path):
    farm = write_map(tmp_path, 'cattle = "cow"\ndomestic_cat = "cat"\nowl = "owls"')
    chosen = ["--map-classes", farm, "--classes", "domestic_cat,cattle", "--device", "cpu"]
    facts = report_of(tmp_path / "out", weights, *vid, *chosen)["protocol"]
    assert facts["evaluated classes"] == "2 of 30: cattle <- cow, domestic_cat <- cat"


@pytest.mark.parametrize(
    ("text", "classes", "message"),
    [
        ('catle = "cow"', None, "the data has no class 'catle'; did you mean 'cattle'?"),
        ('cattle = "cowe"', None, "the model has no class 'cowe'; did you mean 'cow'?"),
        ('cattle = "cow"', "catle", "--classes: the map has no class 'catle'; did you mean"),
    ],
)
def test_half_matching_maps_are_one_line(vid, weights, tmp_path, capsys, text, classes, message):
    arguments = [weights, *vid, "--map-classes", write_map(tmp_path, text), "--device", "cpu"]
    arguments += [] if classes is None else ["--classes", classes]
    assert main(["evaluate", *arguments]) == 2
    assert message in error_line(capsys)


def test_map_that_does_not_fit_the_model_is_refused_before_the_data_is_read(
    weights, tmp_path, capsys
):
    arguments = [weights, "--data", str(tmp_path / "none"), "--device", "cpu"]
    assert main(["evaluate", *arguments, "--map-classes", "coco_to_vid"]) == 2
    assert "coco_to_vid: the model has no class 'airplane'" in error_line(capsys)


def test_unknown_map_is_one_line_with_the_nearest(weights, vid, capsys):
    assert main(["evaluate", weights, *vid, "--map-classes", "coco_vid"]) == 2
    assert "did you mean 'coco_to_vid'" in error_line(capsys)


def test_chosen_classes_are_evaluated_although_the_model_lacks_others(vid, tmp_path):
    """The fox, which the model does not know, is an error without the option."""
    weights = write_weights(tmp_path / "w.pt", ("person", "cattle"))
    arguments = [weights, *vid, "--classes", "cattle", "--device", "cpu"]
    facts = report_of(tmp_path / "out", *arguments)["protocol"]
    assert facts["evaluated classes"] == "1 of 30: cattle"


def test_chosen_classes_of_stored_predictions_are_evaluated(tmp_path):
    found = [Detection(FAR, 0.95, label=0), Detection(BOX, 0.9, label=1)]
    run = run_of(video(evaluated(0, found, [Target(BOX, 1, 1), Target(FAR, 2, 2)])))
    save_predictions(tmp_path / "p.npz", run)
    arguments = ["--predictions", str(tmp_path / "p.npz"), "--classes", "cow"]
    report = report_of(tmp_path / "out", *arguments)
    assert report["protocol"]["evaluated classes"] == "1 of 3: cow"
    (numbers,) = report["results"].values()
    assert numbers["AP50"] == pytest.approx(1.0)


def test_unknown_class_of_stored_predictions_is_one_line(stored, capsys):
    assert main(["evaluate", "--predictions", stored, "--classes", "cwo"]) == 2
    assert "--classes: the run has no class 'cwo'; did you mean 'cow'?" in error_line(capsys)


def test_unknown_class_of_the_data_is_one_line(weights, vid, capsys):
    assert main(["evaluate", weights, *vid, "--classes", "catle", "--device", "cpu"]) == 2
    assert "--classes: the data has no class 'catle'; did you mean 'cattle'?" in error_line(capsys)
