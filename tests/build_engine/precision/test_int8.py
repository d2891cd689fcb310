"""The INT8 graph: every convention of its Q/DQ nodes, its numbers against NumPy, and what it refuses."""

from __future__ import annotations

import math

import cv2
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from fcnedge.build_engine.precision import place, to_fp16, to_int8
from fcnedge.calibration.ranges import TensorRange
from fcnedge.runtime.errors import UserError

EDGES = {("expand", 0), ("project", 0), ("sum", 0), ("pool", 0)}
LAYERS = {"expand", "project", "deep"}
GRIDS = {"stem.relu": (2.0**-6, -128, 127), "depthwise.clip": (2.0**-5, -128, 127), "sum": (2.0**-5, -128, 127)}
"""Some pixels of each tensor lie beyond 127 steps."""


@pytest.fixture
def ranges(residual_fcn, calibrate, image) -> dict[str, TensorRange]:
    """Measured ranges, with the thresholds of GRIDS."""
    found = calibrate(residual_fcn, image)
    for name, (scale, _, top) in GRIDS.items():
        found[name] = TensorRange(found[name].minimum, found[name].maximum, scale * top)
    return found


def named(model: ir.Model) -> dict[str, ir.Node]:
    nodes = {str(node.name): node for node in model.graph}
    assert len(nodes) == len(model.graph)
    return nodes


def array(value: ir.Value | None) -> np.ndarray:
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()


@pytest.mark.parametrize("elsewhere", ["fp16", "fp32"])
def test_every_activation_pair_by_convention(residual_fcn, ranges, elsewhere):
    floating = np.float16 if elsewhere == "fp16" else np.float32
    to_int8(residual_fcn, ranges, place(residual_fcn, depthwise=False), elsewhere=elsewhere)
    nodes = named(residual_fcn)
    quantisers = [node for node in residual_fcn.graph if node.op_type == "QuantizeLinear"]
    assert [node.inputs[0].name for node in quantisers] == list(GRIDS)
    for quantise in quantisers:
        (dequantise,) = quantise.outputs[0].consumers()
        assert dequantise.op_type == "DequantizeLinear"
        assert dequantise.name == f"{quantise.inputs[0].name}.dequantised"
        assert quantise.inputs[1:] == dequantise.inputs[1:]
        assert quantise.attributes == dequantise.attributes == {}
        scale, zero_point = (array(value) for value in quantise.inputs[1:])
        assert (scale.shape, zero_point.shape) == ((), ())
        assert (scale.dtype, zero_point.dtype) == (floating, np.int8)
        assert zero_point == 0
        assert scale == np.float32(ranges[quantise.inputs[0].name].threshold / 127)
        assert quantise.outputs[0].dtype == ir.DataType.INT8
    for node, index in EDGES:
        assert nodes[node].inputs[index].producer().op_type == "DequantizeLinear"
    assert nodes["score_pool"].inputs[0] is nodes["sum"].outputs[0]  # float readers see the float tensor


@pytest.mark.parametrize("elsewhere", ["fp16", "fp32"])
def test_every_weight_by_convention(residual_fcn, ranges, elsewhere):
    floating = np.float16 if elsewhere == "fp16" else np.float32
    originals = {name: array(value) for name, value in residual_fcn.graph.initializers.items()}
    report = to_int8(residual_fcn, ranges, place(residual_fcn, depthwise=False), elsewhere=elsewhere)
    nodes = named(residual_fcn)
    for layer in LAYERS:
        dequantise = nodes[layer].inputs[1].producer()
        assert (dequantise.op_type, dequantise.name) == ("DequantizeLinear", f"{layer}.weight.dequantised")
        assert dequantise.attributes["axis"].as_int() == 0
        integers, scales, zero_points = (array(value) for value in dequantise.inputs)
        original = originals[f"{layer}.weight"]
        assert (integers.dtype, scales.dtype, zero_points.dtype) == (np.int8, floating, np.int8)
        assert scales.shape == zero_points.shape == (original.shape[0],)
        assert not zero_points.any()
        largest = np.abs(original).max(axis=(1, 2, 3))
        np.testing.assert_array_equal(scales, (largest.astype(np.float64) / 127).astype(np.float32))
        step = scales.astype(np.float64)[:, None, None, None]
        np.testing.assert_array_equal(integers, np.clip(np.rint(original / step), -127, 127))
        assert np.abs(integers * step - original).max() <= step.max() / 2
        assert f"{layer}.weight" not in residual_fcn.graph.initializers
        bias = nodes[layer].inputs[2]
        assert bias.is_initializer()
        np.testing.assert_array_equal(array(bias), originals[f"{layer}.bias"].astype(floating), strict=True)
    assert set(report.weight_sqnr_db) == LAYERS


