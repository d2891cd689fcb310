"""ONNX Runtime by addresses: for real on the CPU's, and what CUDA would be told on a recording stand-in."""

from __future__ import annotations

import logging
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from fcnedge.runtime import Bundle
from fcnedge.runtime.backends import gpu, onnxruntime_cuda
from fcnedge.runtime.backends.onnxruntime_cuda import OnnxRuntimeCudaBackend, OnnxRuntimeCudaNetwork
from fcnedge.runtime.errors import BackendError

GRAPH = "model.fp32.onnx"
BLUE, GREEN, RED = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def picture(*colours: tuple[int, int, int]) -> np.ndarray:
    """(1, 32, 48, 3) uint8: one upright stripe per colour."""
    return np.repeat(np.array(colours, np.uint8)[None, None], 48 // len(colours), axis=2).repeat(32, axis=1)


# --- for real, at addresses of the CPU's memory


class Bound:
    """A network on the CPU, bound to an image and to an output that it fills."""

    def __init__(self, bundle: Path):
        self.network = OnnxRuntimeCudaNetwork(Bundle.load(bundle), device="cpu")
        self.image = np.zeros((1, 32, 48, 3), np.uint8)
        self.output = np.zeros(self.network.output_shape, self.network.output_dtype)
        self.network.bind(self.image.ctypes.data, self.output.ctypes.data, 0)

    def run(self, image: np.ndarray) -> np.ndarray:
        self.image[:] = image
        self.output[:] = 77
        self.network.enqueue()
        return self.output


def test_scores_appear_at_the_output_address(tiny_bundle: Path):
    """Scores of the graph: the sum of ±(mean of the cell's channel - 127.5), + for the channels of the class."""
    bound = Bound(tiny_bundle)
    assert (bound.network.precision, bound.network.output_shape) == ("fp32", (1, 8, 4, 6))
    assert bound.network.output_dtype == np.float32
    scores = bound.run(picture(BLUE, GREEN, RED))
    signs = np.array([[1 if colour >> bit & 1 else -1 for bit in range(3)] for colour in range(8)])
    means = np.array([BLUE, GREEN, RED]) - 127.5
    np.testing.assert_allclose(scores[0], (signs @ means.T).repeat(2, axis=1)[:, None].repeat(4, axis=1), atol=1e-3)


def test_each_run_reads_the_image_anew(tiny_bundle: Path):
    bound = Bound(tiny_bundle)
    for colours, labels in (((BLUE, RED), (1, 4)), ((GREEN, BLUE), (2, 1)), ((RED, RED), (4, 4))):
        assert (bound.run(picture(*colours))[0].argmax(axis=0) == np.repeat(labels, 3)).all()


def test_labels_head_gives_labels(write_bundle, tmp_path: Path):
    bound = Bound(write_bundle(tmp_path / "labels", head="labels"))
    assert (bound.network.output_shape, bound.network.output_dtype) == ((1, 32, 48), np.uint8)
    assert (bound.run(picture(BLUE, GREEN, RED)) == np.repeat((1, 2, 4), 16)).all()


def test_half_precision_scores_are_half_precision(write_bundle, colour_graph, tmp_path: Path):
    model = colour_graph((32, 48), 8, "bilinear")
    model.graph.node[-1].output[0] = "wide"
    model.graph.node.append(helper.make_node("Cast", ["wide"], ["scores"], to=TensorProto.FLOAT16))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    bound = Bound(write_bundle(tmp_path / "half", files={GRAPH: model.SerializeToString()}))
    assert bound.network.output_dtype == np.float16
    assert (bound.run(picture(GREEN, RED))[0].argmax(axis=0) == np.repeat((2, 4), 3)).all()


def test_network_can_be_bound_to_other_addresses(tiny_bundle: Path):
    bound = Bound(tiny_bundle)
    first = bound.run(picture(BLUE)).copy()
    image, output = picture(RED), np.zeros_like(first)
    bound.network.bind(image.ctypes.data, output.ctypes.data, 0)
    bound.network.enqueue()
    assert (output[0].argmax(axis=0) == 4).all()
    assert (bound.output == first).all()


def test_nothing_beyond_the_output_is_written(tiny_bundle: Path):
    bound = Bound(tiny_bundle)
    room = np.full(bound.output.size + 128, 7, np.float32)
    bound.network.bind(bound.image.ctypes.data, room[64:].ctypes.data, 0)
    bound.network.enqueue()
    assert (room[:64] == 7).all()
    assert (room[-64:] == 7).all()
    assert not (room[64:-64] == 7).any()


def test_closed_network_is_refused_and_may_be_bound_again(tiny_bundle: Path):
    bound = Bound(tiny_bundle)
    bound.network.close()
    bound.network.close()
    with pytest.raises(BackendError, match="is closed or not bound; open another backend"):
        bound.network.enqueue()
    bound.network.bind(bound.image.ctypes.data, bound.output.ctypes.data, 0)
    assert (bound.run(picture(BLUE))[0].argmax(axis=0) == 1).all()


def test_graph_that_is_not_the_bundles_is_refused(write_bundle, colour_graph, tmp_path: Path):
    other = colour_graph((32, 32), 8, "bilinear").SerializeToString()
    bundle = write_bundle(tmp_path / "other", files={GRAPH: other})
    with pytest.raises(BackendError, match=r"the graph takes .*32, 32, 3.*model\.json says .*32, 48, 3"):
        Bound(bundle)


def test_graph_that_cannot_run_is_one_sentence(write_bundle, colour_graph, tmp_path: Path):
    model = colour_graph((32, 48), 8, "bilinear")
    model.graph.node[0].op_type = "Transmogrify"
    bundle = write_bundle(tmp_path / "odd", files={GRAPH: model.SerializeToString()})
    with pytest.raises(BackendError, match=rf"^onnxruntime .* cannot run .*{GRAPH}: ") as caught:
        Bound(bundle)
    assert "\n" not in str(caught.value)


# --- without CUDA


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this onnxruntime has it")
def test_onnxruntime_without_cuda_names_the_wheel_and_its_cuda(tiny_bundle: Path):
    with pytest.raises(BackendError) as caught:
        OnnxRuntimeCudaBackend(Bundle.load(tiny_bundle))
    assert str(caught.value).startswith(f"onnxruntime {onnxruntime.__version__} has no CUDA provider; install")
    assert "pip install 'onnxruntime-gpu[cuda,cudnn]' (1.31's is for CUDA 13" in str(caught.value)


def test_missing_onnxruntime_names_the_wheel(tiny_bundle: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        BackendError, match=r"onnxruntime cannot be loaded \(.*\); install .*onnxruntime-gpu\[cuda,cudnn\]"
    ):
        OnnxRuntimeCudaNetwork(Bundle.load(tiny_bundle))


# --- with CUDA, as documented

# https://onnxruntime.ai/docs/api/python/api_summary.html: class → attributes. The real module, whose CPU build has the
# same classes, is held against it below.
DOCUMENTED = {
    "SessionOptions": {
        "log_severity_level",
        "graph_optimization_level",
        "enable_mem_pattern",
        "add_session_config_entry",
    },
    "RunOptions": {"add_run_config_entry"},
    "InferenceSession": {"get_inputs", "get_outputs", "get_providers", "io_binding", "run_with_iobinding"},
    "IOBinding": {"bind_input", "bind_output"},
    "GraphOptimizationLevel": {"ORT_DISABLE_ALL"},
}


class CudaStandIn:
    """An onnxruntime with CUDA that writes down what it is told and computes nothing.

    told: (call, arguments) in order. The knobs: starts, whether CUDA loads; fallback, whether some layer has no CUDA
    kernel; fails, what `run_with_iobinding` raises; refuses, the call of a binding that raises.
    """

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.starts, self.fallback, self.fails, self.refuses = True, False, "", ""
        self.module: Any = types.ModuleType("onnxruntime")
        self.module.__version__ = "1.31.1"
        self.module.get_available_providers = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
        self.module.GraphOptimizationLevel = types.SimpleNamespace(ORT_DISABLE_ALL="nothing")
        self.module.SessionOptions = _Options
        self.module.RunOptions = _RunOptions
        self.module.InferenceSession = self.session

    def session(self, path: str, options: _Options, providers: list[Any], enable_fallback: int) -> _Session:
        assert enable_fallback == 0
        name = providers[0] if isinstance(providers[0], str) else providers[0][0]
        assert options.enable_mem_pattern is False, "the second run takes memory"
        self.told.append(("session", (providers, dict(options.entries), options.graph_optimization_level)))
        on_cuda = name == "CUDAExecutionProvider" and self.starts
        if options.entries.get("session.disable_cpu_ep_fallback") == "1" and (self.fallback or not on_cuda):
            raise RuntimeError("graph nodes that are assigned to the default CPU EP, but fallback to CPU EP has been …")
        return _Session(self, path, [name] if on_cuda else ["CPUExecutionProvider"])

    def tell(self, name: str, details: Any) -> None:
        if self.refuses == name:
            raise RuntimeError(f"{name}: Error when binding\nin a file")
        self.told.append((name, details))

    def calls(self) -> list[str]:
        return [name for name, _ in self.told]


class _Options:
    __slots__ = ("enable_mem_pattern", "entries", "graph_optimization_level", "log_severity_level")

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.graph_optimization_level, self.enable_mem_pattern = "all", True

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value


class _RunOptions:
    __slots__ = ("entries",)

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}

    def add_run_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value


