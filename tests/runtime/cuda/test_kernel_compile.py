"""kernels.cu compiles for every GPU it is meant for, with whatever CUDA compiler there is: nvcc, or NVRTC. No GPU."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fcnedge.runtime.cuda import geometry

SOURCE = Path(geometry.__file__).with_name("kernels.cu")
KERNELS = (b"preprocess", b"scores_to_labels_f32", b"scores_to_labels_f16", b"overlay")
ARCHITECTURES = {
    "72": "AGX Xavier",
    "75": "Turing",
    "86": "GeForce 30",
    "87": "Orin",
    "89": "Ada",
    "90": "Hopper",
    "110": "Thor",
    "120": "GeForce 50",
}

Compile = Callable[[str], bytes]
"""From an architecture as in `ARCHITECTURES` to the cubin; skips where the compiler does not know it."""


@pytest.fixture(scope="module")
def compile_cubin(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Give nvcc of the PATH, of /usr/local/cuda, of NVIDIA's wheels, or NVRTC of those."""
    wheels = _nvidia_wheels()
    nvcc = shutil.which("nvcc") or _first([Path("/usr/local/cuda/bin/nvcc")], wheels, "*/bin/nvcc")
    if nvcc is not None:
        return lambda architecture: _with_nvcc(str(nvcc), architecture, tmp_path_factory.mktemp("cubin"))
    library = _first([], wheels, "*/lib/libnvrtc.so.*")
    if library is not None:
        return lambda architecture: _with_nvrtc(ctypes.CDLL(str(library)), architecture)
    pytest.skip("no CUDA compiler: neither nvcc on PATH nor the wheel nvidia-cuda-nvcc or nvidia-cuda-nvrtc")


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda name: f"sm_{name}")
def test_kernels_compile_and_spill_no_register(compile_cubin, architecture):
    cubin = compile_cubin(architecture)
    assert cubin.startswith(b"\x7fELF")
    for kernel in KERNELS:
        assert b".text." + kernel + b"\0" in cubin


def _with_nvcc(nvcc: str, architecture: str, folder: Path) -> bytes:
    known = subprocess.run([nvcc, "--list-gpu-code"], check=True, capture_output=True, text=True).stdout.split()
    if f"sm_{architecture}" not in known:
        pytest.skip(f"{nvcc} does not compile for sm_{architecture} ({ARCHITECTURES[architecture]})")
    cubin = folder / "kernels.cubin"
    command = [nvcc, "-std=c++17", "-fmad=false", "-Werror", "all-warnings", "-Xptxas", "-v,-warn-spills", "-cubin"]
    done = subprocess.run(
        [*command, f"-arch=sm_{architecture}", "-o", str(cubin), str(SOURCE)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("0 bytes spill stores, 0 bytes spill loads") == len(KERNELS), done.stderr
    return cubin.read_bytes()


def _with_nvrtc(nvrtc: ctypes.CDLL, architecture: str) -> bytes:
    count = ctypes.c_int()
    assert nvrtc.nvrtcGetNumSupportedArchs(ctypes.byref(count)) == 0
    known = (ctypes.c_int * count.value)()
    assert nvrtc.nvrtcGetSupportedArchs(known) == 0
    if int(architecture) not in known:
        pytest.skip(f"this NVRTC does not compile for sm_{architecture} ({ARCHITECTURES[architecture]})")
    program = ctypes.c_void_p()
    text = SOURCE.read_bytes()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, b"kernels.cu", 0, None, None) == 0
    options = (ctypes.c_char_p * 3)(b"--std=c++17", b"--fmad=false", b"--gpu-architecture=sm_" + architecture.encode())
    code = nvrtc.nvrtcCompileProgram(program, len(options), options)
    assert code == 0, _nvrtc_text(nvrtc, "ProgramLog", program).decode()
    return _nvrtc_text(nvrtc, "CUBIN", program)


def _nvrtc_text(nvrtc: ctypes.CDLL, what: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    assert getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
    content = ctypes.create_string_buffer(size.value)
    assert getattr(nvrtc, f"nvrtcGet{what}")(program, content) == 0
    return content.raw


def _nvidia_wheels() -> list[Path]:
    spec = importlib.util.find_spec("nvidia")  # a namespace package: one folder for each place with wheels in it
    return [Path(place) for place in spec.submodule_search_locations or []] if spec else []


def _first(places: list[Path], wheels: list[Path], pattern: str) -> Path | None:
    found = [*places, *(path for wheel in wheels for path in sorted(wheel.glob(pattern)) if ".alt." not in path.name)]
    return next((path for path in found if path.is_file()), None)
