"""Sums of a map and one number per channel, exported by tf2onnx for real: what it merges comes apart again."""

from __future__ import annotations

import keras
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from fcnedge.build_engine.export import export_onnx, save_onnx
from fcnedge.runtime.preprocessing import Preprocessing

PREPROCESSING = Preprocessing("bgr", (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))


def model_of(size, *, own_bias, context_first):
    image = keras.Input((*size, 3))
    features = keras.layers.Conv2D(4, 3, strides=32, padding="same", activation="relu")(image)
    context = keras.layers.Conv2D(5, 1, name="context")(keras.layers.GlobalAveragePooling2D(keepdims=True)(features))
    score = keras.layers.Conv2D(5, 1, use_bias=own_bias, name="score")(features)
    both = [context, score] if context_first else [score, context]
    model = keras.Model(image, keras.layers.Add()(both), name="small")
    random = np.random.default_rng(0)
    model.set_weights([random.standard_normal(weight.shape).astype(np.float32) for weight in model.get_weights()])
    return model


@pytest.mark.parametrize("context_first", [True, False])
@pytest.mark.parametrize("own_bias", [True, False])
@pytest.mark.parametrize("size", [(64, 96), (32, 32)])
def test_sum_is_exported_as_a_sum(tmp_path, size, own_bias, context_first):
    keras.utils.clear_session()
    model = model_of(size, own_bias=own_bias, context_first=context_first)
    path = tmp_path / "small.onnx"
    save_onnx(export_onnx(model, PREPROCESSING, size), path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    constants = {value.name for value in ir.load(path).graph.initializers.values()}
    for node in ir.load(path).graph:
        if node.op_type == "Conv":
            assert len(node.inputs) <= 3
            assert {value.name for value in node.inputs[2:]} <= constants
    image = np.random.default_rng(1).integers(0, 256, (1, *size, 3), np.uint8)
    (scores,) = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"image": image})
    expected = model.predict_on_batch(PREPROCESSING.apply(image))
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5 * np.ptp(expected))
