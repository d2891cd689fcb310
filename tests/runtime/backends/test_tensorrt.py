"""The TensorRT backend on stand-ins for pycuda and TensorRT: whole frames, every refusal, and nothing left behind.

The stand-in for TensorRT has the documented names of the runtime API of 8.5 and later, and no others; its engines run
the bundle's graph with ONNX Runtime, at the addresses that they were told.
"""

from __future__ import annotations

import enum
import gc
import hashlib
import importlib.util
import json
import random
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from fcnedge.runtime import BackendError, Bundle, Segmenter, UserError
from fcnedge.runtime.backends import FrameBackend, TensorRtBackend, tensorrt
from fcnedge.runtime.backends.tensorrt import load_library
from fcnedge.runtime.cuda import compiler
from fcnedge.runtime.engine_sidecar import EngineSidecar, TensorSpec, sidecar_path

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")

SPEC = importlib.util.spec_from_file_location("fake_pycuda", Path(__file__).parents[1] / "cuda" / "fake_pycuda.py")
fake_pycuda = sys.modules.setdefault("fake_pycuda", importlib.util.module_from_spec(SPEC))
if not hasattr(fake_pycuda, "FakeCuda"):
    SPEC.loader.exec_module(fake_pycuda)
cpu_library, fake_nvcc, cuda = fake_pycuda.cpu_library, fake_pycuda.fake_nvcc, fake_pycuda.cuda

MAGIC = b"ENGINE:"
VERSION = "10.3.0"


class FakeTensorRt:
    """module: what `import tensorrt` gives. alive: its objects that exist; refuses: the call that answers no."""

    def __init__(self, cuda, name="tensorrt"):
        self.cuda, self.alive, self.refuses, self.bound = cuda, [], "", {}
        self.module = types.ModuleType(name)
        shuffled = random.Random(3)  # enumerations moved in TensorRT 11: their integers mean nothing
        names = {"TensorIOMode": ["NONE", "INPUT", "OUTPUT"], "DataType": ["FLOAT", "HALF", "UINT8", "INT32", "INT8"]}
        for kind, members in names.items():
            numbers = shuffled.sample(range(20), len(members))
            setattr(self.module, kind, enum.IntEnum(kind, dict(zip(members, numbers, strict=True))))
        self.severity = enum.IntEnum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"], start=0)
        logger, runtime = self._logger_and_runtime()
        self.module.__dict__.update(__version__=VERSION, ILogger=logger, Runtime=runtime)
        self.types = {"tensor(uint8)": "UINT8", "tensor(float)": "FLOAT", "tensor(float16)": "HALF"}

    def call(self, name, *details):
        assert self.cuda.cuda_stack, f"{name} without a context"
        self.cuda.call(name, details)

    def _logger_and_runtime(self):
        fake = self

        class ILogger:
            def __init__(self):
                self.initialised = True

        class Part:
            def __init__(self, logger):
                self.logger = logger
                fake.alive.append(type(self).__name__)

            def __del__(self):
                if not hasattr(self, "logger"):
                    return  # never made
                assert fake.cuda.lost or fake.cuda.cuda_stack, f"{type(self).__name__} ends without a context"
                fake.alive.remove(type(self).__name__)

            def error(self, text):
                self.logger.log(fake.severity.ERROR, text)

        class Runtime(Part):
            def __init__(self, logger):
                assert logger.initialised
                fake.call("Runtime")
                super().__init__(logger)

            @fake_pycuda.like_c
            def deserialize_cuda_engine(self, serialized_engine):
                fake.call("deserialize_cuda_engine")
                if not serialized_engine.startswith(MAGIC):
                    self.error("deserializeCudaEngine: Error Code 1: Serialization (magic tag does not match)")
                    return None
                return Engine(self, serialized_engine.removeprefix(MAGIC))

        class Engine(Part):
            def __init__(self, runtime, graph):
                super().__init__(runtime.logger)
                self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
                self.values = {value.name: value for value in (*self.session.get_outputs(), *self.session.get_inputs())}
                if fake.refuses != "num_io_tensors":
                    self.num_io_tensors = len(self.values)

            def get_tensor_name(self, index):
                return list(self.values)[index]

            def get_tensor_mode(self, name):
                is_input = name in [value.name for value in self.session.get_inputs()]
                return fake.module.TensorIOMode["INPUT" if is_input else "OUTPUT"]

            def get_tensor_dtype(self, name):
                return fake.module.DataType[fake.types[self.values[name].type]]

            def get_tensor_shape(self, name):
                return self.values[name].shape

            @fake_pycuda.like_c
            def create_execution_context(self):
                fake.call("create_execution_context")
                if fake.refuses == "create_execution_context":
                    self.error("createExecutionContext: Error Code 2: OutOfMemory")
                    return None
                return Context(self)

        class Context(Part):
            def __init__(self, engine):
                super().__init__(engine.logger)
                self.engine, self.addresses = engine, {}

            @fake_pycuda.like_c
            def set_tensor_address(self, name, memory):
                fake.call("set_tensor_address", name)
                assert isinstance(memory, int)
                self.addresses[name] = memory
                return fake.refuses != "set_tensor_address"

            @fake_pycuda.like_c
            def execute_async_v3(self, stream_handle):
                if fake.refuses == "execute_async_v3":
                    self.error("enqueueV3: Error Code 1: Cuda Runtime (an illegal memory access was encountered)")
                    return False
                engine, addresses = self.engine, self.addresses
                fake.cuda.enqueue(stream_handle, "execute_async_v3", lambda: fake.run(engine, addresses))
                return True

        return ILogger, Runtime

    def run(self, engine, addresses):
        (taken,), (given,) = engine.session.get_inputs(), engine.session.get_outputs()
        image = self.cuda.at(addresses[taken.name], int(np.prod(taken.shape))).reshape(taken.shape)
        output = engine.session.run(None, {taken.name: image})[0]
        self.cuda.at(addresses[given.name], output.nbytes)[...] = output.reshape(-1).view(np.uint8)


