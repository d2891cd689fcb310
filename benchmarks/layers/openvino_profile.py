"""Layer times from OpenVINO: `InferRequest.get_profiling_info` of a model compiled with PERF_COUNT.

https://docs.openvino.ai/2025/api/ie_python_api/_autosummary/openvino.ProfilingInfo.html – what the CPU plugin gives as
a layer's time is the mean of all inferences so far, in whole microseconds (perf_count.h in its source), so that the
last one's own time is n·mean(n) - (n-1)·mean(n-1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from fcnedge.runtime import Bundle
from fcnedge.runtime.backends.cpu_target import cpu_target
from fcnedge.runtime.backends.openvino import load_openvino

from .layer_time import FEWEST_RUNS, PROFILED_RUNS, PROFILED_S, LayerKey

# As OpenVinoBackend compiles, but for PERF_COUNT; a test compares the two.
_SETTINGS = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}


def profile_openvino(
    bundle: Bundle, precision: str, threads: int | None, image: np.ndarray
) -> list[dict[LayerKey, float]]:
    """Milliseconds by layer of each of some inferences of (1, H, W, 3) uint8 BGR, in a compiled model of their own."""
    request = compile_profiled(bundle, precision, threads).create_infer_request()
    means: list[dict[LayerKey, float]] = []
    started = perf_counter()
    while len(means) < PROFILED_RUNS and (len(means) < FEWEST_RUNS or perf_counter() - started < PROFILED_S):
        request.infer([image])
        means.append(layers_of(request.get_profiling_info()))
    return single_runs(means)


def compile_profiled(bundle: Bundle, precision: str, threads: int | None) -> Any:
    """The graph compiled as the backend does, with its layers timed."""
    openvino = load_openvino()
    settings: dict[str, Any] = {**_SETTINGS, "PERF_COUNT": True}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    front_end = openvino.frontend.FrontEndManager().load_by_framework("onnx")
    model = front_end.convert(front_end.load(str(bundle.model(precision, cpu_target()))))
    return openvino.Core().compile_model(model, "CPU", settings)


def single_runs(means: Sequence[Mapping[LayerKey, float]]) -> list[dict[LayerKey, float]]:
    """Means over 1, 2, 3 … inferences → what each inference took by itself; what rounding makes negative is 0."""
    sums = [{key: count * ms for key, ms in mean.items()} for count, mean in enumerate(means, start=1)]
    return [
        {key: max(0.0, ms - before.get(key, 0.0)) for key, ms in now.items()}
        for before, now in zip([{}, *sums], sums, strict=False)
    ]


def layers_of(infos: Iterable[Any]) -> dict[LayerKey, float]:
    """`ProfilingInfo` → milliseconds of each layer that was executed, not merged into another."""
    found: dict[LayerKey, float] = {}
    for info in infos:
        if info.status == type(info.status).EXECUTED:
            key = LayerKey(info.node_name, info.node_type, info.exec_type)
            found[key] = found.get(key, 0.0) + 1000 * info.real_time.total_seconds()
    return found
