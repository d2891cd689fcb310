"""The OpenVINO backend: the fastest on Intel's and other x86 CPUs, and it runs on Arm CPUs too."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..errors import BackendError, missing_package
from .cpu_target import cpu_target
from .interface import INPUT_NAME, OUTPUT_NAMES, Port, check_interface, graph_precision

_TELEMETRY = "openvino_telemetry"
_ONNX_TYPES = {"u8": "uint8", "f32": "float", "f16": "float16", "f64": "double"}
# The rest of an OpenVINO message says where in its own source code something was noticed.
_PLACES = ("Exception from ", "Check '", "FrontEnd API failed with ", "Loading input model")


class OpenVinoBackend:
    """Runs the bundle's ONNX graph on the CPU with OpenVINO. Thread-safe: calls take turns.

    They would in OpenVINO too, which for the lowest latency gives all cores to one inference at a time.

    Floats are computed in float32, whatever the CPU offers: left alone, OpenVINO takes bfloat16 or float16 where the
    CPU has them (AVX512-BF16, AVX512-FP16, AMX), and labels change that nobody asked to change. An int8 graph runs in
    integers where its QuantizeLinear and DequantizeLinear say so, an fp16 graph in float32 from float16 weights.

    Worker threads are not pinned to cores, which would bind them to cores that other programs keep busy. Nothing is
    written to disk and nothing reported to anyone.

    threads: worker threads of one inference; None lets OpenVINO take one per core, and more than that it does not take.
    Raises BackendError when OpenVINO cannot run the graph, UserError when it is not installed.
    """

    name = "openvino"

    def __init__(self, bundle: Bundle, precision: str = "auto", threads: int | None = None):
        model = bundle.model(precision, cpu_target())
        openvino = load_openvino()
        try:
            compiled = _compile(openvino, model, threads)
            inputs, outputs = _ports(compiled.inputs), _ports(compiled.outputs)
        except Exception as error:  # RuntimeError, and front-end errors that are no RuntimeError
            raise BackendError(f"openvino {_version(openvino)} cannot run {model}: {_reason(error)}") from error
        self.precision = graph_precision(bundle, model)
        check_interface(bundle, inputs, outputs)
        self._shape = inputs[0].shape
        self._request: Any = compiled.create_infer_request()
        self._turn = threading.Lock()

    def infer(self, image: np.ndarray) -> np.ndarray:
        """(1, H, W, 3) uint8 BGR → the graph's only output. Raises BackendError when closed or when it fails."""
        if image.dtype != np.uint8 or image.shape != self._shape:  # OpenVINO would round float32 to uint8, unasked
            raise BackendError(
                f"openvino failed on this frame: the image is {image.dtype} {image.shape}, the graph takes uint8 "
                f"{self._shape}."
            )
        with self._turn:
            if self._request is None:
                raise BackendError("the openvino backend is closed; open another Segmenter.")
            try:
                # Shared outputs would be views of the request's buffer, which the next frame overwrites.
                return self._request.infer([image], share_outputs=False)[0]
            except Exception as error:
                raise BackendError(f"openvino failed on this frame: {_reason(error)}") from error

    def close(self) -> None:
        """Let go, after the inference that runs; `infer` raises from then on. More than once does no harm."""
        with self._turn:
            self._request = None


def load_openvino() -> Any:
    """The module openvino, with its telemetry switched off unless the application has imported openvino before.

    Raises UserError when it is not installed.
    """
    quiet = contextlib.nullcontext() if "openvino" in sys.modules else _without_telemetry()
    try:
        with quiet:
            import openvino
    except ImportError as error:
        raise missing_package("openvino", extra="openvino") from error
    return openvino


@contextlib.contextmanager
def _without_telemetry() -> Iterator[None]:
    """While it lasts openvino's telemetry cannot be imported: `import openvino` reports itself to Intel (tools.ovc).

    None in `sys.modules` is Python's own "there is no such module", for which openvino carries a stand-in. Afterwards
    `sys.modules` is as it was.
    """
    modules: dict[str, Any] = sys.modules
    before = {_TELEMETRY: modules[_TELEMETRY]} if _TELEMETRY in modules else {}
    modules[_TELEMETRY] = None
    try:
        yield
    finally:
        del modules[_TELEMETRY]
        modules.update(before)


def _compile(openvino: Any, model: Path, threads: int | None) -> Any:
    """Read and compile for the CPU. By the ONNX front end: `Core.read_model` tries all, and some print on the way."""
    front_end = openvino.frontend.FrontEndManager().load_by_framework("onnx")
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    return openvino.Core().compile_model(front_end.convert(front_end.load(str(model))), "CPU", settings)


def _ports(ports: Any) -> list[Port]:
    return [Port(_name(port.get_names()), _onnx_type(port), _shape(port)) for port in ports]


def _name(names: set[str]) -> str:
    """Of the names that a tensor has, ours: simplifying a graph may give a tensor the names of its neighbours too."""
    known = names.intersection((INPUT_NAME, *OUTPUT_NAMES))
    return min(known or names, default="(no name)")


def _onnx_type(port: Any) -> str:
    kind = port.get_element_type().get_type_name()
    return f"tensor({_ONNX_TYPES.get(kind, kind)})"


def _shape(port: Any) -> tuple[int | str, ...]:
    return tuple(size.get_length() if size.is_static else str(size) for size in port.get_partial_shape())


def _version(openvino: Any) -> str:
    """`2026.4.1` of `2026.4.1-22982-e213a147257-releases/2026/4`."""
    return str(openvino.__version__).partition("-")[0]


def _reason(error: BaseException) -> str:
    """OpenVINO's message as one line without its source locations; of several findings the summary."""
    text = str(error).rpartition("Summary:")[2]
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(_PLACES)]
    return " ".join(lines)[:300] or type(error).__name__
