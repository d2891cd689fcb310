"""The fingerprint is the same for the same network however it was written, and another for any other."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from fcnedge.calibration.activations import load_graph
from fcnedge.calibration.fingerprint import GraphFingerprint, graph_fingerprint
from fcnedge.runtime.errors import UserError


def fingerprint(model: onnx.ModelProto) -> GraphFingerprint:
    return graph_fingerprint(ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(model, strict_mode=True)))


def constant(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def set_constant(model: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    constant(model, name).CopyFrom(numpy_helper.from_array(np.asarray(array, np.float32), name))


def rename_constants_and_nodes(model: onnx.ModelProto) -> None:
    names = {tensor.name: f"other{index}" for index, tensor in enumerate(model.graph.initializer)}
    for tensor in model.graph.initializer:
        tensor.name = names[tensor.name]
    for number, node in enumerate(model.graph.node):
        node.name = f"node{number}"
        node.input[:] = [names.get(name, name) for name in node.input]


def round_weights(model: onnx.ModelProto) -> None:
    random = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        set_constant(model, tensor.name, array * (1 + 1e-6 * random.normal(size=array.shape)))


def write_out_defaults(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type == "Conv" and node.output[0] == "scores":
            node.attribute.append(helper.make_attribute("dilations", [1, 1]))
            node.attribute.append(helper.make_attribute("group", 1))
            node.attribute.append(helper.make_attribute("pads", [0, 0, 0, 0]))
            node.attribute.append(helper.make_attribute("kernel_shape", [4, 4]))


def copy_a_shared_constant(model: onnx.ModelProto) -> None:
    """Make `low` a node instead of an initialiser."""
    tensor = constant(model, "low")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["low"], value=tensor))
    model.graph.initializer.remove(tensor)


def write_it_by_another_tool(model: onnx.ModelProto) -> None:
    model.ir_version, model.producer_name, model.graph.name = 9, "somebody", "main"
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))


@pytest.mark.parametrize(
    "rewrite",
    [
        rename_constants_and_nodes,
        round_weights,
        write_out_defaults,
        copy_a_shared_constant,
        write_it_by_another_tool,
    ],
)
def test_same_network_written_otherwise_is_the_same(make_network: Callable[..., onnx.ModelProto], rewrite):
    model, other = make_network(), make_network()
    rewrite(other)
    assert other.SerializeToString() != model.SerializeToString()
    assert fingerprint(model).difference(fingerprint(other)) is None


def test_order_of_parallel_branches_does_not_matter(make_network):
    model = make_network()
    model.graph.node.insert(5, helper.make_node("Neg", ["stem_relu"], ["negated"]))
    model.graph.node[7].input[1] = "negated"
    other = copy.deepcopy(model)
    order = [0, 1, 2, 3, 4, 6, 5, 7, 8]
    nodes = [copy.deepcopy(other.graph.node[index]) for index in order]
    del other.graph.node[:]
    other.graph.node.extend(nodes)
    assert [node.op_type for node in other.graph.node] != [node.op_type for node in model.graph.node]
    assert fingerprint(model) == fingerprint(other)


def test_weights_in_a_file_of_their_own_are_the_same(make_network, make_bundle, tmp_path):
    inside = make_bundle(tmp_path / "inside", make_network())
    outside = make_bundle(tmp_path / "outside", make_network(), external=True)
    assert (outside / "model.fp32.onnx.data").is_file()
    models = [load_graph(folder / "model.fp32.onnx") for folder in (inside, outside)]
    assert graph_fingerprint(models[0]) == graph_fingerprint(models[1])


def change_a_stride(model: onnx.ModelProto) -> None:
    model.graph.node[3].attribute[0].CopyFrom(helper.make_attribute("pads", [1, 1, 0, 0]))


def rename_an_activation(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["stem_relu6" if name == "stem_relu" else name for name in names]


def swap_an_operator(model: onnx.ModelProto) -> None:
    model.graph.node[6].op_type = "Sub"


def read_another_activation(model: onnx.ModelProto) -> None:
    model.graph.node[6].input[1] = "block_project"


def drop_the_bias(model: onnx.ModelProto) -> None:
    del model.graph.node[3].input[2]


def negate(name: str) -> Callable[[onnx.ModelProto], None]:
    return lambda model: set_constant(model, name, -numpy_helper.to_array(constant(model, name)))


def reverse_channels(model: onnx.ModelProto) -> None:
    """The same numbers at other places: RGB instead of BGR."""
    set_constant(model, "stem.w", numpy_helper.to_array(constant(model, "stem.w"))[:, ::-1])


def widen_the_clip(model: onnx.ModelProto) -> None:
    set_constant(model, "high", 6.1)


def fine_tune(model: onnx.ModelProto) -> None:
    weight = numpy_helper.to_array(constant(model, "project.w"))
    set_constant(model, "project.w", weight * (1 + 0.02 * np.random.default_rng(5).normal(size=weight.shape)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_a_stride, r"its structure differs \(layers, names or sizes\)"),
        (rename_an_activation, "its layers differ, 'stem_relu input 1' and 1 more became 'stem_relu6 input 1' and 1"),
        (swap_an_operator, "its structure differs"),
        (read_another_activation, "its structure differs"),
        (drop_the_bias, "its layers differ, 'stem input 2' became nothing"),
        (negate("project.w"), "1 of its 7 weights differ, first 'block_project input 1'"),
        (negate("mean"), "1 of its 7 weights differ, first 'image_centred input 1'"),
        (reverse_channels, "1 of its 7 weights differ, first 'stem input 1'"),
        (widen_the_clip, "1 of its 7 weights differ, first 'stem_relu input 2'"),
        (fine_tune, "1 of its 7 weights differ, first 'block_project input 1'"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_other_network_is_told_by_what_differs(make_network, change, words):
    model, other = make_network(), make_network()
    change(other)
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(fingerprint(model).difference(fingerprint(other)))


def test_other_input_size_differs(make_network):
    assert "structure differs" in (
        fingerprint(make_network()).difference(fingerprint(make_network(size=(64, 48)))) or ""
    )


def test_other_seed_of_a_large_layer_differs():
    """Four million weights of one distribution: their mean magnitudes agree to a part in a thousand."""

    def layer(seed: int) -> onnx.ModelProto:
        weight = np.random.default_rng(seed).normal(0, 1, (1024, 4096, 1, 1)).astype(np.float32)
        node = helper.make_node("Conv", ["x", "w"], ["y"])
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 2, 2])
            for name, channels in (("x", 4096), ("y", 1024))
        ]
        graph = helper.make_graph([node], "g", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    one, other = fingerprint(layer(1)), fingerprint(layer(2))
    magnitudes = [each.weights["y input 1"].magnitude for each in (one, other)]
    assert magnitudes[0] == pytest.approx(magnitudes[1], rel=1e-3)
    assert one.difference(other) == "1 of its 1 weights differ, first 'y input 1'"


def test_bias_that_is_zero_but_for_rounding_is_the_same(make_network):
    models = [make_network(), make_network()]
    for sign, model in zip((1e-9, -1e-9), models, strict=True):
        set_constant(model, "stem.b", np.full(8, sign))
    assert fingerprint(models[0]).difference(fingerprint(models[1])) is None


def test_whole_numbers_count_by_value(make_network):
    def reshaped(shape: list[int]) -> onnx.ModelProto:
        model = make_network()
        model.graph.node.append(helper.make_node("Reshape", ["scores", "shape"], ["flat"]))
        model.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), "shape"))
        del model.graph.output[:]
        model.graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, [1, 3, 24]))
        return model

    assert fingerprint(reshaped([1, 3, 24])) == fingerprint(reshaped([1, 3, 24]))
    assert "structure differs" in (
        fingerprint(reshaped([1, 3, 24])).difference(fingerprint(reshaped([1, 3, -1]))) or ""
    )


def test_graph_inside_a_node_is_refused():
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "branch", [], [value])
    node = helper.make_node("If", ["c"], ["z"], name="choice", then_branch=branch, else_branch=branch)
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    ]
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])])
    with pytest.raises(
        UserError, match=r"the node choice \(If\) holds a graph of its own in (then|else)_branch; ranges"
    ):
        fingerprint(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def test_weights_file_cut_short_is_refused(make_network, make_bundle, tmp_path: Path):
    folder = make_bundle(tmp_path / "outside", make_network(), external=True)
    (folder / "model.fp32.onnx.data").write_bytes(b"")
    with pytest.raises(UserError, match=r"the weight '.*' cannot be read \(.*\); copy the model again\.$"):
        graph_fingerprint(load_graph(folder / "model.fp32.onnx"))
