"""Choose a backend by name, or the best one that works here."""

from __future__ import annotations

import logging

from ..bundle import Bundle
from ..errors import BackendError, UserError
from .fake import FakeBackend
from .onnxruntime import OnnxRuntimeBackend
from .protocol import Backend

BACKENDS = ("onnxruntime", "fake")
_AUTOMATIC = ("onnxruntime",)

_log = logging.getLogger(__name__)


def open_backend(bundle: Bundle, name: str = "auto", precision: str = "auto", threads: int | None = None) -> Backend:
    """Open the backend `name`, or with "auto" the first that works, best first; why others were not is logged.

    Raises UserError for an unknown name, BackendError that gives every reason when none works.
    """
    if name != "auto":
        return _open(name, bundle, precision, threads)
    reasons = []
    for candidate in _AUTOMATIC:
        try:
            return _open(candidate, bundle, precision, threads)
        except UserError as error:
            _log.info("backend %s not used: %s", candidate, error)
            reasons.append(f"{candidate}: {error}")
    raise BackendError("no backend works here: " + "; ".join(reasons))


def _open(name: str, bundle: Bundle, precision: str, threads: int | None) -> Backend:
    if name == "onnxruntime":
        return OnnxRuntimeBackend(bundle, precision, threads)
    if name == "fake":
        return FakeBackend(bundle.manifest)
    raise UserError(f"{name!r} is not a backend; choose auto, {', '.join(BACKENDS)}.")
