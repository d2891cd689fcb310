"""The layers of whatever backend runs: which profiler it has, and why there is none where there is none."""

from __future__ import annotations

import numpy as np

from fcnedge.runtime import Bundle
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.preprocessing import fit_frame

from .layer_time import LayerKey, LayerProfile, LayerTime, layer_table

_NONE = {
    "onnxruntime_cuda": "ONNX Runtime's profile tells when CUDA kernels are launched, not how long they run",
    "fake": "the fake backend has no layers",
}


def profile_layers(
    bundle: Bundle, backend: str, precision: str, threads: int | None, frame: np.ndarray
) -> tuple[tuple[LayerTime, ...], LayerProfile]:
    """Time the layers that `backend` runs for `precision`. frame: (H, W, 3) uint8 BGR of any size.

    In a session of its own, after and beside the one that was measured: a profiler slows down what it watches.
    """
    target = bundle.manifest.input
    image, _ = fit_frame(frame, (target.height, target.width), target.fit)
    try:
        runs, tool = _runs(bundle, backend, precision, threads, image[None])
    except UserError as error:
        return (), LayerProfile(None, 0, None, str(error))
    layers = layer_table(runs)
    return layers, LayerProfile(tool, len(runs), sum(layer.ms for layer in layers), None)


def _runs(
    bundle: Bundle, backend: str, precision: str, threads: int | None, image: np.ndarray
) -> tuple[list[dict[LayerKey, float]], str]:
    if backend == "onnxruntime":
        from .onnxruntime_profile import profile_onnxruntime

        return profile_onnxruntime(bundle, precision, threads, image), "ONNX Runtime's profile"
    if backend == "openvino":
        from .openvino_profile import profile_openvino

        return profile_openvino(bundle, precision, threads, image), "OpenVINO's PERF_COUNT"
    if backend in ("tensorrt", "tensorrt_rtx"):
        from .tensorrt_profile import profile_tensorrt

        return profile_tensorrt(bundle, precision, backend, image), "TensorRT's IProfiler"
    raise UserError(f"{_NONE.get(backend, f'the backend {backend} has no profiler')}.")
