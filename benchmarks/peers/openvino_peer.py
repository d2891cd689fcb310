"""OpenVINO with its own defaults: on an exported graph with hand work around it, and on a bundle's fused graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fcnedge.runtime import Bundle
from fcnedge.runtime.backends.openvino import load_openvino
from fcnedge.runtime.opencv import load_cv2
from fcnedge.runtime.preprocessing import fit_frame

from .entry import Opened, versions_of
from .hand_work import HandWork, enlarge


def open_openvino(graph: Path, hand: HandWork, threads: int) -> Opened:
    """Compile an export for the CPU, with defaults besides the threads. Raises UserError when openvino is missing."""
    request, detail = _compile(graph, threads)

    def segment(frame: np.ndarray) -> np.ndarray:
        pixels, content = hand.prepare(frame)
        return hand.mask(request.infer([pixels])[0], frame, content)

    return Opened(segment, versions_of("openvino"), detail)


def open_fused_openvino(bundle: Path, threads: int) -> Opened:
    """Likewise a bundle's fp32 graph, whose scores are enlarged by OpenCV and NumPy instead of our head.

    What the graph brings by itself, without the runtime around it.
    """
    loaded = Bundle.load(bundle)
    manifest = loaded.manifest
    size = (manifest.input.height, manifest.input.width)
    request, detail = _compile(loaded.model("fp32"), threads)

    def segment(frame: np.ndarray) -> np.ndarray:
        image, content = fit_frame(frame, size, manifest.input.fit)
        found = request.infer([image[None]])[0][0]
        if manifest.head.kind == "labels":
            return enlarge(found, frame, content)
        return enlarge(_labels(found, size), frame, content)

    return Opened(segment, versions_of("openvino"), detail)


def _labels(scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scores (C, h, w) → class ids (height, width) uint8: bilinear by OpenCV, then argmax."""
    cv2 = load_cv2()
    planes = np.ascontiguousarray(scores.transpose(1, 2, 0), np.float32)
    return cv2.resize(planes, size[::-1], interpolation=cv2.INTER_LINEAR).argmax(axis=-1).astype(np.uint8)


def _compile(graph: Path, threads: int) -> tuple[Any, str]:
    openvino = load_openvino()
    compiled = openvino.Core().compile_model(str(graph), "CPU", {"INFERENCE_NUM_THREADS": threads})
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return compiled.create_infer_request(), f"INFERENCE_NUM_THREADS {threads}, its own choice of precision: {precision}"
