from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fcnedge.build_engine.exporters.input_form import take, take_centred
from fcnedge.build_engine.exporters.labels_graph import open_graph

SIZE = (8, 12)
FRONTS = {
    "cast first": [("Cast", {"to": TensorProto.FLOAT}), ("Transpose", {"perm": [0, 3, 1, 2]}), ("Sub", {})],
    "transpose first": [("Transpose", {"perm": [0, 3, 1, 2]}), ("Cast", {"to": TensorProto.FLOAT}), ("Sub", {})],
    "no mean": [("Cast", {"to": TensorProto.FLOAT}), ("Transpose", {"perm": [0, 3, 1, 2]})],
    "something else": [("Identity", {}), ("Cast", {"to": TensorProto.FLOAT}), ("Transpose", {"perm": [0, 3, 1, 2]})],
}


def graph_with(front: str) -> ir.Model:
    """`image` uint8 (1, H, W, 3) through the nodes of `front` and a convolution to `scores`."""
    numbers = np.random.default_rng(0)
    constants = {"mean": np.array([3, 5, 7], np.float32).reshape(1, 3, 1, 1)}
    constants["weight"] = numbers.normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes, value = [], "image"
    for operator, attributes in FRONTS[front]:
        name = "image_centred" if operator == "Sub" else operator.lower()
        names = [value, "mean"] if operator == "Sub" else [value]
        nodes.append(helper.make_node(operator, names, [name], name=name, **attributes))
        value = name
    nodes.append(helper.make_node("Conv", [value, "weight"], ["scores"], pads=[1] * 4, name="conv"))
    kept = [numpy_helper.from_array(array, name) for name, array in constants.items() if name in str(nodes)]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *SIZE, 3])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 4, *SIZE])
    graph = helper.make_graph(nodes, "front", [image], [scores], kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def run_model(model: ir.Model, values: np.ndarray) -> np.ndarray:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: values})[0]


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (1, *SIZE, 3), np.uint8)


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("floats", [False, True])
def test_other_inputs_give_the_same_scores_bit_for_bit(picture, front, planes, floats):
    model = graph_with(front)
    expected = run_model(graph_with(front), picture)
    take(model.graph, planes=planes, floats=floats)
    given = picture.transpose(0, 3, 1, 2) if planes else picture
    assert np.array_equal(run_model(model, given.astype(np.float32) if floats else given), expected)


@pytest.mark.parametrize("front", FRONTS)
def test_centred_pixels_give_the_same_scores_bit_for_bit(picture, front):
    model = graph_with(front)
    mean = take_centred(model.graph)
    assert mean == ((3, 5, 7) if front.endswith("first") else (0, 0, 0))
    assert model.graph.inputs[0].name == ("image_centred" if front.endswith("first") else "image")
    planes = picture.transpose(0, 3, 1, 2).astype(np.float32) - np.array(mean, np.float32).reshape(1, 3, 1, 1)
    assert np.array_equal(run_model(model, planes), run_model(graph_with(front), picture))


@pytest.mark.parametrize("front", ["cast first", "transpose first"])
def test_nodes_that_undo_each_other_are_not_written(front):
    model = graph_with(front)
    take_centred(model.graph)
    assert [node.op_type for node in model.graph] == ["Conv"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_graphs_of_a_real_bundle_have_a_mean_to_give_away(typed_bundle, precision):
    model = open_graph(typed_bundle, precision)
    preprocessing = typed_bundle.manifest.preprocessing
    mean = preprocessing.mean[::-1] if preprocessing.channel_order == "rgb" else preprocessing.mean
    assert take_centred(model.graph) == pytest.approx(mean)
    assert model.graph.inputs[0].name == "image_centred"
