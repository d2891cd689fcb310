"""Profiles that real libraries wrote, profiles taken now, and TensorRT's profiler as far as it goes without a GPU."""

from __future__ import annotations

import enum
import importlib
import importlib.util
import json
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fcnedge.benchmarks.layers.layer_time import LayerKey, layer_table
from fcnedge.benchmarks.layers.onnxruntime_profile import parse_profile
from fcnedge.benchmarks.layers.openvino_profile import compile_profiled, layers_of, profile_openvino, single_runs
from fcnedge.benchmarks.layers.profile import profile_layers
from fcnedge.benchmarks.layers.tensorrt_profile import attach_collector
from fcnedge.runtime import Bundle
from fcnedge.runtime.backends import OpenVinoBackend
from fcnedge.runtime.errors import BackendError

PROFILES = Path(__file__).parents[1] / "profiles"
FRAME = np.zeros((60, 80, 3), np.uint8)
needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")


def test_recorded_onnxruntime_profile_gives_each_node_of_each_run():
    """Three runs of Transpose, Cast, Conv, ArgMax, Cast; times as `grep _kernel_time` shows them."""
    runs = parse_profile((PROFILES / "onnxruntime-1.32.0.json").read_text(encoding="utf-8"))
    assert [list(run.values()) for run in runs] == [
        [0.078, 0.058, 0.414, 0.118, 0.068, 0.007],
        [0.024, 0.017, 0.086, 0.068, 0.057, 0.006],
        [0.012, 0.008, 0.031, 0.013, 0.064, 0.004],
    ]
    assert [(key.name, key.type, key.implementation) for key in runs[0]] == [
        ("to_planes", "Transpose", "CPU"),
        ("to_float", "Cast", "CPU"),
        ("full_nchwc", "Conv", "CPU"),
        ("ReorderOutput", "ReorderOutput", "CPU"),
        ("argmax", "ArgMax", "CPU"),
        ("to_labels", "Cast", "CPU"),
    ]


def test_nodes_outside_of_every_run_do_not_count():
    """ONNX Runtime folds constants with the same kernels, while it loads the graph."""
    events = json.loads((PROFILES / "onnxruntime-1.32.0.json").read_text(encoding="utf-8"))
    folded = dict(next(event for event in events if event["cat"] == "Node"), ts=100, name="folded_kernel_time")
    runs = parse_profile(json.dumps([folded, *events]))
    assert all(key.name != "folded" for run in runs for key in run)


def test_layers_are_medians_with_shares_of_the_whole():
    first, second = LayerKey("a", "Conv", "CPU"), LayerKey("b", "Add", "CPU")
    layers = layer_table([{first: 1.0, second: 9.0}, {first: 3.0, second: 1.0}, {first: 8.0}])
    assert [(layer.name, layer.ms, layer.share) for layer in layers] == [("a", 3.0, 0.75), ("b", 1.0, 0.25)]


def test_recorded_openvino_means_are_taken_apart_into_single_inferences():
    recorded = json.loads((PROFILES / "openvino-2026.4.1.json").read_text(encoding="utf-8"))
    runs = single_runs([layers_of(map(_info, run)) for run in recorded])
    stem = LayerKey("stem_conv/WithoutBiases", "Convolution", "brgconv_avx512_f32")
    means = [next(info["real_us"] for info in run if info["node_name"] == stem.name) for run in recorded]
    alone = [means[0], *(n * means[n - 1] - (n - 1) * means[n - 2] for n in range(2, len(means) + 1))]
    assert [round(1000 * run[stem]) for run in runs] == alone
    assert min(alone) > 0
    assert "stem_relu" not in {key.name for key in runs[0]}  # merged into its convolution: not executed


@needs_openvino
def test_openvinos_times_are_still_means_of_all_inferences(colour_bundle):
    """What `single_runs` rests on: n times the mean never falls, but for a microsecond of rounding per inference."""
    openvino = importlib.import_module("openvino")
    model = openvino.Core().compile_model(
        openvino.Core().read_model(str(colour_bundle / "model.fp32.onnx")), "CPU", {"PERF_COUNT": True}
    )
    request = model.create_infer_request()
    before: dict[LayerKey, float] = {}
    for count in range(1, 30):
        request.infer([np.zeros((1, 96, 96, 3), np.uint8)])
        sums = {key: count * ms for key, ms in layers_of(request.get_profiling_info()).items()}
        assert all(total >= before.get(key, 0.0) - 0.001 * count for key, total in sums.items())
        before = sums


