"""Which backend is opened, and what is said when none is."""

from __future__ import annotations

import logging
import sys

import pytest

from fcnedge.runtime import BackendError, Bundle, BundleError, FakeBackend, UserError, open_backend
from fcnedge.runtime.backends import BACKENDS, OnnxRuntimeBackend


@pytest.fixture
def bundle(tiny_bundle) -> Bundle:
    return Bundle.load(tiny_bundle)


@pytest.mark.parametrize("name", BACKENDS)
def test_every_name_opens_the_backend_of_that_name(bundle, name):
    pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")
    backend = open_backend(bundle, name)
    assert backend.name == name
    backend.close()


def test_auto_never_takes_the_fake(bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match=r"no backend works here: onnxruntime: .*fcnedge\[cpu\]"):
        open_backend(bundle)
    assert isinstance(open_backend(bundle, "fake"), FakeBackend)


def test_auto_takes_onnxruntime(bundle):
    pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")
    assert isinstance(open_backend(bundle), OnnxRuntimeBackend)


def test_reason_against_a_backend_is_logged(bundle, caplog):
    pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")
    with caplog.at_level(logging.INFO), pytest.raises(BackendError, match="holds no int8 graph, only fp32"):
        open_backend(bundle, precision="int8")
    assert "backend onnxruntime not used: " in caplog.text
    assert "holds no int8 graph" in caplog.text


def test_backend_asked_for_by_name_gives_its_own_error(bundle):
    pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")
    with pytest.raises(BundleError, match="holds no int8 graph, only fp32"):
        open_backend(bundle, "onnxruntime", "int8")


@pytest.mark.parametrize("name", ["tensorrt", "", "AUTO", "onnx runtime"])
def test_unknown_name_lists_the_known_ones(bundle, name):
    with pytest.raises(UserError, match=f"{name!r} is not a backend; choose auto, onnxruntime, fake"):
        open_backend(bundle, name)


@pytest.mark.parametrize("threads", [0, -1, 1025, 10**20])
@pytest.mark.parametrize("name", ["auto", *BACKENDS])
def test_number_of_threads_that_no_machine_has_is_refused(bundle, name, threads):
    """ONNX Runtime takes 0 and less for "as many as you like", and dies of a thousand million."""
    with pytest.raises(UserError, match=f"threads is {threads}; it must be from 1 to 1024, or None"):
        open_backend(bundle, name, threads=threads)
