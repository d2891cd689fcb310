"""The ONNX Runtime backend on NVIDIA GPUs: the same frame path as TensorRT's, with no engine to compile.

Everything but the engine can be confirmed with it, on a GPU that TensorRT-RTX does not take. The graph is bound by
device addresses and runs on the frame path's own stream (`user_compute_stream`): nothing waits, nothing is copied.
https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..cuda.driver import GPU_FAILED
from ..cuda.pipeline import FramePipeline
from ..errors import BackendError
from ..head import check_filter_mode
from .gpu import GpuBackend
from .interface import INPUT_NAME, Port, check_interface, graph_precision

_DTYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(float16)": np.float16}
_PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
_NO_PROVIDER = (
    "install ONNX Runtime's GPU wheel in its place: pip uninstall onnxruntime, then pip install "
    "'onnxruntime-gpu[cuda,cudnn]' (1.31's is for CUDA 13, 1.20's for CUDA 12), or on a Jetson NVIDIA's for its JetPack"
)
_CUDA_LIBRARIES = "install CUDA's libraries for it: pip install 'onnxruntime-gpu[cuda,cudnn]'"
_NO_FALLBACK = "session.disable_cpu_ep_fallback"

_log = logging.getLogger(__name__)


class OnnxRuntimeCudaBackend(GpuBackend):
    """Runs the bundle's ONNX graph on an NVIDIA GPU, preprocessing and head included. Thread-safe: calls take turns.

    Floats are computed as the graph has them: TF32, which ONNX Runtime would take for float32, is switched off. An int8
    graph runs in floats, between its own roundings: the provider has no integer convolutions.

    precision: "fp32", "fp16", "int8", or "auto" for the bundle's most exact graph. index: of the GPU.
    filter_mode: "linear" or "point", as BilinearHead has it.
    Raises UserError when pycuda or nvcc is not installed, BackendError when onnxruntime is not, has no CUDA or cannot
    run the graph there, and for a GPU or driver that cannot be used; then nothing of ours is left on the GPU.
    """

    name = "onnxruntime_cuda"

    def __init__(self, bundle: Bundle, precision: str = "auto", *, index: int = 0, filter_mode: str = "linear"):
        check_filter_mode(filter_mode)
        network = OnnxRuntimeCudaNetwork(bundle, precision, index=index)
        self.precision = network.precision
        super().__init__(
            index, filter_mode, lambda device: FramePipeline(device, network, bundle.manifest, filter_mode)
        )


class OnnxRuntimeCudaNetwork:
    """A `DeviceNetwork`: the bundle's graph in ONNX Runtime, bound to addresses.

    What runs on the GPU is loaded by `bind`, since a session keeps the stream that it was made with. Before that the
    graph's interface is read on the CPU, without optimising anything.

    device: "cuda", or "cpu" for addresses of the CPU's memory, where stream handles mean nothing and `enqueue` returns
    when it is done. index: of the GPU.
    Raises BackendError when onnxruntime is not installed, has no CUDA or cannot read the graph, and when the graph
    takes or gives something else than model.json says.
    """

    def __init__(self, bundle: Bundle, precision: str = "auto", *, device: str = "cuda", index: int = 0):
        self._ort = ort = load_onnxruntime(device)
        self._model = bundle.model(precision)
        self.precision = graph_precision(bundle, self._model)
        self._device, self._index = device, index
        inputs, outputs = _interface(ort, self._model)
        check_interface(bundle, inputs, outputs)
        self._input_shape, self._output_name = list(inputs[0].shape), outputs[0].name
        self.output_shape = tuple(int(side) for side in outputs[0].shape)
        self.output_dtype = np.dtype(_DTYPES[outputs[0].type])
        self._session: Any = None
        self._binding: Any = None
        # No waiting for the GPU at the end of a run: whoever reads the output waits for the stream.
        self._run_options = ort.RunOptions()
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def bind(self, image_address: int, output_address: int, stream_handle: int) -> None:
        """As `DeviceNetwork` has it. Raises BackendError when ONNX Runtime cannot run the graph on the GPU.

        Puts one inference on the stream, of whatever lies at the address: only there it comes out that cuDNN is
        missing, which ONNX Runtime 1.31 can do without, or memory; and it looks for the fastest convolutions.
        """
        self.close()
        self._session = self._open(stream_handle)
        where, output = (self._device, self._index), (self.output_dtype.type, list(self.output_shape))
        try:
            binding = self._session.io_binding()
            binding.bind_input(INPUT_NAME, *where, np.uint8, self._input_shape, image_address)
            binding.bind_output(self._output_name, *where, *output, output_address)
        except Exception as error:  # onnxruntime's exception types are private
            self.close()
            version = self._ort.__version__
            raise BackendError(
                f"onnxruntime {version} cannot bind {self._model} to the {self._device}'s memory: {_with_advice(error)}"
            ) from error
        self._binding = binding
        try:
            self._session.run_with_iobinding(binding, self._run_options)
        except Exception as error:  # onnxruntime's exception types are private
            self.close()
            raise BackendError(
                f"onnxruntime {self._ort.__version__} cannot run {self._model} with its {_PROVIDERS[self._device]}: "
                f"{_with_advice(error)}"
            ) from error

    def enqueue(self) -> None:
        """As `DeviceNetwork` has it. ONNX Runtime's arena has taken its memory in `bind`, and keeps it."""
        if self._binding is None:
            raise BackendError("the onnxruntime network is closed or not bound; open another backend.")
        try:
            self._session.run_with_iobinding(self._binding, self._run_options)
        except Exception as error:  # onnxruntime's exception types are private
            raise BackendError(f"onnxruntime failed on this frame: {_first_line(error)}; {GPU_FAILED}.") from error

    def close(self) -> None:
        """As `DeviceNetwork` has it: the binding goes before its session."""
        self._binding = None
        self._session = None

    def _open(self, stream_handle: int) -> Any:
        """A session on the device, all of the graph if it can be, and said if it cannot."""
        if self._device == "cpu":
            return _session(self._ort, self._model, _PROVIDERS["cpu"])
        settings = {
            "device_id": str(self._index),
            "user_compute_stream": str(stream_handle),
            "arena_extend_strategy": "kSameAsRequested",  # else it takes up to twice what it needs
            "use_tf32": "0",
        }
        provider = (_PROVIDERS["cuda"], settings)
        try:
            return _session(self._ort, self._model, provider, {_NO_FALLBACK: "1"})
        except BackendError as error:
            if "CPU EP" not in str(error):
                raise
        session = _session(self._ort, self._model, provider)
        _log.warning("onnxruntime runs some layers of %s on the CPU, for want of others, which costs time", self._model)
        return session


