"""torchvision's published detectors by name: equal results, and the download of their weights."""

import logging
import os
import socket

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.detection._utils import overwrite_eps
from torchvision_files import (
    COCO,
    LIGHT,
    UNUSED,
    assert_equal,
    give_weights,
    publish_at,
    random_image,
    random_weights,
    serve,
    torchvision_detections,
    torchvision_model,
    weights_of,
    write_weights,
)
from windows import criterion, noise, target

from conftest import error_line, write_coco_vid
from rnndet.cli import infer
from rnndet.config import ModelConfig, TemporalConfig, config_from_dict
from rnndet.errors import RnndetError, WeightsError
from rnndet.inference.runtimes import open_runtime
from rnndet.inference.runtimes.export_onnx import export_onnx
from rnndet.inference.runtimes.onnx_runtime import OnnxRuntime
from rnndet.inference.stream import Stream
from rnndet.models.checkpoint import load_model, model_content, save_checkpoint
from rnndet.models.detectors import build_detector
from rnndet.models.detectors.base import FrameDetector
from rnndet.models.detectors.published import published_names, published_tensors
from rnndet.models.postprocess import anchors_of
from rnndet.models.video_detector import VideoDetector, build_model
from rnndet.models.zoo import find_weights
from rnndet.specs import HeadSpec
from rnndet.structures import Detections, Frame, Target
from rnndet.training.run import start_model

SSDLITE = LIGHT[0]
SMALL = {"name": SSDLITE, "size": [96, 128]}
CLASSES = tuple(name for number, name in enumerate(COCO) if number not in UNUSED)
every_name = pytest.mark.parametrize("name", published_names())
light = pytest.mark.parametrize("name", LIGHT)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A TORCH_HOME with a file of random weights for each of LIGHT."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "hub" / "checkpoints"
    return home, {name: write_weights(folder, name, random_weights(name)) for name in LIGHT}


@pytest.fixture
def cached(files, monkeypatch):
    """LIGHT in torch's cache; no connection is made."""
    home, paths = files
    monkeypatch.setenv("TORCH_HOME", str(home))
    for name, path in paths.items():
        publish_at(monkeypatch, name, f"https://example.invalid/{path.name}")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return paths


def refuse(*_):
    raise AssertionError("a connection was made")


def found_by(model: VideoDetector, image: np.ndarray) -> Detections:
    return Stream(model, min_score=0.0).step(Frame(image, 0, 0.0)).detections


def on_meta(name: str) -> FrameDetector:
    with torch.device("meta"):
        return build_detector("torchvision", 80, {"name": name})


# names and classes


def test_every_coco_detector_of_torchvision_has_a_name():
    assert set(published_names()) >= {
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        "fasterrcnn_mobilenet_v3_large_fpn",
        "fasterrcnn_resnet50_fpn",
        "fasterrcnn_resnet50_fpn_v2",
        "fcos_resnet50_fpn",
        "retinanet_resnet50_fpn",
        "retinanet_resnet50_fpn_v2",
        "ssd300_vgg16",
        "ssdlite320_mobilenet_v3_large",
    }


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("fcos_resnet_50", "fcos_resnet50_fpn"), ("maskrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn")],
)
def test_unknown_name_is_refused_with_the_nearest(name, nearest):
    with pytest.raises(WeightsError, match=f"did you mean 'torchvision:{nearest}'"):
        load_model(f"torchvision:{name}")


def test_unknown_name_in_a_configuration_is_refused_with_the_nearest():
    with pytest.raises(RnndetError, match=r"model\.options\.name.*did you mean 'ssd300_vgg16'"):
        build_detector("torchvision", 80, {"name": "ssd300_vgg"})


def test_classes_are_the_80_names_without_the_unused_numbers(cached):
    classes = load_model(f"torchvision:{SSDLITE}").classes
    assert classes == CLASSES
    assert len(classes) == 80 and (classes[0], classes[79]) == ("person", "toothbrush")


