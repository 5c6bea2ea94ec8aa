"""The wheel is complete and works outside the checkout, read-only and without HOME."""

import importlib.resources
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from conftest import SIZE_HW, write_coco_vid

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("rnndet", "weights", "configs", "pyproject.toml", "setup.py", "README.md", "LICENSE")
BUILD = """
import sys
from setuptools.build_meta import build_wheel
build_wheel(sys.argv[1], {"--build-option": ["--compression=stored"]})  # deflating takes seconds
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """Built from a copy, so that the checkout gets no build folder."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, source / part)
    order = [sys.executable, "-c", BUILD, str(out)]
    done = subprocess.run(order, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder that stands for site-packages, without write permission."""
    folder = tmp_path_factory.mktemp("site-packages")
    wheel.extractall(folder)
    for path in [*folder.rglob("*"), folder]:
        path.chmod(path.stat().st_mode & ~0o222)
    return folder


def run_installed(installed: Path, cwd: Path, *arguments: str) -> str:
    """The output of `python ARGUMENTS` with the wheel's rnndet and without HOME."""
    environment = {key: value for key, value in os.environ.items() if key != "HOME"}
    environment |= {"PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_has_every_module(wheel):
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "rnndet").rglob("*.py")}
    assert modules == {name for name in wheel.namelist() if name.endswith(".py")}


def test_wheel_has_the_weights_the_recipes_and_the_typed_marker(wheel):
    names = set(wheel.namelist())
    shipped = [*ROOT.glob("weights/*.pt"), *ROOT.glob("configs/**/*.toml")]
    shipped.append(ROOT / "weights/aerial.md")
    assert {f"rnndet/{path.relative_to(ROOT).as_posix()}" for path in shipped} <= names
    assert {"rnndet/weights/weights.toml", "rnndet/py.typed"} <= names


def test_wheel_has_the_parts_of_the_page_of_results(wheel):
    folder = importlib.resources.files("rnndet.inference.writers.view")
    parts = {entry.name for entry in folder.iterdir() if not entry.name.endswith((".py", "__"))}
    assert {"page.html", "style.css", "data.js"} <= parts
    for name in parts:
        packed = wheel.read(f"rnndet/inference/writers/view/{name}")
        assert packed == folder.joinpath(name).read_bytes()


def test_wheel_declares_the_rnndet_command(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert wheel.read(name).decode().split("\n")[:2] == [
        "[console_scripts]",
        "rnndet = rnndet.cli.main:main",
    ]


def test_installed_package_runs_as_a_module(installed, tmp_path):
    assert "rnndet infer" in run_installed(installed, tmp_path, "-m", "rnndet", "infer", "--help")


def test_installed_package_runs_its_own_weights_and_recipes(installed, tmp_path):
    """One process: the tools of three, each of which would import torch."""
    write_coco_vid(tmp_path, videos=1)
    train = [
        "train", "aerial_frame", "--device", "cpu", "--quiet", "--out", "run",
        "--set", 'data.train=[{root="."}]', "--set", "data.holdout=[]", "--set", "data.cache=''",
        "--set", "train.init=aerial_frame", "--set", f"model.options.size={list(SIZE_HW)}",
        "--set", "augment.crop=[64, 64]", "--set", "train.steps=1", "--set", "train.batch=1",
    ]  # fmt: skip
    evaluate = ["evaluate", "run/weights.pt", "--data", ".", "--split", "train"]
    program = (
        "import rnndet\n"
        "from rnndet.cli.main import main\n"
        "print('file:', rnndet.__file__)\n"
        f"assert main({train}) == 0\n"
        f"assert main({evaluate}) == 0\n"
        "assert main(['infer', 'v0', '--quiet', '--save', 'html']) == 0\n"
    )
    printed = run_installed(installed, tmp_path, "-c", program).splitlines()
    assert f"file: {installed / 'rnndet' / '__init__.py'}" in printed
    assert "frames scored: 6" in printed
    assert (tmp_path / "out" / "v0" / "detections.jsonl").exists()
    assert "</html>" in (tmp_path / "out" / "v0" / "view.html").read_text("utf-8")