@pytest.mark.parametrize("elsewhere", ["fp16", "fp32"])
def test_excluded_layers_are_untouched(residual_fcn, ranges, elsewhere):
    originals = {name: array(value) for name, value in residual_fcn.graph.initializers.items()}
    sources = {node.name: [value.name for value in node.inputs] for node in residual_fcn.graph}
    to_int8(residual_fcn, ranges, place(residual_fcn, depthwise=False), elsewhere=elsewhere)
    for name in ("stem", "depthwise", "score_fr", "score_pool", "score2"):
        node = named(residual_fcn)[name]
        for value, source in zip(node.inputs, sources[name], strict=True):
            assert value.name.removesuffix(".float16") == source
            if source in originals:
                np.testing.assert_array_equal(array(value), originals[source])


def test_versions_are_those_that_each_form_needs(residual_fcn, ranges):
    single = residual_fcn.clone()
    to_int8(single, ranges, place(single, depthwise=False), elsewhere="fp32")
    assert (single.opset_imports[""], single.ir_version) == (17, 8)
    to_int8(residual_fcn, ranges, place(residual_fcn, depthwise=False))
    assert (residual_fcn.opset_imports[""], residual_fcn.ir_version) == (19, 9)


def test_constant_names_are_unique_and_all_read(residual_fcn, ranges):
    to_int8(residual_fcn, ranges, place(residual_fcn, stem=True, depthwise=True, scores=True))
    proto = ir.to_proto(residual_fcn)
    names = [tensor.name for tensor in proto.graph.initializer]
    assert len(names) == len(set(names))
    assert set(names) <= {name for node in proto.graph.node for name in node.input}


def test_graph_equals_fake_quantisation_in_numpy_bit_exact(residual_fcn, ranges, simulate, run, image):
    expected = simulate(residual_fcn, image, GRIDS, EDGES, LAYERS)
    unrounded = simulate(residual_fcn, image, {}, set())
    clipped = {name: float((np.abs(expected[name]) > 127 * scale).mean()) for name, (scale, _, _) in GRIDS.items()}
    assert all(share > 0 for share in clipped.values()), clipped
    to_int8(residual_fcn, ranges, place(residual_fcn, depthwise=False), elsewhere="fp32")
    names = ["expand", "project", "sum", "deep", "scores"]
    for name, found in zip(names, run(residual_fcn, image, names)[1:], strict=True):
        np.testing.assert_array_equal(found, expected[name].astype(np.float32), strict=True, err_msg=name)
        assert np.any(found != unrounded[name])


def test_fp16_elsewhere_equals_fp32_elsewhere_but_for_float16(residual_fcn, ranges, run, image):
    single = residual_fcn.clone()
    to_int8(single, ranges, place(single, depthwise=False), elsewhere="fp32")
    report = to_int8(residual_fcn, ranges, place(residual_fcn, depthwise=False))
    exact, found = run(single, image)[0], run(residual_fcn, image)[0]
    assert found.dtype == np.float16
    # where a float16 rounding tips an INT8 rounding, the two differ by a step of the grid
    assert np.linalg.norm(found - exact) <= 0.02 * np.linalg.norm(exact)
    assert (report.types.casts, [layer.node for layer in report.float32]) == (
        1,
        ["image.pixels", "image_planes", "image_centred"],
    )


def test_unsigned_activations(residual_fcn, ranges, simulate, run, image):
    ranges["stem.relu"] = TensorRange(0.0, ranges["stem.relu"].maximum, 255 * 2.0**-7)
    grids = {**GRIDS, "stem.relu": (2.0**-7, 0, 255), "depthwise.clip": (2.0**-5, 0, 255)}
    ranges["depthwise.clip"] = TensorRange(0.0, 6.0, 255 * 2.0**-5)
    ranges["sum"] = TensorRange(-1.0, ranges["sum"].maximum, 127 * 2.0**-5)
    expected = simulate(residual_fcn, image, grids, EDGES, LAYERS)
    to_int8(residual_fcn, ranges, place(residual_fcn, depthwise=False), elsewhere="fp32", activations="uint8")
    zero_points = {
        node.inputs[0].name: array(node.inputs[2]) for node in residual_fcn.graph if node.op_type == "QuantizeLinear"
    }
    assert {name: int(point) for name, point in zero_points.items()} == {
        "stem.relu": 0,
        "depthwise.clip": 0,
        "sum": 128,
    }
    assert {point.dtype for point in zero_points.values()} == {np.dtype(np.uint8)}
    np.testing.assert_array_equal(run(residual_fcn, image)[0], expected["scores"].astype(np.float32), strict=True)


