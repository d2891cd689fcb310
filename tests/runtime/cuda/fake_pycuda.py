"""A recording stand-in for pycuda.driver, with the names that runtime/cuda uses and no others.

It behaves as pycuda's sources say (src/cpp/cuda.hpp, pycuda/driver.py), where that can go wrong:

- Work on a stream is done when somebody waits for it, not before. "GPU" memory is memory of this process, and kernels
  are those of kernels.cu, compiled for the CPU, so that masks come out that can be compared.
- Contexts: pycuda's stack of a thread above the driver's own. What needs a context fails without, and what is freed
  while another one is current, or none, stays.
- Streams, events and modules have no `free`: they go with the last reference to them.
- Shapes, sizes, grids and blocks are Python's own ints and tuples: Boost.Python takes no NumPy integers, and no lists.
- `fail_at = n` makes the n-th call from then on fail. Calls that only let go succeed always, unless the GPU is `lost`:
  then every call fails, but for those of contexts where it is not `stuck` as well. What cannot be freed raises nothing:
  pycuda writes a warning to standard error (`warned` counts them), unless the context is one that was detached.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import itertools
import shutil
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fcnedge.runtime.cuda import device as device_module

_ATTRIBUTES = ("INTEGRATED", "COMPUTE_CAPABILITY_MAJOR")
_KERNEL_LOCK = threading.Lock()  # the kernels' stand-ins keep their indices in static variables


def like_c(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method whose errors carry no frame that refers to its arguments: pycuda's frames are C++'s."""

    @functools.wraps(method)
    def call(*arguments: Any, **more: Any) -> Any:
        try:
            return method(*arguments, **more)
        except Exception as error:
            failure = error.with_traceback(None)
        del arguments, more
        raise failure

    return call


