"""The bundle's fp32 graph, run so that every float activation comes out.

Weights that lie in a file of their own stay there: ONNX Runtime reads them, Python never does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fcnedge.runtime import Bundle
from fcnedge.runtime.errors import BackendError, missing_package

from .fingerprint import GraphFingerprint, constant_tensor, graph_fingerprint

if TYPE_CHECKING:
    import onnx_ir as ir

INPUT_NAME = "image"


class ActivationGraph:
    """A graph with every float activation as an output, in graph order; batch 1, on the CPU, unoptimised.

    Unoptimised, because an optimised graph has other activations: a folded ReLU, a blocked layout. Nothing is kept
    between pictures: memory is the weights' and one picture's activations.
    threads: CPU threads; None for one per core. Raises UserError when onnx-ir or onnxruntime is not installed,
    BundleError when the bundle has no fp32 graph, BackendError when ONNX Runtime cannot run it (1.21 is the first that
    finds weights in a file of their own).
    """

    def __init__(self, bundle: Bundle, threads: int | None = None):
        path = bundle.model("fp32")
        model = load_graph(path)
        self.fingerprint: GraphFingerprint = graph_fingerprint(model)
        self.names: tuple[str, ...] = tuple(_expose_activations(model))
        self._session = _open(model, path, threads)

    def run(self, image: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """(1, H, W, 3) uint8 BGR → (name, float32 array) of each activation; each is released when the next is taken.

        Raises BackendError when ONNX Runtime fails.
        """
        try:
            values = self._session.run(list(self.names), {INPUT_NAME: image})
        except Exception as error:  # onnxruntime's exception types are private
            raise BackendError(f"onnxruntime failed on this picture: {_first_line(error)}") from error
        values.reverse()
        for name in self.names:
            yield name, values.pop()


def load_graph(path: Path) -> ir.Model:
    """The graph in `path` with shapes inferred; weights in a file of their own are mapped when asked for.

    Raises UserError when onnx-ir is not installed.
    """
    try:
        import onnx_ir as ir
        from onnx_ir.passes import common as passes
    except ImportError as error:
        raise missing_package("onnx-ir", extra="build") from error
    model = ir.load(path)
    if any(value.dtype is None or value.shape is None for node in model.graph for value in node.outputs):
        passes.ShapeInferencePass()(model)
    return model


def _expose_activations(model: ir.Model) -> Iterator[str]:
    """Make each float value that depends on the picture an output of the graph, and give its name."""
    held = {value.name for value in model.graph.outputs}
    for node in model.graph:
        for value in node.outputs:
            if constant_tensor(value) is not None or value.dtype is None or value.dtype.name != "FLOAT":
                continue
            if value.name not in held:
                model.graph.outputs.append(value)
            yield str(value.name)


def _open(model: ir.Model, path: Path, threads: int | None) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_package("onnxruntime", extra="cpu") from error
    import onnx_ir as ir

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False  # an arena keeps what the largest layer took
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent.resolve()))
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        graph = ir.serde.serialize_model(model).SerializeToString()
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # onnxruntime's exception types are private
        raise BackendError(f"onnxruntime {onnxruntime.__version__} cannot run {path}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
