"""Backends: what runs a bundle's graph. `open_backend` picks one."""

from .fake import FakeBackend
from .onnxruntime import OnnxRuntimeBackend
from .opening import BACKENDS, open_backend
from .openvino import OpenVinoBackend
from .protocol import Backend, FrameBackend
from .tensorrt import TensorRtBackend

__all__ = [
    "BACKENDS",
    "Backend",
    "FakeBackend",
    "FrameBackend",
    "OnnxRuntimeBackend",
    "OpenVinoBackend",
    "TensorRtBackend",
    "open_backend",
]