# equal to torchvision


@light
def test_detections_equal_torchvisions_own_inference(name, cached):
    image = random_image()
    theirs = torchvision_detections(name, torchvision_model(name), image)
    model = load_model(f"torchvision:{name}")
    assert len(set(theirs["names"])) > 5
    assert_equal(found_by(model, image), model.classes, theirs)


def test_second_version_of_retinanet_equals_torchvisions_own_inference(monkeypatch):
    name = "retinanet_resnet50_fpn_v2"
    give_weights(monkeypatch, name, random_weights(name))
    image = random_image()
    net = torchvision_model(name, min_size=64, max_size=96)
    with torch.device("meta"):
        detector = build_detector("torchvision", 80, {"name": name, "size": [64, 96]})
    detector.load_state_dict(published_tensors(name), assign=True)
    detector.eval()
    with torch.no_grad():
        prepared = detector.prepare([torch.from_numpy(image).permute(2, 0, 1)])
        (ours,) = detector.detect(prepared, detector.neck(detector.backbone(prepared.pixels)))
    assert_equal(ours, CLASSES, torchvision_detections(name, net, image))


def test_ssd_equals_torchvisions_own_inference():
    """With a short first part: VGG takes seconds."""
    name = "ssd300_vgg16"
    detector = on_meta(name)
    short = nn.Sequential(nn.AvgPool2d(8, ceil_mode=True), nn.Conv2d(3, 512, 1))
    detector.net.backbone.features = short
    state = {f"net.{key}": value for key, value in random_weights(name).items()}
    state |= {f"net.backbone.features.{k}": v / 100 for k, v in short.state_dict().items()}
    kept = detector.state_dict().keys()
    detector.load_state_dict({key: state[key] for key in kept}, assign=True)
    image = random_image()
    theirs = torchvision_detections(name, detector.eval().net, image)
    with torch.no_grad():
        prepared = detector.prepare([torch.from_numpy(image).permute(2, 0, 1)])
        (ours,) = detector.detect(prepared, detector.neck(detector.backbone(prepared.pixels)))
    assert len(ours) > 50
    assert_equal(ours, CLASSES, theirs)


@every_name
def test_every_network_takes_torchvisions_tensors(name):
    with torch.device("meta"):
        theirs = models.get_model(name, weights=None, weights_backbone=None).state_dict()
    ours = {key.removeprefix("net."): t.shape for key, t in on_meta(name).state_dict().items()}
    assert ours == {k: t.shape for k, t in theirs.items() if "num_batches_tracked" not in k}


@every_name
def test_eps_of_every_network_is_torchvisions(name, monkeypatch):
    with torch.device("meta"):
        plain = models.get_model(name, weights=None, weights_backbone=None).state_dict()
    give_weights(monkeypatch, name, plain)
    with torch.device("meta"):
        net = torchvision_model(name)
    expected = {module.eps for module in net.modules() if hasattr(module, "running_var")}
    ones = {key: torch.ones(1) for key in plain if key.endswith("running_var")}
    give_weights(monkeypatch, name, ones)
    added = {tensor.item() for tensor in published_tensors(name).values()}
    assert added == {torch.add(torch.ones(1), eps).item() for eps in expected}


def test_overwritten_eps_is_read_from_the_module():
    """The test above relies on this."""
    norm = models.resnet18(norm_layer=models.detection.faster_rcnn.misc_nn_ops.FrozenBatchNorm2d)
    overwrite_eps(norm, 0.25)
    assert norm.bn1.eps == 0.25


@light
def test_outputs_without_a_class_are_never_detected(name, monkeypatch):
    give_weights(monkeypatch, name, random_weights(name, unused=5.0))
    found = found_by(load_model(f"torchvision:{name}"), random_image())
    assert ((found.labels >= 0) & (found.labels < 80)).all()
    names = torchvision_detections(name, torchvision_model(name), random_image())["names"]
    assert set(np.array(CLASSES)[found.labels]) >= set(names)