@needs_openvino
def test_openvino_is_profiled_with_the_backends_own_settings(colour_bundle):
    bundle = Bundle.load(colour_bundle)
    backend: Any = OpenVinoBackend(bundle, threads=1)
    try:
        measured, profiled = backend._request.get_compiled_model(), compile_profiled(bundle, "fp32", 1)
        names = set(measured.get_property("SUPPORTED_PROPERTIES")) - {"PERF_COUNT", "SUPPORTED_PROPERTIES"}
        assert {"PERFORMANCE_HINT", "INFERENCE_PRECISION_HINT", "ENABLE_CPU_PINNING"} <= names
        for name in names:
            assert str(measured.get_property(name)) == str(profiled.get_property(name)), name
        assert profiled.get_property("PERF_COUNT") != measured.get_property("PERF_COUNT")
    finally:
        backend.close()


@needs_openvino
def test_openvino_profile_holds_the_convolution_of_the_graph(colour_bundle):
    runs = profile_openvino(Bundle.load(colour_bundle), "fp32", 1, np.zeros((1, 96, 96, 3), np.uint8))
    assert len(runs) >= 3
    assert any("Convolution" in key.type and "full" in key.name for key in runs[0])


def test_onnxruntime_profile_holds_the_nodes_of_the_graph(colour_bundle):
    layers, profile = profile_layers(Bundle.load(colour_bundle), "onnxruntime", "fp32", 1, FRAME)
    assert {"Transpose", "Cast", "Conv", "ArgMax"} <= {layer.type for layer in layers}
    assert (profile.tool, profile.reason) == ("ONNX Runtime's profile", None)
    assert profile.runs >= 3
    assert sum(layer.share for layer in layers) == pytest.approx(1)
    assert profile.sum_ms == pytest.approx(sum(layer.ms for layer in layers))


@pytest.mark.parametrize("backend", ["fake", "onnxruntime_cuda", "of my own"])
def test_backend_without_profiler_gives_the_reason(colour_bundle, backend):
    layers, profile = profile_layers(Bundle.load(colour_bundle), backend, "fp32", None, FRAME)
    assert (layers, profile.tool, profile.sum_ms) == ((), None, None)
    assert profile.reason


# TensorRT's IProfiler: the class is real where the library is installed, the context that calls it is not


class Context:
    """What the documentation says of IExecutionContext: `profiler` is called per layer, `enqueue_emits_profile`."""

    profiler: Any = None
    enqueue_emits_profile = False

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert self.enqueue_emits_profile
        for name, ms in (("stem + relu", 0.5), ("score", 0.25), ("reformat", 0.125), ("reformat", 0.125)):
            self.profiler.report_layer_time(name, ms)
        return True


def test_tensorrt_layers_are_collected_per_inference():
    try:
        library = importlib.import_module("tensorrt_rtx")
    except ImportError:
        library = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    context = Context()
    collector = attach_collector(library, context)
    assert isinstance(context.profiler, library.IProfiler)
    for _ in range(2):
        assert context.execute_async_v3(0)
        assert {key.name: ms for key, ms in collector.take().items()} == {
            "stem + relu": 0.5,
            "score": 0.25,
            "reformat": 0.25,
        }
    assert collector.take() == {}


def test_tensorrt_without_profiler_is_said():
    library = SimpleNamespace(__name__="tensorrt", __version__="8.5.2")
    with pytest.raises(BackendError, match=r"^tensorrt 8\.5\.2 has no profiler for its layers\.$"):
        attach_collector(library, Context())


def _info(recorded: dict[str, Any]) -> SimpleNamespace:
    """A recorded ProfilingInfo as OpenVINO gives it: times as timedelta, status as an enumeration."""
    times = {"real_time": timedelta(microseconds=recorded["real_us"])}
    return SimpleNamespace(**{**recorded, **times, "status": Status[recorded["status"]]})


class Status(enum.Enum):
    """`openvino.ProfilingInfo.Status`."""

    NOT_RUN = 0
    OPTIMIZED_OUT = 1
    EXECUTED = 2
