"""Choice of the device, and reuse of freed memory."""

import platform

import pytest
import torch
from forked_process import ForkedProcess, with_files

from rnndet.errors import DeviceError
from rnndet.system.device import choose_device, keep_freed_memory


def print_pages(call, *arguments):
    """How many pages tensors of 64 MiB need from the system once the heap has grown.

    The first few of them may each find the one before split by something small.
    """
    import resource  # which Windows does not have

    assert call(*arguments)
    for turn in range(40):
        if turn == 30:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(2**24).add_(1)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
@pytest.mark.parametrize("call", [(keep_freed_memory,), (choose_device, "cpu")])
def test_freed_memory_is_kept(call, tmp_path):
    output = tmp_path / "pages"
    assert ForkedProcess(with_files, print_pages, *call, output=output).wait() == 0
    assert int(output.read_text()) < 1000  # of 163,840


def test_requested_cpu_is_used():
    assert choose_device("cpu")[0].type == "cpu"


def test_missing_cuda_is_an_error(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(DeviceError, match="`device=cuda`: this torch"):
        choose_device("cuda")
