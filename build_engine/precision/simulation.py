"""Run a Q/DQ graph on the CPU as TensorRT's arithmetic would round it, to measure what INT8 costs in accuracy.

Every QuantizeLinear and DequantizeLinear is carried out as written and the convolutions between them in floating
point. ONNX Runtime would otherwise fuse some of them into its own integer kernels, whose rounding of biases and
intermediate results is neither TensorRT's nor OpenVINO's. FP16 graphs run too: where the CPU has no float16 kernel
ONNX Runtime computes in float32 between casts, so accumulations are more exact than on a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fcnedge.runtime.errors import missing_package

if TYPE_CHECKING:
    import onnxruntime as ort


def open_simulated(model: bytes | Path, threads: int | None = None) -> ort.InferenceSession:
    """Open a typed graph with its Q/DQ nodes unfused.

    model: a serialised graph, or its file (needed when its weights lie in a `.data` file); threads: worker threads,
    None for one per core. Raises UserError when onnxruntime is not installed, and what onnxruntime raises for a
    graph that it cannot run.
    """
    try:
        import onnxruntime as ort
    except ImportError:
        raise missing_package("onnxruntime", extra="cpu") from None
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