def test_unsigned_activations_with_float16_are_refused(residual_fcn, ranges):
    with pytest.raises(UserError, match="uint8 activations go with elsewhere='fp32'"):
        to_int8(residual_fcn, ranges, place(residual_fcn, depthwise=False), activations="uint8")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    group=st.sampled_from([1, 2, 3]),
    inputs=st.integers(1, 3),
    outputs=st.integers(1, 3),
    side=st.integers(1, 4),
    stride=st.integers(1, 3),
    pad=st.integers(0, 2),
    bias=st.booleans(),
    exponent=st.integers(-12, 3),
    seed=st.integers(0, 2**16),
)
def test_any_convolution_equals_fake_quantisation_bit_exact(
    group, inputs, outputs, side, stride, pad, bias, exponent, seed, make_graph, conv, kernel, simulate, run
):
    rng = np.random.default_rng(seed)
    step = 2.0**exponent
    constants = {"a.weight": kernel(rng, (outputs * group, inputs, side, side), step)}
    if bias:
        constants["a.bias"] = (rng.integers(-64, 65, outputs * group) * step).astype(np.float32)
    # quarters of the step 1/8, up to beyond ±127 steps
    x = (rng.integers(-600, 601, (1, inputs * group, 6, 7)) / 32).astype(np.float32)
    node = conv("a", "x", bias=bias, group=group, strides=[stride, stride], pads=[pad] * 4)
    model = make_graph([node], constants, ("x", np.float32, x.shape), "a")
    expected = simulate(model, x, {"x": (0.125, -128, 127)}, {("a", 0)}, {"a"})["a"]
    ranges = {"x": TensorRange(-18.75, 18.75, 127 / 8)}
    to_int8(model, ranges, place(model, only={"a"}), elsewhere="fp32")
    np.testing.assert_array_equal(run(model, x)[0], expected.astype(np.float32), strict=True)


def test_convolutions_that_share_a_weight_share_its_integers(make_graph, conv):
    weights = {f"{name}.weight": np.ones((4, 4, 1, 1), np.float32) for name in "ab"}
    weights["c.weight"] = np.random.default_rng(0).normal(size=(4, 4, 1, 1)).astype(np.float32)
    nodes = [conv("a", "x", bias=False), conv("c", "a", bias=False)]
    nodes += [helper.make_node("Conv", ["c", "c.weight"], ["d"], name="d"), conv("b", "d", bias=False)]
    model = make_graph(nodes, weights, ("x", np.float32, (1, 4, 4, 4)), "b")
    ranges = {name: TensorRange(-1.0, 1.0, 1.0) for name in "xabcd"}
    to_int8(model, ranges, place(model))
    held = [named(model)[name].inputs[1].producer() for name in "cd"]
    assert held[0] is not held[1]
    assert held[0].inputs == held[1].inputs
    ir.to_proto(model)


def test_readers_of_both_float_types_get_a_dequantiser_each(residual_fcn, ranges, run, image):
    ranges["project"] = TensorRange(-50000.0, 1.0, 1.0)  # so `project` and `sum` stay float32
    exact = residual_fcn.clone()
    to_int8(exact, ranges, place(exact, depthwise=False), elsewhere="fp32")
    report = to_int8(residual_fcn, ranges, place(residual_fcn, depthwise=False))
    assert [layer.node for layer in report.float32][3:] == ["project", "sum"]
    nodes = named(residual_fcn)
    for node in residual_fcn.graph:
        kinds = {
            value.dtype
            for value in (*node.inputs, *node.outputs)
            if value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16)
        }
        assert node.op_type == "Cast" or len(kinds) <= 1, node.name
    for name, index in (*EDGES, *((layer, 1) for layer in LAYERS)):
        assert nodes[name].inputs[index].producer().op_type == "DequantizeLinear", name
    assert nodes["expand"].inputs[0].dtype == ir.DataType.FLOAT16
    assert nodes["sum"].inputs[0].dtype == nodes["project"].inputs[0].dtype == ir.DataType.FLOAT
    assert sum(node.op_type == "QuantizeLinear" for node in residual_fcn.graph) == 3
    expected, found = run(exact, image)[0], run(residual_fcn, image)[0]
    assert np.linalg.norm(found - expected) <= 0.02 * np.linalg.norm(expected)


