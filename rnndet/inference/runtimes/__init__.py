"""Run a trained model by torch, or an exported graph without torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rnndet.errors import DeviceError, WeightsError
from rnndet.inference.runtimes.base import Runtime
from rnndet.models.zoo import file_sha256, find_weights
from rnndet.registry import lookup

if TYPE_CHECKING:
    from rnndet.inference.runtimes.onnx_runtime import OnnxRuntime
    from rnndet.models.video_detector import VideoDetector

RUNTIMES = {
    "torch": "the model itself, on a CPU or a GPU",
    "onnx": "the graph of rnndet export on onnxruntime, on a CPU",
    "auto": "onnx if it is installed, the graph exists and there is no GPU; torch otherwise",
}
NVIDIA = Path("/proc/driver/nvidia")  # exists if the driver is loaded (Linux)


def as_runtime(model: VideoDetector | Runtime) -> Runtime:
    """Wrap a `VideoDetector` in a `TorchRuntime`; return a runtime unchanged."""
    if isinstance(model, Runtime):
        return model
    from rnndet.inference.runtimes.torch_runtime import TorchRuntime

    return TorchRuntime(model)


def open_runtime(
    weights: str | Path,
    *,
    kind: str = "torch",
    device: str = "auto",
    threads: int | None = None,
    half: bool = False,
    compiled: bool = False,
) -> tuple[Runtime, str]:
    """Load weights for inference; return the runtime, and why this one was chosen.

    weights: a name in weights/weights.toml, a checkpoint or an exported graph. kind: of `RUNTIMES`;
    a graph given by its file name (.onnx) is run by onnx for any `kind`. threads: of the CPU,
    None for the default. half, compiled: see `TorchRuntime`; half on a GPU only, since CPUs compute
    it far slower. Raises RnndetError.

    >>> runtime, why = open_runtime("aerial", device="cpu")  # doctest: +SKIP
    >>> runtime.classes  # doctest: +SKIP
    ('airplane', 'bird', 'drone', 'helicopter')
    """
    lookup(kind, RUNTIMES, what="runtime")
    path, _ = find_weights(weights)
    if (half or compiled) and (kind == "onnx" or path.suffix == ".onnx"):
        name = "half" if half else "compiled"
        raise DeviceError(f"`{name}=True`: needs `kind=torch` and a checkpoint, not a graph")
    if path.suffix == ".onnx":
        return _onnx(path, None, device=device, threads=threads)
    if kind == "onnx":
        return _onnx(path.with_suffix(".onnx"), path, device=device, threads=threads)
    remark = ""
    if kind == "auto":
        torch_option = "half precision" if half else "compiled" if compiled else None
        why_not = torch_option or _why_not_onnx(path, device)
        if why_not is None:
            return _onnx(path.with_suffix(".onnx"), path, device=device, threads=threads)
        remark = f"; not onnx: {why_not}"
    runtime, why = _torch(weights, device=device, threads=threads, half=half, compiled=compiled)
    return runtime, why + remark


def _torch(
    weights: str | Path, *, device: str, threads: int | None, half: bool, compiled: bool
) -> tuple[Runtime, str]:
    import torch

    from rnndet.inference.runtimes.torch_runtime import TorchRuntime
    from rnndet.models.checkpoint import load_model
    from rnndet.system.device import choose_device

    if threads is not None:
        torch.set_num_threads(threads)
    chosen, why = choose_device(device)
    if half and chosen.type != "cuda":
        raise DeviceError("`half=True`: needs a GPU; a CPU computes half precision far slower")
    model = load_model(weights, device=chosen)
    return TorchRuntime(model, half=half, compiled=compiled), why


def _onnx(
    path: Path, weights: Path | None, *, device: str, threads: int | None
) -> tuple[OnnxRuntime, str]:
    from rnndet.inference.runtimes.onnx_runtime import OnnxRuntime

    if device == "cuda":
        raise DeviceError("`device=cuda`: exported graphs run on a CPU; use `kind=torch`")
    if weights is not None and not path.is_file():
        raise WeightsError(f"{path}: no such file; make it: rnndet export {weights}")
    runtime = OnnxRuntime(path, threads=threads)
    if weights is not None and runtime.spec.weights_file != file_sha256(weights):
        raise WeightsError(
            f"{path}: exported from other weights than {weights.name} beside it; remove it and "
            f"export again: rnndet export {weights}"
        )
    return runtime, f"onnxruntime {runtime.version}, {path.name}"


def _why_not_onnx(weights: Path, device: str) -> str | None:
    if device == "cuda" or (device == "auto" and NVIDIA.exists()):
        return "it runs on a CPU only"
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed"
    if not weights.with_suffix(".onnx").is_file():
        return f"no {weights.stem}.onnx; create it with rnndet export"
    return None
