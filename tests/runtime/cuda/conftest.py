"""Two stand-ins for a GPU: the kernels on the CPU, in buffers of exactly their size, and a network beside them.

kernels.cu is compiled by g++ as plain C++; fake_pycuda.py runs it as pycuda would, with streams, events and memory.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fcnedge.runtime import Bundle, Segmenter
from fcnedge.runtime.backends import FakeBackend
from fcnedge.runtime.cuda import geometry
from fcnedge.runtime.cuda.device import Device
from fcnedge.runtime.cuda.geometry import KernelLaunch
from fcnedge.runtime.cuda.pipeline import FramePipeline
from fcnedge.runtime.manifest import HeadSpec, InputSpec, Manifest
from fcnedge.runtime.preprocessing import Preprocessing

SPEC = importlib.util.spec_from_file_location("fake_pycuda", Path(__file__).with_name("fake_pycuda.py"))
fake_pycuda = sys.modules.setdefault("fake_pycuda", importlib.util.module_from_spec(SPEC))
if not hasattr(fake_pycuda, "FakeCuda"):
    SPEC.loader.exec_module(fake_pycuda)
cpu_library, fake_nvcc, cuda = fake_pycuda.cpu_library, fake_pycuda.fake_nvcc, fake_pycuda.cuda

SANITIZE_VARIABLE = "FCNEDGE_SANITIZE_KERNELS"
"""Set by test_kernel_bounds.py in a child process that has AddressSanitizer preloaded."""


def _compile_kernels(folder: Path, *, sanitize: bool) -> Path:
    """Compile kernels.cu and its stand-ins to a shared library in `folder`; skips where there is no g++."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ on PATH; the kernels cannot be compiled for the CPU")
    library = folder / "kernels.so"
    options = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-ffp-contract=off"]
    options += ["-fno-strict-aliasing"]  # the overlay reads bytes as words
    if sanitize:
        options += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    include = Path(geometry.__file__).parent
    source = Path(__file__).with_name("kernels_on_cpu.cpp")
    subprocess.run([compiler, *options, "-I", str(include), "-o", str(library), str(source)], check=True)
    return library


class Buffer:
    """`content` in memory of its own from malloc, not a byte more: AddressSanitizer guards both ends."""

    def __init__(self, content: np.ndarray):
        content = np.ascontiguousarray(content)
        self._like = content
        self._libc = ctypes.CDLL(None)
        self._libc.malloc.restype, self._libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        self._libc.free.argtypes = [ctypes.c_void_p]
        self.address = self._libc.malloc(content.nbytes)
        ctypes.memmove(self.address, content.ctypes.data, content.nbytes)

    def take(self) -> np.ndarray:
        """Copy the content out and free the memory."""
        out = np.empty_like(self._like)
        ctypes.memmove(out.ctypes.data, self.address, out.nbytes)
        self._libc.free(self.address)
        return out


class CpuKernels:
    """Runs a KernelLaunch on the CPU: every block, every thread."""

    def __init__(self, library: Path):
        self._library = ctypes.CDLL(str(library))

    def run(self, launch: KernelLaunch, *leading: int) -> None:
        """leading: addresses (and a row pitch) that come before `launch.arguments`."""
        values: list[ctypes._SimpleCData] = [
            ctypes.c_int32(value) if isinstance(value, np.int32) else ctypes.c_void_p(value) for value in leading
        ]
        for value in launch.arguments:
            kind = {np.int32: ctypes.c_int32, np.float32: ctypes.c_float}[type(value)]
            values.append(kind(value.item()))
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        function = getattr(self._library, f"launch_{launch.name}")
        nothing = (ctypes.c_uint * 3)(0, 0, 0)
        assert function(nothing, nothing, pointers) == len(values)  # as many as the kernel has
        function((ctypes.c_uint * 3)(*launch.grid), (ctypes.c_uint * 3)(*launch.block), pointers)

    def preprocess(self, launch: KernelLaunch, frame: np.ndarray, size: tuple[int, int], gap: int) -> np.ndarray:
        """frame: (H, W, 3) uint8; gap: bytes between its rows. Returns (1, height, width, 3) uint8."""
        pitch = 3 * frame.shape[1] + gap
        rows = np.full((frame.shape[0], pitch), 0xAA, np.uint8)
        rows[:, : 3 * frame.shape[1]] = frame.reshape(frame.shape[0], -1)
        source = Buffer(rows.ravel()[: rows.size - gap])  # the last row ends with its last pixel
        target = Buffer(np.full((1, *size, 3), 0x55, np.uint8))
        self.run(launch, source.address, np.int32(pitch), target.address)
        source.take()
        return target.take()

    def labels(self, launch: KernelLaunch, scores: np.ndarray, frame_size: tuple[int, int]) -> np.ndarray:
        """scores: (C, h, w) float32 or float16. Returns (H, W) uint8; 254 where no thread wrote."""
        source, target = Buffer(scores), Buffer(np.full(frame_size, 254, np.uint8))
        self.run(launch, source.address, target.address)
        np.testing.assert_array_equal(source.take().view(np.uint8), np.ascontiguousarray(scores).view(np.uint8))
        return target.take()

    def overlay(
        self, launch: KernelLaunch, frame: np.ndarray, labels: np.ndarray, palette: np.ndarray, painted: np.ndarray
    ) -> np.ndarray:
        """frame: (H, W, 3) uint8 BGR; labels: (H, W) uint8. Returns what the frame has become."""
        buffers = [Buffer(array) for array in (frame, labels, palette, painted)]
        self.run(launch, *(buffer.address for buffer in buffers))
        mixed, *_ = [buffer.take() for buffer in buffers]
        return mixed


