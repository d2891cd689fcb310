"""Choose a backend by name, or the best one that works here."""

from __future__ import annotations

import logging

from ..bundle import Bundle
from ..errors import BackendError, UserError
from .fake import FakeBackend
from .onnxruntime import OnnxRuntimeBackend
from .openvino import OpenVinoBackend
from .protocol import Backend

BACKENDS = ("openvino", "onnxruntime", "fake")
MAX_THREADS = 1024
# Best first. fcn8s-lite0-voc at 384x384 in FP32 with 2 threads of a busy Xeon, in turns: OpenVINO takes 0.6 of ONNX
# Runtime's processor time per frame and 0.5 to 1.0 of its latency, and gives the same labels.
_AUTOMATIC = ("openvino", "onnxruntime")

_log = logging.getLogger(__name__)


def open_backend(bundle: Bundle, name: str = "auto", precision: str = "auto", threads: int | None = None) -> Backend:
    """Open the backend `name`, or with "auto" the first that works, best first; why others were not is logged.

    Raises UserError for an unknown name or a number of threads that no machine has, BackendError that gives every
    reason when none works.
    """
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise UserError(f"threads is {threads}; it must be from 1 to {MAX_THREADS}, or None for one per core.")
    if name != "auto":
        return _open(name, bundle, precision, threads)
    reasons = []
    for candidate in _AUTOMATIC:
        try:
            return _open(candidate, bundle, precision, threads)
        except UserError as error:  # noqa: PERF203 - two or three candidates
            _log.info("backend %s not used: %s", candidate, error)
            reasons.append(f"{candidate}: {error}")
    raise BackendError("no backend works here: " + "; ".join(reasons))


def _open(name: str, bundle: Bundle, precision: str, threads: int | None) -> Backend:
    if name == "openvino":
        return OpenVinoBackend(bundle, precision, threads)
    if name == "onnxruntime":
        return OnnxRuntimeBackend(bundle, precision, threads)
    if name == "fake":
        return FakeBackend(bundle.manifest)
    raise UserError(f"{name!r} is not a backend; choose auto, {', '.join(BACKENDS)}.")
