"""The tools end to end: files in, files out; errors are one line and an exit code."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import TINY_OPTIONS, error_line, tiny_config, tiny_model, write_coco_vid
from rnndet.cli.main import TOOLS, main
from rnndet.data.formats import read_set
from rnndet.errors import RnndetError
from rnndet.models import zoo as published
from rnndet.models.checkpoint import load_model, model_content, save_checkpoint

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "tools"
CONFIG = f"""
[model.options]
size = {TINY_OPTIONS["size"]}
backbone = "{TINY_OPTIONS["backbone"]}"
strides = {TINY_OPTIONS["strides"]}
channels = 32
head_convs = 1
extra_levels = 0
resize_in_training = false
[model.temporal]
levels = ["0"]
hidden = 4
[[data.train]]
root = "ROOT"
[clip]
length = 2
[augment]
crop = [64, 64]
[train]
steps = 1
batch = 1
"""


def run(tool: str, *args: object) -> int:
    spec = importlib.util.spec_from_file_location(tool, SCRIPTS / f"{tool}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([str(arg) for arg in args])


@pytest.fixture
def config(coco_vid_root, tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(CONFIG.replace("ROOT", str(coco_vid_root)))
    return path


def test_train_makes_weights_that_load(config, tmp_path):
    assert run("train", config, "--out", tmp_path / "run", "--device", "cpu", "--quiet") == 0
    assert load_model(tmp_path / "run" / "weights.pt").classes == ("square", "bar")


def test_train_names_a_mistyped_setting(config, tmp_path, capsys):
    assert run("train", config, "--out", tmp_path / "run", "--set", "train.step=3") == 2
    assert "train.step is unknown; did you mean 'steps'" in error_line(capsys)
    assert not (tmp_path / "run").exists()


def test_train_names_missing_data(config, tmp_path, capsys):
    (tmp_path / "annotations" / "train.json").unlink()
    assert run("train", config, "--out", tmp_path / "run", "--device", "cpu") == 3
    assert "no such annotation file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("train.init=runs/none.pt", "train.init: weights 'runs/none.pt': neither a file"),
        ("train.teacher=none.pt", "train.teacher: weights 'none.pt': neither a file"),
        ('data.train=[{root="none"}]', "none: no such file or folder; check the path"),
    ],
)
def test_train_says_where_it_looked_for_a_missing_path(
    config, tmp_path, monkeypatch, capsys, change, expected
):
    monkeypatch.chdir(tmp_path)
    assert run("train", config, "--out", "run", "--device", "cpu", "--set", change) in (3, 5)
    line = capsys.readouterr().err.splitlines()[-1]
    assert expected in line
    assert line.endswith(f"; looked in {tmp_path}, and in the folder of the configuration")


def test_train_refuses_a_folder_in_use(config, tmp_path, capsys):
    assert run("train", config, "--out", tmp_path / "run", "--device", "cpu", "--quiet") == 0
    assert run("train", config, "--out", tmp_path / "run", "--device", "cpu", "--quiet") == 4
    assert "--resume" in capsys.readouterr().err


@pytest.mark.parametrize(("source", "expected"), [(["clip.mp4"], "everyday"), ([], "aerial")])
def test_benchmark_measures_the_weights_that_infer_runs(monkeypatch, source, expected):
    measured = []

    def stop(args):
        measured.extend(args.models)
        raise RnndetError("enough")

    monkeypatch.setattr("rnndet.cli.benchmark.contenders", stop)
    assert main(["benchmark", "infer", *source]) == 2
    assert measured == [expected]


def test_cache_frames_decodes_once(tmp_path, capsys):
    write_coco_vid(tmp_path, as_files=True)
    assert run("cache_frames", tmp_path, "--cache", tmp_path / "cache") == 0
    assert "12 frames decoded" in capsys.readouterr().out
    assert run("cache_frames", tmp_path, "--cache", tmp_path / "cache") == 0
    assert "0 frames decoded" in capsys.readouterr().out


def test_rendered_clips_are_a_readable_set(tmp_path):
    assert run("render_clips", tmp_path, "--clips", 1, "--length", 2) == 0
    found = read_set("coco_vid", tmp_path, "train")
    assert found.classes == ("airplane", "bird", "drone", "helicopter")
    assert [len(video.frames) for video in found.videos] == [2]
    assert all(record.image.is_file() for record in found.videos[0].frames)


@pytest.mark.parametrize("option", ["--clips", "--length"])
@pytest.mark.parametrize("count", ["0", "-1"])
def test_rendered_set_is_never_empty(tmp_path, capsys, option, count):
    with pytest.raises(SystemExit, match="2"):
        run("render_clips", tmp_path, option, count)
    assert "is not an integer from 1" in capsys.readouterr().err


@pytest.mark.parametrize("split", ["../../x", "a/b", ""])
def test_rendered_split_stays_in_its_folder(tmp_path, capsys, split):
    assert run("render_clips", tmp_path / "set", "--split", split) == 2
    assert "expected a name, not a path" in error_line(capsys)
    assert not (tmp_path / "set").exists()


def test_publish_writes_the_entry_of_the_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(published, "WEIGHTS_DIR", tmp_path)
    save_checkpoint(tmp_path / "run.pt", model_content(tiny_model(), tiny_config(), step=1))
    assert run("publish_weights", tmp_path / "run.pt", "tiny") == 0
    assert published.published_weights()["tiny"]["classes"] == ["square", "bar"]


def test_publish_refuses_to_write_into_an_installed_package(monkeypatch, capsys):
    monkeypatch.setattr(published, "WEIGHTS_DIR", ROOT / "rnndet" / "weights")
    assert run("publish_weights", "run.pt", "tiny") == 2
    assert "checkout" in error_line(capsys)


def test_publish_refuses_what_is_no_checkpoint(tmp_path, capsys):
    (tmp_path / "run.pt").write_text("text")
    assert run("publish_weights", tmp_path / "run.pt", "tiny") == 5
    assert "run.pt" in error_line(capsys)


def test_evaluate_writes_figures_of_a_trained_run(config, coco_vid_root, tmp_path):
    assert run("train", config, "--out", tmp_path / "run", "--device", "cpu", "--quiet") == 0
    weights, out = tmp_path / "run" / "weights.pt", tmp_path / "out"
    options = ["--data", coco_vid_root, "--split", "train", "--groups", "1", "--device", "cpu"]
    assert run("evaluate", weights, *options, "--out", out) == 0
    found = json.loads((out / "report.json").read_text())
    assert found["protocol"]["frames scored"] == 6
    assert 0 <= found["results"]["all frames"]["AP50"] <= 1


def test_help_of_every_tool_imports_nothing_heavy():
    """In one process; imports of an earlier tool count for the later ones too."""
    check = (
        "import sys\n"
        "from rnndet.cli.main import TOOLS, main\n"
        "heavy = {'torch', 'torchvision', 'cv2', 'numpy', 'scipy', 'onnxruntime', 'matplotlib'}\n"
        "assert main(['--help']) == 0 and not heavy & set(sys.modules)\n"
        "for tool in TOOLS:\n"
        "    try:\n"
        "        main([tool, '--help'])\n"
        "    except SystemExit as stop:\n"
        "        assert stop.code == 0\n"
        "    found = heavy & set(sys.modules)\n"
        "    assert not found, f'{tool} imports {found}'\n"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert all(f"usage: rnndet {tool} " in done.stdout for tool in TOOLS)


def test_every_module_of_the_command_line_is_a_tool_and_a_script():
    modules = {path.stem for path in (ROOT / "rnndet" / "cli").glob("*.py")}
    modules -= {"__init__", "arguments", "errors", "main"}
    scripts = {path.stem for path in SCRIPTS.glob("*.py")}
    assert set(TOOLS) == modules == scripts


def test_command_lists_the_tools(capsys):
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.split()[:1] == [tool] for line in lines) for tool in TOOLS)


def test_command_without_a_tool_is_a_usage_error(capsys):
    assert main([]) == 2
    assert capsys.readouterr().out == ""


def test_command_names_the_nearest_tool(capsys):
    assert main(["infr"]) == 2
    assert "did you mean 'infer'" in error_line(capsys)


def test_train_takes_the_name_of_a_shipped_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "aerial_fast_frame"]) == 3  # the recipe is found, its data is not
    assert "data/aerial" in capsys.readouterr().err


def test_train_prefers_a_file_to_a_recipe_of_that_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "aerial").write_text("[nothing]")
    assert main(["train", "aerial"]) == 2
    assert "nothing is unknown" in error_line(capsys)


def test_train_names_the_nearest_recipe(capsys):
    assert main(["train", "aerial_fats"]) == 2
    assert "did you mean 'aerial_fast'" in error_line(capsys)


def test_training_starts_from_the_name_of_shipped_weights(coco_vid_root, tmp_path, caplog):
    changes = {
        "data.train": f'[{{root="{coco_vid_root}"}}]', "data.holdout": "[]", "data.cache": "''",
        "train.init": "aerial_frame", "model.options.size": "[64, 96]", "augment.crop": "[64, 64]",
        "train.steps": "1", "train.batch": "1",
    }  # fmt: skip
    changes = [f"--set={key}={value}" for key, value in changes.items()]
    out = ["--out", tmp_path / "run", "--device", "cpu", "--quiet"]
    with caplog.at_level("INFO"):
        assert run("train", "aerial_frame", *out, *changes) == 0
    assert "aerial_frame.pt: 138 tensors loaded, 0 newly" in caplog.text


def test_help_into_a_closed_pipe_is_no_traceback():
    order = ["bash", "-c", '"$0" -m rnndet --help | true', sys.executable]
    done = subprocess.run(order, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