class FakeCuda:
    """The driver and one GPU. calls: (name, details) of all that was asked; alive: what exists on the GPU."""

    def __init__(self, kernels: ctypes.CDLL, *, integrated: bool = False):
        self.kernels, self.integrated = kernels, integrated
        self.calls: list[tuple[str, Any]] = []
        self.alive: dict[int, str] = {}
        self.fail_at: int | None = None
        self.full_for = ""
        self.lost, self.stuck, self.warned = False, False, 0
        self.gpus, self.capability, self.driver_version = 1, (8, 7), 12060
        self.memory, self.total = 0, 8_000_000_000
        self.streams: dict[int, list[Callable[[], None]]] = {}
        self.clock = 0.0
        self._numbers = itertools.count(0x7000)
        self._thread = threading.local()
        self.buffers: dict[int, np.ndarray] = {}
        self.module = self._pycuda_driver()

    # --- what tests look at

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    @property
    def cuda_stack(self) -> list[str]:
        """The driver's stack of contexts of this thread, as any CUDA user sees it."""
        return self._thread.__dict__.setdefault("cuda", [])

    @property
    def pycuda_stack(self) -> list[Any]:
        return self._thread.__dict__.setdefault("pycuda", [])

    def enqueue(self, handle: int, what: str, work: Callable[[], None]) -> None:
        """What a library does that gets a stream's handle: TensorRT, say."""
        assert self.cuda_stack, f"{what} without a context"
        self.call(what, handle)
        self.streams[handle].append(work)

    # --- the inside

    def call(self, name: str, details: Any = None, *, letting_go: bool = False) -> None:
        self.calls.append((name, details))
        if self.lost and (self.stuck or name not in ("Context.push", "Context.pop")):
            raise self.module.LogicError(f"{name} failed: unspecified launch failure")
        if name == self.full_for:
            raise self.module.MemoryError(f"{name} failed: out of memory")
        if letting_go or self.fail_at is None:
            return
        self.fail_at -= 1
        if self.fail_at == 0:
            raise self.module.LogicError(f"{name} failed: injected")

    def current(self) -> Any:
        if not self.pycuda_stack or self.cuda_stack[-1] != "primary":
            raise self.module.LogicError("explicit_context_dependent failed: invalid device context - no currently ...")
        return self.pycuda_stack[-1]

    def born(self, what: str) -> int:
        number = next(self._numbers)
        self.alive[number] = what
        return number

    def dies(self, number: int, owner: Any) -> bool:
        """Whether it could be freed: its context must be current on this thread."""
        if self.lost:
            self.warned += owner.valid
            return False
        if not self.pycuda_stack or self.pycuda_stack[-1] is not owner:
            return False
        del self.alive[number]
        return True

    def take(self, nbytes: int) -> int:
        """Memory, poisoned, at an address divisible by 256 as cuMemAlloc's are."""
        raw = np.full(nbytes + 256, 0xCD, np.uint8)
        offset = -raw.ctypes.data % 256
        buffer = raw[offset : offset + nbytes]
        self.buffers[buffer.ctypes.data] = buffer
        return buffer.ctypes.data

    def at(self, address: int, nbytes: int) -> np.ndarray:
        """The bytes at an address; fails where they are not in one buffer that is still there."""
        for start, buffer in self.buffers.items():
            if start <= address and address + nbytes <= start + buffer.nbytes:
                return buffer[address - start : address - start + nbytes]
        raise AssertionError(f"{nbytes} bytes at {address:#x} are nobody's")

    def run_stream(self, handle: int) -> None:
        work, self.streams[handle] = self.streams[handle], []
        for step in work:
            self.clock += 0.25
            step()

    def _pycuda_driver(self) -> types.ModuleType:
        cuda, module = self, types.ModuleType("pycuda.driver")

        class Error(Exception):
            pass

        errors = {
            name: type(name, (Error,), {}) for name in ("MemoryError", "LogicError", "LaunchError", "RuntimeError")
        }

        class Context:
            def __init__(self) -> None:
                self.valid = True

            def push(self) -> None:
                cuda.call("Context.push")
                if cuda.pycuda_stack:
                    cuda.cuda_stack.pop()
                cuda.cuda_stack.append("primary")
                cuda.pycuda_stack.append(self)

            @staticmethod
            def pop() -> None:
                cuda.call("Context.pop", letting_go=True)
                cuda.cuda_stack.pop()
                cuda.pycuda_stack.pop()
                if cuda.pycuda_stack:
                    cuda.cuda_stack.append("primary")

            def detach(self) -> None:
                cuda.calls.append(("Context.detach", None))
                self.valid = False
                while cuda.pycuda_stack and cuda.pycuda_stack[-1] is self:
                    cuda.pycuda_stack.pop()

        class Device:
            def __init__(self, index: int) -> None:
                assert index < cuda.gpus

            @staticmethod
            def count() -> int:
                cuda.call("Device.count")
                return cuda.gpus

            def name(self) -> str:
                cuda.call("Device.name")
                return "Orin"

            def compute_capability(self) -> tuple[int, int]:
                cuda.call("Device.compute_capability")
                return cuda.capability

            def get_attribute(self, attribute: Any) -> int:
                cuda.call("Device.get_attribute")
                assert attribute.name == "INTEGRATED"
                return int(cuda.integrated)

            def retain_primary_context(self) -> Context:
                cuda.call("Device.retain_primary_context")
                return Context()

        class Handle:
            """With a context, and gone when nobody refers to it."""

            def __init__(self, what: str) -> None:
                cuda.call(what)
                self._owner, self._number = cuda.current(), cuda.born(what)

            def __del__(self) -> None:
                if hasattr(self, "_number"):
                    cuda.dies(self._number, self._owner)

        class Stream(Handle):
            def __init__(self, flags: int = 0) -> None:
                super().__init__("Stream")
                assert flags == 1, "a stream that waits for the default stream"
                cuda.streams[self._number] = []

            @property
            def handle(self) -> int:
                return self._number

            @like_c
            def synchronize(self) -> None:
                cuda.call("Stream.synchronize", self._number)
                cuda.current()
                cuda.run_stream(self._number)

        class Event(Handle):
            def __init__(self) -> None:
                super().__init__("Event")
                self.moment: float | None = None

            @like_c
            def record(self, stream: Stream) -> Event:
                cuda.call("Event.record", stream.handle)
                self.moment = None
                cuda.streams[stream.handle].append(self._happen)
                return self

            def _happen(self) -> None:
                self.moment = cuda.clock

            @like_c
            def time_since(self, earlier: Event) -> float:
                cuda.call("Event.time_since")
                if self.moment is None or earlier.moment is None:
                    raise errors["LogicError"]("cuEventElapsedTime failed: device not ready")
                return self.moment - earlier.moment

        class Function:
            def __init__(self, name: str, module: Module) -> None:
                self._name, self._module = name, module

            @like_c
            def __call__(self, *arguments: Any, block: Any, grid: Any, stream: Stream) -> None:
                cuda.current()
                cuda.call(self._name, stream.handle)
                assert all(isinstance(value, np.number) for value in arguments), arguments
                assert type(block) is type(grid) is tuple, (block, grid)
                assert all(type(side) is int and side >= 1 for side in (*block, *grid)), (block, grid)
                assert block[0] * block[1] * block[2] <= 1024, block
                assert max(grid[1:]) <= 65535, grid
                work = functools.partial(cuda.launch, self._name, arguments, block, grid)
                cuda.streams[stream.handle].append(work)

        class Module(Handle):
            def get_function(self, name: str) -> Function:
                cuda.call("Module.get_function", name)
                return Function(name, self)

        class Memory:
            def __init__(self, nbytes: int, what: str) -> None:
                assert type(nbytes) is int, type(nbytes)
                cuda.call(what, nbytes)
                if nbytes == 0:
                    raise errors["LogicError"](f"{what} failed: invalid argument")
                self._owner = cuda.current()
                if cuda.memory + nbytes > cuda.total:
                    raise errors["MemoryError"]("cuMemAlloc failed: out of memory")
                cuda.memory += nbytes
                self._nbytes, self.address, self._number = nbytes, cuda.take(nbytes), cuda.born(what)

            def free(self) -> None:
                assert self._number in cuda.alive, "freed twice"
                cuda.calls.append(("free", self._number))
                if cuda.dies(self._number, self._owner):
                    cuda.memory -= self._nbytes
                    cuda.buffers.pop(self.address)[...] = 0xDD

        class DeviceAllocation(Memory):
            def __int__(self) -> int:
                return self.address

        class PagelockedHostAllocation(Memory):
            def get_device_pointer(self) -> int:
                cuda.call("get_device_pointer")
                return self.address

        class HostArray(np.ndarray):
            """Its base is the allocation, as in pycuda; NumPy allows no base that is no buffer."""

            allocation: Any = None

            @property
            def base(self) -> Any:
                return self.allocation if self.allocation is not None else super().base

        def pagelocked_empty(shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
            assert mem_flags == 3  # PORTABLE | DEVICEMAP
            assert all(type(side) is int for side in shape), shape
            dtype = np.dtype(dtype)
            allocation = PagelockedHostAllocation(int(np.prod(shape)) * dtype.itemsize, "pagelocked_empty")
            array = cuda.buffers[allocation.address].view(dtype).reshape(shape).view(HostArray)
            array.allocation = allocation
            return array

        def copy(name: str, host: np.ndarray, address: int, stream: Stream, *, up: bool) -> None:
            cuda.current()
            cuda.call(name, stream.handle)
            assert isinstance(host, HostArray), "a copy from memory that is not pinned is not asynchronous"
            assert isinstance(address, int)

            def work() -> None:
                here, there = host.reshape(-1).view(np.uint8), cuda.at(address, host.nbytes)
                cuda.at(host.ctypes.data, host.nbytes)
                if up:
                    there[...] = here
                else:
                    here[...] = there

            cuda.streams[stream.handle].append(work)

        @like_c
        def memcpy_htod_async(dest: int, src: np.ndarray, stream: Stream) -> None:
            copy("memcpy_htod_async", src, dest, stream, up=True)

        @like_c
        def memcpy_dtoh_async(dest: np.ndarray, src: int, stream: Stream) -> None:
            copy("memcpy_dtoh_async", dest, src, stream, up=False)

        def module_from_buffer(buffer: bytes) -> Module:
            if not buffer.startswith(b"cubin"):
                cuda.call("module_from_buffer", buffer)
                raise errors["LogicError"]("cuModuleLoadDataEx failed: device kernel image is invalid -")
            return Module("module_from_buffer")

        def mem_get_info() -> tuple[int, int]:
            cuda.current()
            cuda.call("mem_get_info")
            return cuda.total - cuda.memory, cuda.total

        module.__dict__.update(
            Error=Error,
            **errors,
            Context=Context,
            Device=Device,
            Stream=Stream,
            Event=Event,
            device_attribute=enum.Enum("device_attribute", _ATTRIBUTES),
            host_alloc_flags=types.SimpleNamespace(PORTABLE=1, DEVICEMAP=2, WRITECOMBINED=4),
            init=lambda: cuda.call("init"),
            get_version=lambda: (12, 6, 0),
            get_driver_version=lambda: cuda.driver_version,
            mem_alloc=lambda nbytes: DeviceAllocation(nbytes, "mem_alloc"),
            pagelocked_empty=pagelocked_empty,
            memcpy_htod_async=memcpy_htod_async,
            memcpy_dtoh_async=memcpy_dtoh_async,
            module_from_buffer=module_from_buffer,
            mem_get_info=mem_get_info,
        )
        return module

    def launch(self, name: str, arguments: tuple[Any, ...], block: Any, grid: Any) -> None:
        """Run a kernel as cuLaunchKernel does: a pointer to each argument."""
        kinds = {"uint64": ctypes.c_void_p, "int32": ctypes.c_int32, "float32": ctypes.c_float}
        values = [kinds[value.dtype.name](value.item()) for value in arguments]
        for value in arguments:
            if value.dtype.name == "uint64":
                self.at(int(value), 1)
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        with _KERNEL_LOCK:
            taken = getattr(self.kernels, f"launch_{name}")(_three(grid), _three(block), pointers)
        assert taken == len(values), f"{name} takes {taken} arguments, was given {len(values)}"


NVCC = """#!/bin/sh
echo "$@" >> "{log}"
if [ "$1" = --version ]; then echo "release 12.6, V12.6.68"; exit 0; fi
while [ $# -gt 1 ]; do if [ "$1" = -o ]; then printf cubin > "$2"; fi; shift; done
"""


@pytest.fixture(scope="session")
def cpu_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Give kernels.cu and its stand-ins for CUDA's keywords, compiled for the CPU; skips where there is no g++."""
    return _kernel_library(tmp_path_factory.getbasetemp())


@functools.cache
def _kernel_library(folder: Path) -> ctypes.CDLL:
    if shutil.which("g++") is None:
        pytest.skip("no g++ on PATH; the kernels cannot be compiled for the CPU")
    library, include = folder / "fake_gpu_kernels.so", Path(device_module.__file__).parent
    options = ["-std=c++17", "-O1", "-fPIC", "-shared", "-ffp-contract=off", "-fno-strict-aliasing"]
    source = Path(__file__).with_name("kernels_on_cpu.cpp")
    subprocess.run(["g++", *options, "-I", str(include), "-o", str(library), str(source)], check=True)
    return ctypes.CDLL(str(library))


@pytest.fixture
def fake_nvcc(tmp_path, monkeypatch) -> Path:
    """Put a compiler that leaves a cubin of five letters first on PATH; give the file with its command lines."""
    folder, log = tmp_path / "cuda" / "bin", tmp_path / "nvcc.log"
    folder.mkdir(parents=True)
    (folder / "nvcc").write_text(NVCC.format(log=log))
    (folder / "nvcc").chmod(0o755)
    log.touch()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return log


@pytest.fixture
def cuda(cpu_library, fake_nvcc, monkeypatch) -> FakeCuda:
    """Give a FakeCuda that `import pycuda.driver` then finds."""
    made = FakeCuda(cpu_library)
    package = types.ModuleType("pycuda")
    package.__dict__["driver"] = made.module
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", made.module)
    monkeypatch.setattr(device_module, "_primary_contexts", {})
    return made


def _three(sides: Any) -> Any:
    return (ctypes.c_uint * 3)(*sides)
