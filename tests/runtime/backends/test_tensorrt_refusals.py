"""What the TensorRT backend refuses, in one sentence each: engines, heads, failing calls, what is not installed."""

from __future__ import annotations

import gc
import importlib.util
import json
import sys

import pytest

from fcnedge.runtime import BackendError, Bundle, Segmenter, UserError
from fcnedge.runtime.backends import TensorRtBackend, tensorrt
from fcnedge.runtime.backends.tensorrt import load_library
from fcnedge.runtime.cuda import compiler

from .conftest import MAGIC, FakeTensorRt, noise, with_engine

pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")


@pytest.fixture
def bundle(tiny_bundle) -> Bundle:
    return with_engine(tiny_bundle)


# Engines that do not fit


def refusal(bundle: Bundle, cuda, trt, **more) -> str:
    with pytest.raises(BackendError) as caught:
        TensorRtBackend(bundle, build=False, **more)
    message = str(caught.value)
    del caught
    gc.collect()
    assert len(message.splitlines()) == 1
    assert cuda.alive == {}
    assert trt.alive == []
    return message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": "10.13.0"}, ("10.13.0", "10.3.0")),
        ({"compute_capabilities": ("8.6",), "gpu": "NVIDIA RTX A4000"}, ("8.6", "8.7")),
        ({"graph": {"model.fp32.onnx": "0" * 64}}, ("graph",)),
    ],
)
def test_engine_of_another_machine_or_graph_is_refused_by_what_differs(tiny_bundle, cuda, trt, changes, words):
    message = refusal(with_engine(tiny_bundle, **changes), cuda, trt)
    for word in (*words, "fcn-build engine"):
        assert word in message


def test_missing_engine_says_how_to_compile_one(tiny_bundle, cuda, trt):
    assert "fcn-build engine" in refusal(Bundle.load(tiny_bundle), cuda, trt)


def test_engine_cut_short_after_the_build_is_refused(tiny_bundle, cuda, trt):
    bundle = with_engine(tiny_bundle)
    engine = tiny_bundle / "engines" / "fp32.engine"
    engine.write_bytes(engine.read_bytes()[:-10])
    assert str(engine) in refusal(bundle, cuda, trt)


def test_engine_that_the_library_cannot_open_is_refused_with_its_reason(tiny_bundle, cuda, trt):
    """As a file that was cut short before its hash was taken."""
    message = refusal(with_engine(tiny_bundle, b"short"), cuda, trt)
    assert message.startswith("TensorRT 10.3.0 cannot open ")
    assert "magic tag does not match" in message
    engine = tiny_bundle / "engines" / "fp32.engine"  # that one must go, for another would not be looked at before it
    command = f"fcn-build engine {tiny_bundle} --target tensorrt --precision fp32 --output {engine} --force"
    assert message.endswith(f"; compile it again: {command}")


def test_engine_is_opened_from_the_bytes_that_were_verified(bundle, trt, monkeypatch):
    """Even when somebody compiles anew between the verifying and the opening, and puts another file there."""
    obtain = tensorrt.obtain_engine

    def obtain_and_replace(*args, **kwargs):
        found = obtain(*args, **kwargs)
        (bundle.path / "engines" / "fp32.engine").write_bytes(b"another's")
        return found

    monkeypatch.setattr(tensorrt, "obtain_engine", obtain_and_replace)
    with Segmenter(bundle, "tensorrt") as segment:
        assert segment(noise(40, 50)).shape == (40, 50)


def test_library_without_the_tensor_name_api_is_refused(bundle, cuda, trt):
    """As TensorRT 8.4 and earlier are."""
    trt.refuses = "num_io_tensors"
    assert "has no num_io_tensors and its like, which came with TensorRT 8.5; update" in refusal(bundle, cuda, trt)


# Before minutes of compiling


