"""OpenCV's dnn module on an exported graph: for those who have OpenCV and want nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fcnedge.runtime.opencv import load_cv2

from .entry import Opened
from .hand_work import HandWork


def open_opencv_dnn(graph: Path, hand: HandWork, threads: int) -> Opened:
    """OpenCV's own choice of engine (5.0 has two), and its older one where that fails on the first frame."""
    cv2 = load_cv2()
    cv2.setNumThreads(threads)
    blank = np.zeros((1, *hand.size, 3), np.float32)
    net, engine = cv2.dnn.readNetFromONNX(str(graph)), "default engine"
    try:
        _forward(net, blank)
    except cv2.error:
        if not hasattr(cv2.dnn, "ENGINE_CLASSIC"):
            raise
        net, engine = cv2.dnn.readNetFromONNX(str(graph), cv2.dnn.ENGINE_CLASSIC), "classic engine, its default fails"

    def segment(frame: np.ndarray) -> np.ndarray:
        pixels, content = hand.prepare(frame)
        return hand.mask(_forward(net, pixels), frame, content)

    return Opened(segment, {"opencv": cv2.__version__}, f"setNumThreads {threads}, {engine}")


def _forward(net: Any, pixels: np.ndarray) -> np.ndarray:
    net.setInput(pixels)
    return net.forward()
