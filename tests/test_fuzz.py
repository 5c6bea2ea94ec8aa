"""Damaged files give RnndetError or are read: no other exception, no crash, no hang.

RNNDET_FUZZ_SECONDS=60 for the long run. A case that fails is repeated by its name:
PYTHONPATH=. python tests/fuzz_readers.py FOLDER 1 video-17
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fuzz_readers
import pytest
from forked_process import ForkedProcess, with_files

SECONDS = float(os.environ.get("RNNDET_FUZZ_SECONDS", "3"))
TESTS = Path(__file__).resolve().parent
SCRIPT = TESTS / "fuzz_readers.py"


def run(*arguments: object) -> subprocess.CompletedProcess:
    """Python, with this checkout first on its path."""
    environment = os.environ | {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=SECONDS + 120,
    )  # fmt: skip


def test_damaged_files_are_read_or_refused(tmp_path):
    done = run(SCRIPT, tmp_path, SECONDS)
    case = tmp_path / "case"
    name = case.read_text() if case.exists() else "none"
    assert done.returncode == 0, f"{name}: exit {done.returncode}\n{done.stderr[-3000:]}"
    counts = json.loads(done.stdout)
    print(counts)
    assert set(counts) == {"video", "image", "config", "checkpoint", "content"}
    for kind, seen in counts.items():
        assert sum(seen.values()) >= 2, kind
    assert sum(seen.get("refused", 0) for seen in counts.values()) > 3


def crash(path):
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(path):
    time.sleep(9)


def feed(reader, folder):
    """Damaged files to this reader alone."""
    fuzz_readers.CASE_LIMIT = 0.5
    fuzz_readers.make_seeds = lambda _: {"video": [(".mp4", b"abc")]}
    fuzz_readers.READERS = {"video": reader}
    fuzz_readers.main(folder, 1)


@pytest.mark.parametrize(("fault", "sign"), [(crash, "Segmentation fault"), (hang, "Timeout")])
def test_a_reader_that_crashes_or_hangs_would_be_noticed(tmp_path, fault, sign):
    errors = tmp_path / "errors"
    process = ForkedProcess(with_files, feed, fault, tmp_path, errors=errors)
    assert process.wait() != 0
    assert sign in errors.read_text()
    assert (tmp_path / "case").read_text() == "video-0.mp4"
