"""A graph as kernels: counted by hand on graphs small enough for that."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from fcnedge.benchmarks.devices.graph import read_network
from fcnedge.benchmarks.devices.graph_builder import GraphBuilder
from fcnedge.benchmarks.devices.networks import NETWORKS
from fcnedge.benchmarks.devices.onnx_shapes import is_typed, load_model
from fcnedge.build_engine.fusion.cost import graph_cost
from fcnedge.runtime.errors import UserError

FLOAT = 4


def layers(g: GraphBuilder, *outputs, **options):
    return read_network(g.model(*outputs), **options).layers


def test_activation_joins_its_convolution():
    g = GraphBuilder(8, 10)
    (layer,) = layers(g, g.conv(g.picture, 16, 3, 2, act="Relu"))
    assert layer.multiply_adds == 4 * 5 * 16 * 3 * 9
    assert layer.read_bytes == 3 * 8 * 10 * FLOAT
    assert layer.weight_bytes == (16 * 3 * 9 + 16) * FLOAT
    assert layer.written_bytes == 16 * 4 * 5 * FLOAT
    assert (layer.inputs, layer.outputs, layer.small_kernel) == (3, 16, False)


def test_x_times_its_sigmoid_joins_too():
    g = GraphBuilder(8, 8)
    (layer,) = layers(g, g.conv(g.picture, 16, 3, act="Silu"))
    assert layer.read_bytes == 3 * 64 * FLOAT
    assert layer.written_bytes == 16 * 64 * FLOAT
    assert layer.small_kernel


def test_a_sum_joins_the_later_convolution_and_reads_the_shortcut():
    g = GraphBuilder(8, 8, 16)
    first = g.conv(g.picture, 16, 3)
    found = layers(g, g.add(g.conv(first, 16, 3, act=None), g.picture, "Relu"))
    assert [each.operation for each in found] == ["Conv", "Conv"]
    assert found[0].read_bytes == 16 * 64 * FLOAT
    assert found[1].read_bytes == 2 * 16 * 64 * FLOAT


def test_what_two_read_is_written_before_the_activation():
    g = GraphBuilder(8, 8, 16)
    shared = g.conv(g.picture, 16, act=None)
    found = layers(g, g.act(shared), g.conv(shared, 16, act=None))
    assert [each.operation for each in found] == ["Conv", "Relu", "Conv"]


def test_what_leaves_the_graph_is_written_before_the_activation():
    g = GraphBuilder(8, 8, 16)
    shared = g.conv(g.picture, 16, act=None)
    assert [each.operation for each in layers(g, shared, g.act(shared))] == ["Conv", "Relu"]


def test_concatenation_costs_nothing_but_is_read_whole():
    g = GraphBuilder(8, 8, 16)
    found = layers(g, g.conv(g.concat(g.conv(g.picture, 8), g.conv(g.picture, 24)), 16))
    assert len(found) == 3
    assert found[2].read_bytes == 32 * 64 * FLOAT


def test_depthwise_convolutions_do_not_fit_tensor_cores_and_narrow_groups_neither():
    g = GraphBuilder(8, 8, 32)
    x = g.depthwise(g.picture)
    found = layers(g, g.conv(g.conv(x, 32, 3, groups=8), 32, 3, groups=2), precision="fp16")
    assert [each.fits_tensor_cores for each in found] == [False, False, True]
    assert [each.operation for each in found] == ["depthwise Conv", "Conv", "Conv"]
    assert not found[0].small_kernel


def test_channels_are_padded_to_bundles():
    g = GraphBuilder(8, 8)
    first, second = layers(g, g.conv(g.conv(g.picture, 24), 21, act=None), precision="fp16")
    assert first.padded_multiply_adds == 64 * 4 * 24
    assert second.padded_multiply_adds == 64 * 24 * 24
    (_, second) = layers(g, g.conv(g.conv(g.picture, 24), 21, act=None), precision="int8")[-2:]
    assert second.padded_multiply_adds == 64 * 32 * 32


def test_dense_layers_and_pools():
    g = GraphBuilder(8, 8, 16)
    found = layers(g, g.dense(g.max_pool(g.picture, 2, 2), 10))
    assert [each.operation for each in found] == ["MaxPool", "Gemm"]
    assert found[1].multiply_adds == 16 * 16 * 10
    assert found[0].multiply_adds == 0


def test_an_untyped_graph_is_as_small_as_its_precision():
    g = GraphBuilder(8, 8, 16)
    result = g.conv(g.picture, 16)
    whole, half, quarter = (layers(g, result, precision=name)[0] for name in (None, "fp16", "int8"))
    assert (whole.precision, half.precision, quarter.precision) == ("fp32", "fp16", "int8")
    assert whole.bytes == 2 * half.bytes == 4 * quarter.bytes


def test_another_size_is_inferred_and_scales_with_the_pixels():
    g = GraphBuilder(64, 96)
    model = g.model(g.conv(g.conv(g.picture, 16, 3, 2), 21, act=None))
    small, large = read_network(model), read_network(model, (128, 192))
    assert (small.size, large.size) == ((64, 96), (128, 192))
    assert large.multiply_adds == 4 * small.multiply_adds
    assert large.score_bytes == 4 * small.score_bytes == 4 * 21 * 32 * 48 * FLOAT
    assert large.weight_bytes == small.weight_bytes
    assert read_network(model, (64, 96)).layers == small.layers


def typed_model() -> onnx.ModelProto:
    """Cast, transposition, quantised convolution, deconvolution in FP16: as our INT8 graphs for TensorRT are."""
    weight = numpy_helper.from_array(np.zeros((32, 16, 1, 1), np.int8), "w")
    up = numpy_helper.from_array(np.zeros((32, 1, 4, 4), np.float16), "u")
    constants = [weight, up, *(numpy_helper.from_array(np.ones((), np.float16), name) for name in ("s", "sw"))]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "sw"], ["dw"]),
        helper.make_node("Conv", ["d", "dw"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("ConvTranspose", ["r", "u"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1], group=32),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1, 16, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT16, [1, 32, 16, 16])
    graph = helper.make_graph(nodes, "typed", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])


def test_precision_is_that_of_the_typed_graph_layer_by_layer():
    model = typed_model()
    assert is_typed(model)
    quantise, convolution, deconvolution = read_network(model).layers
    assert (quantise.precision, convolution.precision, deconvolution.precision) == ("fp16", "int8", "fp16")
    assert (quantise.read_bytes, quantise.written_bytes) == (2 * 16 * 64, 16 * 64)
    assert (convolution.read_bytes, convolution.written_bytes) == (16 * 64, 2 * 32 * 64)
    assert convolution.weight_bytes == 32 * 16  # as stored: one byte each
    assert deconvolution.multiply_adds == prod((8, 8, 32, 4, 4))
    assert not deconvolution.fits_tensor_cores


@pytest.mark.parametrize("name", ["fcn_resnet18", "mobilenet_v1", "squeezenet1_1", "yolo11n"])
def test_the_builders_own_count_agrees(name):
    model = NETWORKS[name](320, 512)
    inferred = onnx.shape_inference.infer_shapes(model)
    dense = sum(each.multiply_adds for each in read_network(model).layers if each.operation != "Gemm")
    assert graph_cost(onnx_ir.from_proto(inferred).graph).multiply_adds == dense > 10**8


def test_a_graph_in_float32_is_not_typed():
    g = GraphBuilder(8, 8)
    assert not is_typed(g.model(g.conv(g.picture, 8)))


def test_an_unknown_operation_is_named_and_counts_by_its_bytes():
    g = GraphBuilder(8, 8)
    x = g.conv(g.picture, 16, act="Softplus")
    network = read_network(g.model(x))
    assert network.unknown == ("Softplus",)
    assert network.layers[1].multiply_adds == 0
    assert network.layers[1].bytes == 2 * 16 * 64 * FLOAT


def test_a_size_that_is_not_fixed_is_refused():
    g = GraphBuilder(8, 8)
    model = g.model(g.conv(g.picture, 16))
    for place, name in ((2, "height"), (3, "width")):
        model.graph.input[0].type.tensor_type.shape.dim[place].dim_param = name
    with pytest.raises(UserError, match=r"'picture' has no fixed size; say which with --size"):
        read_network(model)
    assert read_network(model, (16, 16)).layers[0].written_bytes == 16 * 256 * FLOAT


def test_a_shape_that_only_data_decides_is_refused():
    nodes = [helper.make_node("NonZero", ["x"], ["n"]), helper.make_node("Cast", ["n"], ["y"], to=TensorProto.FLOAT)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y]))
    with pytest.raises(UserError, match="is not known beforehand; a prediction needs static shapes"):
        read_network(model)


def test_a_graph_with_two_inputs_is_refused():
    g = GraphBuilder(8, 8)
    model = g.model(g.conv(g.picture, 16))
    model.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [1]))
    with pytest.raises(UserError, match=r"takes 2 inputs \(picture, other\)"):
        read_network(model)


def test_files_that_are_no_model_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no model"):
        load_model(tmp_path / "gone.onnx")
    (tmp_path / "text.onnx").write_text("not a model", encoding="utf-8")
    with pytest.raises(UserError, match="is no ONNX model"):
        load_model(tmp_path / "text.onnx")
