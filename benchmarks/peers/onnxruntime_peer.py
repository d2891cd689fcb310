"""ONNX Runtime on an exported graph as tutorials run it: session defaults, hand work around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fcnedge.runtime.errors import UserError, missing_package

from .entry import Opened, versions_of
from .hand_work import HandWork


def open_onnxruntime(graph: Path, hand: HandWork, provider: str, threads: int) -> Opened:
    """A session with defaults besides the threads. provider: "CPUExecutionProvider" or "CUDAExecutionProvider".

    Raises UserError when onnxruntime or the provider is missing: it would go on with another without a word.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise missing_package("onnxruntime", extra="cpu") from error
    if provider not in ort.get_available_providers():
        raise UserError(
            f"onnxruntime {ort.__version__} has no {provider}; install it, instead of onnxruntime, with: "
            "pip install onnxruntime-gpu"
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session: Any = ort.InferenceSession(str(graph), options, providers=[provider])
    if session.get_providers()[0] != provider:
        raise UserError(f"onnxruntime {ort.__version__} does not start {provider} here; check the NVIDIA driver.")
    name = session.get_inputs()[0].name

    def segment(frame: np.ndarray) -> np.ndarray:
        pixels, content = hand.prepare(frame)
        return hand.mask(session.run(None, {name: pixels})[0], frame, content)

    return Opened(segment, versions_of("onnxruntime", "onnxruntime-gpu"), f"intra_op_num_threads {threads}")