def test_anchors_of_fixed_steps_equal_torchvisions():
    spec = on_meta("ssd300_vgg16").head_spec
    grids = ((38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1))
    levels = [torch.zeros(1, 1, *grid) for grid in grids]
    images = models.detection.image_list.ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)])
    (expected,) = on_meta("ssd300_vgg16").net.anchor_generator(images, levels)
    np.testing.assert_allclose(anchors_of(spec, (300, 300), grids)[0], expected, atol=1e-3)


def test_graph_gives_torchvisions_detections(cached, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = load_model(f"torchvision:{SSDLITE}")
    export_onnx(model, tmp_path / "model.onnx")
    runtime = OnnxRuntime(tmp_path / "model.onnx")
    runtime.score_threshold = model.score_threshold
    theirs = torchvision_detections(SSDLITE, torchvision_model(SSDLITE), random_image())
    assert_equal(found_by(runtime, random_image()), runtime.classes, theirs)


def test_specification_of_other_detectors_has_no_new_entries():
    """Older versions can read it."""
    spec = build_detector("ssdlite", 2, {"size": [64, 64], "backbone": "mobilenet_v3_small"})
    assert not {"columns", "steps"} & spec.head_spec.to_dict().keys()
    assert "as_float" not in spec.input_spec.to_dict()


def test_specification_survives_a_round_trip():
    for spec in (on_meta("ssd300_vgg16").head_spec, on_meta("fcos_resnet50_fpn").head_spec):
        assert HeadSpec.from_dict(spec.to_dict()) == spec


# training


def box(label: int, *corners: float) -> Target:
    ids, ignore = None, torch.tensor([False])
    return Target(torch.tensor([corners]), torch.tensor([label]), ids, ignore)


@light
def test_losses_equal_torchvisions(name):
    with torch.device("meta"):
        detector = build_detector("torchvision", 80, {"name": name, "size": [96, 128]})
    state = {f"net.{key}": value for key, value in random_weights(name).items()}
    detector.load_state_dict(state, assign=True)
    images = [torch.from_numpy(random_image()).permute(2, 0, 1)] * 2
    detector.train()
    torch.manual_seed(0)
    targets = [box(0, 10.0, 10, 60, 70), box(79, 30.0, 5, 90, 50)]
    prepared = detector.prepare(images, targets)
    ours = detector.losses(prepared, detector.neck(detector.backbone(prepared.pixels))).terms
    numbers = torch.tensor([COCO.index(name) for name in CLASSES])
    expected = [{"boxes": one.boxes, "labels": numbers[one.labels]} for one in targets]
    torch.manual_seed(0)
    theirs = detector.net([image / 255 for image in images], expected)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-5, atol=0, msg=key)


@pytest.mark.parametrize("site", ["neck", "backbone"])
@light
def test_temporal_module_trains_on_a_published_detector(name, site):
    config = ModelConfig(
        "torchvision",
        {"name": name, "size": [64, 96]},
        TemporalConfig(levels=("0", "1"), hidden=4, site=site),
    )
    model = build_model(config, CLASSES)
    window = criterion(model.train(), noise(2), [[target()], [target()]])
    sum(window.terms.values()).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.temporal.parameters())
    with torch.inference_mode():
        assert set(model.eval()(noise(1)).state) == {"0", "1"}


def test_checkpoint_of_a_trained_model_loads_without_torchvisions_weights(tmp_path, monkeypatch):
    tree = {"detector": "torchvision", "options": SMALL, "temporal": {"levels": ["0"]}}
    config = config_from_dict({"model": tree}, where="test")
    model = build_model(config.model, CLASSES).eval()
    save_checkpoint(tmp_path / "a.pt", model_content(model, config, step=3))
    monkeypatch.setattr(type(weights_of(SSDLITE)), "get_state_dict", refuse)
    loaded = load_model(tmp_path / "a.pt")
    assert loaded.classes == CLASSES
    expected = model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())


