"""The cast comes first, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from fcnedge.build_engine.precision.pixels import cast_pixels_first


def test_cast_comes_first_bit_exact(residual_fcn, run, image):
    before = run(residual_fcn, image, ["image_float", "image_centred"])
    assert cast_pixels_first(residual_fcn.graph)
    first, second, third = list(residual_fcn.graph)[:3]
    assert [node.op_type for node in (first, second, third)] == ["Cast", "Transpose", "Sub"]
    assert [first.outputs[0].name, second.outputs[0].name] == ["image.pixels", "image_float"]
    for old, new in zip(before, run(residual_fcn, image, ["image_float", "image_centred"]), strict=True):
        np.testing.assert_array_equal(new, old, strict=True)
    assert not cast_pixels_first(residual_fcn.graph)


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT)],
        [helper.make_node("Transpose", ["image"], ["float"], perm=[0, 3, 1, 2])],
        [
            helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Transpose", ["planes"], ["float"], perm=[0, 2, 3, 1]),
        ],
    ],
    ids=["cast only", "transpose only", "no cast"],
)
def test_other_beginnings_are_left_alone(make_graph, nodes):
    model = make_graph(nodes, {}, output="float")
    assert not cast_pixels_first(model.graph)
    assert len(model.graph) == len(nodes)
