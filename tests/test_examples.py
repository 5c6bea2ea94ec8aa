"""Doctests of the docstrings of rnndet."""

import doctest
import importlib
from pathlib import Path

import pytest

from rnndet.video.sink import VideoSink
from rnndet.video.synthetic.clip import SyntheticClip

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = {"av", "matplotlib", "onnx", "onnxruntime", "openvino", "ray", "tensorboard", "trackeval"}
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "rnndet").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.fixture
def folder_with_a_clip(tmp_path, monkeypatch):
    """The working folder of the examples, with a short video `clip.mp4`."""
    monkeypatch.chdir(tmp_path)
    clip = SyntheticClip(7, length=4)
    with VideoSink("clip.mp4", size_hw=(clip.info.height, clip.info.width), fps=30) as sink:
        for frame in clip:
            sink.write(frame.image)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_the_module_give_the_output_they_show(name, folder_with_a_clip):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in EXTRAS:
            raise
        pytest.skip(f"needs {error.name}")
    assert doctest.testmod(module, optionflags=OPTIONS).failed == 0