def test_training_starts_from_torchvisions_weights(cached):
    tree = {
        "model": {"detector": "torchvision", "options": SMALL, "temporal": {"levels": ["0"]}},
        "train": {"init": f"torchvision:{SSDLITE}"},
    }
    model, temporal_is_fresh = start_model(
        config_from_dict(tree, where="test"), CLASSES, resume=False
    )
    assert temporal_is_fresh
    for key, tensor in published_tensors(SSDLITE).items():
        assert torch.equal(model.detector.state_dict()[key], tensor)


def test_other_classes_start_with_a_new_class_layer(cached):
    tree = {
        "model": {"detector": "torchvision", "options": SMALL},
        "train": {"init": f"torchvision:{SSDLITE}"},
    }
    model, _ = start_model(config_from_dict(tree, where="test"), ("a", "b"), resume=False)
    published, own = published_tensors(SSDLITE), model.detector.state_dict()
    fresh = {key for key in own if own[key].shape != published[key].shape}
    assert fresh and all("classification_head" in key for key in fresh)


def test_classes_of_coco_keep_their_rows_among_others(cached):
    tree = {
        "model": {"detector": "torchvision", "options": SMALL},
        "train": {"init": f"torchvision:{SSDLITE}"},
    }
    classes = ("toothbrush", "kite balloon", "person")  # of COCO's numbers 90 and 1
    model, _ = start_model(config_from_dict(tree, where="test"), classes, resume=False)
    key = "net.head.classification_head.module_list.0.1.weight"
    published = published_tensors(SSDLITE)[key].unflatten(0, (-1, 91))
    own = model.detector.state_dict()[key].unflatten(0, (-1, 4))  # (A, background and 3 classes)
    assert torch.equal(own[:, [0, 1, 3]], published[:, [0, 90, 1]])


# the command line


def test_infer_runs_a_published_detector(cached, tmp_path):
    write_coco_vid(tmp_path, videos=1, length=2, as_files=True)
    args = [str(tmp_path / "v0.avi"), "--weights", f"torchvision:{SSDLITE}", "--quiet"]
    assert infer.main([*args, "--out", str(tmp_path / "out"), "--no-video"]) == 0
    header = (tmp_path / "out" / "v0" / "detections.jsonl").read_text().splitlines()[0]
    assert f'"detector": "{SSDLITE}"' in header and '"toothbrush"' in header


def test_infer_refuses_an_unknown_name_in_one_line(capsys, tmp_path):
    args = ["--weights", "torchvision:yolo", "--quiet", "--out", str(tmp_path / "out")]
    assert infer.main(args) == 5
    assert "torchvision:yolo is unknown" in error_line(capsys)


# the file of the weights


@pytest.fixture
def empty_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "hub" / "checkpoints"


def names_in(folder) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []


def test_weights_are_downloaded_once_into_torchs_cache(files, empty_home, monkeypatch, caplog):
    path = files[1][SSDLITE]
    with serve(path.parent) as (url, asked), caplog.at_level(logging.INFO, logger="rnndet"):
        publish_at(monkeypatch, SSDLITE, f"{url}/{path.name}")
        first = load_model(f"torchvision:{SSDLITE}")
        second = load_model(f"torchvision:{SSDLITE}")
    assert asked == [f"/{path.name}"]
    assert names_in(empty_home) == [path.name]
    assert f"downloading {url}/{path.name} to {empty_home / path.name}" in caplog.text
    state = second.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in first.state_dict().items())


def test_download_prints_nothing_on_stdout(files, empty_home, monkeypatch, capsys):
    path = files[1][SSDLITE]
    with serve(path.parent) as (url, _):
        publish_at(monkeypatch, SSDLITE, f"{url}/{path.name}")
        find_weights(f"torchvision:{SSDLITE}")
    assert capsys.readouterr().out == ""


