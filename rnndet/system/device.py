"""Choose the device to run on, and tune the allocator of the C library."""

import ctypes

import torch

from rnndet.errors import DeviceError

# Parameters of glibc's mallopt(3): blocks above the first size are mapped and unmapped each time;
# free memory at the end of the heap above the second size is returned to the system.
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1
LARGE = 2**30  # bytes


def choose_device(name: str) -> tuple[torch.device, str]:
    """Return the device for `auto`, `cpu` or `cuda`, and a short reason. Raises DeviceError.

    On the CPU it also calls `keep_freed_memory`.

    >>> choose_device("cpu")
    (device(type='cpu'), 'as requested')
    """
    device, reason = _choose(name)
    if device.type == "cpu":
        keep_freed_memory()
    return device, reason


def find_device(device: torch.device | str) -> torch.device:
    """Return the device of a name, such as "cpu", "cuda" or "cuda:1"; auto as `choose_device`.

    Raises DeviceError for another name, and for a device that cannot be used.

    >>> find_device("cpu")
    device(type='cpu')
    """
    if device in ("auto", "cuda"):
        return _choose(device)[0]
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise DeviceError(f"`device={device}`: expected auto, cpu, cuda or cuda:1") from None
    try:
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise DeviceError(
            f"`device={device}`: cannot be used: {reason}; use `device=cpu`"
        ) from None
    return found


def keep_freed_memory() -> bool:
    """Make glibc reuse freed memory for the next frame or step; False without glibc.

    By default each large tensor is mapped anew and its pages are cleared at their first access:
    9 to 22 % of the time of a frame and 39 % of a training step. The peak memory is the same.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # TypeError: Windows takes no None
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGE) and mallopt(M_TRIM_THRESHOLD, LARGE))


def _choose(name: str) -> tuple[torch.device, str]:
    if name == "cpu":
        return torch.device("cpu"), "as requested"
    if torch.cuda.is_available():
        return torch.device("cuda"), torch.cuda.get_device_name()
    built = torch.version.cuda is not None
    reason = "this torch sees no CUDA device" if built else "this torch is built without CUDA"
    if name == "cuda":
        raise DeviceError(f"`device=cuda`: {reason}; use `device=cpu`")
    return torch.device("cpu"), reason
