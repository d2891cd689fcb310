"""Choose a backend by name, or the best one that works here."""

from __future__ import annotations

import logging

from ..bundle import Bundle
from ..cuda.driver import load_driver
from ..errors import BackendError, UserError
from ..head import check_filter_mode
from .fake import FakeBackend
from .onnxruntime import OnnxRuntimeBackend
from .openvino import OpenVinoBackend
from .protocol import Backend
from .tensorrt import TensorRtBackend

BACKENDS = ("tensorrt", "tensorrt_rtx", "onnxruntime_cuda", "openvino", "onnxruntime", "fake")
MAX_THREADS = 1024
# Best first.
_ON_GPU = ("tensorrt", "tensorrt_rtx", "onnxruntime_cuda")
# fcn8s-lite0-voc at 384x384 in FP32 with 2 threads of a busy Xeon, in turns: OpenVINO takes 0.6 of ONNX Runtime's
# processor time per frame and 0.5 to 1.0 of its latency, and gives the same labels.
_ON_CPU = ("openvino", "onnxruntime")

_log = logging.getLogger(__name__)


def open_backend(
    bundle: Bundle,
    name: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    filter_mode: str = "linear",
) -> Backend:
    """Open the backend `name`, or with "auto" the first that works, best first; why others were not is logged.

    "auto" tries the GPU first, where there are an NVIDIA driver and pycuda; "cpu" is "auto" without it.
    filter_mode: "linear" or "point", for backends that do the head as well (`FrameBackend`); others give scores.
    Raises UserError for an unknown name or filter mode or a number of threads that no machine has, BundleError when the
    bundle has no graph in that precision, BackendError that gives every reason when none works.
    """
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise UserError(f"threads is {threads}; it must be from 1 to {MAX_THREADS}, or None for one per core.")
    check_filter_mode(filter_mode)
    if name not in ("auto", "cpu"):
        return _open(name, bundle, precision, threads, filter_mode)
    bundle.model(precision)  # said once, and not by every backend
    no_gpu = _why_no_gpu() if name == "auto" else None
    candidates = _ON_CPU if name == "cpu" or no_gpu else (*_ON_GPU, *_ON_CPU)
    reasons = []
    for candidate in candidates:
        try:
            return _open(candidate, bundle, precision, threads, filter_mode)
        except UserError as error:  # noqa: PERF203 - a few candidates
            _log.info("backend %s not used: %s", candidate, str(error))
            reasons.append(f"{candidate}: {error}")
    if no_gpu:
        reasons.append(f"on a GPU: {no_gpu}")
    raise BackendError("no backend works here: " + "; ".join(reasons))


def _open(name: str, bundle: Bundle, precision: str, threads: int | None, filter_mode: str) -> Backend:
    if name in ("tensorrt", "tensorrt_rtx"):
        return TensorRtBackend(bundle, precision, module=name, filter_mode=filter_mode)
    if name == "onnxruntime_cuda":
        from .onnxruntime_cuda import OnnxRuntimeCudaBackend

        return OnnxRuntimeCudaBackend(bundle, precision, filter_mode=filter_mode)
    if name == "openvino":
        return OpenVinoBackend(bundle, precision, threads)
    if name == "onnxruntime":
        return OnnxRuntimeBackend(bundle, precision, threads)
    if name == "fake":
        return FakeBackend(bundle.manifest)
    raise UserError(f"{name!r} is not a backend; choose auto, cpu, {', '.join(BACKENDS)}.")


def _why_no_gpu() -> str | None:
    """Why no backend on a GPU can work, None when one may."""
    try:
        load_driver()
    except UserError as error:
        _log.info("no backend on a GPU used: %s", str(error))
        return str(error)
    return None
