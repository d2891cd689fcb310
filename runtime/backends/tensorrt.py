"""The TensorRT backends: engines on NVIDIA GPUs, with TensorRT 8.5 to 11 or TensorRT-RTX 1.

One API, whose differences are found by feature: a name that the module has or has not.
https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..cuda.captured_network import CapturedNetwork
from ..cuda.device import Device
from ..cuda.driver import GPU_FAILED, first_line
from ..cuda.pipeline import FramePipeline, check_frame_path
from ..engine_store import Engine, Machine, build_command, obtain_engine
from ..errors import BackendError, UserError
from ..head import check_filter_mode
from .gpu import GpuBackend
from .interface import INPUT_NAME, Port, check_interface

_TITLES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
# pip's TensorRT-RTX has its module under the second name when installed without its umbrella package.
_MODULES = {"tensorrt": ("tensorrt",), "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
_MISSING = {
    "tensorrt": "use JetPack's on a Jetson (a virtual environment sees it when created with --system-site-packages), "
    "and elsewhere run: pip install 'fcnedge[tensorrt]'",
    "tensorrt_rtx": "install it with: pip install 'fcnedge[rtx]'",
}
# DataType members by name: as ONNX spells the type, and as NumPy does.
_TYPES = {"UINT8": ("uint8", np.uint8), "FLOAT": ("float", np.float32), "HALF": ("float16", np.float16)}
_LEVELS = {"INTERNAL_ERROR": logging.INFO, "ERROR": logging.INFO, "WARNING": logging.INFO}
_MEMORY = "the GPU's memory may be full: close other programs on it, or choose a smaller model or precision."

_log = logging.getLogger(__name__)


class TensorRtBackend(GpuBackend):
    """Runs the bundle's engine on an NVIDIA GPU, preprocessing and head included. Thread-safe: calls take turns.

    The engine must fit this machine exactly (`engine_store`); when there is none it is compiled first, which takes
    from seconds to many minutes, unless build is False.

    precision: "fp32", "fp16", "int8", or "auto" for the bundle's most exact graph. module: "tensorrt" or
    "tensorrt_rtx". index: of the GPU. cuda_graph: record the network's launches once and replay them from then on
    where driver and engine can, so that the CPU launches one graph instead of each layer; off until it has been
    measured on hardware what that saves. filter_mode: "linear" or "point", as BilinearHead has it.
    Raises UserError when TensorRT, pycuda or nvcc is not installed, BackendError for a GPU, driver or engine that
    cannot be used; then nothing is left on the GPU.
    """

    def __init__(
        self,
        bundle: Bundle,
        precision: str = "auto",
        *,
        module: str = "tensorrt",
        index: int = 0,
        build: bool = True,
        cuda_graph: bool = False,
        filter_mode: str = "linear",
    ):
        check_filter_mode(filter_mode)
        self.name = module
        super().__init__(
            index, filter_mode, lambda device: self._open(device, bundle, precision, build=build, cuda_graph=cuda_graph)
        )

    @property
    def captured(self) -> bool:
        """Whether the network is replayed from a CUDA graph; not before the second frame."""
        return isinstance(self._network, CapturedNetwork) and self._network.captured

    @property
    def execution_context(self) -> Any:
        """TensorRT's own execution context, for its profiler; None once the backend is closed."""
        return self._engine_network.context

    def _open(self, device: Device, bundle: Bundle, precision: str, *, build: bool, cuda_graph: bool) -> FramePipeline:
        library = load_library(self.name)
        check_frame_path(device, bundle.manifest)  # before the engine, which may take minutes
        version = str(library.__version__)
        machine = Machine(self.name, version, device.name, device.compute_capability, device.index)
        engine = obtain_engine(bundle, precision, machine, build=build)
        self.precision = bundle.manifest.precisions[0] if precision == "auto" else precision
        self._engine_network = network = TensorRtNetwork(library, machine, engine, bundle, self.precision, device)
        self._network = CapturedNetwork(network) if cuda_graph else network
        del engine  # its file's bytes: the library has its own by now
        return FramePipeline(device, self._network, bundle.manifest, self.filter_mode)


