"""Run an exported model by onnxruntime; imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnndet.errors import WeightsError
from rnndet.inference.runtimes.graph import IMAGE, ExportSpec, GraphRuntime, GraphState


class OnnxRuntime(GraphRuntime):
    """A `Runtime` on onnxruntime, on the CPU.

    path: a graph that rnndet export wrote. threads: of the session; None leaves it to
    onnxruntime.
    Raises WeightsError: onnxruntime is not installed; the file is missing, damaged or no graph of
    rnndet.
    """

    name = "onnx"

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        self._session, self.version = _open(Path(path), threads)  # version: of onnxruntime
        metadata = self._session.get_modelmeta().custom_metadata_map
        outputs = [output.name for output in self._session.get_outputs()]
        super().__init__(ExportSpec.from_metadata(metadata, where=str(path)), outputs)
        self._outputs = [*self.heads, *(f"new_{state.name}" for state in self.spec.states)]

    def run_graph(
        self, pixels: NDArray[np.float32], state: GraphState
    ) -> tuple[dict[str, NDArray[np.float32]], GraphState]:
        values = self._session.run(self._outputs, {IMAGE: pixels, **state})
        count = len(self.heads)
        names = (spec.name for spec in self.spec.states)
        return (
            dict(zip(self.heads, values[:count], strict=True)),
            dict(zip(names, values[count:], strict=True)),
        )


def _open(path: Path, threads: int | None) -> tuple[Any, str]:
    try:
        import onnxruntime
    except ImportError:
        raise WeightsError(
            "onnxruntime is not installed; pip install 'rnndet[onnx]', or use `kind=torch`"
        ) from None
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; create it with rnndet export")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        return session, onnxruntime.__version__
    except Exception as error:  # onnxruntime's exceptions have no common base
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path}: onnxruntime cannot load the graph: {reason}") from None
