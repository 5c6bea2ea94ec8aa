"""Decoding in a child process gives the same frames, and an error where the child fails."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rnndet.errors import InputError
from rnndet.video.image import write_image
from rnndet.video.sink import VideoSink
from rnndet.video.sources.excerpt import Excerpt
from rnndet.video.sources.isolated import IsolatedSource
from rnndet.video.sources.live import LiveOptions
from rnndet.video.sources.open import open_source


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Long enough that its frames do not fit into a pipe."""
    path = tmp_path_factory.mktemp("clips") / "long.mp4"
    with VideoSink(path, size_hw=(48, 64), fps=30000 / 1001) as sink:
        for number in range(200):
            sink.write(np.full((48, 64, 3), number, np.uint8))
    return path


@pytest.mark.parametrize("python_path", [None, "", os.pathsep, f"nowhere{os.pathsep}"])
def test_frames_are_those_of_the_source_whatever_the_working_folder_holds(
    clip, tmp_path, monkeypatch, python_path
):
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(tmp_path)
    if python_path is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:  # an empty entry stands for the working folder
        monkeypatch.setenv("PYTHONPATH", python_path)
    with open_source(clip) as plain, IsolatedSource(str(clip)) as isolated:
        assert isolated.info == plain.info
        pairs = list(zip(isolated, plain, strict=True))
        assert isolated.counts == plain.counts
        pid = isolated.pid
    assert len(pairs) == 200
    for frame, expected in pairs:
        assert (frame.index, frame.time) == (expected.index, expected.time)
        assert np.array_equal(frame.image, expected.image)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_second_pass_restarts_and_an_excerpt_works(clip):
    with Excerpt(IsolatedSource(str(clip)), stride=3, end=0.5) as source:
        passes = [[frame.index for frame in source] for _ in range(2)]
    assert passes[0] == passes[1] == [0, 3, 6, 9, 12]


def test_errors_of_the_source_are_the_same(tmp_path):
    messages = []
    for kind in (open_source, IsolatedSource):
        with pytest.raises(InputError) as caught:
            kind(str(tmp_path / "none.mp4"))
        messages.append((str(caught.value), caught.value.exit_code))
    assert messages[0] == messages[1]


def test_error_in_the_middle_is_the_same(tmp_path):
    for number in range(3):
        write_image(tmp_path / f"{number}.png", np.zeros((8, 8 + number // 2, 3), np.uint8))
    with IsolatedSource(str(tmp_path)) as source:
        frames = iter(source)
        assert [next(frames).index for _ in range(2)] == [0, 1]
        with pytest.raises(InputError, match=r"2\.png: the image is 9x8"):
            next(frames)


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_crash_of_the_decoder_is_an_input_error(clip):
    with IsolatedSource(str(clip)) as source:
        frames = iter(source)
        next(frames)
        os.kill(source.pid, signal.SIGSEGV)
        with pytest.raises(InputError, match=r"long\.mp4: the decoder crashed \(SIGSEGV\)"):
            list(frames)
        assert source.pid is None


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_hang_of_the_decoder_is_an_input_error(clip):
    with IsolatedSource(str(clip), limit=20) as source:
        frames = iter(source)
        next(frames)
        pid = source.pid
        os.kill(pid, signal.SIGSTOP)
        source._limit = 0.3  # the start of the process takes longer
        with pytest.raises(InputError, match=r"sent nothing for 0\.3 s and was stopped"):
            list(frames)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_child_ends_with_its_parent(clip, tmp_path):
    code = (
        "import sys, time; from rnndet.video.sources.isolated import IsolatedSource\n"
        "source = IsolatedSource(sys.argv[1]); print(source.pid, flush=True); time.sleep(60)"
    )
    root = Path(__file__).resolve().parent.parent
    parent = subprocess.Popen(
        [sys.executable, "-c", code, clip], stdout=subprocess.PIPE, text=True, cwd=root
    )
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 20
    while _runs(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_gaps_and_notes_come_through(tmp_path):
    for number in (1, 2, 4, 5):
        write_image(tmp_path / f"f{number}.png", np.full((6, 8, 3), number, np.uint8))
    with IsolatedSource(str(tmp_path / "f%d.png")) as source:
        assert [(frame.index, frame.gap) for frame in source] == [(0, 0), (1, 0), (3, 1), (4, 0)]
        assert source.counts.missing == 1
        assert "1 missing before f4.png" in source.notes[0]


def test_limits_and_permissions_reach_the_child(clip):
    with pytest.raises(InputError, match="raise `max_pixels`"):
        IsolatedSource(str(clip), max_pixels=10)
    with pytest.raises(InputError, match=r"`LiveOptions\.allow_network`"):
        IsolatedSource("http://127.0.0.1:9/a.mp4")
    with pytest.raises(InputError, match="no video could be opened"):
        IsolatedSource("http://127.0.0.1:9/a.mp4", live=LiveOptions(allow_network=True))


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="reads /proc")
def test_source_is_not_on_the_command_line_of_the_child(clip):
    with IsolatedSource(str(clip)) as source:
        command = Path(f"/proc/{source.pid}/cmdline").read_bytes()
    assert clip.name.encode() not in command
