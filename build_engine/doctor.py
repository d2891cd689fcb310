"""What is installed, which backends work here, why the others do not, and the command that would fix it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from dataclasses import dataclass

from fcnedge.runtime.backends.openvino import load_openvino
from fcnedge.runtime.backends.tensorrt import load_library
from fcnedge.runtime.command import table
from fcnedge.runtime.cuda.compiler import find_nvcc, nvcc_version
from fcnedge.runtime.cuda.driver import load_driver
from fcnedge.runtime.engine_sidecar import TARGETS
from fcnedge.runtime.errors import UserError, missing_package

from .cuda_provider import why_not
from .engines.gpu import current_gpu
from .engines.library import open_library
from .models.names import LITES, pretrained_packages


@dataclass(frozen=True)
class Finding:
    """One line: a package or ability, whether it works, what was found, and the command that fixes it ("" if none)."""

    name: str
    works: bool
    found: str
    fix: str


@dataclass(frozen=True)
class DoctorReport:
    """System facts, backends best first, what those on a GPU need, and the packages of each job."""

    system: dict[str, str]
    backends: tuple[Finding, ...]
    gpu: tuple[Finding, ...]
    jobs: tuple[Finding, ...]

    def text(self) -> str:
        """The report as text tables."""
        parts = [table(self.system.items())]
        for title, findings in (("backend", self.backends), ("on a GPU", self.gpu), ("job", self.jobs)):
            rows = [(f.name, "yes" if f.works else "no", f.found, f.fix) for f in findings]
            parts.append(table(rows, (title, "works", "found", "to fix")))
        return "\n\n".join(parts)


@dataclass(frozen=True)
class _Job:
    """Modules that a job imports, with the distribution that brings each, and the extra that installs them all."""

    name: str
    modules: dict[str, str]
    extra: str


_JOBS = (
    _Job("read and show frames (fcn-run)", {"cv2": "opencv-python"}, "headless"),
    _Job(
        "build bundles (fcn-build model)",
        {
            "tensorflow": "tensorflow",
            "keras": "keras",
            "tf2onnx": "tf2onnx",
            "onnx": "onnx",
            "onnx_ir": "onnx-ir",
            "safetensors": "safetensors",
        },
        "build",
    ),
    _Job("import MatConvNet's .mat files", {"scipy": "scipy", "h5py": "h5py"}, "import"),
    _Job("train (fcn-build train)", {"PIL": "pillow", "matplotlib": "matplotlib"}, "train"),
    *(_Job(f"ImageNet weights for {trunk}", pretrained_packages(trunk), "pretrained") for trunk in LITES),
    _Job("demo photographs", {"skimage": "scikit-image", "matplotlib": "matplotlib"}, "demo"),
)
_IS_JETSON = platform.machine() == "aarch64"
_TENSORRT_FIXES = {
    "tensorrt": "python3 -m venv --system-site-packages" if _IS_JETSON else "pip install 'fcnedge[tensorrt]'",
    "tensorrt_rtx": "pip install 'fcnedge[rtx]'",
}
_DRIVER_FIX = "install or update NVIDIA's driver (a Jetson has JetPack's); nvidia-smi then shows the GPU"
_PYCUDA_FIX = "pip install --force-reinstall --no-cache-dir pycuda"
_NVCC_FIX = "export PATH=/usr/local/cuda/bin:$PATH; where there is no nvcc, install the CUDA toolkit"


def examine() -> DoctorReport:
    """Look at this machine. Imports the backends' libraries for real: being installed is not working."""
    jobs = (*(_job(job) for job in _JOBS), *(_compiler(target) for target in TARGETS))
    gpu = (_driver(), _pycuda(), _nvcc())
    on_gpu = (_on_gpu(found, gpu) for found in (*map(_tensorrt, TARGETS), _onnxruntime_cuda()))
    return DoctorReport(_system(), (*on_gpu, _openvino(), _onnxruntime()), gpu, jobs)


def missing_extra(error: ModuleNotFoundError) -> UserError | None:
    """The error that names the extra of a job's missing module; None for any other module: that is a bug."""
    module = (error.name or "").partition(".")[0]
    for job in _JOBS:
        if module in job.modules:
            return missing_package(job.modules[module], extra=job.extra)
    return None


def _system() -> dict[str, str]:
    return {
        "fcnedge": importlib.metadata.version("fcnedge"),
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "cpu cores": str(os.cpu_count()),
    }


def _openvino() -> Finding:
    fix = "pip install 'fcnedge[openvino]'"
    try:
        openvino = load_openvino()
        devices = openvino.Core().available_devices
    except Exception as error:  # a broken shared library raises almost anything
        return Finding("openvino", False, _first_line(error), fix)
    works = "CPU" in devices
    version = openvino.__version__.partition("-")[0]
    return Finding("openvino", works, f"{version} ({', '.join(devices)})", "" if works else fix)


