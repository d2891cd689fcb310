"""A stand-in for TensorRT: the documented names of the runtime API of 8.5 and later, and no others.

Its engines run the bundle's graph with ONNX Runtime, at the addresses that they were told.
"""

from __future__ import annotations

import enum
import hashlib
import importlib.util
import random
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from fcnedge.runtime import Bundle
from fcnedge.runtime.engine_sidecar import EngineSidecar, TensorSpec, sidecar_path

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
                if fake.refuses == "deserialize_cuda_engine":
                    self.error("Requested amount of GPU memory (9 bytes) could not be allocated.")
                    return None
                if not serialized_engine.startswith(MAGIC):
                    self.error("deserializeCudaEngine: Error Code 1: Serialization (magic tag does not match)")
                    return None
                return Engine(self, serialized_engine.removeprefix(MAGIC))

        class Engine(Part):
            def __init__(self, runtime, graph):
                super().__init__(runtime.logger)
                import onnxruntime  # its tests skip without

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


def noise(height: int, width: int) -> np.ndarray:
    """Large patches of random colours."""
    patches = np.random.default_rng(height).integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    return patches.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]
