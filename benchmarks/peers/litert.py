"""LiteRT (once TensorFlow Lite) on the same Keras model: float, and fully in INT8 with uint8 in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.opencv import load_cv2
from fcnedge.runtime.palette import VOC_CLASSES
from fcnedge.runtime.preprocessing import Preprocessing, fit_frame

from .entry import Opened, missing_peer, versions_of
from .hand_work import HandWork, enlarge


def open_litert(graph: Path, hand: HandWork, threads: int) -> Opened:
    """A .tflite of the same model. Raises UserError when ai-edge-litert is missing."""
    network = _Network(graph, threads)
    if network.input_dtype == np.float32:

        def segment(frame: np.ndarray) -> np.ndarray:
            pixels, content = hand.prepare(frame)
            return hand.mask(network.run(pixels), frame, content)

    else:
        cv2 = load_cv2()
        table = _quantising_table(hand.preprocessing, network.quantisation)

        def segment(frame: np.ndarray) -> np.ndarray:
            pixels, content = hand.pixels(frame)
            return hand.mask(network.run(cv2.LUT(pixels, table)[None]), frame, content)

    return Opened(segment, versions_of("ai-edge-litert"), f"num_threads {threads}")


def open_deeplab(graph: Path, fit: str, classes: tuple[str, ...], threads: int) -> Opened:
    """Another network for the same job, as .tflite: RGB uint8 (1, h, w, 3) in, VOC class ids or scores out.

    fit: "stretch" or "letterbox". classes: of the model that it is compared with, which must be VOC's.
    Raises UserError for a file with another layout.
    """
    if classes != VOC_CLASSES:
        raise UserError(f"{graph.name} tells VOC's 21 classes apart, the model has others; leave out --deeplab.")
    network = _Network(graph, threads)
    if network.input_dtype != np.uint8 or len(network.input_shape) != 4 or network.input_shape[3] != 3:
        raise UserError(
            f"{graph.name} takes {np.dtype(network.input_dtype)} {network.input_shape}; DeepLab is expected to take "
            "uint8 (1, h, w, 3) RGB, quantised."
        )
    cv2 = load_cv2()
    size = network.input_shape[1:3]

    def segment(frame: np.ndarray) -> np.ndarray:
        image, content = fit_frame(frame, size, fit)
        found = network.run(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)[None])[0]
        labels = found.argmax(axis=-1) if found.ndim == 3 and found.shape[-1] > 1 else found.reshape(found.shape[:2])
        at_input = (content[0] * labels.shape[0] // size[0], content[1] * labels.shape[1] // size[1])
        return enlarge(labels.astype(np.uint8), frame, at_input)

    return Opened(segment, versions_of("ai-edge-litert"), f"num_threads {threads}, {size[1]}x{size[0]} {fit}")


class _Network:
    """One interpreter with one input and one output."""

    def __init__(self, graph: Path, threads: int):
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise missing_peer("ai-edge-litert") from error
        try:
            self._interpreter: Any = Interpreter(model_path=str(graph), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise UserError(f"LiteRT cannot read {graph}: {str(error).splitlines()[0]}; check the file.") from error
        given, found = self._interpreter.get_input_details()[0], self._interpreter.get_output_details()[0]
        self._input, self._output = given["index"], found["index"]
        self.input_shape = tuple(int(side) for side in given["shape"])
        self.input_dtype = given["dtype"]
        self.quantisation: tuple[float, int] = given["quantization"]

    def run(self, pixels: np.ndarray) -> np.ndarray:
        self._interpreter.set_tensor(self._input, pixels)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)


def _quantising_table(preprocessing: Preprocessing, quantisation: tuple[float, int]) -> np.ndarray:
    """Pixel value → quantised network input, (1, 256, 3) uint8, in the network's channel order: a look-up per byte."""
    step, zero = quantisation
    mean, scale = np.asarray(preprocessing.mean), np.asarray(preprocessing.scale)
    values = (np.arange(256)[:, None] - mean) * scale
    return np.clip(np.round(values / step + zero), 0, 255).astype(np.uint8)[None]
