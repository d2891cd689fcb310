"""The ONNX Runtime backend: any CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..bundle import Bundle
from ..errors import BackendError, missing_package
from .cpu_target import cpu_target
from .interface import INPUT_NAME, Port, check_interface, graph_precision


class OnnxRuntimeBackend:
    """Runs the bundle's ONNX graph on the CPU with ONNX Runtime. Thread-safe: a session may run several calls at once.

    threads: worker threads of one inference; None lets ONNX Runtime take one per core.
    Raises BackendError when onnxruntime cannot run the graph, UserError when it is not installed.
    """

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, precision: str = "auto", threads: int | None = None):
        model = bundle.model(precision, cpu_target())
        self.precision = graph_precision(bundle, model)
        ort = _load()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            # No fallback: it prints to standard output and tries the same once more. Version 1.20 cannot be told.
            self._session: Any = ort.InferenceSession(
                str(model), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except Exception as error:  # onnxruntime's exception types are private
            raise BackendError(f"onnxruntime {ort.__version__} cannot run {model}: {_first_line(error)}") from error
        check_interface(bundle, _ports(self._session.get_inputs()), _ports(self._session.get_outputs()))

    def infer(self, image: np.ndarray) -> np.ndarray:
        """(1, H, W, 3) uint8 BGR → the graph's only output. Raises BackendError when closed or when it fails."""
        session = self._session  # another thread may close meanwhile
        if session is None:
            raise BackendError("the onnxruntime backend is closed; open another Segmenter.")
        try:
            return session.run(None, {INPUT_NAME: image})[0]
        except Exception as error:  # onnxruntime's exception types are private
            raise BackendError(f"onnxruntime failed on this frame: {_first_line(error)}") from error

    def close(self) -> None:
        """Let go; `infer` raises from then on. More than once does no harm."""
        self._session = None


def _load() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_package("onnxruntime", extra="cpu") from error
    return onnxruntime


def _ports(values: Any) -> list[Port]:
    return [Port(value.name, value.type, tuple(value.shape)) for value in values]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
