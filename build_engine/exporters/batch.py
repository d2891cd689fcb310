"""A batch dimension for a graph that was built for one picture, believed only after ONNX Runtime has run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from fcnedge.runtime.errors import missing_package

from ..fusion.graph import add_initializer, constant, shape_of

_NAME = "batch"


def free_batch(model: ir.Model) -> None:
    """Make the first dimension of input and output symbolic, and that of every Reshape whose target fixes it at 1.

    No promise that the graph still computes the same: `batch_disagreement` tells.
    """
    graph = model.graph
    for node in graph:
        target = constant(node.inputs[1]) if node.op_type == "Reshape" else None
        given = shape_of(node.inputs[0]) if target is not None else None
        if target is not None and target.ndim == 1 and target[:1].tolist() == [1] and given and given[0] == 1:
            # 0: as it comes (ONNX Reshape)
            node.replace_input_with(
                1, add_initializer(graph, f"{node.name}.shape", np.array([0, *target[1:]], np.int64))
            )
    for value in (*graph.inputs, *graph.outputs):
        value.shape = ir.Shape((_NAME, *tuple(value.shape or ())[1:]))
    for node in graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None


def batch_disagreement(path: Path, single: Path, batch: int) -> str | None:
    """Why the graph in `path` does not do for `batch` random pictures what the graph in `single` does for each of them.

    None when outputs are equal, bit for bit, for one picture and for `batch` of them.
    Raises UserError when onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_package("onnxruntime", extra="cpu") from error
    try:
        one, many = (_session(onnxruntime, each) for each in (single, path))
        entry = one.get_inputs()[0]
        dtype = np.uint8 if "uint8" in entry.type else np.float32
        pictures = np.random.default_rng(0).integers(0, 256, (batch, *entry.shape[1:]), np.uint8).astype(dtype)
        expected = np.concatenate([one.run(None, {entry.name: picture[None]})[0] for picture in pictures])
        for count in (1, batch):
            got = many.run(None, {entry.name: pictures[:count]})[0]
            if not np.array_equal(got, expected[:count]):
                return f"with {count} at a time its results differ from those of one picture."
    except Exception as error:  # onnxruntime's exception types are private
        return f"ONNX Runtime cannot run it with {batch} pictures ({str(error).splitlines()[0]})."
    return None


def _session(onnxruntime: Any, path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it has to say comes as an exception
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
