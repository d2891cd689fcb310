"""Which backend is opened, and what is said when none is."""

from __future__ import annotations

import importlib.util
import logging
import sys

import pytest

from fcnedge.runtime import BackendError, Bundle, BundleError, FakeBackend, UserError, open_backend
from fcnedge.runtime.backends import BACKENDS, OnnxRuntimeBackend, OpenVinoBackend, onnxruntime_cuda, opening

ON_GPU = ("tensorrt", "tensorrt_rtx", "onnxruntime_cuda")


@pytest.fixture
def bundle(tiny_bundle) -> Bundle:
    return Bundle.load(tiny_bundle)


def need(name: str) -> None:
    """Skip where the library of backend `name` is not installed, without importing it."""
    if name in ON_GPU:
        pytest.skip(f"{name} needs a GPU; tests/gpu opens it")
    if name != "fake" and importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize("name", BACKENDS)
def test_every_name_opens_the_backend_of_that_name(bundle, name):
    need(name)
    backend = open_backend(bundle, name)
    assert backend.name == name
    backend.close()


def test_auto_never_takes_the_fake(bundle, monkeypatch):
    for name in ("openvino", "onnxruntime", "pycuda"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError) as caught:
        open_backend(bundle)
    assert str(caught.value) == (
        "no backend works here: openvino: openvino is not installed; install it with: pip install 'fcnedge[openvino]'; "
        "onnxruntime: onnxruntime is not installed; install it with: pip install 'fcnedge[cpu]'; "
        "on a GPU: pycuda is not installed; install it with: pip install pycuda, which compiles it and "
        "needs CUDA's nvcc on PATH (JetPack has it in /usr/local/cuda/bin)."
    )
    assert isinstance(open_backend(bundle, "fake"), FakeBackend)


def test_cpu_is_auto_without_a_gpu(bundle, monkeypatch):
    """Not even its driver is asked."""
    need("openvino")
    monkeypatch.setattr(opening, "load_driver", lambda: pytest.fail("the driver was asked"))
    assert isinstance(open_backend(bundle, "cpu"), OpenVinoBackend)


def test_auto_tries_the_gpu_first_where_there_is_one(bundle, monkeypatch, caplog):
    need("openvino")
    tried = []

    def refuse(bundle, precision, **more):
        tried.append(more.get("module", "tensorrt"))
        raise BackendError("no such library.")

    monkeypatch.setattr(opening, "load_driver", lambda: None)
    monkeypatch.setattr(opening, "TensorRtBackend", refuse)
    monkeypatch.setattr(onnxruntime_cuda, "OnnxRuntimeCudaBackend", refuse)
    with caplog.at_level(logging.INFO):
        assert isinstance(open_backend(bundle), OpenVinoBackend)
    assert tried == ["tensorrt", "tensorrt_rtx", "tensorrt"]
    for name in ON_GPU:
        assert f"backend {name} not used: no such library." in caplog.text


def test_auto_takes_openvino_where_it_is_installed(bundle):
    need("openvino")
    assert isinstance(open_backend(bundle), OpenVinoBackend)


def test_auto_takes_onnxruntime_where_openvino_is_not(bundle, monkeypatch, caplog):
    need("onnxruntime")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with caplog.at_level(logging.INFO):
        assert isinstance(open_backend(bundle), OnnxRuntimeBackend)
    assert "backend openvino not used: openvino is not installed; install it with: " in caplog.text


def test_graph_that_the_bundle_has_not_is_said_once(bundle):
    """And not by each backend in turn."""
    with pytest.raises(BundleError, match=r"^[^;]* holds no int8 graph, only fp32; choose precision fp32 or auto\.$"):
        open_backend(bundle, precision="int8")


def test_reason_against_a_backend_is_logged(bundle, caplog, monkeypatch):
    need("onnxruntime")
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with caplog.at_level(logging.INFO):
        open_backend(bundle)
    assert "no backend on a GPU used: pycuda is not installed" in caplog.text


def test_backend_asked_for_by_name_gives_its_own_error(bundle):
    need("onnxruntime")
    with pytest.raises(BundleError, match="holds no int8 graph, only fp32"):
        open_backend(bundle, "onnxruntime", "int8")


@pytest.mark.parametrize("name", ["torch", "", "AUTO", "onnx runtime"])
def test_unknown_name_lists_the_known_ones(bundle, name):
    with pytest.raises(UserError, match=f"{name!r} is not a backend; choose auto, cpu, {', '.join(BACKENDS)}"):
        open_backend(bundle, name)


@pytest.mark.parametrize("name", ["auto", "cpu", *BACKENDS])
def test_unknown_filter_mode_is_refused(bundle, name):
    with pytest.raises(UserError, match="filter_mode is 'bicubic'; it must be 'linear' or 'point'"):
        open_backend(bundle, name, filter_mode="bicubic")


@pytest.mark.parametrize("threads", [0, -1, 1025, 10**20])
@pytest.mark.parametrize("name", ["auto", "cpu", *BACKENDS])
def test_number_of_threads_that_no_machine_has_is_refused(bundle, name, threads):
    """ONNX Runtime takes 0 and less for "as many as you like", and dies of a thousand million."""
    with pytest.raises(UserError, match=f"threads is {threads}; it must be from 1 to 1024, or None"):
        open_backend(bundle, name, threads=threads)
