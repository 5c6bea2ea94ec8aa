"""Run a trained model by torch, or an exported graph without torch."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rnndet.errors import DeviceError, RnndetError, WeightsError
from rnndet.inference.runtimes.base import Runtime
from rnndet.models.zoo import file_sha256, find_weights
from rnndet.registry import lookup

if TYPE_CHECKING:
    from rnndet.inference.runtimes.graph import GraphRuntime
    from rnndet.models.video_detector import VideoDetector

RUNTIMES = {
    "torch": "the model itself, on a CPU or a GPU",
    "onnx": "the graph of rnndet export on onnxruntime, on a CPU",
    "openvino": "the same graph on OpenVINO, on a CPU",
    "auto": "the first of openvino and onnx that is installed, if the graph exists and there is no "
    "GPU; torch otherwise",
}
GRAPHS = {"openvino": "openvino", "onnx": "onnxruntime"}  # package of each, the fastest first
NVIDIA = Path("/proc/driver/nvidia")  # exists if the driver is loaded (Linux)


def as_runtime(model: VideoDetector | Runtime) -> Runtime:
    """Wrap a `VideoDetector` in a `TorchRuntime`; return a runtime unchanged.

    Raises RnndetError for anything else.
    """
    if isinstance(model, Runtime):
        return model
    if isinstance(model, str | bytes | os.PathLike):
        raise RnndetError(f"model = {model!r}; expected a model: rnndet.load_model({model!r})")
    if not (hasattr(model, "classes") and hasattr(model, "detector")):
        raise RnndetError(
            f"model = {type(model).__name__} {model!r:.60}; expected what rnndet.load_model returns"
        )
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
    graph_cache: str | Path | None = None,
) -> tuple[Runtime, str]:
    """Load weights for inference; return the runtime, and why this one was chosen.

    weights: a name in weights/weights.toml, a checkpoint or an exported graph (.onnx), which torch
    cannot run: for it "torch" is "auto". kind: of `RUNTIMES`. threads: of the CPU, None for the
    default. half: half precision, by torch on a GPU, by OpenVINO on a CPU that has bfloat16 in
    hardware; other CPUs compute it far slower. compiled: see `TorchRuntime`.
    graph_cache: a folder in which OpenVINO keeps compiled graphs, see `OpenVinoRuntime`. Raises
    RnndetError.

    >>> runtime, why = open_runtime("aerial", device="cpu")  # doctest: +SKIP
    >>> runtime.classes  # doctest: +SKIP
    ('airplane', 'bird', 'drone', 'helicopter')
    """
    lookup(kind, RUNTIMES, what="runtime")
    path, _ = find_weights(weights)
    is_graph = path.suffix == ".onnx"
    if compiled and (kind in GRAPHS or is_graph):
        raise DeviceError("`compiled=True`: needs `kind=torch` and a checkpoint, not a graph")
    if graph_cache is not None and kind in ("onnx", "torch") and not (is_graph and kind == "torch"):
        raise DeviceError("`graph_cache`: only OpenVINO keeps compiled graphs; use `kind=openvino`")
    if half and (kind == "onnx" or (is_graph and kind != "openvino")):
        raise DeviceError("`half=True`: needs `kind=openvino`, or torch and a GPU")
    if is_graph:
        kind = kind if kind in GRAPHS else _installed() or "onnx"
        return _graph(
            kind, path, None, device=device, threads=threads, half=half, cache=graph_cache
        )
    graph = path.with_suffix(".onnx")
    if kind in GRAPHS:
        return _graph(
            kind, graph, path, device=device, threads=threads, half=half, cache=graph_cache
        )
    remark = ""
    if kind == "auto":
        torch_option = "half precision" if half else "compiled" if compiled else None
        why_not = torch_option or _why_no_graph(path, device)
        if why_not is None:
            chosen = _installed()
            assert chosen is not None, "a reason says if none is installed"
            return _graph(
                chosen, graph, path, device=device, threads=threads, half=False, cache=graph_cache
            )
        remark = f"; not a graph: {why_not}"
    elif kind != "torch":
        raise RnndetError(f"runtime {kind}: open_runtime does not know how to open it")
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
        raise DeviceError(
            "`half=True`: needs a GPU, or `kind=openvino` and a CPU with bfloat16; by torch a CPU "
            "computes half precision far slower"
        )
    model = load_model(weights, device=chosen)
    return TorchRuntime(model, half=half, compiled=compiled), why


def _graph(
    kind: str,
    path: Path,
    weights: Path | None,
    *,
    device: str,
    threads: int | None,
    half: bool,
    cache: str | Path | None,
) -> tuple[GraphRuntime, str]:
    """Open the graph at `path`, of the checkpoint `weights` if it is given."""
    if device == "cuda":
        raise DeviceError("`device=cuda`: exported graphs run on a CPU; use `kind=torch`")
    if weights is not None and not path.is_file():
        raise WeightsError(f"{path}: no such file; make it: rnndet export {weights}")
    runtime: GraphRuntime
    if kind == "openvino":
        from rnndet.inference.runtimes.openvino_runtime import OpenVinoRuntime

        runtime = OpenVinoRuntime(path, threads=threads, half=half, cache=cache)
    else:
        from rnndet.inference.runtimes.onnx_runtime import OnnxRuntime

        runtime = OnnxRuntime(path, threads=threads)
    if weights is not None and runtime.spec.weights_file != file_sha256(weights):
        raise WeightsError(
            f"{path}: exported from other weights than {weights.name} beside it; remove it and "
            f"export again: rnndet export {weights}"
        )
    return runtime, f"{GRAPHS[kind]} {runtime.version}, {path.name}"


def _installed() -> str | None:
    """The fastest runtime of graphs that is installed; None without one."""
    return next((kind for kind, package in GRAPHS.items() if find_spec(package)), None)


def _why_no_graph(weights: Path, device: str) -> str | None:
    if device == "cuda" or (device == "auto" and NVIDIA.exists()):
        return "it runs on a CPU only"
    if _installed() is None:
        return "neither openvino nor onnxruntime is installed"
    if not weights.with_suffix(".onnx").is_file():
        return f"no {weights.stem}.onnx; create it with rnndet export"
    return None
