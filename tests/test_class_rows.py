"""Class layers: which rows belong to a class, and a start from weights with other classes."""

import copy
import json
import logging
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rnndet.config import Config, ModelConfig, TemporalConfig
from rnndet.errors import WeightsError
from rnndet.models.checkpoint import model_content, save_checkpoint
from rnndet.models.detectors import DETECTORS, FrameDetector, build_detector
from rnndet.models.detectors.class_rows import ClassRows
from rnndet.models.detectors.published import published_names
from rnndet.models.video_detector import VideoDetector, build_model
from rnndet.training.checkpoints import start_from

SMALL = {"size": [64, 96], "backbone": "mobilenet_v3_small"}
PYRAMID = {**SMALL, "channels": 32}
OPTIONS = {
    "faster_rcnn": PYRAMID,
    "fcos": {**PYRAMID, "head_convs": 1},
    "nanodet_plus": {**PYRAMID, "backbone": "shufflenet_v2_x0_5", "head_convs": 1},
    "retinanet": {**PYRAMID, "head_convs": 1},
    "ssdlite": SMALL,
    "torchvision": {"name": "ssdlite320_mobilenet_v3_large", "size": [64, 96]},
}
OTHER_HEAD = {"name": "fasterrcnn_mobilenet_v3_large_320_fpn", "size": [64, 96]}
START = ("bird", "drone", "airplane")
every_family = pytest.mark.parametrize("name", sorted(DETECTORS))
# Families of torchvision's detectors that the registry's options above leave out.
every_head = pytest.mark.parametrize(
    ("name", "options"),
    [*((name, OPTIONS[name]) for name in sorted(DETECTORS)), ("torchvision", OTHER_HEAD)],
    ids=[*sorted(DETECTORS), "torchvision_two_stages"],
)


def on_meta(name: str, num_classes: int, options: dict) -> FrameDetector:
    with torch.device("meta"):
        return build_detector(name, num_classes, options)


def config_of(name: str, options: dict | None) -> Config:
    return Config(ModelConfig(name, options or OPTIONS[name], TemporalConfig(cell="none")))


@cache
def shared_model(name: str, classes: tuple[str, ...], seed: int, options: str) -> VideoDetector:
    torch.manual_seed(seed)
    model = build_model(config_of(name, json.loads(options)).model, classes).eval()
    for value in model.detector.net.parameters():  # biases too: all rows differ
        torch.nn.init.normal_(value, std=0.05)
    return model


def make(
    name: str, classes: tuple[str, ...], *, seed: int, options: dict | None = None
) -> VideoDetector:
    """A model whose rows all differ; equal arguments give equal weights."""
    return copy.deepcopy(shared_model(name, classes, seed, json.dumps(options)))


def save(model: VideoDetector, folder: Path, name: str, options: dict | None = None) -> str:
    path = folder / "start.pt"
    save_checkpoint(path, model_content(model, config_of(name, options), step=0))
    return str(path)


def random_levels(detector: FrameDetector) -> dict[str, Tensor]:
    torch.manual_seed(5)
    return {
        level: torch.randn(1, channels, 4, 6) for level, channels in detector.neck_channels.items()
    }


@torch.no_grad()
def outputs_of(model: VideoDetector) -> tuple[dict[str, Tensor], Tensor]:
    """What the head says of each class by its name, and of no class: background, boxes."""
    detector = model.detector
    if detector.head_spec is not None:
        raw = detector.head(random_levels(detector))
        logits = raw.pop("cls_logits")[0]  # (A, K + 1)
        columns = detector.head_spec.columns or range(1, logits.shape[1])
        by_class = {
            name: logits[:, column] for name, column in zip(model.classes, columns, strict=True)
        }
        return by_class, torch.cat([logits[:, 0], *(value.flatten() for value in raw.values())])
    roi_heads = detector.net.roi_heads
    predictor = roi_heads.box_predictor
    torch.manual_seed(5)
    logits, offsets = predictor(torch.randn(3, predictor.cls_score.in_features))
    proposals = torch.tensor([[0.0, 0, 9, 9]] * 3)
    boxes = roi_heads.box_coder.decode(offsets, [proposals])  # (P, K + 1, 4)
    rows = torch.cat([logits[..., None], boxes], 2)
    pairs = zip(model.classes, range(1, logits.shape[1]), strict=True)
    return {name: rows[:, column].flatten() for name, column in pairs}, rows[:, 0].flatten()


def assert_fresh(model: VideoDetector, before: VideoDetector, names: Iterable[str]) -> None:
    """The rows of these classes are as they were."""
    own, initial = model.detector.state_dict(), before.detector.state_dict()
    for key, rows in model.detector.class_rows().items():
        at = rows.classes[[model.classes.index(name) for name in names]].flatten()
        torch.testing.assert_close(own[key][at], initial[key][at], rtol=0, atol=0)


# the rows of each detector


@every_head
def test_every_parameter_whose_shape_depends_on_the_classes_is_named(name, options):
    few, many = (on_meta(name, count, options).state_dict() for count in (3, 4))
    by_shape = {key for key in few if few[key].shape != many[key].shape}
    assert by_shape == on_meta(name, 3, options).class_rows().keys()


