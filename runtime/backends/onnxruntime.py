"""The ONNX Runtime backend: any CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..bundle import Bundle
from ..errors import BackendError, missing_package

INPUT_NAME = "image"


class OnnxRuntimeBackend:
    """Runs the bundle's ONNX graph on the CPU with ONNX Runtime. Thread-safe: a session may run several calls at once.

    threads: worker threads of one inference; None lets ONNX Runtime take one per core.
    Raises BackendError when onnxruntime cannot run the graph, UserError when it is not installed.
    """

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, precision: str = "auto", threads: int | None = None):
        model = bundle.model(precision)
        ort = _load()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session: Any = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exception types are private
            raise BackendError(f"onnxruntime {ort.__version__} cannot run {model}: {_first_line(error)}") from error
        self.precision = str(bundle.manifest.files[model.name].precision)
        _check_interface(self._session, bundle)

    def infer(self, image: np.ndarray) -> np.ndarray:
        """(1, H, W, 3) uint8 BGR → the graph's only output. Raises BackendError when closed or when it fails."""
        if self._session is None:
            raise BackendError("the onnxruntime backend is closed; open another Segmenter.")
        try:
            return self._session.run(None, {INPUT_NAME: image})[0]
        except Exception as error:  # onnxruntime's exception types are private
            raise BackendError(f"onnxruntime failed on this frame: {_first_line(error)}") from error

    def close(self) -> None:
        self._session = None


def _load() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_package("onnxruntime", extra="cpu") from error
    return onnxruntime


def _check_interface(session: Any, bundle: Bundle) -> None:
    """The graph must take and give what model.json says, before the first frame."""
    manifest = bundle.manifest
    size = [1, manifest.input.height, manifest.input.width, 3]
    if manifest.head.kind == "labels":
        expected = [1, manifest.input.height, manifest.input.width]
    else:
        stride = manifest.head.stride
        expected = [1, len(manifest.classes), manifest.input.height // stride, manifest.input.width // stride]
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or inputs[0].name != INPUT_NAME or list(inputs[0].shape) != size:
        got = ", ".join(f"{value.name} {value.shape}" for value in inputs)
        raise BackendError(f"{bundle.path}: the graph takes {got}, model.json says {INPUT_NAME} {size}; rebuild it.")
    if len(outputs) != 1 or list(outputs[0].shape) != expected:
        got = ", ".join(f"{value.name} {value.shape}" for value in outputs)
        raise BackendError(f"{bundle.path}: the graph gives {got}, model.json says {expected}; rebuild the bundle.")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
