"""Small typed bundles, TensorRT-RTX where it is installed, and a recording stand-in for the TensorRTs that are not.

The stand-in has the documented names of a release and no others: what a release lacks raises AttributeError, as there.
"""

from __future__ import annotations

import enum
import hashlib
import importlib.util
import json
import random
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fcnedge.build_engine.engines import build
from fcnedge.build_engine.engines.gpu import Gpu
from fcnedge.build_engine.engines.library import Library, open_library
from fcnedge.runtime.manifest import FileSpec, HeadSpec, InputSpec, Manifest
from fcnedge.runtime.preprocessing import Preprocessing

SIZE, STRIDE, CLASSES, CHANNELS = (32, 48), 8, 4, 16

# --- graphs and bundles


def typed_graph(precision: str, head: str = "bilinear") -> onnx.ModelProto:
    """Cast → Transpose → Conv → Relu → score Conv, typed as a bundle's graphs are; int8: Q/DQ around the first Conv."""
    kind, dtype = (TensorProto.FLOAT, np.float32) if precision == "fp32" else (TensorProto.FLOAT16, np.float16)
    numbers = np.random.default_rng(0)
    constants = {
        "conv.weight": numbers.normal(0, 0.2, (CHANNELS, 3, 3, 3)).astype(dtype),
        "score.weight": numbers.normal(0, 0.2, (CLASSES, CHANNELS, 1, 1)).astype(dtype),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["image_float"], to=kind, name="image_float"),
        helper.make_node("Transpose", ["image_float"], ["planes"], perm=[0, 3, 1, 2], name="planes"),
    ]
    names = ["planes", "conv.weight"]
    if precision == "int8":
        weight = constants.pop("conv.weight")
        scales = (np.abs(weight).max(axis=(1, 2, 3)) / 127).astype(dtype)
        quantised = np.rint(weight / scales[:, None, None, None]).clip(-127, 127).astype(np.int8)
        constants |= {"planes.scale": np.array(2, dtype), "zero": np.array(0, np.int8)}
        constants |= {"conv.scale": scales, "conv.zero": np.zeros(CHANNELS, np.int8), "conv.int8": quantised}
        names = ["planes_dq", "weight_dq"]
        nodes += [
            helper.make_node("QuantizeLinear", ["planes", "planes.scale", "zero"], ["planes_q"], name="planes_q"),
            helper.make_node("DequantizeLinear", ["planes_q", "planes.scale", "zero"], ["planes_dq"], name="planes_dq"),
            helper.make_node(
                "DequantizeLinear", ["conv.int8", "conv.scale", "conv.zero"], ["weight_dq"], axis=0, name="weight_dq"
            ),
        ]
    step = STRIDE if head == "bilinear" else 1
    nodes += [
        helper.make_node("Conv", names, ["conv"], pads=[1] * 4, strides=[step, step], name="conv"),
        helper.make_node("Relu", ["conv"], ["relu"], name="relu"),
        helper.make_node("Conv", ["relu", "score.weight"], ["scores"], name="scores"),
    ]
    scores = [1, CLASSES, SIZE[0] // step, SIZE[1] // step]
    output = helper.make_tensor_value_info("scores", kind, scores)
    if head == "labels":
        nodes.append(helper.make_node("ArgMax", ["scores"], ["winner"], axis=1, keepdims=0, name="winner"))
        nodes.append(helper.make_node("Cast", ["winner"], ["labels"], to=TensorProto.UINT8, name="labels"))
        output = helper.make_tensor_value_info("labels", TensorProto.UINT8, [1, *SIZE])
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *SIZE, 3])
    initialisers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "tiny", [image], [output], initialisers)
    # FP16 scales of QuantizeLinear came with opset 19
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture(scope="session")
def graph_of() -> Callable[..., onnx.ModelProto]:
    """Give `typed_graph`: (precision, head) → onnx.ModelProto."""
    return typed_graph