def _onnxruntime() -> Finding:
    fix = "pip install 'fcnedge[cpu]'"
    try:
        ort = importlib.import_module("onnxruntime")
        providers = ort.get_available_providers()
    except Exception as error:  # a broken shared library raises almost anything
        return Finding("onnxruntime", False, _first_line(error), fix)
    works = "CPUExecutionProvider" in providers
    return Finding("onnxruntime", works, f"{ort.__version__} ({', '.join(providers)})", "" if works else fix)


def _onnxruntime_cuda() -> Finding:
    fix = "pip uninstall onnxruntime; pip install 'onnxruntime-gpu[cuda,cudnn]'"
    try:
        ort = importlib.import_module("onnxruntime")
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            return Finding("onnxruntime_cuda", False, f"{ort.__version__} has no CUDAExecutionProvider", fix)
        reason = why_not()
    except Exception as error:  # as above
        return Finding("onnxruntime_cuda", False, _first_line(error), fix)
    found = f"{ort.__version__} with CUDAExecutionProvider"
    if not reason:
        return Finding("onnxruntime_cuda", True, found, "")
    fix = _DRIVER_FIX if "libcuda.so" in reason else "pip install 'onnxruntime-gpu[cuda,cudnn]'"
    return Finding("onnxruntime_cuda", False, f"{found}, which does not load ({reason})", fix)


def _tensorrt(target: str) -> Finding:
    try:
        version = str(load_library(target).__version__)
        known = open_library(target).compute_capabilities
    except Exception as error:  # as above
        return Finding(target, False, _before_advice(error), _TENSORRT_FIXES[target])
    gpu = current_gpu()
    if gpu is None or not known or gpu.compute_capability in known:
        return Finding(target, True, version, "")
    found = (
        f"{version}, which knows compute capability {', '.join(known)} and not {gpu.name}'s {gpu.compute_capability}"
    )
    return Finding(target, False, found, _TENSORRT_FIXES["tensorrt"])


def _on_gpu(library: Finding, gpu: tuple[Finding, ...]) -> Finding:
    """A backend works where its library does and all that the GPU path needs."""
    lacking = next((each for each in gpu if not each.works), None)
    if not library.works or lacking is None:
        return library
    return Finding(library.name, False, f"{library.found}, but {lacking.name}: {lacking.found}", lacking.fix)


def _driver() -> Finding:
    gpu = current_gpu()
    if gpu is None:
        return Finding("NVIDIA driver and GPU", False, "no driver, or none that shows a GPU", _DRIVER_FIX)
    return Finding("NVIDIA driver and GPU", True, f"{gpu.name} (compute capability {gpu.compute_capability})", "")


def _pycuda() -> Finding:
    fix = "pip install pycuda" if importlib.util.find_spec("pycuda") is None else _PYCUDA_FIX
    try:
        major, minor, _ = load_driver().get_version()
        return Finding("pycuda", True, f"compiled with CUDA {major}.{minor}", "")
    except Exception as error:  # as above
        reason = _before_advice(error)
    return Finding("pycuda", False, reason, _DRIVER_FIX if "NVIDIA driver" in reason else fix)


def _nvcc() -> Finding:
    try:
        nvcc = find_nvcc()
        release = next((line for line in nvcc_version(nvcc).splitlines() if "release" in line), "").strip()
        return Finding("nvcc", True, f"{nvcc} {release}".strip(), "")
    except UserError as error:
        return Finding("nvcc", False, _before_advice(error), _NVCC_FIX)


def _job(job: _Job) -> Finding:
    missing = [module for module in job.modules if importlib.util.find_spec(module) is None]
    if missing:
        return Finding(job.name, False, f"not installed: {', '.join(missing)}", f"pip install 'fcnedge[{job.extra}]'")
    owners = importlib.metadata.packages_distributions()
    found = {name: importlib.metadata.version(name) for module in job.modules for name in owners.get(module, [])[:1]}
    return Finding(job.name, True, ", ".join(f"{name} {version}" for name, version in found.items()), "")


def _compiler(target: str) -> Finding:
    name = f"compile engines (fcn-build engine --target {target})"
    try:
        return Finding(name, True, open_library(target).title, "")
    except Exception as error:  # as above
        return Finding(name, False, _before_advice(error), _TENSORRT_FIXES[target])


def _before_advice(error: BaseException) -> str:
    """Our sentences end in what to do, which has a column of its own."""
    return _first_line(error).partition(";")[0]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
