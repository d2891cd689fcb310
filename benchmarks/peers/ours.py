"""Our own rows: what `Segmenter` does, from frame to mask."""

from __future__ import annotations

from pathlib import Path

from fcnedge.runtime import Segmenter

from .entry import Opened, versions_of

_PACKAGES = {
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime",),
    "onnxruntime_cuda": ("onnxruntime-gpu",),
    "tensorrt": ("tensorrt",),
    "tensorrt_rtx": ("tensorrt-rtx",),
}


def open_ours(bundle: Path, backend: str, precision: str, threads: int) -> Opened:
    """A Segmenter on that backend and precision. Raises UserError when it cannot be opened."""
    segmenter = Segmenter(bundle, backend, precision, threads)
    return Opened(segmenter, versions_of(*_PACKAGES.get(backend, ())), f"threads {threads}")