def write_typed_bundle(
    folder: Path,
    *,
    head: str = "bilinear",
    graphs: dict[str, onnx.ModelProto | bytes] | None = None,
    files: dict[str, bytes] | None = None,
) -> Path:
    """A bundle with a graph per precision; `graphs` replaces or leaves out some, `files` adds others."""
    contents: dict[str, bytes] = dict(files or {})
    precisions: dict[str, str] = {}
    for precision, graph in (graphs or {each: typed_graph(each, head) for each in ("fp32", "fp16", "int8")}).items():
        name = f"model.{precision}.onnx"
        contents[name] = graph if isinstance(graph, bytes) else graph.SerializeToString()
        precisions[name] = precision
    for name in contents:
        if name.endswith(".data"):
            precisions[name] = precisions[name.removesuffix(".data")]
    folder.mkdir(parents=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    manifest = Manifest(
        name="tiny",
        arch="two convolutions",
        classes=tuple(f"class {index}" for index in range(CLASSES)),
        palette=tuple((index, index, index) for index in range(CLASSES)),
        input=InputSpec(*SIZE),
        preprocessing=Preprocessing("bgr", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        head=HeadSpec("bilinear", STRIDE, 2 * STRIDE) if head == "bilinear" else HeadSpec("labels"),
        files={
            name: FileSpec(hashlib.sha256(data).hexdigest(), len(data), precisions.get(name))
            for name, data in contents.items()
        },
        versions={"fcnedge": "0"},
    )
    (folder / "model.json").write_text(manifest.to_json(), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def write_bundle() -> Callable[..., Path]:
    """Give `write_typed_bundle`: (folder, head, graphs, files) → folder."""
    return write_typed_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Give a bundle with the tiny network in FP32, FP16 and INT8, 32x48 pixels, 4 classes."""
    return write_typed_bundle(tmp_path / "tiny")


# --- TensorRT-RTX itself


@pytest.fixture(scope="session")
def rtx() -> Library:
    """Give the real TensorRT-RTX, which compiles without a GPU."""
    if not any(importlib.util.find_spec(name) for name in ("tensorrt_rtx", "tensorrt_rtx_bindings")):
        pytest.skip("TensorRT-RTX is not installed; pip install 'fcnedge[rtx]' brings it, and it needs no GPU")
    return open_library("tensorrt_rtx")


# --- TensorRT as documented

# Read from NVIDIA's pages of the release, or of the nearest whose pages are kept:
# 8.5   https://docs.nvidia.com/deeplearning/tensorrt/archives/tensorrt-853/api/python_api/
# 10.3  https://docs.nvidia.com/deeplearning/tensorrt/archives/tensorrt-1070/api/python_api/
# 10.13 https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/ (when that was 10.14)
# 11.4  https://docs.nvidia.com/deeplearning/tensorrt/11.4.0/_static/python-api/, and what went before it:
#       https://docs.nvidia.com/deeplearning/tensorrt/11.4.0/api/migration/tensorrt-10x-to-11x-python-api-reference.html

# What of the Python API the builder may need. Classes → attributes, enumerations → members.
_ALWAYS: dict[str, set[str]] = {
    "Builder": {"create_network", "create_builder_config", "build_serialized_network", "num_DLA_cores"},
    "INetworkDefinition": {"num_layers", "get_layer", "num_inputs", "get_input", "num_outputs", "get_output"},
    "ILayer": {"name", "type", "num_outputs", "get_output"},
    "ITensor": {"name", "dtype", "shape"},
    "IBuilderConfig": {
        "set_memory_pool_limit",
        "set_flag",
        "profiling_verbosity",
        "default_device_type",
        "DLA_core",
        "create_timing_cache",
        "set_timing_cache",
        "get_timing_cache",
    },
    "ITimingCache": {"serialize"},
    "OnnxParser": {"parse_from_file", "num_errors", "get_error"},
    "ParserError": {"code", "desc", "node"},
    "Runtime": {"deserialize_cuda_engine"},
    "ICudaEngine": {"create_engine_inspector"},
    "EngineInspector": {"get_engine_information"},
    "ILogger": {"log"},
}
_ENUMERATIONS: dict[str, set[str]] = {
    "BuilderFlag": {"DEBUG", "GPU_FALLBACK", "REFIT", "TF32", "SPARSE_WEIGHTS"},
    "MemoryPoolType": {"WORKSPACE", "DLA_MANAGED_SRAM", "DLA_LOCAL_DRAM", "DLA_GLOBAL_DRAM"},
    "ProfilingVerbosity": {"LAYER_NAMES_ONLY", "DETAILED", "NONE"},
    "DeviceType": {"GPU", "DLA"},
    "LayerInformationFormat": {"ONELINE", "JSON"},
    "DataType": {"FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8"},
    "LayerType": {"CONVOLUTION", "ACTIVATION", "SHUFFLE", "CONSTANT", "QUANTIZE", "DEQUANTIZE", "TOPK", "CAST"},
}
_CALIBRATOR = {"get_batch_size", "get_batch", "read_calibration_cache", "write_calibration_cache"}
_MONITOR = {"phase_start", "step_complete", "phase_finish"}
_PLUGIN_PREFERENCES = {"PREFER_AOT_PYTHON_PLUGINS", "PREFER_JIT_PYTHON_PLUGINS"}


def documented(version: str) -> dict[str, set[str]]:
    """Documented names of a release: class → attributes, enumeration → members."""
    names = {name: set(members) for name, members in (_ALWAYS | _ENUMERATIONS).items()}
    if version != "11.4":
        names["BuilderFlag"] |= {"FP16", "INT8"}
        names["IBuilderConfig"] |= {"int8_calibrator"}
        names["IInt8EntropyCalibrator2"] = set(_CALIBRATOR)
    if version == "8.5":
        names["NetworkDefinitionCreationFlag"] = {"EXPLICIT_BATCH", "EXPLICIT_PRECISION"}
        return names
    names["NetworkDefinitionCreationFlag"] = {
        "10.3": {"EXPLICIT_BATCH", "STRONGLY_TYPED"},
        "10.13": {"EXPLICIT_BATCH", "STRONGLY_TYPED", *_PLUGIN_PREFERENCES},
        "11.4": {"STRONGLY_TYPED", *_PLUGIN_PREFERENCES},
    }[version]
    names["IProgressMonitor"] = set(_MONITOR)
    names["IBuilderConfig"] |= {"progress_monitor"}
    names["ParserError"] |= {"node_name", "node_operator"}
    return names


@pytest.fixture(scope="session")
def documented_names() -> Callable[[str], dict[str, set[str]]]:
    """Give `documented`: release → its documented names."""
    return documented


FULL_VERSIONS = {"8.5": "8.5.2.2", "10.3": "10.3.0", "10.13": "10.13.3.9", "11.4": "11.4.0.12"}
ORIN = Gpu("Orin", "8.7")


class StandIn:
    """A TensorRT that writes down what it is told and compiles nothing.

    module: to be imported as `tensorrt`. told: (method or attribute, arguments) in order. The knobs: refuses, an
    operator that its parser does not know; obtained, what the inspector says of every layer; cores, of the DLA.
    """

    def __init__(self, version: str) -> None:
        self.told: list[tuple[str, Any]] = []
        self.refuses: str | None = None
        self.obtained: str | None = None
        self.fails: str | None = None
        self.cores = 0
        self.has_gpu = True
        self.module: Any = types.ModuleType("tensorrt")
        self.module.__version__ = FULL_VERSIONS[version]
        shuffled = random.Random(version)  # the integers of enumerations moved between releases
        for name, members in documented(version).items():
            if name in _ENUMERATIONS or name == "NetworkDefinitionCreationFlag":
                values = shuffled.sample(range(20), len(members))
                self.module.__dict__[name] = enum.IntEnum(name, dict(zip(sorted(members), values, strict=True)))
            else:
                self.module.__dict__[name] = _restricted(name, members, self)
        self.severity = enum.IntEnum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])

    def names_told(self, what: str) -> list[Any]:
        """Give the arguments of every call of `what`, enumeration members by name."""
        return [getattr(value, "name", value) for key, value in self.told if key == what]


def _restricted(name: str, allowed: set[str], stand_in: StandIn) -> type:
    """The class `name` of the stand-in with the allowed attributes only, to read and to set."""
    implementation = _IMPLEMENTATIONS.get(name, _Callback)

    def refuse(self: Any, attribute: str, value: Any) -> None:
        if not attribute.startswith("_") and attribute not in allowed and implementation is not _Callback:
            raise AttributeError(f"{name} has no attribute {attribute!r}")
        stand_in.told.append((attribute, value))
        object.__setattr__(self, attribute, value)

    body = {key: value for key, value in vars(implementation).items() if key.startswith("_") or key in allowed}
    body |= {"_s": stand_in, "__setattr__": object.__setattr__ if implementation is _Callback else refuse}
    for missing in allowed - set(body):
        if implementation is not _Callback:
            body[missing] = None  # an attribute that the builder may set, such as DLA_core
    body.pop("__dict__", None)
    body.pop("__weakref__", None)
    return type(name, (), body)


class _Callback:
    """A class to inherit from; pybind11 objects to a subclass that does not call its `__init__`."""

    def __init__(self) -> None:
        object.__setattr__(self, "_initialised", True)


class _Part:
    """What the parts below know of their stand-in (`_s`) and of each other."""

    _s: Any
    _logger: Any
    _network: Any
    _layers: Any
    _inputs: Any
    _outputs: Any
    _tensor: Any
    _cache: Any
    _errors: Any
    _index: Any
    _node: Any
    _plan: Any


class _Builder(_Part):
    def __init__(self, logger: Any) -> None:
        assert logger._initialised
        if not self._s.has_gpu:
            logger.log(self._s.severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        object.__setattr__(self, "_logger", logger)
        object.__setattr__(self, "num_DLA_cores", self._s.cores)

    def create_network(self, flags: int = 0) -> Any:
        kinds = self._s.module.NetworkDefinitionCreationFlag
        self._s.told.append(("create_network", {kind.name for kind in kinds if flags >> kind & 1}))
        return _new(self._s.module.INetworkDefinition, _layers=[], _inputs=[], _outputs=[])

    def create_builder_config(self) -> Any:
        return self._s.module.IBuilderConfig()

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        monitor = getattr(config, "progress_monitor", None)
        if monitor is not None:
            assert monitor._initialised
            monitor.phase_start("Building engine", None, 2)
            if not monitor.step_complete("Building engine", 0):
                return None
            monitor.phase_finish("Building engine")
        calibrator = getattr(config, "int8_calibrator", None)
        if calibrator is not None:
            assert calibrator._initialised
            self._s.told.append(("cache", calibrator.read_calibration_cache()))
        if self._s.fails:
            self._logger.log(self._s.severity.ERROR, self._s.fails)
            return None
        flags = {flag.name for key, flag in self._s.told if key == "set_flag"}
        lowest = "INT8" if "INT8" in flags else "FP16" if "FP16" in flags else None
        types_of = {"HALF": "FP16", "FLOAT": "FP32"}
        layers = []
        for layer in network._layers:
            own = types_of.get(layer.get_output(0).dtype.name, layer.get_output(0).dtype.name)
            dtype = self._s.obtained or lowest or own
            layers.append({"Name": layer.name, "Inputs": [{"Format/Datatype": f"Row major linear {dtype} format"}]})
        return json.dumps({"Layers": layers}).encode()


class _Network(_Part):
    @property
    def num_layers(self) -> int:
        return len(self._layers)

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_layer(self, index: int) -> Any:
        return self._layers[index]

    def get_input(self, index: int) -> Any:
        return self._inputs[index]

    def get_output(self, index: int) -> Any:
        return self._outputs[index]


class _Layer(_Part):
    num_outputs = 1

    def get_output(self, index: int) -> Any:
        return self._tensor


class _Config(_Part):
    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._s.told.append(("set_memory_pool_limit", (pool.name, pool_size)))

    def set_flag(self, flag: Any) -> None:
        self._s.told.append(("set_flag", flag))

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        if serialized_timing_cache not in (b"", b"timings"):
            return None
        return self._s.module.ITimingCache()

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self._s.told.append(("set_timing_cache", ignore_mismatch))
        object.__setattr__(self, "_cache", cache)
        return True

    def get_timing_cache(self) -> Any:
        return self._cache


class _TimingCache(_Part):
    def serialize(self) -> bytes:
        return b"timings"


class _Parser(_Part):
    def __init__(self, network: Any, logger: Any) -> None:
        object.__setattr__(self, "_network", network)
        object.__setattr__(self, "_logger", logger)
        object.__setattr__(self, "_errors", [])

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]

    def parse_from_file(self, model: str) -> bool:
        self._s.told.append(("parse_from_file", model))
        graph = onnx.shape_inference.infer_shapes(onnx.load(model)).graph
        kinds = {value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info, *graph.output)}
        for index, node in enumerate(graph.node):
            message = f"Parsing node: {node.name} [{node.op_type}]"
            self._logger.log(self._s.severity.VERBOSE, message)
            if node.op_type == self._s.refuses:
                self._errors.append(_new(self._s.module.ParserError, _index=index, _node=node))
                return False
            kind = {"QuantizeLinear": "QUANTIZE", "DequantizeLinear": "DEQUANTIZE"}.get(node.op_type, "CONVOLUTION")
            tensor = self._made(node.output[0], kinds[node.output[0]])
            layer = _new(self._s.module.ILayer, name=node.name, type=self._s.module.LayerType[kind], _tensor=tensor)
            self._network._layers.append(layer)
        self._network._inputs.extend(self._made(value.name, kinds[value.name]) for value in graph.input)
        self._network._outputs.extend(self._made(value.name, kinds[value.name]) for value in graph.output)
        return True

    def _made(self, name: str, kind: onnx.TypeProto.Tensor) -> Any:
        names = {TensorProto.FLOAT16: "HALF", TensorProto.INT64: "INT32"}
        dtype = names.get(kind.elem_type) or TensorProto.DataType.Name(kind.elem_type)
        shape = tuple(side.dim_value for side in kind.shape.dim)
        return _new(self._s.module.ITensor, name=name, dtype=self._s.module.DataType[dtype], shape=shape)


class _ParserError(_Part):
    def code(self) -> str:
        return "UNSUPPORTED_NODE"

    def desc(self) -> str:
        return f"No importer registered for op: {self._node.op_type}."

    def node(self) -> int:
        return self._index

    def node_name(self) -> str:
        return self._node.name

    def node_operator(self) -> str:
        return self._node.op_type


class _Runtime(_Part):
    def __init__(self, logger: Any) -> None:
        assert logger._initialised

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        return _new(self._s.module.ICudaEngine, _plan=plan)


class _Engine(_Part):
    def create_engine_inspector(self) -> Any:
        return _new(self._s.module.EngineInspector, _plan=self._plan)


class _Inspector(_Part):
    def get_engine_information(self, format: Any) -> str:
        assert format.name == "JSON"
        return self._plan.decode()


_IMPLEMENTATIONS: dict[str, type] = {
    "Builder": _Builder,
    "INetworkDefinition": _Network,
    "ILayer": _Layer,
    "ITensor": type("_Tensor", (), {}),
    "IBuilderConfig": _Config,
    "ITimingCache": _TimingCache,
    "OnnxParser": _Parser,
    "ParserError": _ParserError,
    "Runtime": _Runtime,
    "ICudaEngine": _Engine,
    "EngineInspector": _Inspector,
}


def _new(kind: type, **attributes: Any) -> Any:
    made = object.__new__(kind)
    for name, value in attributes.items():
        object.__setattr__(made, name, value)
    return made


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], StandIn]:
    """Give (release) → StandIn, which `--target tensorrt` then finds, on a machine with an Orin."""

    def install(version: str) -> StandIn:
        made = StandIn(version)
        monkeypatch.setitem(sys.modules, "tensorrt", made.module)
        monkeypatch.setattr(build, "current_gpu", lambda: ORIN)
        return made

    return install
