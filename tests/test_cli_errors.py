"""What every tool does with a mistake of the user and with Ctrl-C."""

from argparse import Namespace

import pytest

from rnndet.cli.errors import run_tool
from rnndet.errors import WeightsError


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
