"""Which device a tool runs on, and why."""

import ctypes

import torch

from rnndet.errors import DeviceError

# glibc's mallopt(3): above the first size a piece of memory is mapped and given back each time;
# above the second, what is free at the end of the heap is given back.
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1
LARGE = 2**30  # bytes


def choose_device(name: str) -> tuple[torch.device, str]:
    """`auto`, `cpu` or `cuda` -> the device and a short reason. Raises DeviceError.

    On the CPU the process keeps the memory that it frees from then on, see `keep_freed_memory`.
    """
    device, why = _chosen(name)
    if device.type == "cpu":
        keep_freed_memory()
    return device, why


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed, for the next frame or step; False where that is not glibc.

    By default each large tensor is mapped afresh and its pages are cleared one by one as they are
    touched: measured as 9 to 22 % of a frame and 39 % of a training step. The peak is the same.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # TypeError: Windows takes no None
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGE) and mallopt(M_TRIM_THRESHOLD, LARGE))


def _chosen(name: str) -> tuple[torch.device, str]:
    if name == "cpu":
        return torch.device("cpu"), "as asked"
    if torch.cuda.is_available():
        return torch.device("cuda"), torch.cuda.get_device_name()
    built = torch.version.cuda is not None
    why = "this torch sees no CUDA device" if built else "this torch is built without CUDA"
    if name == "cuda":
        raise DeviceError(f"--device cuda: {why}; use --device cpu")
    return torch.device("cpu"), why