@pytest.fixture
def trt(cuda, monkeypatch) -> FakeTensorRt:
    made = FakeTensorRt(cuda)
    monkeypatch.setitem(sys.modules, "tensorrt", made.module)
    return made


def with_engine(folder: Path, engine: bytes | None = None, **changes) -> Bundle:
    """The bundle with an engine of FP32 for TensorRT 10.3 on an Orin, as `fcn-build engine` leaves it."""
    bundle = Bundle.load(folder)
    graph = bundle.model("fp32")
    data = MAGIC + graph.read_bytes() if engine is None else engine
    path = folder / "engines" / "fp32.engine"
    path.parent.mkdir()
    path.write_bytes(data)
    size = (bundle.manifest.input.height, bundle.manifest.input.width)
    facts = {
        "engine": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "library": "tensorrt",
        "version": VERSION,
        "gpu": "Orin",
        "compute_capabilities": ("8.7",),
        "precision": "fp32",
        "route": "strongly typed",
        "layers": None,
        "inspected_by": None,
        "inputs": (TensorSpec("image", "uint8", (1, *size, 3)),),
        "outputs": (TensorSpec("scores", "float32", (1, 8, size[0] // 8, size[1] // 8)),),
        "graph": {name: spec.sha256 for name, spec in bundle.graph_files(graph).items()},
        "workspace_mb": 256,
        "dla": False,
        "fcnedge": "0",
        "seconds": 1.0,
    }
    sidecar_path(path).write_text(EngineSidecar(**(facts | changes)).to_json())
    return bundle


@pytest.fixture
def bundle(tiny_bundle) -> Bundle:
    return with_engine(tiny_bundle)


def noise(height: int, width: int) -> np.ndarray:
    """Large patches of random colours."""
    patches = np.random.default_rng(height).integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    return patches.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]


# Whole frames


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("head", ["bilinear", "labels"])
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_masks_are_those_of_onnxruntime(tmp_path, write_bundle, cuda, trt, fit, head, integrated):
    cuda.integrated = integrated
    bundle = with_engine(write_bundle(tmp_path / "b", size=(64, 96), fit=fit, head=head))
    with Segmenter(bundle, "tensorrt") as segment, Segmenter(bundle, "onnxruntime") as reference:
        for size in [(64, 96), (128, 192), (64, 48), (32, 96)]:
            assert (segment(noise(*size)) == reference(noise(*size))).all()
        image = noise(64, 96)[None]
        assert (segment.backend.infer(image) == reference.backend.infer(image)).all()
    gc.collect()
    assert cuda.alive == {}
    assert trt.alive == []


def test_it_is_a_backend_for_whole_frames(bundle, trt):
    with Segmenter(bundle, TensorRtBackend(bundle)) as segment:
        assert isinstance(segment.backend, FrameBackend)
        result = segment.segment(noise(40, 50))
        assert result.gpu_ms["network"] > 0
        assert (segment.backend.name, segment.backend.precision) == ("tensorrt", "fp32")


def test_network_runs_on_the_pipelines_own_stream_and_takes_nothing_per_frame(bundle, cuda, trt):
    backend = TensorRtBackend(bundle)
    backend.segment(noise(40, 50))
    alive, parts = dict(cuda.alive), list(trt.alive)
    del cuda.calls[:]
    for _ in range(5):
        backend.segment(noise(40, 50))
    (handle,) = {details for name, details in cuda.calls if name == "execute_async_v3"}
    assert handle in [number for number, what in cuda.alive.items() if what == "Stream"]
    assert {"set_tensor_address", "mem_alloc", "pagelocked_empty"}.isdisjoint(cuda.names())
    assert (cuda.alive, trt.alive) == (alive, parts)
    backend.close()


def test_two_backends_in_one_process(tmp_path, write_bundle, cuda, trt):
    sizes = {"a": (32, 48), "b": (64, 64)}
    bundles = [with_engine(write_bundle(tmp_path / name, size=size)) for name, size in sizes.items()]
    first, second = (TensorRtBackend(bundle) for bundle in bundles)
    frame = noise(64, 96)
    expected = [Segmenter(bundle, "onnxruntime")(frame) for bundle in bundles]
    assert (first.segment(frame).mask == expected[0]).all()
    first.close()
    assert (second.segment(frame).mask == expected[1]).all()
    second.close()
    gc.collect()
    assert cuda.alive == {}
    assert trt.alive == []


def test_foreign_context_is_current_again_after_everything(bundle, cuda, trt):
    cuda.cuda_stack.append("theirs")
    backend = TensorRtBackend(bundle)
    assert cuda.cuda_stack == ["theirs"]
    backend.segment(noise(40, 50))
    assert cuda.cuda_stack == ["theirs"]
    backend.close()
    assert cuda.cuda_stack == ["theirs"]


def test_closed_backend_says_so(bundle, trt):
    backend = TensorRtBackend(bundle)
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="is closed; open another Segmenter"):
        backend.segment(noise(40, 50))


def test_whatever_fails_while_opening_nothing_is_left(bundle, cuda, trt):
    TensorRtBackend(bundle).close()
    for n in range(1, 200):
        cuda.fail_at = n
        try:
            TensorRtBackend(bundle).close()
            message = "injected"
        except BackendError as error:
            message = str(error)
        assert "injected" in message
        done, cuda.fail_at = cuda.fail_at > 0, None
        gc.collect()
        assert trt.alive == [], n
        assert cuda.cuda_stack == []
        if done:
            assert n > 40
            return
        assert cuda.alive == {} or "free" in cuda.names(), n
    pytest.fail("never done")


# A GPU that is lost


def test_process_goes_on_with_the_cpu_when_asked(bundle, cuda, trt, caplog):
    frame = noise(40, 50)
    with Segmenter(bundle, "tensorrt", fallback="cpu") as segment:
        expected = segment(frame)
        cuda.lost = True
        assert (segment(frame) == expected).all()
        assert segment.backend.name in ("openvino", "onnxruntime")
        assert (segment(noise(41, 51)).shape) == (41, 51)
    assert caplog.text.count("Going on with the CPU") == 1
    assert "backend tensorrt failed: Orin" in caplog.text


def test_lost_gpu_is_an_error_each_time_when_not_asked(bundle, cuda, trt):
    with Segmenter(bundle, "tensorrt") as segment:
        segment(noise(40, 50))
        cuda.lost = True
        for _ in range(2):
            with pytest.raises(BackendError, match=r"^Orin .*unspecified launch failure\.$"):
                segment(noise(40, 50))


def test_engine_that_fails_on_a_frame_gives_the_librarys_reason(bundle, trt):
    backend = TensorRtBackend(bundle)
    trt.refuses = "execute_async_v3"
    with pytest.raises(BackendError, match=r"^TensorRT 10\.3\.0 failed on this frame \(enqueueV3: .*illegal memory"):
        backend.segment(noise(40, 50))
    trt.refuses = ""
    assert backend.segment(noise(40, 50)).mask.shape == (40, 50)
    backend.close()


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
    [("create_execution_context", "OutOfMemory"), ("set_tensor_address", "does not take an address for image")],
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
