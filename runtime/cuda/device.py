"""One NVIDIA GPU through pycuda: its context, streams, events and memory, all of it given back on close.

What is said here about pycuda is read from its sources, src/cpp/cuda.hpp and pycuda/driver.py, 2024.1 to 2026.1:
https://github.com/inducer/pycuda
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import BackendError
from .driver import GPU_FAILED, first_line, load_driver, open_device, version_text

_log = logging.getLogger(__name__)

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, which pycuda has no name for: no waiting for anybody's default stream
_LOST = f"was lost; {GPU_FAILED}"

# By device index, for the length of the process.
_primary_contexts: dict[int, _PrimaryContext] = {}
_primary_lock = threading.Lock()


class FullGpuError(BackendError):
    """There is no memory left on the GPU, or none that it reaches."""


class Device:
    """One NVIDIA GPU. Everything made by it is freed by `close`, when it is forgotten, and at the process's end.

    It takes the primary context, which CUDA's runtime (TensorRT, ONNX Runtime, PyTorch) uses too. The context is
    current inside `current()` only, and whatever was current before is so again afterwards: other CUDA users of the
    process notice nothing. Threads: any may enter `current()`, several at a time.

    index: as the driver counts GPUs, CUDA_VISIBLE_DEVICES considered.
    Raises UserError when pycuda is not installed, BackendError without driver or GPU and for a driver that is older
    than the CUDA which pycuda was compiled with.
    """

    def __init__(self, index: int = 0):
        self._driver = driver = load_driver()
        self.index = index
        try:
            handle = open_device(driver, index)
            major, minor = handle.compute_capability()
            self.name: str = handle.name()
            self.compute_capability = f"{major}.{minor}"
            self.driver_version = version_text(driver.get_driver_version())
            self.integrated = bool(handle.get_attribute(driver.device_attribute.INTEGRATED))
            """Whether GPU and CPU share memory, as on a Jetson."""
        except driver.Error as error:
            raise BackendError(
                f"the NVIDIA driver shows no usable GPU: {first_line(error)}; check it with nvidia-smi, or use the CPU."
            ) from error
        with _primary_lock:
            primary = _primary_contexts.setdefault(index, _PrimaryContext(handle))
        self._holdings = _Holdings(driver, primary, self.name)
        self._finalizer = weakref.finalize(self, self._holdings.release)

    def close(self) -> None:
        """Free everything that this device has made; more than once does no harm. Whoever uses it still is refused."""
        self._finalizer()

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the GPU's primary context current on this thread for the length of a block; blocks may be nested.

        Whatever CUDA refuses inside the block becomes a BackendError.
        """
        with self._holdings.current():
            yield

    def stream(self) -> Stream:
        """A new stream, which does not wait for the default streams of other CUDA users."""
        with self.current(), self._memory_for("a stream"):
            return self._holdings.keep(Stream(self._driver.Stream(_NON_BLOCKING), self._holdings))

    def event(self) -> Event:
        """A new event, which takes times."""
        with self.current(), self._memory_for("an event"):
            return self._holdings.keep(Event(self._driver.Event(), self._holdings))

    def device_buffer(self, nbytes: int, what: str) -> DeviceBuffer:
        """`nbytes` of the GPU's memory for `what`, words for the message when it is full. Raises BackendError."""
        with self.current(), self._memory_for(what, nbytes):
            return self._holdings.keep(DeviceBuffer(self._driver.mem_alloc(nbytes), nbytes, self._holdings))

    def host_buffer(self, shape: tuple[int, ...], dtype: Any, what: str) -> HostBuffer:
        """An array in the CPU's memory that the GPU reaches: by copies that run by themselves, and at its address.

        On an integrated GPU both work in the same memory, and nothing need be copied (zero-copy, mapped memory); on
        others the memory is pinned, and reading it from a kernel goes over the bus. Raises BackendError when full.
        """
        dtype, flags = np.dtype(dtype), self._driver.host_alloc_flags
        nbytes = int(np.prod(shape)) * dtype.itemsize
        with self.current(), self._memory_for(what, nbytes):
            array = self._driver.pagelocked_empty(shape, dtype, mem_flags=flags.PORTABLE | flags.DEVICEMAP)
            return self._holdings.keep(HostBuffer(array, self._holdings))

    def module(self, image: bytes) -> Module:
        """Load compiled kernels, a cubin. Raises BackendError when they do not fit this GPU, its driver or memory."""
        with self.current(), self._memory_for("the kernels"):
            try:
                raw = self._driver.module_from_buffer(image)
            except UnicodeDecodeError as error:  # pycuda quotes the driver's log, written or not
                raise BackendError(f"{self.name} does not take these compiled kernels.") from error
            return self._holdings.keep(Module(raw, self._holdings))

    def upload(self, target: DeviceBuffer, source: HostBuffer, stream: Stream) -> None:
        """Copy a host buffer to the GPU's memory, asynchronously on `stream`."""
        self._driver.memcpy_htod_async(target.address, source.array, stream.raw)

    def download(self, target: HostBuffer, source: DeviceBuffer, stream: Stream) -> None:
        """Copy from the GPU's memory to a host buffer, asynchronously on `stream`."""
        self._driver.memcpy_dtoh_async(target.array, source.address, stream.raw)

    @contextlib.contextmanager
    def _memory_for(self, what: str, nbytes: int | None = None) -> Iterator[None]:
        try:
            yield
        except self._driver.MemoryError as error:
            free, total = self._driver.mem_get_info()
            needed = "" if nbytes is None else f"{_mb(nbytes)} needed, "
            raise FullGpuError(
                f"{self.name} has no memory left for {what}: {needed}{_mb(free)} of {_mb(total)} free; close other "
                "programs on the GPU, or choose a smaller model or precision."
            ) from error


