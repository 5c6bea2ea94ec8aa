"""Mistakes of a newcomer, on the command line and in Python: one line that says what is wrong."""

import re

import numpy as np
import pytest
import torch

import rnndet
from conftest import SIZE_HW, error_line, tiny_model
from rnndet.cli.errors import with_flags
from rnndet.cli.main import TOOLS, main
from rnndet.data.formats import read_set
from rnndet.errors import DeviceError, RnndetError
from rnndet.system.device import find_device
from rnndet.video.image import write_image


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["infer", "a.mp4", "--classes"], "infer: argument --classes: expected one argument; "),
        (["infer", "a.mp4", "--stride", "0"], "infer: argument --stride: '0' is not an integer "),
        (["infer", "a.mp4", "--score-threshold", "=0.5"], "'=0.5' is neither a score nor NAME=SC"),
        (["infer", "a.mp4", "--devise", "cpu"], "--devise cpu; did you mean '--device'? rnndet"),
        (["infer", "a.mp4", "--xyz"], "infer: unrecognized arguments: --xyz; rnndet infer --help "),
        (["train"], "train: the following arguments are required: config; rnndet train --help "),
        (["dataset"], "dataset: the following arguments are required: command; rnndet dataset "),
        (["dataset", "show", "x"], "are required: --video, --out; rnndet dataset show --help"),
        (["dataset", "convert", "x", "y", "--to", "z"], "argument --to: invalid choice: 'z' (choo"),
        (["benchmark", "everday"], "benchmark: argument PART: invalid choice: 'everday' (choose f"),
        (["export", "x", "--int8"], "export: --int8: needs --calibrate CLIP"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_one_line(arguments, line, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert line in error_line(capsys)


@pytest.mark.parametrize("tool", TOOLS)
def test_unknown_option_of_every_tool_is_one_line(tool, capsys):
    with pytest.raises(SystemExit):
        main([tool, "--no-such-option"])
    assert error_line(capsys).startswith(f"{tool}: ")


@pytest.mark.parametrize(
    ("arguments", "example"),
    [
        (["infer", "a.mp4", "--tracker-option", "max_age"], "max_age=2"),
        (["dataset", "check", "x", "--option", "classes"], "orientation=shown"),
        (["train", "aerial", "--set", "train.lr"], "train.lr=0.001"),
    ],
)
def test_example_of_a_key_with_a_value_is_one_of_its_flag(arguments, example, capsys):
    assert main(arguments) == 2
    assert error_line(capsys).endswith(f"expected KEY=VALUE, for example {example}")


@pytest.mark.parametrize("format", ["coco_vid", "cvat_video", "mot", "pascal_voc", "yolo"])
def test_missing_folder_of_a_set_is_named_itself(tmp_path, format):
    with pytest.raises(RnndetError) as error:
        read_set(format, tmp_path / "nowhere", "train")
    root = tmp_path / "nowhere"
    assert str(error.value) == f"{root}: no such file or folder; check the path"


def test_folder_without_annotations_of_the_default_format_names_the_option(tmp_path):
    with pytest.raises(RnndetError, match=r"no such annotation file; for labels that are not Coco"):
        read_set("coco_vid", tmp_path, "train")


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "a.png"
    write_image(path, np.zeros((*SIZE_HW, 3), np.uint8))
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 1.5}, "stride = 1.5; expected 1"),
        ({"stride": "2"}, "stride = 2; expected 1"),
        ({"start": "0:05"}, "start = '0:05'; expected seconds, a number"),
        ({"end": "5"}, "end = '5'; expected seconds, a number"),
        ({"nms": "x"}, "nms = 'x'; expected an IoU from 0 to 1, a number"),
        ({"coast": "x"}, "coast = 'x'; expected a time in seconds, a number"),
        ({"key_every": "2"}, "every = 2; expected 1"),
        ({"key_every": 2, "key_lost": "x"}, "lost = x; expected a share"),
        ({"start": None}, "start = None; expected seconds, a number"),
        ({"size": "640"}, "size = '640'; expected the longer edge"),
        ({"size": 640.5}, "size = 640.5; expected the longer edge"),
        ({"classes": 3}, "classes = 3; expected a list of class names"),
        ({"classes": [0]}, "classes: 0 is no name of a class"),
        ({"min_score": {0: 0.5}}, "`min_score`: 0 is no name of a class"),
        ({"tracker_options": 3}, "tracker_options = 3; expected names with their values"),
        ({"tracker_options": ["max_age"]}, r"tracker_options = \['max_age'\]; expected names"),
        ({"regions": {"lines": {}}}, r"regions = {'lines': {}}; expected Regions or the path"),
    ],
)
def test_option_of_another_type_is_named(model, image, options, message):
    with pytest.raises(RnndetError, match=message):
        rnndet.track(model, image, **options)


@pytest.mark.parametrize(("scores", "what"), [({"x": 2}, "of 'x' = 2"), (2, "= 2"), ({"y": 1}, "")])
def test_messages_name_the_parameter_in_python_and_the_flag_in_a_tool(model, image, scores, what):
    with pytest.raises(RnndetError) as error:
        rnndet.track(model, image, min_score=scores)
    assert re.match(rf"`min_score`:? ?{what}", str(error.value))
    assert re.match(rf"--score-threshold:? ?{what}", with_flags(str(error.value)))


@pytest.mark.parametrize("name", ["everyday", b"a.pt"])
def test_name_of_weights_in_place_of_a_model_says_how_to_load_it(image, name):
    with pytest.raises(RnndetError, match=rf"model = {name!r}; expected a model: rnndet\.load_mod"):
        rnndet.track(name, image)


@pytest.mark.parametrize("value", [None, 3, torch.nn.Identity()])
def test_what_is_no_model_is_refused(image, value):
    with pytest.raises(
        RnndetError, match=r"model = \w+ .*; expected what rnndet.load_model returns"
    ):
        rnndet.track(value, image)


@pytest.mark.parametrize("kind", [iter, set, lambda paths: (path for path in paths)])
def test_paths_that_are_no_list_are_said_to_be_given_as_a_list(model, image, kind):
    with pytest.raises(RnndetError, match="for several a list of paths"):
        next(rnndet.track(model, kind([image])))


@pytest.mark.parametrize("device", ["gpu", 3.5, "cuda:99", "mps:7", "meta:x"])
def test_device_that_cannot_be_used_is_named(device):
    with pytest.raises(DeviceError, match=f"`device={device}`: "):
        rnndet.load_model("aerial_fast", device=device)


def test_reason_of_a_device_is_its_first_sentence(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no backend for this device. It may help to read on.\nA second line")

    monkeypatch.setattr(torch, "zeros", fail)
    with pytest.raises(DeviceError, match=r"used: no backend for this device; use `device=cpu`$"):
        find_device("cpu")


def test_cuda_without_a_gpu_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r"^`device=cuda`: this torch .*; use `device=cpu`"):
        rnndet.load_model("aerial_fast", device="cuda")


def test_device_auto_is_the_cpu_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = rnndet.load_model("aerial_fast", device="auto")
    assert next(model.parameters()).device.type == "cpu"


@pytest.mark.parametrize("weights", [None, 3])
def test_weights_that_are_no_name_are_refused(weights):
    with pytest.raises(RnndetError, match="expected a published name or a path"):
        rnndet.load_model(weights)