class TensorRtNetwork:
    """A `DeviceNetwork`: an engine and its execution context, by the tensor-name API.

    library: the imported module; engine: known to fit this machine, the bundle and the precision. context: TensorRT's
    own, None once closed.
    Raises BackendError when it cannot be opened, or takes and gives something else than model.json says, and for a
    library that is older than the API.
    """

    def __init__(self, library: Any, machine: Machine, engine: Engine, bundle: Bundle, precision: str, device: Device):
        self.precision = precision
        self._title = f"{_TITLES[machine.library]} {machine.version}"
        self._mending = build_command(bundle, precision, machine, engine.path)
        self._logger: Any = None
        self._runtime: Any = None
        self._engine: Any = None
        self.context: Any = None
        self._device, self._stream_handle = device, 0
        with device.current():
            try:
                self._logger = _library_log(library)
                self._open(library, engine)
                ports = self._ports(library)
                check_interface(bundle, *ports)
            except BaseException:
                self.close()
                raise
        output = ports[1][0]
        self._output_name = output.name
        self.output_shape = tuple(int(side) for side in output.shape)
        self.output_dtype = np.dtype(next(kind for name, kind in _TYPES.values() if output.type == f"tensor({name})"))

    def bind(self, image_address: int, output_address: int, stream_handle: int) -> None:
        """As `DeviceNetwork` has it."""
        for name, address in ((INPUT_NAME, image_address), (self._output_name, output_address)):
            if not self.context.set_tensor_address(name, address):
                raise BackendError(
                    f"{self._title} does not take an address for {name}{self._reason()}; compile it again: "
                    f"{self._mending}"
                )
        self._stream_handle = stream_handle

    def enqueue(self) -> None:
        """As `DeviceNetwork` has it."""
        if not self.context.execute_async_v3(self._stream_handle):
            raise BackendError(f"{self._title} failed on this frame{self._reason()}; {GPU_FAILED}.")

    def close(self) -> None:
        """As `DeviceNetwork` has it: the context goes before its engine, the engine before its runtime."""
        with contextlib.ExitStack() as current:
            with contextlib.suppress(BackendError):  # a lost GPU has no context, and keeps nothing either
                current.enter_context(self._device.current())
            self.context = None
            self._engine = None
            self._runtime = None

    def _open(self, library: Any, engine: Engine) -> None:
        try:
            self._runtime = library.Runtime(self._logger)
        except (TypeError, RuntimeError) as error:  # the binding's words for a runtime that could not be made
            reason = self._reason() or f" ({first_line(error)})"
            raise BackendError(f"{self._title} does not start{reason}; check nvidia-smi, or use the CPU.") from error
        self._engine = self._runtime.deserialize_cuda_engine(engine.plan)
        if self._engine is None:
            advice = f"compile it again: {self._mending}"
            if "memory" in self._logger.last_error.lower():
                advice = _MEMORY
            raise BackendError(f"{self._title} cannot open {engine.path}{self._reason()}; {advice}")
        self.context = self._engine.create_execution_context()
        if self.context is None:
            raise BackendError(f"{self._title} cannot run {engine.path}{self._reason()}; {_MEMORY}")

    def _ports(self, library: Any) -> tuple[list[Port], list[Port]]:
        if not hasattr(self._engine, "num_io_tensors"):  # asked first: an AttributeError would hold the engine
            raise BackendError(
                f"{self._title} has no num_io_tensors and its like, which came with TensorRT 8.5; update it, or choose "
                "another backend."
            )
        engine, inputs, outputs = self._engine, [], []
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            kind = engine.get_tensor_dtype(name).name
            shape = tuple(int(side) for side in engine.get_tensor_shape(name))
            taken = engine.get_tensor_mode(name) == library.TensorIOMode.INPUT
            port = Port(name, f"tensor({_TYPES[kind][0] if kind in _TYPES else kind.lower()})", shape)
            (inputs if taken else outputs).append(port)
        return inputs, outputs

    def _reason(self) -> str:
        """The library's last error in parentheses, for the middle of a sentence; empty when it has given none."""
        return f" ({self._logger.last_error})" if self._logger.last_error else ""


def load_library(target: str) -> Any:
    """The module of "tensorrt" or "tensorrt_rtx". Raises UserError that says how to get it, or why it does not load."""
    if target not in _MODULES:
        raise UserError(f"{target!r} is no TensorRT; choose tensorrt or tensorrt_rtx.")
    for name in _MODULES[target]:
        try:
            module = importlib.import_module(name)
            _ = module.__version__  # a folder that happens to be called so has none
            return module
        except ModuleNotFoundError as error:  # noqa: PERF203 - two names
            if error.name != name:  # it is there, and something that it needs is not
                raise _unloadable(target, error) from error
        except (
            ImportError,
            OSError,
            AttributeError,
        ) as error:  # a shared library that is missing or of another machine
            raise _unloadable(target, error) from error
    raise UserError(f"{target} is not installed; {_MISSING[target]}.")


def _unloadable(target: str, error: BaseException) -> UserError:
    return UserError(
        f"{target} is installed but cannot be loaded ({first_line(error)}); reinstall it: {_MISSING[target]}."
    )


def _library_log(library: Any) -> Any:
    """A `library.ILogger` that passes on to `logging` and remembers the last error.

    What TensorRT calls an error becomes our one sentence, so here it is information.
    """

    class Log(library.ILogger):
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.last_error = ""

        def log(self, severity: Any, msg: str) -> None:
            # An exception that left a method called from C++ would end the process.
            with contextlib.suppress(Exception):
                _log.log(_LEVELS.get(severity.name, logging.DEBUG), "%s: %s", severity.name, msg)
                if severity.name in ("ERROR", "INTERNAL_ERROR"):
                    self.last_error = first_line(RuntimeError(msg))

    return Log()
