"""Which backend is opened, and what is said when none is."""

from __future__ import annotations

import importlib.util
import logging
import sys

import pytest

from fcnedge.runtime import BackendError, Bundle, BundleError, FakeBackend, UserError, open_backend
from fcnedge.runtime.backends import BACKENDS, OnnxRuntimeBackend, OpenVinoBackend


@pytest.fixture
def bundle(tiny_bundle) -> Bundle:
    return Bundle.load(tiny_bundle)


def need(name: str) -> None:
    """Skip where the library of backend `name` is not installed, without importing it."""
    if name != "fake" and importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize("name", BACKENDS)
def test_every_name_opens_the_backend_of_that_name(bundle, name):
    need(name)
    backend = open_backend(bundle, name)
    assert backend.name == name
    backend.close()


def test_auto_never_takes_the_fake(bundle, monkeypatch):
    for name in ("openvino", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError) as caught:
        open_backend(bundle)
    assert str(caught.value) == (
        "no backend works here: openvino: openvino is not installed; install it with: pip install 'fcnedge[openvino]'; "
        "onnxruntime: onnxruntime is not installed; install it with: pip install 'fcnedge[cpu]'"
    )
    assert isinstance(open_backend(bundle, "fake"), FakeBackend)


def test_auto_takes_openvino_where_it_is_installed(bundle):
    need("openvino")
    assert isinstance(open_backend(bundle), OpenVinoBackend)


def test_auto_takes_onnxruntime_where_openvino_is_not(bundle, monkeypatch, caplog):
    need("onnxruntime")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with caplog.at_level(logging.INFO):
        assert isinstance(open_backend(bundle), OnnxRuntimeBackend)
    assert "backend openvino not used: openvino is not installed; install it with: " in caplog.text


def test_reason_against_a_backend_is_logged(bundle, caplog):
    need("onnxruntime")
    with caplog.at_level(logging.INFO), pytest.raises(BackendError, match="holds no int8 graph, only fp32"):
        open_backend(bundle, precision="int8")
    assert "backend onnxruntime not used: " in caplog.text
    assert "holds no int8 graph" in caplog.text


def test_backend_asked_for_by_name_gives_its_own_error(bundle):
    need("onnxruntime")
    with pytest.raises(BundleError, match="holds no int8 graph, only fp32"):
        open_backend(bundle, "onnxruntime", "int8")


@pytest.mark.parametrize("name", ["tensorrt", "", "AUTO", "onnx runtime"])
def test_unknown_name_lists_the_known_ones(bundle, name):
    with pytest.raises(UserError, match=f"{name!r} is not a backend; choose auto, openvino, onnxruntime, fake"):
        open_backend(bundle, name)


@pytest.mark.parametrize("threads", [0, -1, 1025, 10**20])
@pytest.mark.parametrize("name", ["auto", *BACKENDS])
def test_number_of_threads_that_no_machine_has_is_refused(bundle, name, threads):
    """ONNX Runtime takes 0 and less for "as many as you like", and dies of a thousand million."""
    with pytest.raises(UserError, match=f"threads is {threads}; it must be from 1 to 1024, or None"):
        open_backend(bundle, name, threads=threads)