class _Session:
    def __init__(self, stand_in: CudaStandIn, path: str, providers: list[str]):
        self._stand_in, self._graph, self._providers = stand_in, onnx.load(path).graph, providers

    def __del__(self) -> None:
        self._stand_in.told.append(("session gone", self._providers[0]))

    def get_inputs(self) -> list[Any]:
        return [_value(each) for each in self._graph.input]

    def get_outputs(self) -> list[Any]:
        return [_value(each) for each in self._graph.output]

    def get_providers(self) -> list[str]:
        return self._providers

    def io_binding(self) -> _Binding:
        if self._stand_in.refuses == "io_binding":
            raise RuntimeError("io_binding: Error when binding\nin a file")
        return _Binding(self._stand_in, self)

    def run_with_iobinding(self, binding: _Binding, run_options: _RunOptions) -> None:
        assert binding.session is self
        self._stand_in.told.append(("run", dict(run_options.entries)))
        if self._stand_in.fails:
            raise RuntimeError(self._stand_in.fails)


class _Binding:
    def __init__(self, stand_in: CudaStandIn, session: _Session):
        self._tell, self.session = stand_in.tell, session

    def bind_input(self, name, device_type, device_id, element_type, shape, buffer_ptr) -> None:
        self._tell("bind_input", (name, device_type, device_id, element_type, shape, buffer_ptr))

    def bind_output(self, name, device_type="cpu", device_id=0, element_type=None, shape=None, buffer_ptr=None) -> None:
        self._tell("bind_output", (name, device_type, device_id, element_type, shape, buffer_ptr))