class _Resource:
    """Something on the GPU. raw: pycuda's own object, which must be let go while its context is current."""

    def __init__(self, raw: Any, holdings: _Holdings):
        self._raw: Any = raw
        self._holdings = holdings

    @property
    def raw(self) -> Any:
        """pycuda's object. Raises BackendError when closed."""
        if self._raw is None:
            raise BackendError("this memory or stream of the GPU is closed; open another backend.")
        return self._raw

    def close(self) -> None:
        """Give it back; more than once does no harm."""
        if self._raw is not None:
            with self._holdings.current():
                self._free()
        self._holdings.forget(self)

    def _free(self) -> None:
        self._raw = None  # pycuda's destructors of streams, events and modules do the rest


class Stream(_Resource):
    """What is put on it runs in that order, beside the CPU."""

    @property
    def handle(self) -> int:
        """CUstream as an integer, as other libraries take it."""
        return int(self.raw.handle)

    def synchronize(self) -> None:
        """Wait until everything on it is done. Raises, inside `Device.current`, what went wrong meanwhile."""
        self.raw.synchronize()


class Event(_Resource):
    """A moment on a stream."""

    def record(self, stream: Stream) -> None:
        """Be the moment when all that is on the stream now is done."""
        self.raw.record(stream.raw)

    def ms_since(self, earlier: Event) -> float:
        """Milliseconds between two events that have both happened."""
        return float(self.raw.time_since(earlier.raw))


class DeviceBuffer(_Resource):
    """Memory of the GPU. address: where, for kernels and libraries; nbytes: how much."""

    def __init__(self, raw: Any, nbytes: int, holdings: _Holdings):
        super().__init__(raw, holdings)
        self.address, self.nbytes = int(raw), nbytes

    def _free(self) -> None:
        raw, self._raw = self._raw, None
        raw.free()


class HostBuffer(_Resource):
    """Memory of the CPU that the GPU reaches. array: for NumPy, not to be used after close; address: for kernels."""

    def __init__(self, array: np.ndarray, holdings: _Holdings):
        super().__init__(array.base, holdings)
        self._array: np.ndarray | None = array
        try:
            self.address, self.nbytes = int(self._raw.get_device_pointer()), array.nbytes
        except BaseException:
            self._free()
            raise

    @property
    def array(self) -> np.ndarray:
        """The memory itself: copy out of it what others keep. Raises BackendError when closed."""
        if self._array is None:
            raise BackendError("this memory of the GPU is closed; open another backend.")
        return self._array

    def _free(self) -> None:
        raw, self._raw, self._array = self._raw, None, None
        raw.free()


class Module(_Resource):
    """Loaded kernels. Nobody else holds one of pycuda's functions, each of which keeps the whole module on the GPU."""

    def __init__(self, raw: Any, holdings: _Holdings):
        super().__init__(raw, holdings)
        self._functions: dict[str, Any] = {}

    def launch(
        self,
        name: str,
        arguments: tuple[np.number, ...],
        block: tuple[int, int, int],
        grid: tuple[int, int, int],
        stream: Stream,
    ) -> None:
        """Put one launch of the kernel `name` on the stream. arguments: NumPy scalars of exactly the kernel's types."""
        if name not in self._functions:
            self._functions[name] = self.raw.get_function(name)
        self._functions[name](*arguments, block=block, grid=grid, stream=stream.raw)

    def _free(self) -> None:
        self._functions.clear()
        super()._free()


