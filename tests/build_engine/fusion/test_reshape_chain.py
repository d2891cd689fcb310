import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from fcnedge.build_engine.fusion.reshape_chain import reshape_chain

PIXEL = np.random.default_rng(0).standard_normal((1, 6, 1, 1)).astype(np.float32)


def chain(shapes):
    """Relu → one Reshape per shape → Neg, and the shapes as constants."""
    nodes, constants, value = [helper.make_node("Relu", ["x"], ["v"])], {}, "v"
    for number, shape in enumerate(shapes):
        constants[f"s{number}"] = np.array(shape, np.int64)
        nodes.append(helper.make_node("Reshape", [value, f"s{number}"], [f"r{number}"], name=f"r{number}"))
        value = f"r{number}"
    return [*nodes, helper.make_node("Neg", [value], ["y"])], constants


def kinds(model):
    return [node.op_type for node in model.graph]


def test_reshapes_that_lead_back_are_dropped(graph, infer):
    nodes, constants = chain([(1, 1, 1, 6), (6,), (1, 6, 1, 1)])
    model = graph(nodes, {"x": PIXEL}, ["y"], constants)
    before = infer(model, PIXEL)
    assert reshape_chain(model.graph).applied == 1
    model.graph.sort()
    assert kinds(model)[:1] == ["Relu"]
    assert next(node for node in model.graph if node.op_type == "Neg").inputs[0].producer().op_type == "Relu"
    np.testing.assert_array_equal(infer(model, PIXEL), before, strict=True)


def test_a_reshape_to_the_same_shape_is_dropped(graph, infer):
    nodes, constants = chain([(1, 6, 1, 1)])
    model = graph(nodes, {"x": PIXEL}, ["y"], constants)
    before = infer(model, PIXEL)
    assert reshape_chain(model.graph).applied == 1
    assert kinds(model) == ["Relu", "Neg"]
    assert reshape_chain(model.graph).applied == 0
    np.testing.assert_array_equal(infer(model, PIXEL), before, strict=True)


def test_squeeze_and_unsqueeze_are_links_too(graph, infer):
    nodes = [
        helper.make_node("Relu", ["x"], ["v"]),
        helper.make_node("Squeeze", ["v", "axes"], ["s"]),
        helper.make_node("Unsqueeze", ["s", "axes"], ["u"]),
        helper.make_node("Neg", ["u"], ["y"]),
    ]
    model = graph(nodes, {"x": PIXEL}, ["y"], {"axes": np.array([2, 3], np.int64)})
    before = infer(model, PIXEL)
    assert reshape_chain(model.graph).applied == 1
    np.testing.assert_array_equal(infer(model, PIXEL), before, strict=True)


def test_a_reshape_that_changes_the_shape_stays(graph):
    nodes, constants = chain([(6, 1, 1, 1)])
    model = graph(nodes, {"x": PIXEL}, ["y"], constants)
    assert reshape_chain(model.graph).applied == 0
    assert kinds(model) == ["Relu", "Reshape", "Neg"]


def test_a_transpose_ends_the_chain(graph):
    nodes = [
        helper.make_node("Relu", ["x"], ["v"]),
        helper.make_node("Transpose", ["v"], ["t"], perm=[0, 2, 1]),
        helper.make_node("Reshape", ["t", "shape"], ["r"]),
        helper.make_node("Neg", ["r"], ["y"]),
    ]
    x = np.zeros((1, 2, 3), np.float32)
    model = graph(nodes, {"x": x}, ["y"], {"shape": np.array([1, 2, 3], np.int64)})
    assert reshape_chain(model.graph).applied == 0


@given(shapes=st.lists(st.permutations([1, 2, 3, 4]), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_any_chain_computes_what_it_did(shapes, graph, infer):
    x = np.random.default_rng(1).standard_normal((1, 2, 3, 4)).astype(np.float32)
    nodes, constants = chain([tuple(shape) for shape in shapes])
    model = graph(nodes, {"x": x}, ["y"], constants)
    before = infer(model, x)
    reshape_chain(model.graph)
    np.testing.assert_array_equal(infer(model, x), before, strict=True)


@pytest.mark.parametrize("last", [True, False])
def test_an_output_keeps_its_name(graph, infer, last):
    nodes, constants = chain([(1, 6, 1, 1)])
    nodes = nodes[:-1] if last else nodes
    output = nodes[-1].output[0]
    model = graph(nodes, {"x": PIXEL}, [output], constants)
    before = infer(model, PIXEL)
    reshape_chain(model.graph)
    assert [value.name for value in model.graph.outputs] == [output]
    np.testing.assert_array_equal(infer(model, PIXEL), before, strict=True)
