"""Backends: what runs a bundle's graph. `open_backend` picks one."""

from .fake import FakeBackend
from .onnxruntime import OnnxRuntimeBackend
from .opening import BACKENDS, open_backend
from .openvino import OpenVinoBackend
from .protocol import Backend

__all__ = ["BACKENDS", "Backend", "FakeBackend", "OnnxRuntimeBackend", "OpenVinoBackend", "open_backend"]