def _value(value: onnx.ValueInfoProto) -> Any:
    kind = value.type.tensor_type
    name = {TensorProto.FLOAT: "float", TensorProto.UINT8: "uint8", TensorProto.FLOAT16: "float16"}[kind.elem_type]
    shape = [side.dim_value for side in kind.shape.dim]
    return types.SimpleNamespace(name=value.name, type=f"tensor({name})", shape=shape)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> CudaStandIn:
    stand_in = CudaStandIn()
    monkeypatch.setitem(sys.modules, "onnxruntime", stand_in.module)
    return stand_in


def test_the_real_module_has_what_the_stand_in_has():
    lacking = [
        f"{name}.{member}"
        for name, members in DOCUMENTED.items()
        for member in members
        if not hasattr(getattr(onnxruntime, name), member)
    ]
    assert lacking == []
    implemented = {
        "SessionOptions": _Options,
        "RunOptions": _RunOptions,
        "InferenceSession": _Session,
        "IOBinding": _Binding,
    }
    for name, kind in implemented.items():
        ours = {member for member in vars(kind) if not member.startswith("_")} - {"entries"}
        assert ours <= DOCUMENTED[name]


def test_graph_is_bound_to_device_addresses_on_the_given_stream(tiny_bundle: Path, cuda: CudaStandIn):
    network = OnnxRuntimeCudaNetwork(Bundle.load(tiny_bundle), index=1)
    assert (network.output_shape, network.output_dtype) == ((1, 8, 4, 6), np.float32)
    assert cuda.told == [
        ("session", (["CPUExecutionProvider"], {}, "nothing")),
        ("session gone", "CPUExecutionProvider"),
    ]
    cuda.told.clear()
    network.bind(0x7F0000001000, 0x7F0000002000, 0x55AA)
    settings = {
        "device_id": "1",
        "user_compute_stream": str(0x55AA),
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",
    }
    providers = [("CUDAExecutionProvider", settings)]
    assert cuda.told == [
        ("session", (providers, {"session.disable_cpu_ep_fallback": "1"}, "all")),
        ("bind_input", ("image", "cuda", 1, np.uint8, [1, 32, 48, 3], 0x7F0000001000)),
        ("bind_output", ("scores", "cuda", 1, np.float32, [1, 8, 4, 6], 0x7F0000002000)),
        ("run", {"disable_synchronize_execution_providers": "1"}),
    ]


