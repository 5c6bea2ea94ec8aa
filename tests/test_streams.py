"""Standard streams of the tools: closed pipes, full disks, terminals that are not UTF-8."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from rnndet.cli.main import TOOLS

ROOT = Path(__file__).resolve().parent.parent
NAME = os.fsdecode(b"caf\xe9") + "-größe"
WITHOUT_UTF8 = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "cp1252"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]
LIMIT = 120


def shell(command: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """Run a command of bash, in which "$@" is Python with the arguments."""
    order = ["bash", "-c", f"set -o pipefail; {command}", "bash", sys.executable, *arguments]
    return subprocess.run(
        list(map(os.fsencode, map(str, order))), cwd=ROOT, capture_output=True, timeout=LIMIT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, check=False,
    )  # fmt: skip


def python(code: str) -> list[str]:
    return ["-c", "from rnndet.system.streams import standard_streams\nimport sys\n" + code]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run folder for rnndet plot, a tool that prints and writes files and needs no torch."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("runs") / NAME
    folder.mkdir()
    steps = [{"step": k, "lr": 0.1, "frames_per_s": 9.0, "loss": 2.0, "norm": 1.0} for k in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    return folder


@pytest.mark.parametrize("tool", TOOLS)
def test_help_of_a_tool_into_a_closed_pipe_is_silent(tool):
    done = shell('"$@" | true', ROOT / "tools" / f"{tool}.py", "--help")
    assert (done.returncode, done.stderr) == (0, b"")


def test_list_of_tools_into_a_closed_pipe_is_silent():
    done = shell('"$@" | true', "-m", "rnndet", "--help")
    assert (done.returncode, done.stderr) == (0, b"")


def test_tool_whose_reader_ends_early_finishes_its_work(trained, tmp_path):
    done = shell('"$@" | true', "-m", "rnndet", "plot", trained, "--out", tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_doctor_into_a_closed_pipe_is_silent():
    done = shell('"$@" | true', "-m", "rnndet", "doctor")
    assert done.returncode in (0, 1)  # 1: it found a problem, which it reports on stdout
    assert done.stderr == b""


def test_errors_into_a_closed_pipe_keep_their_exit_code(tmp_path):
    done = shell('"$@" 2>&1 | true', "-m", "rnndet", "plot", tmp_path / "none")
    assert done.returncode == 3


def test_output_of_any_length_into_a_closed_pipe_is_discarded():
    code = "with standard_streams():\n  [print('x' * 1000) for _ in range(1000)]\nsys.exit(5)"
    done = shell('"$@" | head -1', *python(code))
    assert (done.returncode, done.stderr) == (5, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_under_the_output_is_one_line_and_code_4():
    done = shell('"$@" > /dev/full', "-m", "rnndet", "train", "--help")
    assert done.returncode == 4
    expected = b"rnndet: standard output: cannot be written (No space left on device)\n"
    assert done.stderr == expected


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_error(closed):
    code = "with standard_streams():\n  print(1); print(2, file=sys.stderr); sys.stdout.flush()"
    assert shell(f'"$@" {closed}', *python(code)).returncode == 0


def test_unbuffered_streams_print_a_line_at_once():
    code = "import os\nwith standard_streams():\n  print(1); print(2, file=sys.stderr); os._exit(0)"
    done = shell('"$@"', "-u", *python(code))
    assert (done.stdout, done.stderr) == (b"1\n", b"2\n")


@pytest.mark.parametrize("environment", WITHOUT_UTF8, ids=["ascii", "cp1252", "C"])
def test_names_print_on_a_terminal_without_utf8(environment):
    code = "with standard_streams():\n  print(sys.argv[1]); print(sys.argv[1], file=sys.stderr)"
    done = shell('"$@"', *python(code), NAME + "\u202e", **environment)
    assert done.returncode == 0, done.stderr
    assert rb"caf\udce9-gr" in done.stdout
    assert rb"caf\udce9-gr" in done.stderr


def test_tool_names_its_files_on_a_terminal_without_utf8(trained, tmp_path):
    out = tmp_path / NAME
    order = ["-m", "rnndet", "plot", trained, "--out", out]
    done = shell('"$@"', *order, **WITHOUT_UTF8[-1])
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"caf\udce9-gr" in done.stdout
    assert (out / "loss.png").is_file()


def test_streams_print_as_before_what_they_can():
    done = shell('"$@"', *python("with standard_streams():\n  print('größe', file=sys.stderr)"))
    assert done.stderr.decode() == "größe\n"


def test_streams_of_a_notebook_stay(capsys):
    from rnndet.system.streams import standard_streams

    before = sys.stdout
    with standard_streams():
        assert sys.stdout is before
        print("shown")
    assert capsys.readouterr().out == "shown\n"


def test_opencv_prints_nothing_beside_the_error(tmp_path):
    cv2.imwrite(str(tmp_path / "a.tiff"), np.zeros((8, 10), np.float32))
    program = f"""
from rnndet.cli.main import main
main(["--version"])
from rnndet.errors import InputError
from rnndet.video.image import read_image
try:
    read_image({str(tmp_path / "a.tiff")!r})
except InputError:
    print("refused")
"""
    environment = {key: text for key, text in os.environ.items() if key != "OPENCV_LOG_LEVEL"}
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True,
        env=environment,
    )  # fmt: skip
    assert shown.stdout.endswith("refused\n")
    assert shown.stderr == ""
