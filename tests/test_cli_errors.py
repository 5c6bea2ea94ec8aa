"""What every tool does with a mistake of the user and with Ctrl-C."""

import ast
import re
from argparse import Namespace
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import rnndet
from conftest import error_line
from rnndet.cli.errors import FLAGS, run_tool
from rnndet.errors import InputError, OutputError, WeightsError


def fail(args):
    raise WeightsError("aerial.pt: damaged")


def interrupt(args):
    raise KeyboardInterrupt


def test_error_is_one_line_with_its_exit_code(capsys):
    assert run_tool("export", fail, Namespace(debug=False)) == 5
    assert capsys.readouterr() == ("", "export: aerial.pt: damaged\n")


def test_error_is_one_line_in_a_tool_without_debug(capsys):
    assert run_tool("publish_weights", fail, Namespace()) == 5
    assert capsys.readouterr().err == "publish_weights: aerial.pt: damaged\n"


def test_debug_raises_the_error():
    with pytest.raises(WeightsError):
        run_tool("export", fail, Namespace(debug=True))


def test_ctrl_c_is_one_line_and_130(capsys):
    assert run_tool("train", interrupt, Namespace(), interrupted="use --resume") == 130
    assert capsys.readouterr().err == "train: use --resume\n"


LIBRARY = Path(rnndet.__file__).parent
# Flags of other programs, style sheets, and whole commands in pages.
NO_FLAGS_OF_OURS = {
    "evaluation/report/charts.py",
    "evaluation/report/video_page.py",
    "inference/writers/html.py",
    "system/environment.py",
}


def texts(tree: ast.AST) -> Iterator[str]:
    """The text constants of a module without its docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield node.value


def test_library_names_no_flag_of_the_command_line():
    found = []
    for path in sorted(LIBRARY.rglob("*.py")):
        name = path.relative_to(LIBRARY).as_posix()
        if name.startswith("cli/") or name in NO_FLAGS_OF_OURS:
            continue
        for text in texts(ast.parse(path.read_text(encoding="utf-8"))):
            flags = re.findall(r"(?<![\w-])--[a-z][\w-]*", text)
            found += [f"{name}: {flag}" for flag in flags if flag not in ("--help", "--array")]
    assert found == []


def test_every_parameter_that_a_message_names_has_a_flag():
    named = set()
    for path in LIBRARY.rglob("*.py"):
        for text in texts(ast.parse(path.read_text(encoding="utf-8"))):
            named |= {name for name, _ in re.findall(r"`([\w.]+)(=[^`]*)?`", text)}
    assert named - {"annotations"} == FLAGS.keys()  # the name of a folder


def test_every_flag_of_a_parameter_exists():
    helps = "".join(path.read_text(encoding="utf-8") for path in (LIBRARY / "cli").glob("*.py"))
    assert [flag for flag in FLAGS.values() if f'"{flag}"' not in helps] == []


def test_message_names_the_parameter_and_the_command_line_the_flag(tmp_path, capsys):
    def fail(args):
        raise OutputError("out: use `overwrite=True` or another `out_dir`; `x.mp4` stays")

    assert run_tool("demo", fail, Namespace()) == 4
    assert error_line(capsys) == "demo: out: use --overwrite or another --out; `x.mp4` stays"


def test_error_cannot_control_the_terminal(capsys):
    def fail(args):
        raise InputError("\x1b[2J\u202ea.mp4: no such file\n  second line")

    assert run_tool("infer", fail, Namespace()) == 3
    expected = "infer: \\x1b[2J\\u202ea.mp4: no such file\n  second line\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    "command",
    [
        "benchmark eval --out", "benchmark curve --data x --models x --out",
        "benchmark curve --data x --models x --out x --cache", "cache_frames x --cache",
        "compare a b --out", "dataset stats x --out", "dataset show x --video x --out",
        "dataset convert x --to mot", "demo --out", "evaluate x --out", "evaluate x --cache",
        "export x --out", "fit_track_classes x --data x --out",
        "fit_track_classes x --data x --out x --cache", "infer --out", "infer --save-state",
        "infer --load-state", "infer --graph-cache", "plot x --out", "plot", "recall --out",
        "render_clips", "train x --out",
    ],
)  # fmt: skip
def test_empty_path_is_refused_in_one_line(tmp_path, monkeypatch, capsys, command):
    """It would be the current folder."""
    monkeypatch.chdir(tmp_path)
    tool, *arguments = command.split()
    with pytest.raises(SystemExit) as stop:
        import_module(f"rnndet.cli.{tool}").main([*arguments, ""])
    assert stop.value.code == 2
    line = error_line(capsys)
    flag = arguments[-1] if arguments and arguments[-1].startswith("--") else ""
    assert line.startswith(f"{tool}: argument {flag}") and "the path is empty; " in line
    assert list(tmp_path.iterdir()) == []