def test_engine_is_not_compiled_where_the_kernels_cannot_be(tiny_bundle, trt, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setattr(compiler, "_DEFAULT_CUDA", tmp_path / "nothing")
    with pytest.raises(UserError, match="nvcc is not found"):
        TensorRtBackend(Bundle.load(tiny_bundle))
    assert "compiling the fp32 engine" not in caplog.text


def test_engine_is_not_compiled_for_a_head_that_the_kernels_do_not_know(tiny_bundle, cuda, trt, caplog):
    manifest = json.loads((tiny_bundle / "model.json").read_text())
    manifest["head"]["offset"] = [0.25, 0]
    (tiny_bundle / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(BackendError, match=r"head's offset is 0\.25 pixels"):
        TensorRtBackend(Bundle.load(tiny_bundle))
    assert "compiling the fp32 engine" not in caplog.text
    assert cuda.alive == {}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("create_execution_context", "OutOfMemory"),
        (
            "deserialize_cuda_engine",
            "(9 bytes) could not be allocated); the GPU's memory may be full: close",
        ),
        ("set_tensor_address", "does not take an address for image"),
    ],
)
def test_refused_call_is_one_sentence_and_nothing_is_left(bundle, cuda, trt, call, words):
    trt.refuses = call
    assert words in refusal(bundle, cuda, trt)


def test_engine_of_another_interface_is_refused(tiny_bundle, write_bundle, tmp_path, cuda, trt):
    other = Bundle.load(write_bundle(tmp_path / "other", size=(64, 64)))
    message = refusal(with_engine(tiny_bundle, MAGIC + other.model().read_bytes()), cuda, trt)
    assert "takes image tensor(uint8) [1, 64, 64, 3], model.json says image tensor(uint8) [1, 32, 48, 3]" in message


# What is not installed


def test_missing_tensorrt_says_where_jetpack_has_it(bundle, cuda, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(UserError, match=r"^tensorrt is not installed; use JetPack's .*fcnedge\[tensorrt\]'"):
        TensorRtBackend(bundle)
    assert cuda.alive == {}


def test_library_that_does_not_load_says_why(tmp_path, monkeypatch):
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(UserError, match=r"cannot be loaded \(libnvinfer\.so\.10: .*reinstall it"):
        load_library("tensorrt")


def test_folder_that_happens_to_be_called_tensorrt_is_none(tmp_path, monkeypatch):
    (tmp_path / "tensorrt").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(UserError, match=r"tensorrt is installed but cannot be loaded \(.*__version__"):
        load_library("tensorrt")
    sys.modules.pop("tensorrt", None)


def test_tensorrt_rtx_is_found_under_its_second_name(cuda, monkeypatch):
    other = FakeTensorRt(cuda, "tensorrt_rtx_bindings")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", other.module)
    assert load_library("tensorrt_rtx") is other.module


def test_missing_pycuda_names_the_package(bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(UserError, match="pycuda is not installed"):
        TensorRtBackend(bundle)


def test_unknown_filter_mode_is_refused_before_the_gpu_is_touched(bundle, cuda):
    with pytest.raises(UserError, match="filter_mode is 'cubic'"):
        TensorRtBackend(bundle, filter_mode="cubic")
    assert cuda.calls == []


def test_unknown_module_is_refused(bundle, cuda):
    with pytest.raises(UserError, match="'torch' is no TensorRT; choose tensorrt or tensorrt_rtx"):
        TensorRtBackend(bundle, module="torch")


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="TensorRT-RTX is not installed (the extra rtx)"
)
def test_names_that_are_used_are_those_of_a_real_library(trt):
    """TensorRT-RTX has the same runtime API; what the stand-in offers must exist there."""
    real = load_library("tensorrt_rtx")
    for name in ("ILogger", "Runtime", "TensorIOMode", "DataType"):
        assert hasattr(real, name), name
    for name in ("num_io_tensors", "get_tensor_name", "get_tensor_mode", "get_tensor_dtype", "get_tensor_shape"):
        assert hasattr(real.ICudaEngine, name), name
    for owner, name in (
        (real.Runtime, "deserialize_cuda_engine"),
        (real.ICudaEngine, "create_execution_context"),
        (real.IExecutionContext, "set_tensor_address"),
        (real.IExecutionContext, "execute_async_v3"),
    ):
        assert hasattr(owner, name), name
    for kind in ("TensorIOMode", "DataType"):
        used = {"TensorIOMode": {"INPUT", "OUTPUT"}, "DataType": {"FLOAT", "HALF", "UINT8"}}[kind]
        assert used <= set(getattr(real, kind).__members__)
