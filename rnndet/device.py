"""Which device a tool runs on, and why."""

import torch

from rnndet.errors import DeviceError


def choose_device(name: str) -> tuple[torch.device, str]:
    """`auto`, `cpu` or `cuda` -> the device and a short reason. Raises DeviceError."""
    if name == "cpu":
        return torch.device("cpu"), "as asked"
    if torch.cuda.is_available():
        return torch.device("cuda"), torch.cuda.get_device_name()
    built = torch.version.cuda is not None
    why = "this torch sees no CUDA device" if built else "this torch is built without CUDA"
    if name == "cuda":
        raise DeviceError(f"--device cuda: {why}; use --device cpu")
    return torch.device("cpu"), why
