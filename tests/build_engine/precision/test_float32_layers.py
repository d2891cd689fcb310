"""Which layers stay float32, and the sentence that says why."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from fcnedge.build_engine.precision import KeptLayer
from fcnedge.build_engine.precision.float32_layers import PIXELS, float32_layers
from fcnedge.calibration.ranges import TensorRange
from fcnedge.runtime.errors import UserError

PREPARATION = tuple(KeptLayer(name, PIXELS) for name in ("image_planes", "image_float", "image_centred"))


def test_only_the_pixels_where_everything_fits(residual_fcn, calibrate, image):
    assert float32_layers(residual_fcn, calibrate(residual_fcn, image)) == PREPARATION


@pytest.mark.parametrize(("low", "high"), [(-32753.0, 0.0), (0.0, 32753.0)])
def test_maker_and_readers_of_an_overflowing_tensor_are_kept(residual_fcn, calibrate, image, low, high):
    ranges = calibrate(residual_fcn, image)
    ranges["sum"] = TensorRange(low, high, 1.0)
    reason = "the tensor sum reaches 32753, beyond 32752."
    expected = tuple(KeptLayer(name, reason) for name in ("sum", "pool", "score_pool"))
    assert float32_layers(residual_fcn, ranges) == (*PREPARATION, *expected)
    ranges["sum"] = TensorRange(-32752.0, 32752.0, 1.0)
    assert float32_layers(residual_fcn, ranges) == PREPARATION


def test_reader_of_a_large_weight_is_kept(residual_fcn, calibrate, image):
    ranges = calibrate(residual_fcn, image)
    reason = "the weight deep.bias reaches 65505, beyond 65504."
    for largest, kept in ((65504, ()), (-65505, (KeptLayer("deep", reason),))):
        bias = np.full(12, largest, np.float32)
        residual_fcn.graph.initializers["deep.bias"].const_value = ir.Tensor(bias, name="deep.bias")
        assert float32_layers(residual_fcn, ranges) == (*PREPARATION, *kept)


def test_named_layer_is_kept(residual_fcn, calibrate, image):
    ranges = calibrate(residual_fcn, image)
    assert float32_layers(residual_fcn, ranges, ["deep"]) == (*PREPARATION, KeptLayer("deep", "asked for."))
    with pytest.raises(UserError, match="the graph has no node fc6 to keep in float32"):
        float32_layers(residual_fcn, ranges, ["deep", "fc6"])


def test_missing_range_is_refused(residual_fcn, calibrate, image):
    ranges = calibrate(residual_fcn, image)
    del ranges["deep.relu"]
    with pytest.raises(UserError, match=r"the ranges have no tensor deep\.relu"):
        float32_layers(residual_fcn, ranges)


def test_operator_without_a_float16_form_is_kept(make_graph, conv):
    nodes = [conv("a", "x", bias=False), helper.make_node("Celu", ["a"], ["scores"])]
    model = make_graph(nodes, {"a.weight": np.ones((2, 2, 1, 1), np.float32)}, ("x", np.float32, (1, 2, 4, 4)))
    ranges = {name: TensorRange(0.0, 1.0, 1.0) for name in ("x", "a", "scores")}
    assert float32_layers(model, ranges) == (KeptLayer("scores", "Celu has no float16 form."),)
