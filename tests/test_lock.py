"""A lock lets one process at a time write to a folder of results."""

import subprocess
import sys
from pathlib import Path

import pytest

from rnndet.errors import OutputError
from rnndet.system.lock import FolderLock, check_writable

ROOT = Path(__file__).resolve().parent.parent
HOLD = """
import sys, time
from pathlib import Path
from rnndet.system.lock import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_folder_that_another_process_holds_is_refused(holder, tmp_path):
    with pytest.raises(OutputError, match="another run"), FolderLock(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / ".lock").exists()


def test_lock_of_a_killed_process_is_released(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert (tmp_path / "out" / ".lock").exists()
    with FolderLock(tmp_path / "out"):
        pass


def test_lock_file_and_an_empty_folder_are_removed(tmp_path):
    with FolderLock(tmp_path / "a"):
        pass
    with FolderLock(tmp_path / "b"):
        (tmp_path / "b" / "file").write_text("")
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == [
        "b", "b/file",
    ]  # fmt: skip


def test_lock_file_removed_by_its_last_holder_is_recreated(tmp_path, monkeypatch):
    import rnndet.system.lock as module

    lock, tries = module._lock, []

    def removed_once(descriptor):
        if not tries:
            (tmp_path / "out" / ".lock").unlink()
        tries.append(descriptor)
        lock(descriptor)

    monkeypatch.setattr(module, "_lock", removed_once)
    with FolderLock(tmp_path / "out"):
        assert len(tries) == 2
        with pytest.raises(OutputError), FolderLock(tmp_path / "out"):
            pass


def test_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"), FolderLock(tmp_path / "file" / "a"):
        pass
    for path in (tmp_path / "file", tmp_path / "file" / "a"):
        with pytest.raises(OutputError, match="cannot be written"):
            check_writable(path)
    check_writable(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