def test_refused_connection_names_the_file_the_folder_and_the_url(empty_home, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/ssdlite-0123abcd.pth"
        publish_at(monkeypatch, SSDLITE, url)
        with pytest.raises(WeightsError) as caught:
            load_model(f"torchvision:{SSDLITE}")
    message = str(caught.value)
    assert message.startswith("ssdlite-0123abcd.pth: ") and "\n" not in message
    assert "Connection refused" in message and url in message
    assert message.endswith(f"place the file in {empty_home}")
    assert names_in(empty_home) == []


def test_missing_file_on_the_server_is_one_line(tmp_path, empty_home, monkeypatch):
    with serve(tmp_path) as (url, _):
        publish_at(monkeypatch, SSDLITE, f"{url}/gone-0123abcd.pth")
        with pytest.raises(WeightsError, match=r"^gone-0123abcd.pth: .*HTTP Error 404"):
            load_model(f"torchvision:{SSDLITE}")


def test_download_with_another_hash_leaves_nothing(files, tmp_path, empty_home, monkeypatch):
    (tmp_path / "ssdlite-0123abcd.pth").write_bytes(files[1][SSDLITE].read_bytes())
    with serve(tmp_path) as (url, _):
        publish_at(monkeypatch, SSDLITE, f"{url}/ssdlite-0123abcd.pth")
        with pytest.raises(WeightsError, match="download failed: invalid hash value") as caught:
            load_model(f"torchvision:{SSDLITE}")
    assert "\n" not in str(caught.value)
    assert names_in(empty_home) == []


def place(folder, name: str, content: bytes, monkeypatch) -> None:
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)
    publish_at(monkeypatch, SSDLITE, f"https://example.invalid/{name}")
    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_damaged_file_in_the_cache_is_one_line(files, empty_home, monkeypatch):
    path = files[1][SSDLITE]
    place(empty_home, path.name, path.read_bytes()[:-1000], monkeypatch)
    with pytest.raises(WeightsError, match="damaged: its sha256 does not begin with") as caught:
        load_model(f"torchvision:{SSDLITE}")
    message = str(caught.value)
    assert message.startswith(str(empty_home / path.name)) and "\n" not in message
    assert message.endswith(f"replace it by https://example.invalid/{path.name}")


def test_file_of_another_kind_is_one_line(empty_home, monkeypatch):
    place(empty_home, "ssdlite.pth", b"<html>not found</html>", monkeypatch)  # no hash in its name
    with pytest.raises(WeightsError, match=r"ssdlite\.pth: damaged: ") as caught:
        load_model(f"torchvision:{SSDLITE}")
    assert "\n" not in str(caught.value)


class Code:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_code_in_the_file_is_refused_and_not_run(tmp_path, empty_home, monkeypatch):
    path = write_weights(empty_home, SSDLITE, {"a": Code(tmp_path / "run")})
    publish_at(monkeypatch, SSDLITE, f"https://example.invalid/{path.name}")
    with pytest.raises(WeightsError, match="damaged"):
        load_model(f"torchvision:{SSDLITE}")
    assert not (tmp_path / "run").exists()


def test_file_of_another_network_is_refused(empty_home, monkeypatch):
    path = write_weights(empty_home, SSDLITE, {"a": torch.zeros(1)})
    publish_at(monkeypatch, SSDLITE, f"https://example.invalid/{path.name}")
    with pytest.raises(WeightsError, match=f"{path.name}: does not fit"):
        load_model(f"torchvision:{SSDLITE}")


def test_runtime_onnx_says_how_to_make_the_graph(cached):
    with pytest.raises(WeightsError, match=r"\.onnx: no such file; make it: rnndet export"):
        open_runtime(f"torchvision:{SSDLITE}", kind="onnx", device="cpu")
