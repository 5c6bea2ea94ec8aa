"""Run an exported model by OpenVINO; imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rnndet.errors import DeviceError, WeightsError
from rnndet.inference.runtimes.graph import IMAGE, ExportSpec, GraphRuntime, GraphState
from rnndet.system.lock import check_writable

SIZES_KEPT = 4  # compiled graphs, each of one frame size and number of videos


class OpenVinoRuntime(GraphRuntime):
    """A `Runtime` on OpenVINO, on the CPU.

    The graph is compiled for each shape of input when it first comes (0.3 to 0.7 s), since fixed
    shapes run 1.2 times as fast; the last `SIZES_KEPT` are kept. The state stays in the layout of
    OpenVINO's convolutions and is written to and read from memory that both sides share.

    path: a graph that rnndet export wrote. threads: of the CPU; None leaves it to OpenVINO.
    half: bfloat16 between the layers that are not int8, on a CPU that has it in hardware.
    cache: a folder for compiled graphs, from which later processes load them: in int8 that takes
    less than half of the time. OpenVINO replaces damaged files and those of another version.
    Raises WeightsError: OpenVINO is not installed; the file is missing, damaged or no graph of
    rnndet. DeviceError: half, and the CPU computes bfloat16 in software.
    """

    name = "openvino"
    channels_last: ClassVar[bool] = True

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int | None = None,
        half: bool = False,
        cache: str | Path | None = None,
    ) -> None:
        self._core, self._model, self.version = _open(Path(path))  # version: of OpenVINO
        super().__init__(
            ExportSpec.from_metadata(_metadata(self._model), where=str(path)),
            [output.get_any_name() for output in self._model.outputs],
        )
        # measured: pinned to cores, two runs on one machine share the first core
        self._config: dict[str, Any] = {
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
        }
        if threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = threads
        if cache is not None:
            check_writable(Path(cache))
            self._config["CACHE_DIR"] = str(cache)
        if half and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise DeviceError("`half=True`: this CPU computes bfloat16 in software; leave it out")
        self._requests: dict[tuple[int, ...], Any] = {}  # by the shape of the image, oldest first

    def run_graph(
        self, pixels: NDArray[np.float32], state: GraphState
    ) -> tuple[dict[str, NDArray[np.float32]], GraphState]:
        import openvino

        request = self._request(pixels.shape)
        new = {name: np.empty_like(array) for name, array in state.items()}
        tensors = {IMAGE: pixels, **state, **{f"new_{n}": a for n, a in new.items()}}
        for name, array in tensors.items():
            request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
        request.infer()
        return {name: request.get_tensor(name).data.copy() for name in self.heads}, new

    def _request(self, shape: tuple[int, ...]) -> Any:
        """The compiled graph for images of this shape, as an inference request."""
        request = self._requests.pop(shape, None)
        if request is None:
            request = self._compiled(shape).create_infer_request()
            while len(self._requests) >= SIZES_KEPT:
                self._requests.pop(next(iter(self._requests)))
        self._requests[shape] = request
        return request

    def _compiled(self, shape: tuple[int, ...]) -> Any:
        from openvino import Layout
        from openvino.preprocess import PrePostProcessor

        model = self._model.clone()
        states = self.state_shapes(shape[0], (shape[2], shape[3]))
        planar = {n: (b, c, h, w) for n, (b, h, w, c) in states.items()}
        model.reshape({IMAGE: list(shape), **{name: list(s) for name, s in planar.items()}})
        layers = PrePostProcessor(model)
        for name in states:
            for end in (layers.input(name), layers.output(f"new_{name}")):
                end.model().set_layout(Layout("NCHW"))
                end.tensor().set_layout(Layout("NHWC"))
        return self._core.compile_model(layers.build(), "CPU", self._config)


def _open(path: Path) -> tuple[Any, Any, str]:
    try:
        import openvino
    except ImportError:
        raise WeightsError(
            "OpenVINO is not installed; pip install 'rnndet[openvino]', or use `kind=torch`"
        ) from None
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; create it with rnndet export")
    core = openvino.Core()
    try:
        model = core.read_model(model=path.read_bytes(), weights=b"")
    except Exception as error:  # OpenVINO raises RuntimeError, and others for damaged files
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsError(f"{path}: OpenVINO cannot load the graph: {reason[-1]}") from None
    return core, model, openvino.__version__.split("-")[0]


def _metadata(model: Any) -> dict[str, str]:
    """The metadata of an ONNX graph, which OpenVINO keeps as run-time information."""
    if not model.has_rt_info("framework"):
        return {}
    known = model.get_rt_info()["framework"]
    return {key: str(value.value) for key, value in known.items()}
