"""Layer times from TensorRT and TensorRT-RTX: an `IProfiler` on the execution context.

https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/infer/Core/Profiler.html – the context calls
`report_layer_time` once per layer of each inference; while `enqueue_emits_profile` is on, which it is from the start,
`execute_async_v3` waits for that. Written against the documentation: no GPU has run it yet.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np

from fcnedge.runtime import Bundle
from fcnedge.runtime.backends import TensorRtBackend
from fcnedge.runtime.backends.tensorrt import load_library
from fcnedge.runtime.errors import BackendError

from .layer_time import FEWEST_RUNS, PROFILED_RUNS, PROFILED_S, LayerKey


def profile_tensorrt(bundle: Bundle, precision: str, module: str, image: np.ndarray) -> list[dict[LayerKey, float]]:
    """Milliseconds by layer of each of some inferences of (1, H, W, 3) uint8 BGR, in a context of their own.

    module: "tensorrt" or "tensorrt_rtx". Raises BackendError where the library has no profiler.
    """
    library = load_library(module)
    backend = TensorRtBackend(bundle, precision, module=module, build=False)
    try:
        collector = attach_collector(library, backend.execution_context)
        runs = []
        started = perf_counter()
        while len(runs) < PROFILED_RUNS and (len(runs) < FEWEST_RUNS or perf_counter() - started < PROFILED_S):
            backend.infer(image)
            runs.append(collector.take())
        return runs
    finally:
        backend.close()


def attach_collector(library: Any, context: Any) -> Any:
    """Give `context` a profiler of `library`, whose `take()` gives and forgets milliseconds by layer.

    Raises BackendError where there is no such thing.
    """
    if not hasattr(library, "IProfiler") or not hasattr(context, "profiler"):
        raise BackendError(f"{library.__name__} {library.__version__} has no profiler for its layers.")

    class Collector(library.IProfiler):
        def __init__(self) -> None:
            library.IProfiler.__init__(self)
            self._layers: dict[LayerKey, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            key = LayerKey(layer_name, "", library.__name__)
            self._layers[key] = self._layers.get(key, 0.0) + ms

        def take(self) -> dict[LayerKey, float]:
            layers, self._layers = self._layers, {}
            return layers

    collector = Collector()
    context.profiler = collector
    if hasattr(context, "enqueue_emits_profile"):
        context.enqueue_emits_profile = True
    return collector