@pytest.mark.parametrize("name", published_names())
def test_every_published_detector_names_its_class_layers(name):
    few, coco = (on_meta("torchvision", count, {"name": name}) for count in (3, 80))
    own = coco.state_dict()
    by_shape = {key for key, t in few.state_dict().items() if own[key].shape != t.shape}
    assert by_shape == coco.class_rows().keys() == few.class_rows().keys()
    for key, rows in coco.class_rows().items():
        assert len(rows.classes) == 80
        assert rows.classes.max() < len(own[key])


@every_head
def test_every_row_is_of_one_class_or_shared(name, options):
    detector = on_meta(name, 3, options)
    for key, rows in detector.class_rows().items():
        assert len(rows.classes) == 3
        found = torch.cat([rows.classes.flatten(), rows.shared]).sort().values
        assert found.tolist() == list(range(len(detector.state_dict()[key])))


@every_head
def test_rows_of_a_class_change_all_outputs_of_this_class_and_no_other(name, options):
    model = make(name, START, seed=0, options=options)
    before, rest_before = outputs_of(model)
    state = model.detector.state_dict()
    for key, rows in model.detector.class_rows().items():
        state[key][rows.classes[1]] += 0.5
    after, rest_after = outputs_of(model)
    assert (before["drone"] != after["drone"]).all()
    assert torch.equal(before["bird"], after["bird"])
    assert torch.equal(before["airplane"], after["airplane"])
    assert torch.equal(rest_before, rest_after)


@every_head
def test_shared_rows_change_no_class(name, options):
    model = make(name, START, seed=0, options=options)
    before, rest_before = outputs_of(model)
    state = model.detector.state_dict()
    for key, rows in model.detector.class_rows().items():
        state[key][rows.shared] += 0.5
    after, rest_after = outputs_of(model)
    assert all(torch.equal(before[label], after[label]) for label in START)
    if name != "nanodet_plus":  # its distributions moved alike give the same distances
        assert not torch.equal(rest_before, rest_after)


def test_coco_numbers_without_a_class_have_no_rows():
    detector = on_meta("torchvision", 80, OTHER_HEAD)
    rows = detector.class_rows()["net.roi_heads.box_predictor.cls_score.weight"]
    assert rows.classes[:, 0].tolist() == list(detector.numbers)
    assert rows.shared.tolist() == [0]


# a start from weights with other classes


@every_family
@pytest.mark.parametrize(
    "classes",
    [("airplane", "bird", "drone"), ("car", "airplane", "dog", "bird")],
    ids=["other order", "other number"],
)
def test_classes_that_the_start_has_are_copied_and_others_are_fresh(name, classes, tmp_path):
    start = make(name, START, seed=1)
    model, before = (make(name, classes, seed=2) for _ in range(2))
    fresh = start_from(model, save(start, tmp_path, name))
    assert fresh == []
    found, rest = outputs_of(model)
    expected, expected_rest = outputs_of(start)
    for label in set(classes) & set(START):
        torch.testing.assert_close(found[label], expected[label])
    torch.testing.assert_close(rest, expected_rest)
    assert_fresh(model, before, set(classes) - set(START))