def load_onnxruntime(device: str) -> Any:
    """The module onnxruntime, which must have what the device takes. Raises BackendError that says how to get it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(f"onnxruntime cannot be loaded ({_first_line(error)}); {_NO_PROVIDER}.") from error
    if _PROVIDERS[device] not in onnxruntime.get_available_providers():
        raise BackendError(f"onnxruntime {onnxruntime.__version__} has no CUDA provider; {_NO_PROVIDER}.")
    if device == "cuda" and hasattr(onnxruntime, "preload_dlls") and importlib.util.find_spec("nvidia"):
        # CUDA's libraries from pip lie where no loader looks. What it cannot find it prints, and so would everybody's.
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            onnxruntime.preload_dlls()
        _log.debug("onnxruntime.preload_dlls: %s", printed.getvalue())
    return onnxruntime


def _interface(ort: Any, model: Path) -> tuple[list[Port], list[Port]]:
    """Inputs and outputs of the graph, by a session that is not kept."""
    session = _session(ort, model, _PROVIDERS["cpu"], optimise=False)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    return [_port(value) for value in inputs], [_port(value) for value in outputs]


def _session(
    ort: Any, model: Path, provider: Any, entries: dict[str, str] | None = None, *, optimise: bool = True
) -> Any:
    """A session with that provider: onnxruntime itself would go on without, on the CPU."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # else the second run takes as much memory again, in one block
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for name, value in (entries or {}).items():
        options.add_session_config_entry(name, value)
    wanted = provider if isinstance(provider, str) else provider[0]
    try:
        # No fallback: it prints to standard output and tries the same once more.
        session = ort.InferenceSession(str(model), options, providers=[provider], enable_fallback=0)
    except Exception as error:  # onnxruntime's exception types are private
        raise BackendError(f"onnxruntime {ort.__version__} cannot run {model}: {_with_advice(error)}") from error
    if wanted not in session.get_providers():
        raise BackendError(
            f"onnxruntime {ort.__version__} cannot start CUDA on this machine{_wanted_cuda()}; check nvidia-smi, and "
            f"{_CUDA_LIBRARIES}."
        )
    return session


def _wanted_cuda() -> str:
    """Which CUDA the wheel was built with, where it says so, for the middle of a sentence."""
    try:
        from onnxruntime.capi import build_and_package_info
    except ImportError:
        return ""
    version = getattr(build_and_package_info, "cuda_version", "")
    return f" (it is built for CUDA {version} and needs that, cuDNN and a driver)" if version else ""


def _with_advice(error: BaseException) -> str:
    """What went wrong, and what to do about it."""
    reason = _first_line(error)
    advice = "check nvidia-smi, or choose another backend"
    if "cudnn" in reason.lower():
        advice = _CUDA_LIBRARIES
    elif re.search("allocate memory|out of memory", reason):
        advice = "the GPU's memory is full: close other programs on it, or choose a smaller model or precision"
    return f"{reason}; {advice}."


def _port(value: Any) -> Port:
    return Port(value.name, value.type, tuple(value.shape))


def _first_line(error: BaseException) -> str:
    """What went wrong, without the places in ONNX Runtime's sources that stand before and behind it."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    failure = re.search(r"CU\w+ failure \d+: [^;]+", line)  # of CUDA, CUDNN or CUBLAS, before "; GPU=0 ; hostname=…"
    told = failure[0] if failure else re.split(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", line)[-1]
    told = re.sub(r"/\S+:\d+ \S+ onnxruntime::.*?\) ", "", told)  # a file, and the function in it
    return told[:300].strip().rstrip(".")