@pytest.fixture(scope="session")
def cpu_kernels(tmp_path_factory: pytest.TempPathFactory) -> CpuKernels:
    """Give the kernels, compiled for the CPU; with AddressSanitizer in the child process of test_kernel_bounds.py."""
    folder = tmp_path_factory.mktemp("kernels")
    return CpuKernels(_compile_kernels(folder, sanitize=SANITIZE_VARIABLE in os.environ))


@pytest.fixture(scope="session")
def compile_kernels() -> Callable[..., Path]:
    """Give `_compile_kernels(folder, sanitize=...)`."""
    return _compile_kernels


@pytest.fixture(scope="session")
def manifest_of() -> Callable[..., Manifest]:
    """Give a function that makes a manifest out of what the kernels read of it."""
    return _manifest_of


def _manifest_of(
    size: tuple[int, int],
    fit: str = "stretch",
    *,
    classes: int = 2,
    stride: int = 8,
    offset: tuple[float, float] = (0.0, 0.0),
    kind: str = "bilinear",
) -> Manifest:
    return Manifest(
        name="kernels",
        arch="none",
        classes=tuple(f"class {index}" for index in range(classes)),
        palette=((0, 0, 0),) * classes,
        input=InputSpec(*size, fit),
        preprocessing=Preprocessing("rgb", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        head=HeadSpec(kind, stride, 2 * stride, offset),
        files={},
        versions={},
    )


# A stand-in for the GPU

RANDOM = np.random.default_rng(7)


class ColourNetwork:
    """A DeviceNetwork on the stand-in: FakeBackend's scores, a little of the brightness added so that cells differ."""

    name, precision = "colours", "fp32"

    def __init__(self, cuda, manifest, dtype=np.float32):
        self.cuda, self.manifest, self.closed = cuda, manifest, 0
        size, head = (manifest.input.height, manifest.input.width), manifest.head
        self.image_shape = (1, *size, 3)
        self.output_dtype = np.dtype(np.uint8 if head.kind == "labels" else dtype)
        self.output_shape = (1, *size)
        if head.kind == "bilinear":
            self.output_shape = (1, len(manifest.classes), size[0] // head.stride, size[1] // head.stride)

    def bind(self, image_address, output_address, stream_handle):
        self.cuda.call("bind", stream_handle)
        self.addresses, self.stream = (image_address, output_address), stream_handle

    def enqueue(self):
        self.cuda.enqueue(self.stream, "network", self.run)

    def run(self):
        image = self.cuda.at(self.addresses[0], int(np.prod(self.image_shape))).reshape(self.image_shape)
        output = self.infer(image)
        self.cuda.at(self.addresses[1], output.nbytes)[...] = output.reshape(-1).view(np.uint8)

    def infer(self, image):
        """As `Backend.infer`: the reference for what the GPU path shall give."""
        output = FakeBackend(self.manifest).infer(image)
        if self.output_dtype == np.uint8:
            return output
        stride = self.manifest.head.stride
        grey = image[0, ::stride, ::stride, 1].astype(np.float32)[: output.shape[2], : output.shape[3]]
        weights = np.arange(output.shape[1])[:, None, None] % 3
        return (output + weights * grey / 512).astype(self.output_dtype)

    def close(self):
        self.closed += 1


class Overflowing(ColourNetwork):
    """NaN for scores, 9 for labels."""

    def infer(self, image):
        value = 9 if self.output_dtype == np.uint8 else np.nan
        return np.full(self.output_shape, value, self.output_dtype)


def frame_of(height: int, width: int) -> np.ndarray:
    """Coloured patches of many sizes."""
    frame = np.zeros((height, width, 3), np.uint8)
    for _ in range(12):
        top, left = RANDOM.integers(height), RANDOM.integers(width)
        frame[top : top + height // 3 + 1, left : left + width // 3 + 1] = RANDOM.integers(0, 256, 3)
    return frame


@pytest.fixture
def bundle(tmp_path, write_bundle) -> Bundle:
    return Bundle.load(write_bundle(tmp_path / "b"))


def opened(cuda, bundle, kind=ColourNetwork, filter_mode="linear", **more) -> FramePipeline:
    return FramePipeline(Device(), kind(cuda, bundle.manifest, **more), bundle.manifest, filter_mode)


def reference(cuda, bundle, filter_mode="linear", **more) -> Segmenter:
    return Segmenter(bundle, ColourNetwork(cuda, bundle.manifest, **more), filter_mode=filter_mode)