def test_number_of_loaded_tensors_is_that_of_the_same_classes(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = save(make("fcos", START, seed=1), tmp_path, "fcos")
    start_from(make("fcos", ("bird", "car"), seed=2), path)
    count = len(make("fcos", START, seed=1).state_dict())
    assert f"{count} tensors loaded, 0 newly initialised" in caplog.text


def test_nanodet_keeps_its_box_distributions_for_another_number_of_classes(tmp_path):
    start = make("nanodet_plus", START, seed=1)
    model = make("nanodet_plus", ("car", "bus"), seed=2)
    start_from(model, save(start, tmp_path, "nanodet_plus"))
    found, expected = (
        one.detector.raw_outputs(random_levels(one.detector))["distributions"]
        for one in (model, start)
    )
    torch.testing.assert_close(found, expected)


def test_without_a_common_name_all_class_rows_are_fresh_and_the_log_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    start = make("fcos", START, seed=1)
    path = save(start, tmp_path, "fcos")
    model, before = (make("fcos", ("car", "bus", "dog"), seed=2) for _ in range(2))
    start_from(model, path)
    assert_fresh(model, before, model.classes)
    own, theirs = model.detector.state_dict(), start.detector.state_dict()
    for key, rows in model.detector.class_rows().items():
        assert torch.equal(own[key][rows.shared], theirs[key][rows.shared])
    assert f"{path}: has other classes; taken by name: none; untrained: car, bus, dog" in (
        caplog.messages
    )


def test_log_names_the_classes_that_are_taken_and_those_that_are_untrained(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = save(make("fcos", START, seed=1), tmp_path, "fcos")
    start_from(make("fcos", ("car", "airplane", "bird"), seed=2), path)
    assert (
        f"{path}: has other classes; taken by name: airplane, bird; untrained: car"
    ) in caplog.messages


def test_log_says_another_order(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = save(make("fcos", START, seed=1), tmp_path, "fcos")
    start_from(make("fcos", START[::-1], seed=2), path)
    assert (
        f"{path}: has other classes; taken by name: airplane, drone, bird; untrained: none"
    ) in caplog.messages


def test_log_counts_many_classes(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    many = tuple(f"class {number}" for number in range(30))
    path = save(make("fcos", START, seed=1), tmp_path, "fcos")
    start_from(make("fcos", ("bird", *many), seed=2), path)
    (line,) = [message for message in caplog.messages if "untrained" in message]
    assert "untrained: 30 classes (class 0, class 1," in line
    assert len(line.removeprefix(path)) < 200


def test_same_classes_are_loaded_whole_without_a_word_about_classes(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    start = make("nanodet_plus", START, seed=1)
    model = make("nanodet_plus", START, seed=2)
    start_from(model, save(start, tmp_path, "nanodet_plus"))
    for key, tensor in start.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor)
    assert "untrained" not in caplog.text


@pytest.mark.parametrize(
    ("start", "classes", "said"),
    [
        (("bird", "car"), ("Bird", "car"), "'bird' for 'Bird'"),
        (("bird",), (" bird ",), "'bird' for ' bird '"),
        (("traffic light",), ("traffic_light",), "'traffic light' for 'traffic_light'"),
        (("traffic light",), ("traffic-light",), "'traffic light' for 'traffic-light'"),
        (("\u00e4",), ("a\u0308",), "'\u00e4' for 'a\u0308'"),
        (("bird", "Bird"), ("bird", "BIRD"), "'Bird' for 'BIRD'"),
    ],
)
def test_names_that_differ_in_case_or_blanks_are_not_taken_and_a_warning_says_so(
    tmp_path, caplog, start, classes, said
):
    path = save(make("fcos", start, seed=1), tmp_path, "fcos")
    start_from(make("fcos", classes, seed=2), path)
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith(f"{path}: classes of almost the same name are not taken: {said};")


@pytest.mark.parametrize("classes", [("bird", "Bird"), ("dog",), ("Bird", "bird")])
def test_taken_class_is_no_almost_equal_name_of_another(tmp_path, caplog, classes):
    path = save(make("fcos", ("bird", "car"), seed=1), tmp_path, "fcos")
    start_from(make("fcos", classes, seed=2), path)
    assert "almost" not in caplog.text


def test_equal_names_are_matched_in_their_order(tmp_path):
    start = make("fcos", ("bird", "car", "bird"), seed=1)
    model = make("fcos", ("bird", "bird", "dog", "bird"), seed=2)
    start_from(model, save(start, tmp_path, "fcos"))
    weight = "net.head.classification_head.cls_logits.weight"
    own, theirs = model.detector.state_dict()[weight], start.detector.state_dict()[weight]
    assert torch.equal(own[1], theirs[1]) and torch.equal(own[2], theirs[3])
    assert not any(torch.equal(own[4], row) for row in theirs)


def test_class_layer_of_another_kind_is_fresh_even_if_its_shape_agrees(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    many = ("bird", *(f"class {number}" for number in range(16)))
    start = make("fcos", many, seed=1)  # 17 + 1 rows
    model, before = (make("retinanet", ("bird",), seed=2) for _ in range(2))  # 9 * (1 + 1) rows
    layers = {f"detector.{key}" for key in model.detector.class_rows()}
    fresh = start_from(model, save(start, tmp_path, "fcos"))
    assert layers <= set(fresh)
    for key in layers:
        assert torch.equal(model.state_dict()[key], before.state_dict()[key])
    assert "taken by name: none; untrained: bird" in caplog.text


def test_log_counts_the_class_layers_that_do_not_fit(tmp_path, caplog):
    """The levels of two backbones differ in width where they come from the backbone."""
    caplog.set_level(logging.INFO)
    path = save(make("ssdlite", START, seed=1), tmp_path, "ssdlite")
    large = {**SMALL, "backbone": "mobilenet_v3_large"}
    start_from(make("ssdlite", ("bird", "car"), seed=2, options=large), path)
    assert "taken by name, in 10 of 12 class tensors: bird; untrained: car" in caplog.text


def test_start_that_does_not_fit_its_own_classes_is_refused(tmp_path):
    content = model_content(make("fcos", START, seed=1), config_of("fcos", None), step=0)
    save_checkpoint(tmp_path / "start.pt", content | {"classes": ["bird", "car"]})
    with pytest.raises(WeightsError, match="does not fit"):
        start_from(make("fcos", ("car",), seed=2), tmp_path / "start.pt")


def test_rows_that_the_start_lacks_are_not_taken():
    own, start = torch.zeros(4, 2), torch.ones(4, 2)
    rows = ClassRows(torch.tensor([[1], [2], [3]]), torch.tensor([0]))
    two_each = ClassRows(torch.tensor([[1, 2]]), torch.tensor([0]))
    assert rows.fill(own, start, two_each, [(0, 0)]) is None
    assert rows.fill(own, torch.ones(4, 3), rows, [(0, 0)]) is None
    assert rows.fill(own, start, rows, [(2, 0)])[:, 0].tolist() == [1, 0, 0, 1]
    assert not own.any()
