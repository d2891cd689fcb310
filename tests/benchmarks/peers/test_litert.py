"""LiteRT rows: quantised input by table, DeepLab's layout, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fcnedge.benchmarks.peers.litert import _quantising_table, open_deeplab, open_litert
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.palette import VOC_CLASSES
from fcnedge.runtime.preprocessing import Preprocessing


def test_table_quantises_normalised_pixels_and_saturates():
    """q = x / step + zero, x = (pixel - mean) * scale, by hand for three pixels of two channels."""
    preprocessing = Preprocessing("rgb", (127.0, 0.0, 255.0), (1 / 128, 1.0, 1.0))
    table = _quantising_table(preprocessing, (1 / 64, 100))
    assert (table.shape, table.dtype) == ((1, 256, 3), np.uint8)
    assert [int(table[0, pixel, 0]) for pixel in (0, 127, 255)] == [36, 100, 164]  # -127/128*64+100 = 36.5 → 36, …
    assert int(table[0, 255, 1]) == 255  # 255 * 64 + 100 is far beyond
    assert int(table[0, 0, 2]) == 0


def test_deeplab_beside_a_model_of_other_classes_is_refused():
    with pytest.raises(UserError, match=r"^x\.tflite tells VOC's 21 classes apart, the model has others; "):
        open_deeplab(Path("x.tflite"), "stretch", VOC_CLASSES[:5], 1)


def test_a_file_that_is_no_network_is_refused(tmp_path):
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed: extra peers")
    path = tmp_path / "x.tflite"
    path.write_bytes(b"nothing of the kind" * 10)
    with pytest.raises(UserError, match=r"^LiteRT cannot read .*x\.tflite: "):
        open_litert(path, None, 1)


def test_deeplab_of_another_layout_is_refused(tmp_path):
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed: extra peers")
    tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed: extra build")
    function = tf.function(lambda x: x + 1.0, input_signature=[tf.TensorSpec((1, 8, 8, 3), tf.float32)])
    path = tmp_path / "floats.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()]).convert())
    with pytest.raises(UserError, match=r"^floats\.tflite takes float32 \(1, 8, 8, 3\); DeepLab is expected to take "):
        open_deeplab(path, "stretch", VOC_CLASSES, 1)