def test_a_frame_is_one_call_that_does_not_wait(tiny_bundle: Path, cuda: CudaStandIn):
    network = OnnxRuntimeCudaNetwork(Bundle.load(tiny_bundle))
    network.bind(1, 2, 3)
    cuda.told.clear()
    for _ in range(3):
        network.enqueue()
    assert cuda.told == [("run", {"disable_synchronize_execution_providers": "1"})] * 3


def test_session_goes_on_close_and_when_bound_anew(tiny_bundle: Path, cuda: CudaStandIn):
    """Before the next is made: two at once might not fit into the GPU."""
    network = OnnxRuntimeCudaNetwork(Bundle.load(tiny_bundle))
    network.bind(1, 2, 3)
    cuda.told.clear()
    network.bind(1, 2, 4)
    assert cuda.calls() == ["session gone", "session", "bind_input", "bind_output", "run"]
    cuda.told.clear()
    network.close()
    assert cuda.calls() == ["session gone"]


def test_layers_without_cuda_are_said(tiny_bundle: Path, cuda: CudaStandIn, caplog):
    cuda.fallback = True
    network = OnnxRuntimeCudaNetwork(Bundle.load(tiny_bundle))
    network.bind(1, 2, 3)
    network.enqueue()
    assert "onnxruntime runs some layers of" in caplog.text


def test_cuda_that_does_not_start_is_refused_and_never_replaced_by_the_cpu(
    tiny_bundle: Path, cuda: CudaStandIn, caplog
):
    """As onnxruntime-gpu 1.31.1 does where CUDA's libraries are missing: a session, on the CPU, and no exception."""
    cuda.starts = False
    network = OnnxRuntimeCudaNetwork(Bundle.load(tiny_bundle))
    with pytest.raises(
        BackendError, match=r"^onnxruntime 1\.31\.1 cannot start CUDA on this machine.*; check nvidia-smi, "
    ):
        network.bind(1, 2, 3)
    with pytest.raises(BackendError, match="not bound"):
        network.enqueue()
    assert caplog.record_tuples == []


def test_built_for_cuda_is_said_where_the_wheel_says_it(tiny_bundle: Path, cuda: CudaStandIn, monkeypatch):
    facts: Any = types.ModuleType("onnxruntime.capi.build_and_package_info")
    facts.cuda_version = "13.0"
    capi: Any = types.ModuleType("onnxruntime.capi")
    capi.build_and_package_info = facts
    monkeypatch.setitem(sys.modules, "onnxruntime.capi", capi)
    monkeypatch.setitem(sys.modules, "onnxruntime.capi.build_and_package_info", facts)
    cuda.starts = False
    with pytest.raises(BackendError, match=r"\(it is built for CUDA 13\.0 and needs that, cuDNN and a driver"):
        OnnxRuntimeCudaNetwork(Bundle.load(tiny_bundle)).bind(1, 2, 3)


@pytest.mark.parametrize("call", ["io_binding", "bind_input", "bind_output"])
def test_binding_that_is_refused_is_one_sentence_and_no_session_is_left(tiny_bundle: Path, cuda: CudaStandIn, call):
    """A BackendError, for which "auto" goes on to the CPU."""
    network = OnnxRuntimeCudaNetwork(Bundle.load(tiny_bundle))
    cuda.refuses = call
    with pytest.raises(BackendError) as caught:
        network.bind(1, 2, 3)
    assert str(caught.value) == (
        f"onnxruntime 1.31.1 cannot bind {tiny_bundle / GRAPH} to the cuda's memory: {call}: Error when binding; "
        "check nvidia-smi, or choose another backend."
    )
    del caught
    assert cuda.calls()[-1] == "session gone"


CONVOLUTION = (
    "Error in execution: Non-zero status code returned while running Conv node. Name:'stem_conv' Status Message: "
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_kernel.h:296 static cudnnContext* onnxruntime::cuda::"
    "CudaKernel::RequireCudnnHandle(cudnnHandle_t) [ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : cuDNN is unavailable"
)
PARSING = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc:63 static onnxruntime::"
    "CUDAExecutionProviderInfo onnxruntime::CUDAExecutionProviderInfo::FromProviderOptions(const onnxruntime::"
    "ProviderOptions&) [ONNXRuntimeError] : 1 : FAIL : provider_options_utils.h:187 Parse Failed to parse provider "
    'option "device_id": CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=-1 ; '
    "hostname=robot ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc ; line=70"
)

