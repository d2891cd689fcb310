"""kernels.cu → kernels on the GPU: compiled by nvcc once per source, architecture and nvcc, then read from a cache."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ..errors import BackendError, UserError
from ..user_cache import make_private, user_cache
from .device import Device, FullGpuError, Module
from .driver import first_line

_log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.cu")
# No fused multiply-add: a product that is not rounded before the sum gives other labels than the NumPy references do.
NVCC_FLAGS = ("--cubin", "--std=c++17", "-O3", "-fmad=false")
_DEFAULT_CUDA = Path("/usr/local/cuda")
_COMPILE_S = 300


def load_kernels(device: Device) -> Module:
    """The kernels of kernels.cu on this GPU; nvcc runs when no earlier run has left them in the cache.

    Raises UserError when nvcc is not found, BackendError when it fails or its code does not load: the driver is older
    than nvcc's CUDA.
    """
    nvcc = find_nvcc()
    architecture = f"sm_{device.compute_capability.replace('.', '')}"
    cached = _cached(f"{_key(nvcc, architecture)}.{architecture}.cubin")
    image = None if cached is None else _read(cached)
    if image is not None:
        try:
            return device.module(image)
        except FullGpuError:
            raise
        except BackendError as error:  # a file that was damaged since
            _log.info("%s does not load (%s); compiling again", cached, _reason(error))
    _log.info("compiling the GPU kernels for %s with %s, once", architecture, nvcc)
    image = compile_kernels(nvcc, architecture)
    if cached is not None:
        _write(cached, image)
    try:
        return device.module(image)
    except FullGpuError:
        raise
    except BackendError as error:
        raise BackendError(
            f"{device.name} does not take the kernels that {nvcc} has compiled for {architecture} ({_reason(error)}); "
            f"its driver supports CUDA {device.driver_version}: put the nvcc of that CUDA, or an older one, first on "
            "PATH."
        ) from error


def compile_kernels(nvcc: Path, architecture: str) -> bytes:
    """Kernels.cu as a cubin for `architecture`, "sm_87". Raises BackendError with nvcc's first error."""
    with tempfile.TemporaryDirectory(prefix="fcnedge-") as folder:
        cubin = Path(folder) / "kernels.cubin"
        command = [str(nvcc), *NVCC_FLAGS, f"-arch={architecture}", "-o", str(cubin), str(SOURCE)]
        done = _run(command)
        if done.returncode != 0 or not cubin.is_file():
            raise BackendError(f"{nvcc} cannot compile the GPU kernels for {architecture}: {_first_error(done)}.")
        return cubin.read_bytes()


def find_nvcc() -> Path:
    """CUDA's compiler: on PATH, in CUDA_HOME, or where JetPack and NVIDIA's packages have it. Raises UserError."""
    found = shutil.which("nvcc")
    if found is not None:
        return Path(found)
    for home in (os.environ.get("CUDA_HOME"), _DEFAULT_CUDA):
        if home and os.access(nvcc := Path(home) / "bin" / "nvcc", os.X_OK):
            return nvcc
    raise UserError(
        "CUDA's compiler nvcc is not found, and the GPU kernels must be compiled once; install the CUDA toolkit and "
        "put its nvcc on PATH (JetPack has it in /usr/local/cuda/bin)."
    )


def nvcc_version(nvcc: Path) -> str:
    """What `nvcc --version` says, several lines. Raises BackendError when it does not run."""
    version = _run([str(nvcc), "--version"])
    if version.returncode != 0:
        raise BackendError(f"{nvcc} does not run: {_first_error(version)}.")
    return version.stdout


def _cached(name: str) -> Path | None:
    try:
        return user_cache("kernels") / name
    except UserError as error:
        _log.warning("compiled GPU kernels cannot be kept (%s); each start compiles them", error)
        return None


def _key(nvcc: Path, architecture: str) -> str:
    """Names what the machine code depends on: source, flags, architecture, and nvcc's word about its version."""
    words = (*NVCC_FLAGS, architecture, nvcc_version(nvcc), SOURCE.read_text(encoding="utf-8"))
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:32]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_COMPILE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendError(f"{command[0]} does not run: {first_line(error)}.") from error


def _first_error(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in f"{done.stderr}\n{done.stdout}".splitlines() if line.strip()]
    told = next((line for line in lines if "error" in line.lower() or "fatal" in line.lower()), None)
    return (told or (lines or [f"it ended with exit code {done.returncode}"])[0])[:300].rstrip(". ")


def _reason(error: BackendError) -> str:
    """Why kernels do not load, without what is advised for a GPU that fails in mid-run."""
    return str(error).partition(";")[0].rstrip(".")


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _write(path: Path, image: bytes) -> None:
    """Whole or not at all, for two programs may start at once; without a place to write, each start compiles."""
    try:
        make_private(path.parent)
        handle, staged = tempfile.mkstemp(dir=path.parent, suffix=".partial")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(image)
            os.replace(staged, path)  # noqa: PTH105 - takes an older file's place, on Windows too
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(staged)  # noqa: PTH108
            raise
    except OSError as error:
        _log.warning("compiled GPU kernels cannot be kept in %s (%s); each start compiles them", path.parent, error)
