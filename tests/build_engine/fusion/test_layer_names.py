import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from fcnedge.build_engine.fusion import fuse
from fcnedge.build_engine.fusion.layer_names import name_layers
from fcnedge.build_engine.models import Architecture, build_model

from .conftest import EXPORTED

SIZE, CLASSES = (64, 96), 5


@pytest.fixture(scope="module", params=EXPORTED)
def layers(request) -> tuple[str, dict[str, str]]:
    """Architecture, and the kind of every layer of its Keras model by name."""
    model = build_model(Architecture.parse(request.param), classes=CLASSES, size=SIZE, fc_channels=8)
    return request.param, {layer.name: type(layer).__name__ for layer in model.layers}


def test_every_convolution_and_sum_bears_the_name_of_its_keras_layer(layers, exported):
    name, kinds = layers
    model = exported(name)
    fuse(model, SIZE)
    name_layers(model.graph, kinds)
    kept = {"Conv2D", "DepthwiseConv2D", "Conv2DTranspose", "Add"}
    last = next(layer for layer in reversed(kinds) if kinds[layer] == "Conv2DTranspose")  # the runtime's head
    expected = {layer for layer, kind in kinds.items() if kind in kept} - {last}
    named = {node.name for node in model.graph if node.op_type in ("Conv", "ConvTranspose", "Add")}
    assert named == expected
    for node in model.graph:
        (output,) = node.outputs
        assert output.name == ("scores" if output.is_graph_output() else node.name)
        if node.op_type == "Conv":
            assert node.inputs[1].name == f"{node.name}.weight"


def test_names_say_nothing_of_the_converter(layers, exported):
    name, kinds = layers
    model = exported(name)
    fuse(model, SIZE)
    name_layers(model.graph, kinds)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    texts = [node.name for node in proto.graph.node]
    texts += [output for node in proto.graph.node for output in node.output]
    texts += [tensor.name for tensor in proto.graph.initializer]
    assert [text for text in texts if not re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)?", text)] == []
    assert len({node.name for node in proto.graph.node}) == len(proto.graph.node)


def test_the_graph_computes_what_it_did_and_naming_again_changes_nothing(layers, exported, image, infer):
    name, kinds = layers
    model = exported(name)
    fuse(model, SIZE)
    before = infer(model, image)
    name_layers(model.graph, kinds)
    np.testing.assert_array_equal(infer(model, image), before, strict=True)
    once = ir.to_proto(model).SerializeToString(deterministic=True)
    name_layers(model.graph, kinds)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == once


def test_names_do_not_depend_on_the_converters_numbers(graph):
    pixels = np.zeros((1, 3, 4, 4), np.float32)
    kernel = np.ones((3, 3, 1, 1), np.float32)

    def build(numbers):
        first, second, value = numbers
        nodes = [
            helper.make_node("Conv", ["image", f"conv1_1{value}/kernel:0"], [f"{first}:0"], name=first),
            helper.make_node("Relu", [f"{first}:0"], [f"{second}:0"], name=f"conv1_1{value}/Relu"),
            helper.make_node("Conv", [f"{second}:0", f"weight_conv1_1b.kernel.{first}"], ["scores"], name=second),
        ]
        constants = {f"conv1_1{value}/kernel:0": kernel, f"weight_conv1_1b.kernel.{first}": kernel}
        model = graph(nodes, {"image": pixels}, ["scores"], constants)
        name_layers(model.graph, ("conv1_1", "conv1_1b", "image"))
        return ir.to_proto(model).SerializeToString(deterministic=True), [node.name for node in model.graph]

    one, names = build(("Conv__12", "Conv__7", "_1"))
    other, _ = build(("Conv__3", "Conv__104", ""))
    assert names == ["conv1_1", "conv1_1.relu", "conv1_1b"]
    assert one == other