FULL = (  # onnxruntime's own words on a CPU, whose arena is the same
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Conv node. Name:'stem_conv' Status "
    "Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:360 void* onnxruntime::BFCArena::"
    "AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Failed to allocate memory for requested buffer of size 944"
)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (CONVOLUTION, "cuDNN is unavailable; install CUDA's libraries for it: pip install "),
        (PARSING, "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version; check nvidia-smi"),
        (
            FULL,
            "Non-zero status code returned while running Conv node. Name:'stem_conv' Status Message: Failed to "
            "allocate memory for requested buffer of size 944; the GPU's memory is full: close other programs",
        ),
    ],
)
def test_what_fails_in_the_first_run_is_said_at_the_opening(tiny_bundle: Path, cuda: CudaStandIn, told, said):
    """In the words of onnxruntime-gpu 1.31.1. What opens, and then fails on every frame, "auto" would have chosen."""
    network = OnnxRuntimeCudaNetwork(Bundle.load(tiny_bundle))
    cuda.fails = told
    with pytest.raises(BackendError) as caught:
        network.bind(1, 2, 3)
    told_of = f"onnxruntime 1.31.1 cannot run {tiny_bundle / GRAPH} with its CUDAExecutionProvider: "
    assert str(caught.value).startswith(told_of + said)
    assert "/onnxruntime_src" not in str(caught.value)
    del caught
    assert cuda.calls()[-1] == "session gone"
    with pytest.raises(BackendError, match="not bound"):
        network.enqueue()


def test_failure_on_a_frame_is_one_sentence(tiny_bundle: Path, cuda: CudaStandIn):
    network = OnnxRuntimeCudaNetwork(Bundle.load(tiny_bundle))
    network.bind(1, 2, 3)
    cuda.fails = "CUDA failure 700: an illegal memory access\nin a file"
    with pytest.raises(
        BackendError,
        match=r"^onnxruntime failed on this frame: CUDA failure 700: an illegal memory access; use the CPU, ",
    ):
        network.enqueue()


def test_libraries_from_pip_are_loaded_without_a_word_on_standard_output(
    tiny_bundle: Path, cuda, monkeypatch, capsys, caplog
):
    caplog.set_level(logging.DEBUG)
    cuda.module.preload_dlls = lambda: sys.stdout.write("Failed to load libcudnn.so.9")
    monkeypatch.setattr(onnxruntime_cuda.importlib.util, "find_spec", lambda name: object())
    OnnxRuntimeCudaNetwork(Bundle.load(tiny_bundle))
    assert capsys.readouterr().out == ""
    assert "Failed to load libcudnn.so.9" in caplog.text


# --- the backend


class Recorder:
    """Stands in for the GPU and for the frame path, whose own tests are beside them."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.fails = False
        recorder = self

        class Device:
            def __init__(self, index: int):
                recorder.told.append(("device", index))

            def close(self) -> None:
                recorder.told.append("device closed")

        class FramePipeline:
            def __init__(self, device: Device, network: OnnxRuntimeCudaNetwork, manifest: Any, filter_mode: str):
                recorder.told.append(filter_mode)
                if recorder.fails:
                    network.close()
                    raise BackendError("no memory.")
                network.bind(1, 2, 3)

            def segment(self, frame: np.ndarray, **options: Any) -> Any:
                recorder.told.append(("segment", frame.shape, options))
                return "a mask"

            def infer(self, image: np.ndarray) -> Any:
                return "scores"

            def close(self) -> None:
                recorder.told.append("pipeline closed")

        self.device, self.pipeline = Device, FramePipeline


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch, cuda: CudaStandIn) -> Recorder:
    made = Recorder()
    monkeypatch.setattr(gpu, "Device", made.device)
    monkeypatch.setattr(onnxruntime_cuda, "FramePipeline", made.pipeline)
    return made


def test_backend_hands_frames_to_the_frame_path(tiny_bundle: Path, recorder: Recorder):
    backend: Any = OnnxRuntimeCudaBackend(Bundle.load(tiny_bundle), "fp32", index=2, filter_mode="point")
    assert (backend.name, backend.precision, backend.filter_mode) == ("onnxruntime_cuda", "fp32", "point")
    frame = np.zeros((10, 20, 3), np.uint8)
    assert (backend.segment(frame), backend.infer(frame)) == ("a mask", "scores")
    backend.close()
    assert recorder.told == [
        ("device", 2),
        "point",
        ("segment", (10, 20, 3), {"out": None, "paint": None}),
        "pipeline closed",
        "device closed",
    ]


def test_gpu_is_let_go_when_the_frame_path_cannot_be_opened(tiny_bundle: Path, recorder: Recorder):
    recorder.fails = True
    with pytest.raises(BackendError, match="no memory"):
        OnnxRuntimeCudaBackend(Bundle.load(tiny_bundle))
    assert recorder.told == [("device", 0), "linear", "device closed"]