def test_threshold_beyond_float16_keeps_a_float32_scale(residual_fcn, ranges, run, image):
    ranges["sum"] = TensorRange(-1e8, 1e8, 1e8)
    to_int8(residual_fcn, ranges, place(residual_fcn, depthwise=False))
    scale = named(residual_fcn)["sum.quantised"].inputs[1]
    assert (scale.dtype, array(scale)) == (ir.DataType.FLOAT, np.float32(1e8 / 127))
    assert np.isfinite(run(residual_fcn, image)[0]).all()


@pytest.mark.parametrize("threshold", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("elsewhere", ["fp16", "fp32"])
def test_bad_threshold_is_refused_by_name(residual_fcn, ranges, threshold, elsewhere):
    ranges["depthwise.clip"] = TensorRange(0.0, 1.0, threshold)
    with pytest.raises(UserError, match=r"^the range of tensor depthwise\.clip is clipped at"):
        to_int8(residual_fcn, ranges, place(residual_fcn, depthwise=False), elsewhere=elsewhere)


def test_missing_range_is_refused_by_name(residual_fcn, ranges):
    del ranges["sum"]
    with pytest.raises(UserError, match="the ranges have no tensor sum"):
        to_int8(residual_fcn, ranges, place(residual_fcn, depthwise=False), elsewhere="fp32")


def test_weight_that_is_not_finite_is_refused_by_name(residual_fcn, ranges):
    weight = np.ones((12, 8, 3, 3), np.float32)
    weight[7, 0, 0, 0] = np.nan
    residual_fcn.graph.initializers["deep.weight"].const_value = ir.Tensor(weight, name="deep.weight")
    with pytest.raises(UserError, match=r"the weight deep\.weight has NaN or infinity in output channel 7"):
        to_int8(residual_fcn, ranges, place(residual_fcn, depthwise=False))


def test_placement_of_another_graph_is_refused(residual_fcn, ranges, make_graph, conv):
    weights = {f"{name}.weight": np.ones((4, 4, 1, 1), np.float32) for name in ("stem", "expand", "score")}
    nodes = [conv("stem", "x", bias=False), conv("expand", "stem", bias=False), conv("score", "expand", bias=False)]
    other = make_graph(nodes, weights, ("x", np.float32, (1, 4, 2, 2)), "score")
    with pytest.raises(UserError, match="the placement is of another graph"):
        to_int8(residual_fcn, ranges, place(other))
    with pytest.raises(UserError, match=r"the placement is of another graph \(there is no node project in this one\)"):
        to_int8(other, ranges, place(residual_fcn, only={"project"}), elsewhere="fp32")


def lite0(bundle, calibrate) -> tuple[ir.Model, np.ndarray, dict[str, TensorRange]]:
    image = cv2.resize(np.random.default_rng(4).integers(0, 256, (6, 9, 3), np.uint8), (96, 64))[None]
    model = ir.load(bundle / "model.fp32.onnx")
    return model, image, calibrate(model, image)


def test_real_lite0_fuses_its_nine_residuals_and_shrinks_below_a_third(lite0_bundle, calibrate, run):
    model, image, ranges = lite0(lite0_bundle, calibrate)
    before = run(model, image)[0]
    plan = place(model)
    report = to_int8(model, ranges, plan)
    kinds = [node.op_type for node in model.graph]
    assert len(plan.layers) == 48  # 16 depthwise ones
    assert len(plan.residuals) == 9
    assert kinds.count("QuantizeLinear") == len(plan.tensors)
    assert kinds.count("DequantizeLinear") == len(plan.tensors) + len(plan.layers)
    assert {exclusion.node for exclusion in plan.excluded} >= {"score_fr", "score_pool4", "score_pool3"}
    written, original = (
        len(ir.to_proto(graph).SerializeToString()) for graph in (model, ir.load(lite0_bundle / "model.fp32.onnx"))
    )
    assert written <= 0.3 * original
    assert min(report.weight_sqnr_db.values()) > 30
    after = run(model, image)[0]
    assert np.linalg.norm(after - before) <= 0.15 * np.linalg.norm(before)


@pytest.mark.parametrize("form", ["fp16", "int8"])
def test_tensorrt_rtx_parses_lite0(lite0_bundle, calibrate, form):
    trt = pytest.importorskip("tensorrt_rtx_bindings")
    model, _, ranges = lite0(lite0_bundle, calibrate)
    if form == "int8":
        to_int8(model, ranges, place(model))
    else:
        to_fp16(model, ranges=ranges)
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    assert parser.parse(ir.to_proto(model).SerializeToString()), [
        str(parser.get_error(i)) for i in range(parser.num_errors)
    ]
    assert network.get_output(0).dtype == trt.DataType.HALF
