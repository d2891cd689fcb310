"""The files that peers run, made from the Keras model by each one's own converter, in a child process."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fcnedge.build_engine.bundle_writer import file_specs, write_manifest
from fcnedge.runtime import Bundle
from fcnedge.runtime.errors import UserError, missing_package
from fcnedge.runtime.manifest import HeadSpec
from fcnedge.runtime.sources.picture_file import read_picture

from ..machine import read_word
from .entry import missing_peer
from .hand_work import HandWork
from .original import Original

BYTES_PER_WEIGHT_BYTE = 50
"""What tf2onnx holds per byte of weights when it converts a whole model: measured with 112 MB, 5.6 GB at the peak."""


@dataclass(frozen=True)
class Converted:
    """A file, or one sentence on why there is none."""

    path: Path | None
    reason: str | None = None


class Converter:
    """Lives in a child process, which takes TensorFlow's memory with it when it ends."""

    def __init__(self, original: Original, hand: HandWork, progress: Callable[[int], None]):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
        logging.getLogger("tf2onnx").setLevel(logging.ERROR)
        self._hand = hand
        self._model, self._preprocessing = original.load()
        if self._preprocessing != hand.preprocessing:
            raise UserError(
                f"{original.model} wants {self._preprocessing}, the bundle {hand.preprocessing}; it was not built from "
                "that model, name the right one with --original."
            )

    def onnx(self, path: Path) -> None:
        """Convert with tf2onnx's defaults; weights inside. Raises UserError when memory will not do."""
        try:
            import tf2onnx
        except ImportError as error:
            raise missing_package("tf2onnx", extra="build") from error
        _check_memory(sum(int(np.prod(variable.shape)) * 4 for variable in self._model.weights))
        tf2onnx.convert.from_keras(self._model, output_path=str(path))

    def litert_float(self, path: Path) -> None:
        """Convert with TensorFlow's TFLite converter, as it is."""
        path.write_bytes(self._litert().convert())

    def litert_int8(self, path: Path, pictures: tuple[Path, ...]) -> None:
        """Likewise with full-integer post-training quantisation, uint8 in and out; ranges from `pictures`."""
        import tensorflow as tf

        def representative() -> Iterator[list[np.ndarray]]:
            for picture in pictures:
                yield [self._hand.prepare(read_picture(picture))[0]]

        converter = self._litert()
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = representative
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
        path.write_bytes(converter.convert())

    def unfused_bundle(self, folder: Path, bundle: Path) -> None:
        """Write a bundle with the unfused export and argmax in its graph: what TensorRT compiles without our rules."""
        import onnx_ir as ir

        from fcnedge.build_engine.export import export_onnx, save_onnx

        model = export_onnx(self._model, self._preprocessing, self._hand.size)
        graph = model.graph
        winner = ir.node("ArgMax", [graph.outputs[0]], {"axis": 3, "keepdims": 0})
        labels = ir.node("Cast", [winner.outputs[0]], {"to": ir.DataType.UINT8})
        graph.extend([winner, labels])
        output = labels.outputs[0]
        output.name, output.dtype, output.shape = "labels", ir.DataType.UINT8, ir.Shape((1, *self._hand.size))
        graph.outputs[0] = output
        folder.mkdir()
        names = [path.name for path in save_onnx(model, folder / "model.fp32.onnx")]
        manifest = Bundle.load(bundle).manifest
        write_manifest(
            folder,
            type(manifest)(**{**vars(manifest), "head": HeadSpec("labels"), "files": file_specs(folder, names)}),
        )

    def _litert(self) -> Any:
        import tensorflow as tf

        return tf.lite.TFLiteConverter.from_keras_model(self._model)


class Slimmer:
    """Runs OnnxSlim in a child process: it prints."""

    def __init__(self, progress: Callable[[int], None]):
        try:
            import onnxslim
        except ImportError as error:
            raise missing_peer("onnxslim") from error
        self._slim = onnxslim.slim

    def slim(self, graph: Path, path: Path) -> None:
        """Slim `graph` into `path` with its defaults."""
        self._slim(str(graph), str(path))


def _check_memory(weights_bytes: int) -> None:
    needed = BYTES_PER_WEIGHT_BYTE * weights_bytes
    lines = (read_word(Path("/proc/meminfo")) or "").splitlines()
    free = next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
    if free is not None and needed > free:
        raise UserError(
            f"tf2onnx's default export of {weights_bytes / 1e6:.0f} MB of weights takes about {needed / 1e9:.0f} GB of "
            f"memory, {free / 1e9:.0f} GB are free; compare on a machine with more."
        )