class _Holdings:
    """What a device has made, and the context to free it in. Apart from Device, which may be forgotten before it."""

    def __init__(self, driver: Any, primary: _PrimaryContext, name: str):
        self._driver, self._primary, self._name = driver, primary, name
        self._ended = ""  # why nothing can be done any more
        self._resources: dict[int, _Resource] = {}

    def keep(self, resource: Any) -> Any:
        self._resources[id(resource)] = resource
        return resource

    def forget(self, resource: _Resource) -> None:
        self._resources.pop(id(resource), None)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        if self._ended:
            raise BackendError(f"{self._name} {self._ended}.")
        try:
            context = self._primary.retained()
            context.push()
        except self._driver.MemoryError as error:  # how much is free cannot be asked without one
            raise FullGpuError(
                f"{self._name} has no memory left for CUDA's own context, a few hundred MB; close other programs on "
                "the GPU, or use the CPU."
            ) from error
        except self._driver.Error as error:
            raise BackendError(f"{self._name} cannot be used: {first_line(error)}; {GPU_FAILED}.") from error
        try:
            yield
        except self._driver.Error as error:
            self._note_loss()
            raise BackendError(f"{self._name} failed: {first_line(error)}; {GPU_FAILED}.") from error
        finally:
            self._pop(context)

    def release(self) -> None:
        """Free everything, the latest first. Nothing here raises: what a lost GPU held is lost with it."""
        streams = [resource for resource in list(self._resources.values()) if isinstance(resource, Stream)]
        if streams:
            with contextlib.suppress(BackendError), self.current():  # nothing is freed under a kernel that runs
                for stream in streams:
                    stream.synchronize()
        if self._ended == _LOST:
            # Of a context that is given up pycuda frees nothing; else it prints a warning for each that it cannot free.
            self._primary.give_up()
        while self._resources:
            _, resource = self._resources.popitem()
            try:
                resource.close()
            except Exception as error:  # pycuda's own, BackendError of a lost GPU
                _log.info("%s: %s was not freed: %s", self._name, type(resource).__name__, first_line(error))
        self._ended = self._ended or "is closed; open another backend"

    def _note_loss(self) -> None:
        """A lost GPU answers every call with the error that it was lost by, one that asks for nothing too."""
        try:
            self._driver.mem_get_info()
        except self._driver.Error:
            self._ended = self._ended or _LOST

    def _pop(self, context: Any) -> None:
        try:
            context.pop()
        except self._driver.Error as error:
            # A lost GPU may refuse even this, and pycuda aborts a process that ends with a context on its stack.
            _log.info("%s: %s", self._name, first_line(error))
            self._ended = _LOST
            self._primary.give_up()


class _PrimaryContext:
    """A GPU's primary context, retained at first use and kept while the process lives.

    To release one, pycuda pushes it and leaves it on the thread's stack of contexts, where the next CUDA user of that
    thread would find it; and TensorRT and ONNX Runtime keep the same context for good in any case. At the process's end
    it is released nevertheless, after all devices (finalizers run latest first): pycuda's own destructor would detach
    it as if it were no primary context, which fails with a warning on standard error.
    """

    def __init__(self, handle: Any):
        self._handle, self._lock = handle, threading.Lock()
        self._contexts: list[Any] = []
        weakref.finalize(self, _detach, self._contexts)

    def retained(self) -> Any:
        """pycuda's Context. Asking the GPU for its name alone takes no memory on it."""
        with self._lock:
            if not self._contexts:
                self._contexts.append(self._handle.retain_primary_context())
            return self._contexts[0]

    def give_up(self) -> None:
        """Take it off pycuda's stack of this thread, and let the next device try with a new one."""
        with self._lock:
            _detach(self._contexts)


def _detach(contexts: list[Any]) -> None:
    while contexts:
        with contextlib.suppress(Exception):  # pycuda's own: there is nobody left to tell
            contexts.pop().detach()


def _mb(nbytes: int) -> str:
    return f"{nbytes / 1e6:,.1f} MB"
